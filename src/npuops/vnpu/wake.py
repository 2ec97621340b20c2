"""Two descriptors that an epoll loop can wait for: a timer with microseconds, and a bell that any thread may ring."""

from __future__ import annotations

import ctypes
import os
from typing import Final

_CLOCK_MONOTONIC: Final = 1
_CLOEXEC_NONBLOCK: Final = os.O_CLOEXEC | os.O_NONBLOCK

_libc: Final = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    _fields_ = (("tv_sec", ctypes.c_long), ("tv_nsec", ctypes.c_long))


class _Itimerspec(ctypes.Structure):
    _fields_ = (("it_interval", _Timespec), ("it_value", _Timespec))


class Alarm:
    """A timerfd: epoll's own timeout knows only whole milliseconds. `os.timerfd_create` needs Python 3.13."""

    def __init__(self) -> None:
        """Not set.

        Raises:
            OSError: the kernel has no descriptors left.
        """
        self._descriptor: int = _libc.timerfd_create(_CLOCK_MONOTONIC, _CLOEXEC_NONBLOCK)
        self._is_set = False
        if self._descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")

    def fileno(self) -> int:
        """Readable when the time has come."""
        return self._descriptor

    def set(self, delay_us: int | None) -> None:
        """Ring once after the delay, at once for 0, never for None; what was set before is forgotten."""
        if delay_us is None and not self._is_set:
            return
        self._is_set = delay_us is not None
        nanoseconds = 0 if delay_us is None else max(1, delay_us * 1000)
        value = _Timespec(nanoseconds // 1_000_000_000, nanoseconds % 1_000_000_000)
        _libc.timerfd_settime(self._descriptor, 0, ctypes.byref(_Itimerspec(_Timespec(0, 0), value)), None)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


class Bell:
    """An eventfd."""

    def __init__(self) -> None:
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)

    def fileno(self) -> int:
        """Readable after a ring."""
        return self._descriptor

    def ring(self) -> None:
        """From any thread, or from a signal handler."""
        os.eventfd_write(self._descriptor, 1)

    def close(self) -> None:
        """Give the descriptor back."""
        os.close(self._descriptor)


def quieten(descriptor: int) -> None:
    """Forget that an alarm or a bell rang."""
    try:
        os.read(descriptor, 8)
    except BlockingIOError:
        return  # set anew meanwhile
