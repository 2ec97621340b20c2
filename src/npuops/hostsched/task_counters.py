"""What one task did so far: CPU time, waiting, and switches, read as cheaply as the kernel allows.

The kernel books a wait when the task runs next, so a task that starves would seem to do nothing. But a task that wants
to run and whose CPU time stands still can only be waiting: it cannot sleep without running first. So once a quiet task
was seen in state R, its wait grows with the clock until it runs; the kernel's own figure takes over then.
"""

from __future__ import annotations

from os import pread
from typing import Final

from npuops.hostsched.proc_files import Descriptors, KeptFile

STATE_US: Final = 100_000
"""A task that does nothing is asked so often whether it wants to run."""
_SWITCHES: Final = b"\nvoluntary_ctxt_switches:"
_STATE: Final = b"\nState:\t"

Counters = tuple[int, int, int, int, int]
"""As the columns of `Frame.counters`."""


class TaskCounters:
    """Of one thread."""

    __slots__ = ("_asked_us", "_booked", "_raw", "_runs", "_status", "_waiting_since_us", "counters")

    def __init__(self, pid: int, tid: int, descriptors: Descriptors) -> None:
        """Nothing is read yet."""
        folder = f"/proc/{pid}/task/{tid}"
        self._runs = KeptFile(f"{folder}/schedstat", descriptors)
        self._status = KeptFile(f"{folder}/status", descriptors)
        self._raw = b""
        self._booked = 0
        self._asked_us = 0
        self._waiting_since_us: int | None = None
        self.counters: Counters = (0, 0, 0, 0, 0)

    def look(self, now_us: int) -> bool | None:
        """Bring `counters` up to date: whether they changed; None when the task ended.

        Raises:
            KnobError: it cannot be read.
        """
        descriptor = self._runs.descriptor
        try:  # without the call in between: this is most of what a look costs
            raw = pread(descriptor, 96, 0) if descriptor is not None else self._runs.read(96)
        except OSError:
            raw = self._runs.read(96)  # fails again, and tells one that ended from other failures
        if not raw:
            return None
        if raw == self._raw:
            return self._quiet(now_us)
        status = self._status.read(8192)
        if not status:
            return None
        self._raw, self._asked_us, self._waiting_since_us = raw, now_us, None
        run_ns, self._booked, turns = map(int, raw.split(None, 2))
        # The clocks differ by a little: what was told of a wait is not taken back.
        wait_ns = max(self._booked, self.counters[1])
        self.counters = (run_ns, wait_ns, turns, *switches(status))
        return True

    def _quiet(self, now_us: int) -> bool | None:
        """It has not run since: nor has it switched, so that its status says nothing new but its state."""
        run_ns, wait_ns, *others = self.counters
        if self._waiting_since_us is not None:
            longer_ns = self._booked + (now_us - self._waiting_since_us) * 1000
            if longer_ns <= wait_ns:
                return False
            self.counters = (run_ns, longer_ns, others[0], others[1], others[2])
            return True
        if now_us - self._asked_us < STATE_US:
            return False
        status = self._status.read(8192)
        if not status:
            return None
        self._asked_us = now_us
        # It may have run and slept between the two reads: only what is still unchanged after them has waited.
        if wants_to_run(status) and self._runs.read(96) == self._raw:
            self._waiting_since_us = now_us
        return False

    def close(self) -> None:
        """Give back its descriptors."""
        self._runs.close()
        self._status.close()


def switches(status: bytes) -> tuple[int, int]:
    """Voluntary and involuntary switches, from /proc/TID/status."""
    words = status[status.rindex(_SWITCHES) :].split(None, 4)
    return int(words[1]), int(words[3])


def wants_to_run(status: bytes) -> bool:
    """State R: it runs, or waits for a CPU."""
    return status[status.index(_STATE) + len(_STATE) :].startswith(b"R")
