"""Settings of one task, read from the kernel and written to it: sched_setattr(2) and sched_getattr(2).

Nice value and slice go in one call, always both: the kernel takes a slice of 0 for "the default again", so a nice value
that is set alone through this call takes a task's own slice away.

With SCHED_IDLE the call takes neither (`fair_policy` in kernel/sched/sched.h leaves it out): a task keeps those that it
had. Where they shall be others, it gets them on the way, as a task of SCHED_OTHER.

Linux 6.18 loses count of what is reserved whenever a task that sleeps leaves its reservation, until it refuses all. So
where it refuses one, it is made to count anew, and asked once more (docs/decisions/0013).

What the kernel answers for a task without a slice of its own is its base slice. We ask for that once, of a thread that
just gave its own back. Somebody who sets exactly the base slice by hand is not told apart from the default: until the
base changes (debugfs, a processor more or less) the two behave the same.
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import threading
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Final

from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.errors import NpuopsError
from npuops.hostsched.attributes import RESET_ON_FORK, Attributes, wanted

_NUMBERS: Final = {"x86_64": (314, 315), "aarch64": (274, 275), "riscv64": (274, 275)}
"""Of sched_setattr and sched_getattr (arch/x86/entry/syscalls/syscall_64.tbl, include/uapi/asm-generic/unistd.h)."""


_RT_RUNTIME: Final = Path("/proc/sys/kernel/sched_rt_runtime_us")
_RECOUNT_EVERY_S: Final = 1.0


class KnobError(NpuopsError):
    """The kernel does not take, or does not tell, a setting."""


class TaskGoneError(KnobError):
    """The task ended."""


class NotPermittedError(KnobError):
    """The kernel forbids it to this process."""


class AdmissionError(KnobError):
    """The processors are promised to other reservations."""


class NotNowError(KnobError):
    """The kernel puts it off; try again a tenth of a second later."""


class NoSuchKnobError(KnobError):
    """This kernel, or this machine, does not have it."""


class _SchedAttr(ctypes.Structure):
    """The first version of the structure, 48 bytes: what later ones add (uclamp) stays as it is."""

    _fields_ = (
        ("size", ctypes.c_uint32),
        ("policy", ctypes.c_uint32),
        ("flags", ctypes.c_uint64),
        ("nice", ctypes.c_int32),
        ("priority", ctypes.c_uint32),
        ("runtime", ctypes.c_uint64),
        ("deadline", ctypes.c_uint64),
        ("period", ctypes.c_uint64),
    )


_SIZE: Final = ctypes.sizeof(_SchedAttr)


def read_setting(tid: int) -> Setting:
    """What a thread is set to now; 0 is the caller.

    Raises:
        TaskGoneError: it ended.
        KnobError: the kernel does not tell.
        OptionError: a policy that npuops does not know.
    """
    return read_attributes(tid).setting()


def write_setting(tid: int, setting: Setting) -> None:
    """Set a thread; what `setting` does not say (reset-on-fork, the nice value of an idle task) stays.

    Raises:
        TaskGoneError: it ended.
        NotPermittedError: CAP_SYS_NICE, RLIMIT_NICE or another user's task.
        AdmissionError: a reservation that does not fit beside the others.
        KnobError: whatever else the kernel has against it.
    """
    write_attributes(tid, wanted(setting, read_attributes(tid)))


def read_attributes(tid: int) -> Attributes:
    """As `read_setting`, to the nanosecond. A fair task's `runtime_ns` is 0 unless it has a slice of its own."""
    found = _read_raw(tid)
    if found.fair and found.runtime_ns == base_slice_ns():
        return Attributes(found.policy, found.flags, found.nice, found.priority)
    return found


def write_attributes(tid: int, attributes: Attributes) -> None:
    """As `write_setting`, exactly this."""
    if attributes.policy == SchedPolicy.IDLE:
        present = read_attributes(tid)
        kept = present.fair and (present.nice, present.runtime_ns) == (attributes.nice, attributes.runtime_ns)
        if not kept:
            _write_raw(tid, replace(attributes, policy=SchedPolicy.OTHER))
    try:
        _write_raw(tid, attributes)
    except AdmissionError:
        if not _recount.made():
            raise
        _write_raw(tid, attributes)


class _Recount:
    """Not at every refusal: it builds scheduling domains anew, and others may really have all that can be reserved."""

    def __init__(self) -> None:
        self._at = -_RECOUNT_EVERY_S

    def made(self) -> bool:
        """To read this file is enough (`sched_rt_handler`); False if that was just tried, or is not possible."""
        now = time.monotonic()
        if now - self._at < _RECOUNT_EVERY_S:
            return False
        self._at = now
        try:
            _RT_RUNTIME.read_bytes()
        except OSError:
            return False
        return True


_recount: Final = _Recount()


