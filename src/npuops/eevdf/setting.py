"""What the kernel can be told about one task: sched_setattr(2), sched(7)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum
from typing import Final

from npuops.errors import OptionError

LEAST_NICE: Final = -20
MOST_NICE: Final = 19
LEAST_SLICE_US: Final = 100
MOST_SLICE_US: Final = 100_000
"""The kernel clamps a task's own slice to these (kernel/sched/syscalls.c, since 6.12)."""


class SchedPolicy(IntEnum):
    """By the kernel's numbers (include/uapi/linux/sched.h)."""

    OTHER = 0
    FIFO = 1
    RR = 2
    BATCH = 3
    IDLE = 5
    DEADLINE = 6
    EXT = 7


FAIR: Final = frozenset({SchedPolicy.OTHER, SchedPolicy.BATCH, SchedPolicy.IDLE})
"""Policies of the fair class: they share by weight."""


@dataclass(frozen=True, slots=True)
class Setting:
    """What the kernel is told about one task.

    Attributes:
        policy: OTHER, BATCH, IDLE or DEADLINE are set by npuops; the rest is only ever found and put back.
        nice: -20 to 19; counts only for OTHER and BATCH, and only against tasks of the same group (autogroup, cgroup).
        slice_us: the task's own slice; None for the kernel's.
        runtime_us: of a reservation (DEADLINE): so much CPU time in each period.
        period_us: of a reservation; its deadline is its period.
        rt_priority: of FIFO and RR, found and put back.
        reset_on_fork: children start with the default instead; the kernel wants it for a reservation that forks.
    """

    policy: SchedPolicy = SchedPolicy.OTHER
    nice: int = 0
    slice_us: int | None = None
    runtime_us: int = 0
    period_us: int = 0
    rt_priority: int = 0
    reset_on_fork: bool = False

    def __post_init__(self) -> None:
        """Refuse what the kernel would refuse, or silently change.

        Raises:
            OptionError: out of bounds.
        """
        if not LEAST_NICE <= self.nice <= MOST_NICE:
            raise OptionError(f"nice is {self.nice}, which is not within {LEAST_NICE} to {MOST_NICE}")
        if self.slice_us is not None and not LEAST_SLICE_US <= self.slice_us <= MOST_SLICE_US:
            raise OptionError(f"a slice is {self.slice_us} us, which is not within {LEAST_SLICE_US} to {MOST_SLICE_US}")
        if self.policy is SchedPolicy.DEADLINE and not 0 < self.runtime_us <= self.period_us:
            raise OptionError(f"a reservation is {self.runtime_us} us in {self.period_us} us: it must fit its period")

    @property
    def share(self) -> float:
        """CPUs that a reservation takes; 0 for the others."""
        return self.runtime_us / self.period_us if self.policy is SchedPolicy.DEADLINE else 0.0

    def __str__(self) -> str:
        """As people write it: `nice 5`, `idle`, `reserve 1000/2000 us`, `nice 0, slice 500 us`."""
        if self.policy is SchedPolicy.DEADLINE:
            return f"reserve {self.runtime_us}/{self.period_us} us"
        if self.policy in (SchedPolicy.FIFO, SchedPolicy.RR):
            return f"{self.policy.name.lower()} {self.rt_priority}"
        words = {SchedPolicy.IDLE: "idle", SchedPolicy.BATCH: f"batch, nice {self.nice}"}
        name = words.get(self.policy, f"nice {self.nice}")
        return name if self.slice_us is None else f"{name}, slice {self.slice_us} us"


DEFAULT: Final = Setting()
