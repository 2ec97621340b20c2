"""When to look next: on a fixed grid of moments, so that nothing drifts, and more slowly when a step does not fit.

An agent that is late takes time from the work it is there for, so it gives way by itself: the period doubles when
steps overrun it, and comes back by halves once they fit the shorter one with room to spare.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from npuops.errors import OptionError

SHORTEST_US: Final = 10_000
LONGEST_US: Final = 100_000
USUAL_US: Final = 20_000
SLOWEST_US: Final = 200_000
"""It slows down no further: the reaper takes an agent for dead that does not step for 300 ms."""
OVERRUNS: Final = 3
"""So many in a row make it slower: one may be a disk, or a hypervisor."""
EASY: Final = 50
"""So many in a row that took less than half of the shorter period make it faster again."""


@dataclass(frozen=True, slots=True)
class PeriodChange:
    """The agent looks less often, or more often again.

    Attributes:
        before_us: the period until now.
        after_us: from now on.
        why: what was found.
    """

    before_us: int
    after_us: int
    why: str


class Pace:
    """Counts moments from the first one; missed ones are skipped, never made up for in a burst."""

    def __init__(self, period_us: int = USUAL_US) -> None:
        """Begin at the first `after`.

        Raises:
            OptionError: the period is not within 10 to 100 ms.
        """
        if not SHORTEST_US <= period_us <= LONGEST_US:
            raise OptionError(
                f"a period of {period_us / 1000:g} ms between looks",
                advice=f"take {SHORTEST_US // 1000} to {LONGEST_US // 1000} ms",
            )
        self.wanted_us = period_us
        self.period_us = period_us
        self.overruns = 0
        """Steps that took longer than the period that held."""
        self._due_us: int | None = None
        self._in_a_row = 0
        self._easy = 0

    def after(self, began_us: int, ended_us: int) -> tuple[int, PeriodChange | None]:
        """The moment of the next step, given when this one began and ended, and whether the period changed."""
        change = self._judge(ended_us - began_us)
        due = (self._due_us if self._due_us is not None else began_us) + self.period_us
        if due <= ended_us:
            due += ((ended_us - due) // self.period_us + 1) * self.period_us
        self._due_us = due
        return due, change

    def _judge(self, spent_us: int) -> PeriodChange | None:
        if spent_us > self.period_us:
            self.overruns += 1
            self._in_a_row += 1
            self._easy = 0
            if self._in_a_row >= OVERRUNS and self.period_us < SLOWEST_US:
                return self._change(min(self.period_us * 2, SLOWEST_US), f"a step took {spent_us / 1000:.1f} ms")
            return None
        self._in_a_row = 0
        shorter = max(self.period_us // 2, self.wanted_us)
        self._easy = self._easy + 1 if shorter < self.period_us and spent_us * 2 < shorter else 0
        if self._easy >= EASY:
            return self._change(shorter, f"{EASY} steps fitted half of {shorter / 1000:g} ms")
        return None

    def _change(self, period_us: int, why: str) -> PeriodChange:
        change = PeriodChange(self.period_us, period_us, why)
        self.period_us = period_us
        self._in_a_row = self._easy = 0
        return change
