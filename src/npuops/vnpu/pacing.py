"""How the device's own time follows the time of this machine. Pure: it is told what the system clock says.

`realtime`: it is the system clock. `fast`: it runs with the system clock, and jumps to the next thing that happens
while somebody waits for a result. `manual`: it stands still until it is moved.
"""

from __future__ import annotations

from enum import StrEnum


class Pacing(StrEnum):
    """Chosen when the device comes up."""

    REALTIME = "realtime"
    FAST = "fast"
    MANUAL = "manual"


class DeviceTime:
    """Microseconds since the device came up, in its own time; never goes back."""

    def __init__(self, pacing: Pacing, system_us: int) -> None:
        self.pacing = pacing
        self._start_us = system_us
        self._jumped_us = 0

    def now_us(self, system_us: int) -> int:
        """The device's time when the system clock says `system_us`."""
        passed_us = 0 if self.pacing is Pacing.MANUAL else system_us - self._start_us
        return passed_us + self._jumped_us

    def jump_to(self, moment_us: int, system_us: int) -> None:
        """From now on the time is at least this moment."""
        self._jumped_us += max(0, moment_us - self.now_us(system_us))
