"""How long a model version has been without a device of its own, and what is said to those who wait for one."""

from __future__ import annotations

from npuops.errors import NotReadyError
from npuops.runtime.replicas import Replicas


class Outage:
    """Of one model version.

    Attributes:
        since_us: no device is ready, but perhaps fallbacks; 0 while one is, or before the first was.
        is_last: the version is on its way out: a device that does not come up at once is not waited for.
    """

    def __init__(self, model: str, replicas: Replicas, patience_s: float) -> None:
        """`patience_s`: how long it is worth waiting for a device's restart."""
        self.since_us = 0
        self.is_last = False
        self._model, self._replicas, self._patience_us = model, replicas, patience_s * 1e6

    def look(self, now_us: int) -> None:
        """A device is ready, or is not any more."""
        if self._replicas.own_ready:
            self.since_us = 0
        elif not self.since_us:
            self.since_us = now_us

    def is_hopeless(self, now_us: int, *, restarts: bool = True) -> bool:
        """Nobody should wait any more. `restarts`: wait for more of them, where one failed already."""
        if not self.since_us:
            return False
        waits = restarts and not self.is_last
        return now_us - self.since_us > self._patience_us or (not waits and self._replicas.own_failed)

    def error(self) -> NotReadyError:
        """For who waits or comes."""
        return NotReadyError(f"no device of {self._model} is ready ({self._replicas.why_down()})", retry_after_s=1.0)
