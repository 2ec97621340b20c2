"""What the simulator is held against the kernel on: mixes of one phase, and settings that stay while they are played.

A cell is one mix under one setting. Players are named as in facts of section 7: apps A and B, hogs H, compilers C,
a pipe P; `app` in a setting's name means A and B, `others` all but A.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from types import MappingProxyType
from typing import Final

import numpy as np

from npuops.eevdf.mix import REST, Activity, Doing, Mix, Player
from npuops.eevdf.setting import Setting
from npuops.errors import OptionError, nearest
from npuops.hostsched.hint import Kind
from npuops.hostsched.static_policy import PREFIX, Term, parse_terms
from npuops.schedlab import mixes

DEFAULT: Final = "default"
_GROUPS: Final = "group"
"""Key of the nice value of sessions, in a setting's text: `group=-10@A` is no term of a static policy."""


@dataclass(frozen=True, slots=True)
class Treatment:
    """A setting for the players of a mix.

    Attributes:
        name: for tables.
        terms: as of a static policy; the first that fits a player counts.
        groups: nice values of sessions: pattern of a player's name, nice.
    """

    name: str
    terms: tuple[Term, ...] = ()
    groups: tuple[tuple[str, int], ...] = ()

    def setting(self, player: Player) -> Setting | None:
        """What this player is set to; None if it is left alone."""
        for term in self.terms:
            if _kind(player) is term.kind if term.kind is not None else fnmatchcase(player.name, term.pattern):
                return term.level.setting
        return None

    def group_nice(self, player: Player) -> int | None:
        """Nice value of this player's session; None if it is left alone."""
        return next((nice for pattern, nice in self.groups if fnmatchcase(player.name, pattern)), None)

    @property
    def reserves(self) -> bool:
        """Whether it asks for reservations, which the kernel refuses to a pinned task."""
        return any(term.level.setting is not None and term.level.setting.share for term in self.terms)


KNOWN: Final[Mapping[str, str]] = MappingProxyType(
    {
        DEFAULT: "",
        "apps slice 0.1": "slice=100us@[AB]",
        "apps nice -5": "nice=-5@[AB]",
        "apps nice -10": "nice=-10@[AB]",
        "A nice -10": "nice=-10@A",
        "A slice 0.1": "slice=100us@A",
        "hogs slice 20": "slice=20ms@[HC]*",
        "hogs idle": "idle@[HC]*",
        "hogs nice 19": "nice=19@[HC]*",
        "A 0.1, others 20": "slice=100us@A,slice=20ms@*",
        "others nice 19": "nice=0@A,nice=19@*",
        "others idle": "nice=0@A,idle@*",
        "reserve 1/2": "reserve=1000/2000@[AB]",
        "reserve 1/4": "reserve=1000/4000@[AB]",
        "A reserve 1/4": "reserve=1000/4000@A",
        "group -10": "group=-10@[AB]",
        "groups 10": "group=10@[HC]*",
    }
)
"""By name, in the words of a static policy (`group=N@WHOM` besides)."""

FITTED_ON: Final = frozenset({DEFAULT, "apps nice -5", "hogs nice 19"})
"""`--fit` looks at cells of these settings only; all others are held out."""


def one_phase(kind: int, hogs: int, cpus: int, seconds: float) -> Mix:
    """Phase 1 (an app that serves, one that computes, hogs) or 4 (bursts beside a chatty pipe) of section 7, alone."""
    whole = mixes.four_phase(hogs, cpus, seconds)
    players = tuple(replace(player, acts=player.acts[kind - 1 : kind]) for player in whole.players)
    name = {1: "interactive", 4: "burst"}[kind] + ("" if cpus == 1 else f"-{cpus}")
    kept = tuple(player for player in players if player.acts != (REST,))
    return Mix(name, whole.phases_us[:1], kept, cpus)


def build(cpus: int, seconds: float) -> Mix:
    """An app beside a build, whose jobs compute, wait for their files, and compute."""
    app = Activity(Doing.SERVE, work_us=500, gap_us=4000, slo_us=2000)
    job = Activity(Doing.CYCLE, work_us=5000, gap_us=700)
    jobs = [Player(f"C{number}", (job,)) for number in range(3 * cpus)]
    return Mix("build" if cpus == 1 else f"build-{cpus}", (round(seconds * 1e6),), (Player("A", (app,)), *jobs), cpus)


