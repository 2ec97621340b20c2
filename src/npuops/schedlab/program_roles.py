"""Who plays what where real programs are the load: which processes answer, and which work in bulk."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from npuops.hostsched.hint import Kind

_TICK_US: Final = 1_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True, slots=True)
class ProgramRole:
    """One program of a load, in a session of its own, as a desktop or an init system would start it.

    Attributes:
        name: for tables.
        kind: LATENCY answers, BATCH works in bulk.
        pid: its first process, which leads the session; all that descends from it is of this role.
        patterns: of commands, as an agent is told whom to set (`hostsched.selection`); no other role has them.
    """

    name: str
    kind: Kind
    pid: int
    patterns: tuple[str, ...]

    def pids(self) -> tuple[int, ...]:
        """Its processes as of now, the first one first; empty once it has ended."""
        return tuple(family(self.pid))

    def tids(self) -> tuple[int, ...]:
        """Their threads as of now."""
        return tuple(tid for pid in self.pids() for tid in _threads(pid))


@dataclass(frozen=True, slots=True)
class Roles:
    """All programs of a load.

    Attributes:
        all: of them.
        folder: of this play. Programs that send hints send them to `hints.sock` there, whether or not anybody hears.
    """

    all: tuple[ProgramRole, ...]
    folder: Path

    @property
    def latency(self) -> tuple[ProgramRole, ...]:
        """Those that answer."""
        return tuple(role for role in self.all if role.kind is Kind.LATENCY)

    @property
    def batch(self) -> tuple[ProgramRole, ...]:
        """Those that work in bulk."""
        return tuple(role for role in self.all if role.kind is Kind.BATCH)

    @property
    def roots(self) -> tuple[int, ...]:
        """The first process of each: for `--children-of`."""
        return tuple(role.pid for role in self.all)

    @property
    def patterns(self) -> tuple[str, ...]:
        """Of all: for `--match`."""
        return tuple(pattern for role in self.all for pattern in role.patterns)


def family(pid: int) -> Iterator[int]:
    """This process and its descendants, as of now; nothing when it has ended."""
    if not Path(f"/proc/{pid}").exists():
        return
    yield pid
    for tid in _threads(pid):
        try:
            words = Path(f"/proc/{pid}/task/{tid}/children").read_text(encoding="ascii").split()
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        for word in words:
            yield from family(int(word))


def family_cpu_us(pid: int) -> int:
    """CPU time of this process, of its descendants, and of those of them that ended and were waited for, in us."""
    return sum(_cpu_ticks(one) for one in family(pid)) * _TICK_US


def _cpu_ticks(pid: int) -> int:
    try:
        text = Path(f"/proc/{pid}/stat").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(word) for word in text[text.rindex(b")") + 2 :].split()[11:15])  # utime stime cutime cstime


def _threads(pid: int) -> list[int]:
    try:
        return [int(task.name) for task in Path(f"/proc/{pid}/task").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return []
