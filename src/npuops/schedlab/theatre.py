"""Where rivals play: the kernel or the simulator, to the experiment they look alike."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Protocol

from npuops.eevdf.mix import Mix
from npuops.errors import NpuopsError
from npuops.hostsched.energy_meter import Energy
from npuops.hostsched.plan import NORMAL, Level
from npuops.schedlab.played import Action, AgentCost
from npuops.schedlab.recording import Recording
from npuops.schedlab.rivals import Rival, Scripted


class CannotPlayError(NpuopsError):
    """This rival cannot play this mix here; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Take:
    """One play.

    Attributes:
        recording: what became of it.
        actions: changes of levels; of an agent on the kernel only if the play was filmed.
        agent: what it took; None for scripts, and in the simulator.
        energy: of the whole machine meanwhile; None in the simulator.
    """

    recording: Recording
    actions: tuple[Action, ...]
    agent: AgentCost | None = None
    energy: Energy | None = None


class Theatre(Protocol):
    """Plays a rival."""

    def play(self, mix: Mix, rival: Rival, seed: int, *, hints: bool, filmed: bool) -> Take:
        """From beginning to end.

        Args:
            mix: what.
            rival: who.
            seed: of the arrivals.
            hints: the apps tell what they do.
            filmed: what the agent does is kept, which costs it a little.

        Raises:
            CannotPlayError: it cannot here.
            NpuopsError: the play broke off.
        """
        ...


def script_actions(mix: Mix, rival: Scripted) -> tuple[Action, ...]:
    """What a script does, phase by phase."""
    plans = [rival.levels(mix, phase) for phase in range(len(mix.phases_us))]
    return tuple(
        Action(start, player.name, after.name)
        for start, before, now in zip(mix.starts_us(), (_nothing(mix), *plans), plans, strict=False)
        for player, was, after in zip(mix.players, before, now, strict=True)
        if was != after
    )


def changes(moments: list[tuple[int, dict[str, str]]]) -> Iterator[Action]:
    """From the names of the levels that are not normal at each moment, what changed when."""
    for (_, before), (at_us, now) in pairwise([(0, {}), *moments]):
        for player in sorted(before.keys() | now.keys()):
            if before.get(player) != now.get(player):
                yield Action(at_us, player, now.get(player, NORMAL.name))


def _nothing(mix: Mix) -> tuple[Level, ...]:
    return (NORMAL,) * len(mix.players)
