"""A timer of the kernel that wakes an event loop within microseconds; those of asyncio and libuv count milliseconds."""

from __future__ import annotations

import asyncio
import ctypes
import os
from collections.abc import Callable
from typing import Final

_MONOTONIC: Final = 1
_NONBLOCK_CLOEXEC: Final = os.O_NONBLOCK | os.O_CLOEXEC
_ABSOLUTE: Final = 1


class _Spec(ctypes.Structure):
    """`struct itimerspec`: interval, then first expiry, each in seconds and nanoseconds."""

    _fields_ = (
        ("interval_s", ctypes.c_long),
        ("interval_ns", ctypes.c_long),
        ("first_s", ctypes.c_long),
        ("first_ns", ctypes.c_long),
    )


class PreciseTimer:
    """Calls back once at an instant of `time.perf_counter`, which on Linux is the kernel's monotonic clock."""

    def __init__(self, loop: asyncio.AbstractEventLoop, due: Callable[[], None]) -> None:
        self._libc = ctypes.CDLL(None, use_errno=True)
        descriptor = self._libc.timerfd_create(_MONOTONIC, _NONBLOCK_CLOEXEC)
        if descriptor < 0:
            raise OSError(ctypes.get_errno(), "timerfd_create")
        self._descriptor = descriptor
        self._spec = _Spec()
        self._reference = ctypes.byref(self._spec)
        self._set = self._libc.timerfd_settime
        self._loop = loop
        self._due = due
        loop.add_reader(descriptor, self._ring)

    def arm(self, instant_s: float) -> None:
        """Ring then, or at once where that is over; the instant before is forgotten."""
        seconds = int(instant_s)
        self._spec.first_s = seconds
        self._spec.first_ns = max(int((instant_s - seconds) * 1e9), 1)  # all zero would switch it off
        self._set(self._descriptor, _ABSOLUTE, self._reference, None)

    def close(self) -> None:
        """Never ring again."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)

    def _ring(self) -> None:
        try:
            os.read(self._descriptor, 8)
        except BlockingIOError:
            return  # armed anew between the wake-up and now
        self._due()
