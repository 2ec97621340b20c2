"""A process and what descends from it: who they are, and the CPU time that they took."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_TICK_US: Final = 1_000_000 // os.sysconf("SC_CLK_TCK")


def family(pid: int) -> Iterator[int]:
    """This process and its descendants, as of now; nothing when it has ended."""
    if not Path(f"/proc/{pid}").exists():
        return
    yield pid
    for tid in threads(pid):
        for word in _text(Path(f"/proc/{pid}/task/{tid}/children")).split():
            yield from family(int(word))


def threads(pid: int) -> list[int]:
    """Of one process, as of now; none when it has ended."""
    try:
        return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []


def family_cpu_us(pid: int) -> int:
    """CPU time of a family, and of those of it that ended and were waited for, in whole ticks of the kernel."""
    return sum(_cpu_ticks(one) for one in family(pid)) * _TICK_US


def living_cpu_ns(pid: int) -> int:
    """CPU time of those of a family who live, to the nanosecond, as of their last ticks; without who ended."""
    return sum(run_ns(tid) for one in family(pid) for tid in threads(one))


def run_ns(tid: int) -> int:
    """CPU time of one thread; 0 when it has ended."""
    words = _text(Path(f"/proc/{tid}/schedstat")).split()
    return int(words[0]) if words else 0


def _cpu_ticks(pid: int) -> int:
    text = _text(Path(f"/proc/{pid}/stat"))
    return sum(int(word) for word in text[text.rindex(")") + 2 :].split()[11:15]) if text else 0  # u-, s-, cu-, cstime


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii", errors="replace")
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return ""
