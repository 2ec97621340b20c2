"""A mix of loads: who does what in which phase. The simulator and the real machine play the same one.

Requests arrive in an open loop, at instants that depend on the mix and the seed alone: whatever a scheduler does, the
next rival is asked the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import OptionError

_CUT: Final = 4.0
"""A random gap is at most so many means: a phase of two seconds must not be empty by luck."""


class Doing(StrEnum):
    """What a task does in one phase."""

    REST = "rest"
    SERVE = "serve"
    """Requests arrive, each takes some work; the answer should be there within the SLO."""
    COMPUTE = "compute"
    """Works without end in the processor's caches."""
    SCAN = "scan"
    """Works without end on a megabyte of memory: a change of task costs it its cache."""
    CYCLE = "cycle"
    """Works, sleeps, works: a compiler that reads files, a job that waits for its disk."""
    PIPE = "pipe"
    """Hands a byte to its peer and waits for one, after a little work on each: chatty, and nobody waits for it."""


@dataclass(frozen=True, slots=True)
class Activity:
    """One task in one phase.

    Attributes:
        doing: what.
        work_us: CPU time of a request (SERVE), of a burst (CYCLE), of a turn (PIPE).
        gap_us: mean time between arrivals (SERVE), sleep between bursts (CYCLE).
        periodic: arrivals at equal distances; otherwise exponential gaps, cut at four means.
        slo_us: an answer later than this after its arrival is a miss (SERVE).
    """

    doing: Doing
    work_us: int = 0
    gap_us: int = 0
    periodic: bool = False
    slo_us: int = 0

    def __post_init__(self) -> None:
        """Refuse an activity without its figures.

        Raises:
            OptionError: one is missing.
        """
        needs = {
            Doing.SERVE: ("work_us", "gap_us", "slo_us"),
            Doing.CYCLE: ("work_us", "gap_us"),
            Doing.PIPE: ("work_us",),
        }
        for name in needs.get(self.doing, ()):
            if getattr(self, name) <= 0:
                raise OptionError(f"a task that should {self.doing} needs {name}")


REST: Final = Activity(Doing.REST)


@dataclass(frozen=True, slots=True)
class Player:
    """One task of a mix.

    Attributes:
        name: unique within the mix.
        acts: what it does, phase by phase.
        session: tasks of one session share an autogroup; nice counts only within it.
        peer: name of the other end of its pipe, for PIPE.
    """

    name: str
    acts: tuple[Activity, ...]
    session: int = 0
    peer: str = ""


@dataclass(frozen=True, slots=True)
class Mix:
    """Who does what, when.

    Attributes:
        name: for tables.
        phases_us: how long each phase lasts.
        players: at least one.
        cpus: so many CPUs are theirs (tasks are pinned to them on the real machine).
    """

    name: str
    phases_us: tuple[int, ...]
    players: tuple[Player, ...]
    cpus: int = 1

    def __post_init__(self) -> None:
        """Refuse a mix that cannot be played.

        Raises:
            OptionError: names twice, an act too few, a pipe without its other end.
        """
        names = [player.name for player in self.players]
        if len(set(names)) != len(names) or not names:
            raise OptionError(f"mix {self.name}: players need names of their own, and there must be one")
        by_name = {player.name: player for player in self.players}
        for player in self.players:
            if len(player.acts) != len(self.phases_us):
                raise OptionError(
                    f"mix {self.name}: {player.name} has {len(player.acts)} acts, {len(self.phases_us)} phases"
                )
            if any(act.doing is Doing.PIPE for act in player.acts):
                peer = by_name.get(player.peer)
                if peer is None or peer.peer != player.name:
                    raise OptionError(f"mix {self.name}: the pipe of {player.name} has no other end")

    @property
    def duration_us(self) -> int:
        """Of all phases."""
        return sum(self.phases_us)

    def starts_us(self) -> tuple[int, ...]:
        """When each phase begins, and where the last one ends."""
        return tuple(np.cumsum((0, *self.phases_us)).tolist())


def arrivals_ns(mix: Mix, player: Player, seed: int) -> NDArray[np.int64]:
    """When this player's requests arrive, in ns since the mix began, rising; empty for one that never serves.

    Each phase draws from a stream of its own, so that a change of one phase moves no other.
    """
    starts = mix.starts_us()
    found = [
        start * 1000 + _of_phase(act, length, np.random.default_rng([seed, mix.players.index(player), number]))
        for number, (act, start, length) in enumerate(zip(player.acts, starts, mix.phases_us, strict=False))
        if act.doing is Doing.SERVE
    ]
    return np.concatenate(found) if found else np.empty(0, np.int64)


def _of_phase(act: Activity, length_us: int, random: np.random.Generator) -> NDArray[np.int64]:
    count = int(length_us / act.gap_us * 2) + 16
    if act.periodic:
        gaps = np.full(count, float(act.gap_us))
        gaps[0] = random.random() * act.gap_us
    else:
        gaps = np.minimum(random.exponential(act.gap_us, count), _CUT * act.gap_us)
    while gaps.sum() < length_us:
        gaps = np.concatenate([gaps, gaps])
    instants = np.cumsum(gaps)
    found: NDArray[np.int64] = (instants[instants < length_us] * 1000).astype(np.int64)
    return found