class Watch:
    """Asks again and again what tasks are set to, only to see that nothing changed: cheaper than reading it."""

    def __init__(self) -> None:
        """For one thread."""
        _, self._number = _syscall_numbers()
        self._libc = _libc()
        self._buffer = ctypes.create_string_buffer(_SIZE)
        self._pointer = ctypes.cast(self._buffer, ctypes.c_void_p)

    def raw(self, tid: int) -> bytes:
        """The kernel's structure, to be compared with an earlier one; empty when it does not tell."""
        if self._libc.syscall(self._number, tid, self._pointer, _SIZE, 0) != 0:
            return b""
        return self._buffer.raw


@cache
def base_slice_ns() -> int:
    """The kernel's own slice, as it is told of a task that has none of its own; 0 before Linux 6.12."""
    told: list[int] = []

    def ask() -> None:
        mine = _read_raw(0)
        policy = SchedPolicy.BATCH if mine.policy == SchedPolicy.BATCH else SchedPolicy.OTHER
        _write_raw(0, Attributes(policy, mine.flags & RESET_ON_FORK, mine.nice))
        told.append(_read_raw(0).runtime_ns)

    thread = threading.Thread(target=ask, name="npuops-base-slice")
    try:
        thread.start()
    except RuntimeError as full:
        raise KnobError(
            f"the kernel's base slice is unknown: {full}", advice="a reservation may not start threads"
        ) from full
    thread.join()
    if not told:
        raise KnobError("the kernel does not tell its base slice", advice="run `npuops hostsched probe`")
    return told[0]


def _write_raw(tid: int, attributes: Attributes) -> None:
    set_number, _ = _syscall_numbers()
    raw = _SchedAttr(
        _SIZE,
        attributes.policy,
        attributes.flags,
        attributes.nice,
        attributes.priority,
        attributes.runtime_ns,
        attributes.deadline_ns,
        attributes.period_ns,
    )
    if _libc().syscall(set_number, tid, ctypes.byref(raw), 0, 0) != 0:
        raise _refused(tid, attributes, ctypes.get_errno())


@cache
def _libc() -> ctypes.CDLL:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.syscall.restype = ctypes.c_long
    libc.syscall.argtypes = (ctypes.c_long, ctypes.c_long, ctypes.c_void_p, ctypes.c_long, ctypes.c_long)
    return libc


@cache
def _syscall_numbers() -> tuple[int, int]:
    numbers = _NUMBERS.get(platform.machine())
    if numbers is None or ctypes.sizeof(ctypes.c_void_p) != 8 or platform.system() != "Linux":
        raise NoSuchKnobError(
            f"npuops does not know how to set tasks on {platform.system()} {platform.machine()}",
            advice=f"it does on 64-bit Linux: {', '.join(_NUMBERS)}",
        )
    return numbers


def _read_raw(tid: int) -> Attributes:
    _, get_number = _syscall_numbers()
    raw = _SchedAttr()
    if _libc().syscall(get_number, tid, ctypes.byref(raw), _SIZE, 0) != 0:
        number = ctypes.get_errno()
        if number == errno.ESRCH:
            raise _gone(tid)
        raise KnobError(f"the kernel does not tell what task {tid} is set to: {os.strerror(number)}")
    return Attributes(raw.policy, raw.flags, raw.nice, raw.priority, raw.runtime, raw.deadline, raw.period)


def _gone(tid: int) -> TaskGoneError:
    return TaskGoneError(f"task {tid} ended")


def _refused(tid: int, attributes: Attributes, number: int) -> KnobError:
    """Which of our errors, and what to do about it."""
    if number == errno.ESRCH:
        return _gone(tid)
    what = f"the kernel refuses `{attributes}` for task {tid}"
    if number == errno.EBUSY:
        return AdmissionError(
            f"{what}: other reservations leave too little (at most 95 % of all processors may be promised)",
            advice="reserve less, or for fewer tasks; `npuops hostsched probe` tells who has them",
        )
    if number == errno.EPERM and attributes.reserved and _pinned(tid):
        return NotPermittedError(
            f"{what}: it may not run on every processor",
            advice="a reservation needs a task without CPU affinity; use a nice value, or undo the pinning",
        )
    if number in (errno.EPERM, errno.EACCES):
        return NotPermittedError(
            f"{what}: not permitted", advice="run as its user, with CAP_SYS_NICE or a higher RLIMIT_NICE of the task"
        )
    if number == errno.EINVAL and attributes.reserved:
        return KnobError(
            f"{what}: out of this kernel's bounds",
            advice="see /proc/sys/kernel/sched_deadline_period_min_us and sched_deadline_period_max_us",
        )
    return KnobError(f"{what}: {os.strerror(number)}")


def _pinned(tid: int) -> bool:
    try:
        return len(os.sched_getaffinity(tid)) < (os.cpu_count() or 1)
    except OSError:
        return False
