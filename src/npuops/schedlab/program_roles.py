"""Who plays what where real programs are the load: which processes answer, and which work in bulk."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from npuops.hostsched.hint import Kind
from npuops.schedlab.process_family import family, threads


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
        return tuple(tid for pid in self.pids() for tid in threads(pid))


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