def apart(cpus: int, seconds: float) -> Mix:
    """An app and hogs, each in a session of its own."""
    whole = mixes.sessions(cpus)
    players = tuple(replace(player, acts=player.acts[:1]) for player in whole.players)
    return Mix("apart" if cpus == 1 else f"apart-{cpus}", (round(seconds * 1e6),), players, cpus)


MIXES: Final[Mapping[str, Callable[[float], Mix]]] = MappingProxyType(
    {
        "interactive": lambda seconds: one_phase(1, 2, 1, seconds),
        "burst": lambda seconds: one_phase(4, 2, 1, seconds),
        "build": lambda seconds: build(1, seconds),
        "apart": lambda seconds: apart(1, seconds),
        "interactive-2": lambda seconds: one_phase(1, 4, 2, seconds),
        "burst-2": lambda seconds: one_phase(4, 4, 2, seconds),
    }
)
"""By name: of so many seconds."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A mix under a setting."""

    mix: Mix
    treatment: Treatment

    @property
    def held_out(self) -> bool:
        """Whether nothing is ever fitted to it."""
        return self.treatment.name not in FITTED_ON


def cells(names: Sequence[str], treatments: Sequence[Treatment], seconds: float) -> tuple[Cell, ...]:
    """Every mix under every setting that means something there: the default first.

    Reservations need all CPUs of the machine, so they are for mixes on more than one; nice values of sessions mean
    nothing in a mix of one session.

    Raises:
        OptionError: no mix of this name.
    """
    found = []
    for name in names:
        mix = mix_of(name, seconds)
        apart_ = len({player.session for player in mix.players}) > 1
        for treatment in treatments:
            lost = (treatment.reserves and mix.cpus == 1) or (treatment.groups and not apart_)
            idle = treatment.name != DEFAULT and not any(
                treatment.setting(player) or treatment.group_nice(player) is not None for player in mix.players
            )
            if not lost and not idle:
                found.append(Cell(mix, treatment))
    return tuple(found)


def mix_of(name: str, seconds: float) -> Mix:
    """A mix of this file of so many seconds, or one of those that rivals are judged on, as it is.

    Raises:
        OptionError: there is none of this name.
    """
    if name in MIXES:
        return MIXES[name](seconds)
    known = {**mixes.HELD_OUT, **mixes.CONTROLS}
    if name not in known:
        raise OptionError(f"no mix is called {name!r}", advice=nearest(name, {**MIXES, **known}))
    return known[name]()


def treatment_of(text: str) -> Treatment:
    """A setting by its name, or as a static policy writes it: `nice=-10@A,idle@H*`, `group=-10@A`.

    Raises:
        OptionError: it cannot be read.
    """
    words = KNOWN.get(text, text.removeprefix(PREFIX))
    if not words:
        return Treatment(text)
    if "@" not in words:
        raise OptionError(f"no setting is called {text!r}", advice=nearest(text, KNOWN))
    parts = [part.strip() for part in words.split(",")]
    groups = tuple(_group(part) for part in parts if part.startswith(f"{_GROUPS}="))
    terms = [part for part in parts if not part.startswith(f"{_GROUPS}=")]
    return Treatment(text, parse_terms(",".join(terms)) if terms else (), groups)


def random_treatments(count: int, seed: int) -> tuple[Treatment, ...]:
    """Settings that nobody chose: app, its rival and the rest each get a nice value, a slice, or SCHED_IDLE."""
    random = np.random.default_rng([seed, count])
    return tuple(treatment_of(",".join(f"{_drawn(random)}@{whom}" for whom in ("A", "B", "*"))) for _ in range(count))


def _drawn(random: np.random.Generator) -> str:
    nice = f"nice={random.integers(-10, 20)}"
    return str(random.choice([nice, nice, f"{nice}+slice={random.choice([100, 500, 3000, 20_000])}us", "idle"]))


def _group(text: str) -> tuple[str, int]:
    nice, at, whom = text.removeprefix(f"{_GROUPS}=").partition("@")
    try:
        return (whom if at else "*", int(nice))
    except ValueError as error:
        raise OptionError(f"{text!r} is not group=NICE@WHOM", advice="for example: group=-10@A") from error


def _kind(player: Player) -> Kind:
    doings = {act.doing for act in player.acts}
    if Doing.SERVE in doings:
        return Kind.LATENCY
    return Kind.BACKGROUND if Doing.PIPE in doings else Kind.BATCH
