"""Low priority on the host's processors for a process that prepares, so that those that answer come first.

Two ways, each taken only where it can be taken back:

- the nice value of its threads, where the process may lower it again (`CAP_SYS_NICE`, or `RLIMIT_NICE`);
- the nice value of its autogroup (sched(7)), which anybody may take back: where the kernel groups by session, and a
  worker is a session of its own, the nice value of a thread counts only against threads of the same session.

In a container with a limit of its own on processors, and without that capability, there is neither: nothing happens.
"""

from __future__ import annotations

import os
import resource
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

NICE: Final = 10
"""A tenth of the weight of a process at 0."""
_CAP_SYS_NICE: Final = 1 << 23
_LIMIT_OF_ZERO: Final = 20
"""RLIMIT_NICE counts the other way round (setrlimit(2))."""
_AUTOGROUP: Final = Path("/proc/self/autogroup")
_AUTOGROUPS: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")
_AGAIN_S: Final = 0.02
"""The kernel takes ten changes of autogroups a second from all who lack CAP_SYS_ADMIN together."""
_PATIENCE_S: Final = 5.0


@contextmanager
def in_background() -> Iterator[None]:
    """What happens within has low priority, in all threads of this process; those that it starts included."""
    niced, grouped = _may_take_nice_back(), _has_own_autogroup()
    if niced:
        _set_nice(NICE)
    if grouped:
        _set_autogroup(NICE)
    try:
        yield
    finally:
        if niced:
            _set_nice(0)
        if grouped:
            _set_autogroup(0)


def _may_take_nice_back() -> bool:
    if os.getpriority(os.PRIO_PROCESS, 0) != 0:
        return False  # somebody set it, and knows why
    soft, _ = resource.getrlimit(resource.RLIMIT_NICE)
    return soft >= _LIMIT_OF_ZERO or soft == resource.RLIM_INFINITY or _has_capability()


def _has_capability() -> bool:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & _CAP_SYS_NICE)
    return False


def _set_nice(value: int) -> None:
    """Of all threads: those that a library started meanwhile have it from their maker."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):
            os.setpriority(os.PRIO_PROCESS, int(thread.name), value)


def _has_own_autogroup() -> bool:
    """This process leads its session, the kernel groups by session, and nobody has changed the group's weight."""
    if os.getsid(0) != os.getpid():
        return False
    try:
        enabled = _AUTOGROUPS.read_text(encoding="ascii").strip() == "1"
        return enabled and _AUTOGROUP.read_text(encoding="ascii").split()[-1:] == ["0"]
    except OSError:
        return False


def _set_autogroup(value: int) -> None:
    """A change that the kernel puts off is tried again; one that it forbids leaves things as they are."""
    patience = time.monotonic() + _PATIENCE_S
    while True:
        try:
            _AUTOGROUP.write_text(str(value), encoding="ascii")
        except BlockingIOError:
            if time.monotonic() > patience:
                return
            time.sleep(_AGAIN_S)
        except OSError:
            return
        else:
            return
