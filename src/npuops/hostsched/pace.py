"""When to look next: on a fixed grid of moments, so that nothing drifts, and more slowly when that costs too much.

An agent that is late takes time from the work it is there for, so it gives way by itself: the period doubles when
steps overrun it, and comes back by halves once they fit the shorter one with room to spare.

With a budget it also keeps to a share of a core, on average over some seconds: what calm times leave is there for
times in which things change. Pure: it is told what steps took.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

from npuops.errors import OptionError

SHORTEST_US: Final = 10_000
LONGEST_US: Final = 100_000
USUAL_US: Final = 20_000
THRIFTIEST_US: Final = 150_000
"""A budget makes it look no less often. At 100 ms a look that finds cold caches costs more than 1 % of a core."""
SLOWEST_US: Final = 200_000
"""It slows down no further: the reaper takes an agent for dead that does not step for 300 ms."""
OVERRUNS: Final = 3
"""So many in a row make it slower: one may be a disk, or a hypervisor."""
EASY: Final = 50
"""So many in a row that took less than half of the shorter period make it faster again."""
SAVED_US: Final = 3_000_000
"""At most the budget of so long a time is saved up, or owed."""
LEAST_SHARE: Final = 0.001
_SAVING: Final = 1.25
"""So much longer than what the budget allows is the period in calm times."""
_RICH: Final = 0.25
"""Whoever has spent everything saves up this part before it is fast again."""
_MEAN_STEPS: Final = 50
"""What a step takes is a decaying mean over about so many."""
_NOTCH_US: Final = 5_000
_SAME: Final = 0.2
"""Periods that differ by less are not worth a change."""


@dataclass(frozen=True, slots=True)
class PeriodChange:
    """The agent looks less often, or more often again.

    Attributes:
        before_us: the period until now.
        after_us: from now on.
        why: what was found.
        trouble: steps did not fit their period; otherwise the agent keeps to its budget, which is as it should be.
    """

    before_us: int
    after_us: int
    why: str
    trouble: bool = True


class Pace:
    """Counts moments from the first one; missed ones are skipped, never made up for in a burst."""

    def __init__(self, period_us: int = USUAL_US, cpu_share: float | None = None) -> None:
        """Begin at the first `after`.

        Args:
            period_us: between looks, where nothing speaks against it.
            cpu_share: of one core that all steps together may take on average; None: whatever they take.

        Raises:
            OptionError: the period is not within 10 to 100 ms, or the share not within 0.001 to 1.
        """
        if not SHORTEST_US <= period_us <= LONGEST_US:
            raise OptionError(
                f"a period of {period_us / 1000:g} ms between looks",
                advice=f"take {SHORTEST_US // 1000} to {LONGEST_US // 1000} ms",
            )
        if cpu_share is not None and not LEAST_SHARE <= cpu_share <= 1:
            raise OptionError(
                f"{cpu_share:.2%} of a core for the agent itself", advice=f"take {LEAST_SHARE:.1%} to 100 %"
            )
        self.wanted_us = period_us
        self.period_us = period_us
        self.overruns = 0
        """Steps that took longer than the period that held."""
        self._budget = None if cpu_share is None else _Budget(cpu_share, period_us)
        self._fitting_us = period_us
        self._due_us: int | None = None
        self._in_a_row = 0
        self._easy = 0

    def after(
        self, began_us: int, ended_us: int, spent_us: float = 0.0, *, lively: bool = True
    ) -> tuple[int, PeriodChange | None]:
        """The moment of the next step, and whether the period changed.

        Args:
            began_us: of this step.
            ended_us: of this step.
            spent_us: CPU time since the step before.
            lively: things change, and somebody waits for answers: it is worth to look often.
        """
        why = self._judge(ended_us - began_us)
        trouble, period_us = bool(why), self._fitting_us
        if self._budget is not None:
            period_us = max(period_us, self._budget.after(ended_us, spent_us, lively=lively))
            why = why or self._budget.why
        change = None
        if period_us != self.period_us:
            change = PeriodChange(self.period_us, period_us, why, trouble)
            self.period_us = period_us
        due = (self._due_us if self._due_us is not None else began_us) + self.period_us
        if due <= ended_us:
            due += ((ended_us - due) // self.period_us + 1) * self.period_us
        self._due_us = due
        return due, change

    def _judge(self, spent_us: int) -> str:
        """Why the period that steps fit into is another one from now on; empty when it stays."""
        if spent_us > self.period_us:
            self.overruns += 1
            self._in_a_row += 1
            self._easy = 0
            if self._in_a_row >= OVERRUNS and self._fitting_us < SLOWEST_US:
                return self._fit(min(self._fitting_us * 2, SLOWEST_US), f"a step took {spent_us / 1000:.1f} ms")
            return ""
        self._in_a_row = 0
        shorter = max(self._fitting_us // 2, self.wanted_us)
        self._easy = self._easy + 1 if shorter < self._fitting_us and spent_us * 2 < shorter else 0
        if self._easy >= EASY:
            return self._fit(shorter, f"{EASY} steps fitted half of {shorter / 1000:g} ms")
        return ""

    def _fit(self, period_us: int, why: str) -> str:
        self._fitting_us = period_us
        self._in_a_row = self._easy = 0
        return why


class _Budget:
    """Which period a share of a core allows."""

    def __init__(self, share: float, wanted_us: int) -> None:
        self._share = share
        self._wanted_us = wanted_us
        self._most_us = SAVED_US * share
        self._saved_us = _RICH * self._most_us
        self._mean_us = 0.0
        self._steps = 0
        self._ended_us: int | None = None
        self._broke = False
        self._period_us = wanted_us
        self.why = ""

    def after(self, ended_us: int, spent_us: float, *, lively: bool) -> int:
        earned = 0.0 if self._ended_us is None else (ended_us - self._ended_us) * self._share
        self._ended_us = ended_us
        self._steps = min(self._steps + 1, _MEAN_STEPS)
        if self._steps > 1:  # the first opens every file: it says nothing of the others, and comes once
            self._saved_us = min(max(self._saved_us + earned - spent_us, -self._most_us), self._most_us)
            self._mean_us += (spent_us - self._mean_us) / (self._steps - 1)
        mean = self._mean_us
        if self._saved_us <= 0:
            self._broke = True
        elif self._saved_us >= _RICH * self._most_us:
            self._broke = False
        if lively and not self._broke:
            return self._settle(self._wanted_us, "something changes, and the budget allows it")
        allowed = max(_SAVING * mean / self._share, self._wanted_us)
        notched = self._wanted_us if allowed <= self._wanted_us else math.ceil(allowed / _NOTCH_US) * _NOTCH_US
        return self._settle(
            min(notched, THRIFTIEST_US),
            f"a step takes {mean:.0f} us of CPU time, and {self._share:.1%} of a core is allowed",
        )

    def _settle(self, period_us: int, why: str) -> int:
        """Small changes are none."""
        far = abs(period_us - self._period_us) > _SAME * self._period_us
        if period_us != self._period_us and (far or period_us == self._wanted_us):
            self._period_us, self.why = period_us, why
        return self._period_us
