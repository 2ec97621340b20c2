"""Time as a seam: code that needs the time takes a Clock, so that tests can move it."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Monotonic time in whole microseconds; its zero has no meaning."""

    def now_us(self) -> int:
        """Microseconds since an arbitrary moment; never goes back."""
        ...

    def sleep_until(self, moment_us: int) -> None:
        """Return when `now_us()` is at least `moment_us`."""
        ...


class SystemClock:
    """The machine's monotonic clock."""

    def now_us(self) -> int:
        """Microseconds of `time.perf_counter_ns`, which is monotonic on Linux."""
        return time.perf_counter_ns() // 1000

    def sleep_until(self, moment_us: int) -> None:
        """Sleep for the rest of the time, if any is left."""
        rest_us = moment_us - self.now_us()
        if rest_us > 0:
            time.sleep(rest_us / 1e6)
