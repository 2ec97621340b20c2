"""Who a task is, from /proc/TID/stat: is it the one that we mean, whose child is it, is it the kernel's own?"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from typing import Final

from npuops.hostsched.task_id import TaskId

_KERNEL_THREAD: Final = 0x00200000
"""PF_KTHREAD (include/linux/sched.h)."""


@dataclass(frozen=True, slots=True)
class TaskStat:
    """Some columns of /proc/TID/stat (proc(5)).

    Attributes:
        tid: the thread.
        state: one letter; `Z` and `X` are over.
        parent: of its process.
        session: of its process.
        flags: of the kernel.
        start_ticks: since boot.
    """

    tid: int
    state: str
    parent: int
    session: int
    flags: int
    start_ticks: int

    @property
    def over(self) -> bool:
        """It ended, whether or not its parent knows."""
        return self.state in "ZX"

    @property
    def kernels(self) -> bool:
        """It is a thread of the kernel."""
        return bool(self.flags & _KERNEL_THREAD)

    @property
    def id(self) -> TaskId:
        """For good."""
        return TaskId(self.tid, self.start_ticks)


def look_at(tid: int) -> TaskStat | None:
    """None when there is no such task, or /proc hides it from us (mounted with hidepid)."""
    text = _text(f"/proc/{tid}/stat")
    if text is None:
        return None
    words = text[text.rindex(b")") + 2 :].split()  # a command may hold blanks and brackets
    return TaskStat(tid, words[0].decode("ascii"), int(words[1]), int(words[3]), int(words[6]), int(words[19]))


def alive(task: TaskId) -> bool:
    """It is still there, and it is that one, not another with the same number."""
    seen = look_at(task.tid)
    return seen is not None and seen.start_ticks == task.start_ticks and not seen.over


def process_of(tid: int) -> int | None:
    """The process of a thread; None when it ended."""
    if _leads(tid):
        return tid
    for line in (_text(f"/proc/{tid}/status") or b"").splitlines():
        if line.startswith(b"Tgid:"):
            return int(line.split()[1])
    return None


def processes() -> list[int]:
    """All that this process may see."""
    return [int(name) for name in os.listdir("/proc") if name.isdigit()]  # noqa: PTH208 - a Path each is for nothing


def threads(pid: int) -> Iterator[int]:
    """Of a process; none when it ended."""
    try:
        names = os.listdir(f"/proc/{pid}/task")  # noqa: PTH208 - as above
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return
    yield from (int(name) for name in names)


def now_ticks() -> int:
    """In the unit of `start_ticks`."""
    return time.clock_gettime_ns(time.CLOCK_BOOTTIME) * _ticks_per_s() // 1_000_000_000


def us_of_ticks(ticks: int) -> int:
    """Of `start_ticks`: since the machine was started."""
    return ticks * 1_000_000 // _ticks_per_s()


@cache
def _ticks_per_s() -> int:
    return os.sysconf("SC_CLK_TCK")


def _leads(tid: int) -> bool:
    """It is the first thread of its process; False also where that cannot be told. Most are, and this costs little."""
    try:
        os.close(os.pidfd_open(tid))
    except OSError:
        return False
    return os.access(f"/proc/{tid}/stat", os.F_OK)  # unless /proc hides it


def _text(path: str) -> bytes | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError, PermissionError):
        return None
    try:
        return os.read(descriptor, 8192) or None
    except ProcessLookupError:
        return None
    finally:
        os.close(descriptor)
