"""Who is compared: settings by a script that knows the mix, or the agent with a policy that knows nothing of it.

A script is what an administrator could write (it knows what each task is for), or, for the oracle, what nobody can
(it knows what each task does in each phase). Scripts have no guard and no loop: they are set at the start of a phase.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Final

from npuops.eevdf.mix import Doing, Mix, Player
from npuops.eevdf.setting import DEFAULT, SchedPolicy, Setting
from npuops.hostsched.levels import IDLE
from npuops.hostsched.plan import NORMAL, Level

RESERVATION: Final = Setting(SchedPolicy.DEADLINE, runtime_us=1000, period_us=2000)
"""Half a CPU in every SLO of the fact sheet's apps: of the static reservations tried there the best."""
_MOST_RESERVED: Final = 0.95


class Role(StrEnum):
    """What a task is for, over the whole mix: as much as somebody knows who starts it."""

    APP = "app"
    """Serves in some phase."""
    BATCH = "batch"
    CHAT = "chat"
    """Hands bytes to and fro in some phase, and never serves."""


def role_of(player: Player) -> Role:
    """Of one task."""
    doings = {act.doing for act in player.acts}
    if Doing.SERVE in doings:
        return Role.APP
    return Role.CHAT if Doing.PIPE in doings else Role.BATCH


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the kernel is told.

    Attributes:
        settings: of each player, in the order of the mix.
        groups: nice of sessions that share a machine with others; empty where all are of one.
    """

    settings: tuple[Setting, ...]
    groups: Mapping[int, int] = field(default_factory=dict)


def assigned(mix: Mix, levels: Sequence[Level]) -> Assignment:
    """Levels as the kernel is told them; a session gets what the best of its tasks deserves, as under the agent."""
    sessions = sorted({player.session for player in mix.players})
    groups = {}
    if len(sessions) > 1:
        for session in sessions:
            members = [level for level, one in zip(levels, mix.players, strict=True) if one.session == session]
            groups[session] = min(level.group_nice or 0 for level in members)
    return Assignment(tuple(level.setting or DEFAULT for level in levels), groups)


def level(setting: Setting) -> Level:
    """This setting, also for the session of a task that is alone in it."""
    if setting == DEFAULT:
        return NORMAL
    if setting.policy is SchedPolicy.IDLE:
        return Level(str(setting), setting, IDLE.group_nice)
    nice = setting.nice if setting.policy in (SchedPolicy.OTHER, SchedPolicy.BATCH) else 0
    return Level(str(setting), setting, nice or None)


@dataclass(frozen=True, slots=True, kw_only=True)
class StaticRule:
    """One setting for each role, from beginning to end.

    Attributes:
        app: of tasks that serve in some phase.
        batch: of those that never do.
        chat: of pipes.
    """

    app: Setting = DEFAULT
    batch: Setting = DEFAULT
    chat: Setting = DEFAULT

    def levels(self, mix: Mix) -> tuple[Level, ...]:
        """Of each player."""
        found = {Role.APP: self.app, Role.BATCH: self.batch, Role.CHAT: self.chat}
        return tuple(level(found[role_of(player)]) for player in mix.players)

    def __str__(self) -> str:
        """`apps nice -5, batch nice 0, pipes nice 0`."""
        return f"apps {self.app}, batch {self.batch}, pipes {self.chat}"


Levels = Callable[[Mix, int], tuple[Level, ...]]
"""Of each player in a phase."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Scripted:
    """A rival that knows the mix.

    Attributes:
        name: in tables.
        levels: what it sets at the start of each phase.
        note: what it is, for people.
        reserves: it needs reservations, which the kernel gives only to tasks that are not pinned.
    """

    name: str
    levels: Levels
    note: str
    reserves: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class ByAgent:
    """The agent with a policy.

    Attributes:
        name: in tables.
        policy: as on the command line.
        note: what it is, for people.
        thresholds: file of the reactive rule's figures; None: its own.
        folder: of a learned policy; None: the one that ships.
        period_us: between looks.
    """

    name: str
    policy: str
    note: str
    thresholds: Path | None = None
    folder: Path | None = None
    period_us: int = 20_000


Rival = Scripted | ByAgent


def reserved(mix: Mix, _phase: int) -> tuple[Level, ...]:
    """A reservation for every app, the first ones of the mix, as many as the kernel admits."""
    left = _MOST_RESERVED * mix.cpus
    found = []
    for player in mix.players:
        fits = role_of(player) is Role.APP and RESERVATION.share <= left + 1e-9
        left -= RESERVATION.share if fits else 0
        found.append(level(RESERVATION) if fits else NORMAL)
    return tuple(found)


def left_alone(mix: Mix, _phase: int) -> tuple[Level, ...]:
    """Everything as the kernel sets it."""
    return (NORMAL,) * len(mix.players)


def by_rule(rules: Mapping[str, StaticRule], rule: StaticRule) -> Levels:
    """A static rule: that of the mix, if there is one of its name in `rules`; `rule` otherwise."""

    def levels(mix: Mix, _phase: int) -> tuple[Level, ...]:
        return rules.get(mix.name, rule).levels(mix)

    return levels
