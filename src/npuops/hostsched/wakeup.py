"""A sleep that a signal ends at once, without an exception in the middle of a step.

Python's own way, an exception out of a handler, could hit between a change and its record. Here a signal leaves its
number and a byte in a pipe; the loop sees both between two steps.
"""

from __future__ import annotations

import os
import select
import signal
from collections import deque
from collections.abc import Callable, Iterable
from types import FrameType, TracebackType
from typing import Any, Final, Self

ENDING: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)
"""An agent ends on these; a terminal that hangs up sends the last."""

_OF_TERMINALS: Final = (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT)
"""nohup, or a shell for what it starts in the background, has them ignored: so it stays, for our children too."""

_BYTES: Final = 4096


class Wakeup:
    """Catches signals while it is entered; only in the main thread, as Python wants it."""

    def __init__(self, now_us: Callable[[], int], numbers: Iterable[signal.Signals] = ENDING) -> None:
        """Nothing is caught yet; `now_us` is the clock of the moments given to `sleep_until`."""
        self._now_us = now_us
        self._numbers = tuple(numbers)
        self._caught: deque[int] = deque()
        self._before: dict[int, Any] = {}
        self._wakeup_before = -1
        self._reader = self._writer = -1

    def __enter__(self) -> Self:
        """Catch them from now on; a child's end wakes as well, and is not kept."""
        self._reader, self._writer = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._wakeup_before = signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        for number in self._numbers:
            if signal.getsignal(number) is not signal.SIG_IGN or number not in _OF_TERMINALS:
                self._before[number] = signal.signal(number, self._keep)
        self._before[signal.SIGCHLD] = signal.signal(signal.SIGCHLD, _wake_only)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """As it was before."""
        for number, handler in self._before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        self._before.clear()
        signal.set_wakeup_fd(self._wakeup_before)
        os.close(self._reader)
        os.close(self._writer)

    def sleep_until(self, moment_us: int) -> bool:
        """Sleep, at most until then; True if a signal ended it early, also one that came before."""
        rest_us = max(moment_us - self._now_us(), 0)
        ready, _, _ = select.select([self._reader], [], [], rest_us / 1e6)
        if ready:
            os.read(self._reader, _BYTES)
        return bool(ready)

    def caught(self) -> tuple[int, ...]:
        """Signals that came since the last call, in order."""
        found = []
        while self._caught:
            found.append(self._caught.popleft())
        return tuple(found)

    def _keep(self, number: int, frame: FrameType | None) -> None:
        del frame
        self._caught.append(number)


def _wake_only(number: int, frame: FrameType | None) -> None:
    """For its byte in the pipe."""
    del number, frame
