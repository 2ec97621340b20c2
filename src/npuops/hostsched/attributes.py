"""What the kernel says of one task, to the nanosecond: what is put back is what was found, not what we would call it.

Rules of the kernel: kernel/sched/syscalls.c and kernel/sched/core.c (`sched_fork`), 6.12 to 6.18.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from npuops.eevdf.setting import FAIR, LEAST_SLICE_US, MOST_SLICE_US, SchedPolicy, Setting
from npuops.errors import OptionError

RESET_ON_FORK: Final = 1
LIMIT_OF_ZERO: Final = 20
"""RLIMIT_NICE counts the other way round: 20 allows nice 0, 40 allows -20 (setrlimit(2))."""


@dataclass(frozen=True, slots=True)
class Attributes:
    """`struct sched_attr` (sched_setattr(2)), as far as npuops reads and writes it.

    Attributes:
        policy: number of the kernel; may be one that npuops does not know.
        flags: `RESET_ON_FORK` and what else was found.
        nice: of the fair policies.
        priority: of FIFO and RR.
        runtime_ns: of a reservation; of a fair task its own slice, 0 for the kernel's.
        deadline_ns: of a reservation.
        period_ns: of a reservation.
    """

    policy: int = SchedPolicy.OTHER
    flags: int = 0
    nice: int = 0
    priority: int = 0
    runtime_ns: int = 0
    deadline_ns: int = 0
    period_ns: int = 0

    @property
    def fair(self) -> bool:
        """It shares by weight."""
        return self.policy in FAIR

    @property
    def reserved(self) -> bool:
        """It has a reservation."""
        return self.policy == SchedPolicy.DEADLINE

    def __str__(self) -> str:
        """As a setting, or by number where npuops has no word for it."""
        try:
            return str(self.setting())
        except OptionError:
            return f"scheduling policy {self.policy}"

    def setting(self) -> Setting:
        """The same in our words; finer than a microsecond is lost.

        Raises:
            OptionError: a policy that npuops does not know.
        """
        try:
            policy = SchedPolicy(self.policy)
        except ValueError:
            raise OptionError(
                f"the kernel knows scheduling policy {self.policy}, npuops does not", advice="leave this task alone"
            ) from None
        reset = bool(self.flags & RESET_ON_FORK)
        if self.reserved:
            runtime, period = max(1, self.runtime_ns // 1000), max(1, (self.period_ns or self.deadline_ns) // 1000)
            return Setting(policy, runtime_us=min(runtime, period), period_us=period, reset_on_fork=reset)
        if not self.fair:
            return Setting(policy, nice=self.nice, rt_priority=self.priority, reset_on_fork=reset)
        own = min(max(self.runtime_ns // 1000, LEAST_SLICE_US), MOST_SLICE_US) if self.runtime_ns else None
        return Setting(policy, self.nice, own, reset_on_fork=reset)


def wanted(setting: Setting, before: Attributes = Attributes()) -> Attributes:
    """What to write so that a task gets this setting.

    A reservation always starts its children with the default: the kernel lets it fork no other way. A task that
    becomes idle keeps its nice value, which counts for nothing meanwhile: without privilege only it may leave again.
    """
    if setting.policy is SchedPolicy.DEADLINE:
        runtime, period = setting.runtime_us * 1000, setting.period_us * 1000
        return Attributes(setting.policy, RESET_ON_FORK, 0, 0, runtime, period, period)
    flags = (before.flags & RESET_ON_FORK) | (RESET_ON_FORK if setting.reset_on_fork else 0)
    if setting.policy in (SchedPolicy.FIFO, SchedPolicy.RR):
        return Attributes(setting.policy, flags, setting.nice, setting.rt_priority)
    idle = setting.policy is SchedPolicy.IDLE and before.fair
    nice = before.nice if idle else setting.nice
    return Attributes(setting.policy, flags, nice, 0, (setting.slice_us or 0) * 1000)


def inherited(parent: Attributes) -> Attributes:
    """What a child or thread begins with that a task of these attributes makes (`sched_fork`)."""
    if not parent.flags & RESET_ON_FORK:
        return parent
    if not parent.fair:
        return Attributes()
    return replace(parent, flags=parent.flags & ~RESET_ON_FORK, nice=max(parent.nice, 0), runtime_ns=0)


def kept_from_children(target: Attributes, original: Attributes) -> Attributes:
    """`target`, such that a child begins as one of `original` would, if reset-on-fork does that; else `target` itself.

    Only who has CAP_SYS_NICE can undo it. It keeps a boost from children, and a slice, but nothing that lowers: the
    kernel resets upwards only to nice 0, and of policies only real-time ones.
    """
    alone = replace(target, flags=target.flags | RESET_ON_FORK)
    passes_on = inherited(target) != inherited(original)
    return alone if target.fair and passes_on and inherited(alone) == inherited(original) else target


def no_way_back(before: Attributes, want: Attributes, nice_limit: int) -> str:
    """Why the kernel would not let us undo this without CAP_SYS_NICE; empty when it would.

    Args:
        before: what the task has.
        want: what it should get.
        nice_limit: `RLIMIT_NICE` of the task (not ours: the kernel asks for that of the task).
    """
    if want.reserved:
        return "a reservation needs CAP_SYS_NICE"
    if want.flags & RESET_ON_FORK and not before.flags & RESET_ON_FORK:
        return "reset-on-fork cannot be cleared"
    if want.fair and want.nice > before.nice and nice_limit < LIMIT_OF_ZERO - before.nice:
        return f"nice {before.nice} cannot be given back"
    leaves_idle = want.policy == SchedPolicy.IDLE and before.policy != SchedPolicy.IDLE
    if leaves_idle and nice_limit < LIMIT_OF_ZERO - want.nice:
        return "nobody leaves SCHED_IDLE"
    return ""
