"""What one task did so far: CPU time, waiting, and switches, read as cheaply as the kernel allows.

The kernel books a wait when the task runs next, so a task that starves would seem to do nothing. But a task that wants
to run and whose CPU time stands still can only be waiting: it cannot sleep without running first. So once a quiet task
was seen in state R, its wait grows with the clock until it runs; the kernel's own figure takes over then.

The kernel writes 59 lines to tell how a task left the CPU, and two numbers would do. So a task that lately always left
by itself, after a short turn, is taken to do so again, and is asked four times a second: if it was pushed aside
meanwhile, that is told up to 250 ms late, and counts beside a turn that was told as a sleep. One that did nothing for a
second is looked at every 60 ms only.

`look.c` does the same for all tasks at once (`counter_rows`).
"""

from __future__ import annotations

from os import pread
from typing import Final

from npuops.hostsched.proc_files import Descriptors, KeptFile

STATE_US: Final = 100_000
"""A task that does nothing is asked so often whether it wants to run."""
SURE_US: Final = 250_000
"""How a task with short turns leaves the CPU is asked so often;"""
SHORT_NS: Final = 1_000_000
"""its turns took no longer than this on average,"""
USUAL: Final = 5
"""and so many times in a row it was asked it had not been pushed aside since the time before."""
IDLE_US: Final = 1_000_000
IDLE_EVERY_US: Final = 60_000
IDLE_STATE_US: Final = 240_000
_SWITCHES: Final = b"\nvoluntary_ctxt_switches:"
_STATE: Final = b"\nState:\t"

Counters = tuple[int, int, int, int, int]
"""As the columns of `Frame.counters`."""


class TaskCounters:
    """Of one thread."""

    __slots__ = (
        "_asked_us",
        "_booked",
        "_changed_us",
        "_next_us",
        "_raw",
        "_runs",
        "_status",
        "_sure",
        "_usual",
        "_waiting_since_us",
        "counters",
    )

    def __init__(self, folder: str, descriptors: Descriptors) -> None:
        """Nothing is read yet of `/proc/PID/task/TID`."""
        self._runs = KeptFile(f"{folder}/schedstat", descriptors)
        self._status = KeptFile(f"{folder}/status", descriptors)
        self._raw = b""
        self._booked = 0
        self._asked_us = 0
        self._changed_us = 0
        self._next_us = 0
        self._waiting_since_us: int | None = None
        self._usual = 0
        self._sure = (0, 0)
        """Turns and voluntary switches when its status was read."""
        self.counters: Counters = (0, 0, 0, 0, 0)

    def look(self, now_us: int) -> bool | None:
        """Bring `counters` up to date: whether they changed; None when the task ended.

        Raises:
            KnobError: it cannot be read.
        """
        if now_us < self._next_us:
            return False
        descriptor = self._runs.descriptor
        try:  # without the call in between: this is most of what a look costs
            raw = pread(descriptor, 96, 0) if descriptor is not None else self._runs.read(96)
        except OSError:
            raw = self._runs.read(96)  # fails again, and tells one that ended from other failures
        if not raw:
            return None
        if raw == self._raw:
            return self._quiet(now_us)
        run_ns, booked, turns = map(int, raw.split(None, 2))
        before = self.counters
        # The clocks differ by a little: what was told of a wait is not taken back.
        wait_ns = max(booked, before[1])
        if 0 < run_ns - before[0] <= (turns - before[2]) * SHORT_NS and self._is_usual(now_us):
            left = max(self._sure[1] + turns - self._sure[0], before[3])
            self.counters = (run_ns, wait_ns, turns, left, before[4])
        else:
            status = self._status.read(8192)
            if not status:
                return None
            self._asked_us = now_us
            self.counters = (run_ns, wait_ns, turns, *self._switches(status, turns))
        self._raw, self._booked, self._changed_us, self._waiting_since_us = raw, booked, now_us, None
        return True

    def _is_usual(self, now_us: int) -> bool:
        return self._usual >= USUAL and now_us - self._asked_us < SURE_US

    def _switches(self, status: bytes, turns: int) -> tuple[int, int]:
        """As the kernel tells them now; what was told before is not taken back."""
        left, pushed = switches(status)
        self._usual = self._usual + 1 if pushed == self.counters[4] else 0
        self._sure = (turns, left)
        return max(left, self.counters[3]), pushed

    def _quiet(self, now_us: int) -> bool | None:
        """It has not run since: nor has it switched, so that its status says nothing new but its state."""
        run_ns, wait_ns, *others = self.counters
        if self._waiting_since_us is not None:
            longer_ns = self._booked + (now_us - self._waiting_since_us) * 1000
            if longer_ns <= wait_ns:
                return False
            self.counters = (run_ns, longer_ns, others[0], others[1], others[2])
            return True
        idle = now_us - self._changed_us >= IDLE_US
        if idle:
            self._next_us = now_us + IDLE_EVERY_US
        if now_us - self._asked_us < (IDLE_STATE_US if idle else STATE_US):
            return False
        status = self._status.read(8192)
        if not status:
            return None
        if has_ended(status):
            return None  # its parent does not know yet
        self._asked_us = now_us
        # It may have run and slept between the two reads: only what is still unchanged after them has waited.
        if self._runs.read(96) != self._raw:
            self._next_us = 0
            return False
        if wants_to_run(status):
            self._waiting_since_us, self._next_us = now_us, 0
        told = (run_ns, wait_ns, others[0], *self._switches(status, others[0]))
        changed, self.counters = told != self.counters, told
        return changed

    def close(self) -> None:
        """Give back its descriptors."""
        self._runs.close()
        self._status.close()


def switches(status: bytes) -> tuple[int, int]:
    """Voluntary and involuntary switches, from /proc/TID/status."""
    words = status[status.rindex(_SWITCHES) :].split(None, 4)
    return int(words[1]), int(words[3])


def has_ended(status: bytes) -> bool:
    """State Z or X: it is over, though its numbers can still be read."""
    return status[status.index(_STATE) + len(_STATE) :].startswith((b"Z", b"X"))


def wants_to_run(status: bytes) -> bool:
    """State R: it runs, or waits for a CPU."""
    return status[status.index(_STATE) + len(_STATE) :].startswith(b"R")
