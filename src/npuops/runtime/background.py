"""Low priority on the host's processors for processes that prepare, so that those that answer come first.

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
from dataclasses import dataclass
from pathlib import Path
from typing import Final

NICE: Final = 10
"""A tenth of the weight of a process at 0."""
_CAP_SYS_NICE: Final = 1 << 23
_LIMIT_OF_ZERO: Final = 20
"""RLIMIT_NICE counts the other way round (setrlimit(2))."""
_AUTOGROUPS: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")
AGAIN_S: Final = 0.02
"""The kernel takes ten changes of autogroups a second from all who lack CAP_SYS_ADMIN together."""
_PATIENCE_S: Final = 5.0


@contextmanager
def in_background() -> Iterator[None]:
    """What happens within has low priority, in all threads of this process; those that it starts included."""
    lowered = send_to_background(os.getpid())
    try:
        yield
    finally:
        patience = time.monotonic() + _PATIENCE_S
        while not bring_forward(os.getpid(), lowered) and time.monotonic() < patience:
            time.sleep(AGAIN_S)


@dataclass(frozen=True, slots=True)
class Lowered:
    """What was done to a process: only that is taken back, and not what somebody else set, who knows why."""

    nice: bool = False
    autogroup: bool = False


def send_to_background(pid: int) -> Lowered:
    """Lower the priority of a process of ours, in the ways that can be taken back."""
    nice = _may_take_nice_back() and os.getpriority(os.PRIO_PROCESS, pid) == 0
    if nice:
        _set_nice(pid, NICE)
    return Lowered(nice, _has_fresh_autogroup(pid) and _set_autogroup(pid, NICE))


def bring_forward(pid: int, lowered: Lowered) -> bool:
    """Undo `send_to_background`; False where the kernel puts it off: then try again after `AGAIN_S`."""
    if lowered.nice:
        _set_nice(pid, 0)
    return not lowered.autogroup or _set_autogroup(pid, 0)


def _may_take_nice_back() -> bool:
    soft, _ = resource.getrlimit(resource.RLIMIT_NICE)
    return soft >= _LIMIT_OF_ZERO or soft == resource.RLIM_INFINITY or _has_capability()


def _has_capability() -> bool:
    for line in Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines():
        if line.startswith("CapEff:"):
            return bool(int(line.split()[1], 16) & _CAP_SYS_NICE)
    return False


def _set_nice(pid: int, value: int) -> None:
    """Of all threads: those that a library started meanwhile have it from their maker."""
    with suppress(FileNotFoundError, ProcessLookupError):  # it ended
        for thread in Path(f"/proc/{pid}/task").iterdir():
            with suppress(ProcessLookupError):
                os.setpriority(os.PRIO_PROCESS, int(thread.name), value)


def _has_fresh_autogroup(pid: int) -> bool:
    """It leads its session, the kernel groups by session, and nobody has changed the group's weight."""
    try:
        if os.getsid(pid) != pid or _AUTOGROUPS.read_text(encoding="ascii").strip() != "1":
            return False
        return _autogroup(pid).read_text(encoding="ascii").split()[-1:] == ["0"]
    except OSError:
        return False


def _set_autogroup(pid: int, value: int) -> bool:
    """False where the kernel puts the change off; one that it forbids leaves things as they are."""
    try:
        _autogroup(pid).write_text(str(value), encoding="ascii")
    except BlockingIOError:
        return False
    except OSError:
        return True
    return True


def _autogroup(pid: int) -> Path:
    return Path(f"/proc/{pid}/autogroup")
