"""An alarm that one process puts off and another waits for: a timer of the kernel (timerfd_create(2)).

While it is put off in time nobody wakes: neither side asks the other how it is.
"""

from __future__ import annotations

import ctypes
import os
from contextlib import suppress
from typing import Final

from npuops.hostsched.knobs import NoSuchKnobError

_MONOTONIC: Final = 1
_FLAGS: Final = os.O_CLOEXEC | os.O_NONBLOCK
_EXPIRATIONS: Final = 8


class Alarm:
    """Either side's view of one timer; it rings when its descriptor can be read."""

    def __init__(self, after_us: int, descriptor: int | None = None) -> None:
        """A new timer, not yet started, or the one behind a descriptor, which then belongs to this object.

        Args:
            after_us: so long after it was last put off it rings.
            descriptor: of a timer.

        Raises:
            NoSuchKnobError: the kernel gives no timer.
        """
        libc = ctypes.CDLL(None, use_errno=True)
        if descriptor is None:
            descriptor = libc.timerfd_create(_MONOTONIC, _FLAGS)
            if descriptor < 0:
                raise _refused("timerfd_create")
        self.descriptor = descriptor
        # it_interval, then it_value, each in seconds and nanoseconds
        self._time = (ctypes.c_long * 4)(0, 0, after_us // 1_000_000, after_us % 1_000_000 * 1000)
        self._time_at = ctypes.c_void_p(ctypes.addressof(self._time))
        self._set = libc.timerfd_settime

    def put_off(self) -> None:
        """It rings later, or for the first time, and not for what is over.

        Raises:
            NoSuchKnobError: the kernel does not set the timer: nobody would be called.
        """
        if self._set(self.descriptor, 0, self._time_at, None) != 0:
            raise _refused("timerfd_settime")

    def quiet(self) -> None:
        """It rang: do not ring again until it is put off."""
        with suppress(BlockingIOError):  # put off meanwhile
            os.read(self.descriptor, _EXPIRATIONS)

    def close(self) -> None:
        """Give the descriptor back; the other side keeps its own."""
        os.close(self.descriptor)


def _refused(call: str) -> NoSuchKnobError:
    return NoSuchKnobError(f"no timer for the reaper: {os.strerror(ctypes.get_errno())}", advice=f"allow {call}(2)")
