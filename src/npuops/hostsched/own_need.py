"""How much of a place on the CPU the agent needs: none that others must give way to, until it waits too long itself.

Pure: it is told how long the agent waited, and says which rung of a ladder to stand on; 0 is the place it was started
in. A rung that helped is left again after a while, for what it costs others cannot be seen from it.
"""

from __future__ import annotations

from typing import Final

BEARABLE_US: Final = 10_000
"""Of waiting for a CPU between two looks. In the place it was started in, beside `make -j`, hackbench or 16 apps, the
agent waits 0.3 to 1.3 ms in the mean (8 ms where no session is a group of its own), and decides as well as ever."""
FIRST_STAY_US: Final = 30_000_000
"""So long it stays on a rung it had to climb to,"""
LONGEST_STAY_US: Final = 600_000_000
"""and twice as long each time it has to come back soon, up to this."""
_LOOKS: Final = 5
"""What it waits is a decaying mean over about so many, so one long wait is enough, and one of some ms is not."""


class OwnNeed:
    """Climbs while it waits, one rung at a time, and comes down one at a time."""

    def __init__(self) -> None:
        """In the place it was started in."""
        self.rung = 0
        self._mean_us = 0.0
        self._stay_us = FIRST_STAY_US
        self._since_us = 0
        """When it came to this rung from another;"""
        self._fell = False
        """it came down to it."""

    def after(self, at_us: int, waited_us: int, highest: int) -> int:
        """The rung to stand on from now on.

        Args:
            at_us: now.
            waited_us: for a CPU since the call before, ready to run.
            highest: rung that there is.
        """
        self._mean_us += (max(waited_us, 0) - self._mean_us) / _LOOKS
        if self.rung > highest:
            self._step_to(highest, at_us, fell=False)
        elif self._mean_us > BEARABLE_US and self.rung < highest:
            if self._fell:
                soon = at_us - self._since_us < self._stay_us
                self._stay_us = min(2 * self._stay_us, LONGEST_STAY_US) if soon else FIRST_STAY_US
            self._step_to(self.rung + 1, at_us, fell=False)
        elif self.rung > 0 and at_us - self._since_us >= self._stay_us:
            self._step_to(self.rung - 1, at_us, fell=True)
        return self.rung

    def _step_to(self, rung: int, at_us: int, *, fell: bool) -> None:
        self.rung, self._since_us, self._fell, self._mean_us = rung, at_us, fell, 0.0
