"""Which kernel, which scheduler, and the few figures that are measured on a machine and not read in its source."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal, get_args

import numpy as np
from numpy.typing import NDArray

from npuops.errors import OptionError

# fmt: off
(
    TICK_NS, BASE_SLICE_NS, SHORTEST_NS, CFS, PARITY, PREEMPT_SHORT, DELAY, LAG, RELATIVE, BUDDY,
    SWITCH_NS, REFILL_NS, JITTER_NS, CFS_LATENCY_NS, CFS_LEAST_NS, CFS_WAKE_NS,
) = range(16)
# fmt: on
"""Places in `Rules.table`."""

_STEPS: Final = 8
"""The kernel scales its defaults with log2 of at most so many CPUs."""


Scheduler = Literal["eevdf", "cfs"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """How the simulated kernel behaves.

    Attributes:
        kernel: the version whose rules these are; others differ in slice protection and lag.
        scheduler: `eevdf`, or `cfs` as before 6.6 for comparison.
        hz: ticks in a second.
        base_slice_ns: of tasks without a slice of their own; None for the kernel's choice by the number of CPUs
            (0.7 ms times 1 + log2 of at most 8, since 6.14); two at least, for a mix on one CPU is
            pinned there on a larger machine.
        run_to_parity: who was picked keeps the CPU for the least slice in its queue (6.17 and later).
        preempt_short: a shorter slice may break that when it wakes.
        delay_dequeue: who sleeps while it is ahead of its share stays in the queue until that is paid back.
        place_lag: who returns keeps what it was owed, or owed, when it left.
        place_rel_deadline: who changes CPU or setting keeps what was left of its request.
        pick_buddy: the group of a task that just slept is preferred once.
        autogroup: sessions share first, tasks within them then.
        switch_cost_ns: lost to the next task at each change of task. Measured per machine.
        cache_refill_ns: lost by a SCAN task when another ran in between. Measured per machine.
        tick_jitter_ns: a tick comes late by up to this. Measured per machine.
    """

    kernel: str = "6.18"
    scheduler: Scheduler = "eevdf"
    hz: int = 250
    base_slice_ns: int | None = None
    run_to_parity: bool = True
    preempt_short: bool = True
    delay_dequeue: bool = True
    place_lag: bool = True
    place_rel_deadline: bool = True
    pick_buddy: bool = True
    autogroup: bool = True
    switch_cost_ns: int = 1_500
    cache_refill_ns: int = 20_000
    tick_jitter_ns: int = 2_000

    def __post_init__(self) -> None:
        """Refuse rules that no kernel has.

        Raises:
            OptionError: an unknown kernel or scheduler, or a figure out of bounds.
        """
        if self.kernel != "6.18":
            raise OptionError(f"no rules for kernel {self.kernel}", advice="6.18 is the one that is modelled")
        if self.scheduler not in get_args(Scheduler):
            raise OptionError(f"no scheduler {self.scheduler}", advice=" or ".join(get_args(Scheduler)))
        if not 24 <= self.hz <= 1000:
            raise OptionError(f"hz is {self.hz}, which is not within 24 to 1000")
        if self.base_slice_ns is not None and not 100_000 <= self.base_slice_ns <= 100_000_000:
            raise OptionError(f"base_slice_ns is {self.base_slice_ns}, which is not within 100 us to 100 ms")
        for name in ("switch_cost_ns", "cache_refill_ns", "tick_jitter_ns"):
            if not 0 <= getattr(self, name) < 1_000_000:
                raise OptionError(f"{name} is {getattr(self, name)}, which is not within 0 to 1 ms")

    def slice_ns(self, cpus: int) -> int:
        """Slice of tasks without one of their own, on a machine with so many CPUs."""
        return 700_000 * _scale(cpus) if self.base_slice_ns is None else self.base_slice_ns

    def table(self, cpus: int) -> NDArray[np.int64]:
        """What the core looks up, by the names above: int64 of shape (16,)."""
        scale, flags = _scale(cpus), (self.run_to_parity, self.preempt_short, self.delay_dequeue, self.place_lag)
        return np.array(
            [
                *(1_000_000_000 // self.hz, self.slice_ns(cpus), 700_000, self.scheduler == "cfs", *flags),
                *(self.place_rel_deadline, self.pick_buddy),
                *(self.switch_cost_ns, self.cache_refill_ns, self.tick_jitter_ns),
                *(6_000_000 * scale, 750_000 * scale, 1_000_000 * scale),
            ],
            np.int64,
        )


def _scale(cpus: int) -> int:
    return max(2, min(cpus, _STEPS)).bit_length()
