"""The mixes that rivals are judged on, by name. `training_mixes.py` draws those that policies learn from.

No policy learns from these: every request, burst and turn here takes a CPU time within `RESERVED_US`, and no training
mix draws one from there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final

from npuops.eevdf.mix import REST, Activity, Doing, Mix, Player
from npuops.errors import OptionError, nearest

RESERVED_US: Final[Mapping[Doing, tuple[tuple[int, int], ...]]] = MappingProxyType(
    {Doing.SERVE: ((450, 550), (950, 1050)), Doing.CYCLE: ((1900, 2100), (4800, 5200)), Doing.PIPE: ((25, 35),)}
)
"""CPU times of the mixes in this file, both ends included, by what a task does."""

_SLO_US: Final = 2000
_INTERACTIVE: Final = Activity(Doing.SERVE, work_us=500, gap_us=4000, slo_us=_SLO_US)
_BURST: Final = Activity(Doing.SERVE, work_us=500, gap_us=1100, periodic=True, slo_us=_SLO_US)
"""45 % of a CPU: above its fair share beside two others."""
_BULK: Final = Activity(Doing.COMPUTE)
_HOG: Final = Activity(Doing.SCAN)
_CHAT: Final = Activity(Doing.PIPE, work_us=30)

_BY_PHASE: Final = {
    1: (_INTERACTIVE, _BULK, REST),
    2: (_BULK, _INTERACTIVE, REST),
    3: (REST, REST, REST),
    4: (_BURST, REST, _CHAT),
}
"""What apps A and B and the pipe do in each phase of facts/scheduling.md, section 7."""


def four_phase(hogs: int = 2, cpus: int = 1, phase_s: float = 2.5) -> Mix:
    """The mix of section 7: two apps that swap roles, hogs, and at last bursts beside a chatty pipe."""
    return _phased("four-phase" if cpus == 1 else f"four-phase-{cpus}", (1, 2, 3, 4), hogs, cpus, phase_s)


def fast_phases(hogs: int = 2, cpus: int = 1, phase_s: float = 0.4) -> Mix:
    """The same roles, but they last six times 0.4 s only: whoever is slow to see it is always late."""
    return _phased("fast-phases" if cpus == 1 else f"fast-phases-{cpus}", (1, 2, 4, 1, 2, 4), hogs, cpus, phase_s)


def _phased(name: str, kinds: Sequence[int], hogs: int, cpus: int, phase_s: float) -> Mix:
    a, b, chat = ([_BY_PHASE[kind][column] for kind in kinds] for column in range(3))
    players = [Player("A", tuple(a)), Player("B", tuple(b)), *_hogs(hogs, len(kinds))]
    players += [Player("P0", tuple(chat), peer="P1"), Player("P1", tuple(chat), peer="P0")]
    return Mix(name, (round(phase_s * 1e6),) * len(kinds), tuple(players), cpus)


def _hogs(count: int, phases: int, *, first_session: int | None = None) -> list[Player]:
    """`count` tasks that scan memory throughout; each in a session of its own if there is a first one."""
    return [
        Player(f"H{number}", (_HOG,) * phases, session=0 if first_session is None else first_session + number)
        for number in range(count)
    ]


def role_changes(cpus: int = 1) -> Mix:
    """Three apps of which now one serves and the others compute, now two, in phases of uneven length."""
    turns = ("sbb", "bsb", "bbs", "ssb", "rbs", "bsr", "srs", "bbs")
    lengths_us = (1_300_000, 500_000, 900_000, 1_700_000, 400_000, 1_100_000, 700_000, 600_000)
    acts = {"s": _INTERACTIVE, "b": _BULK, "r": REST}
    apps = [Player(name, tuple(acts[turn[number]] for turn in turns)) for number, name in enumerate("ABC")]
    return Mix("role-changes", lengths_us, (*apps, *_hogs(cpus, len(turns))), cpus)


def crowd(cpus: int = 2) -> Mix:
    """Six apps that each want 0.4 of a CPU, three at a time: reservations for all of them do not fit two CPUs."""
    busy = Activity(Doing.SERVE, work_us=1000, gap_us=2500, slo_us=4000)
    at_work = ((0, 1, 2), (3, 4, 5), (0, 2, 4), (1, 3, 5), (0, 4, 5))
    apps = [Player(f"A{number}", tuple(busy if number in phase else REST for phase in at_work)) for number in range(6)]
    return Mix("crowd", (1_600_000,) * len(at_work), (*apps, *_hogs(2 * cpus, len(at_work))), cpus)


def sessions(cpus: int = 1) -> Mix:
    """Every task in a session of its own, where its nice value counts for nothing against the others."""
    kinds = (1, 2, 4)
    a, b, _ = ([_BY_PHASE[kind][column] for kind in kinds] for column in range(3))
    players = (Player("A", tuple(a), 0), Player("B", tuple(b), 1), *_hogs(3 * cpus, len(kinds), first_session=2))
    return Mix("sessions" if cpus == 1 else f"sessions-{cpus}", (2_000_000,) * len(kinds), players, cpus)


def cycles(cpus: int = 1) -> Mix:
    """A build beside two apps: its jobs compute, wait for their files, compute; they look interactive and are not."""
    compiler = Activity(Doing.CYCLE, work_us=5000, gap_us=700)
    linker = Activity(Doing.CYCLE, work_us=2000, gap_us=3000, periodic=True)
    acts = (_INTERACTIVE, _INTERACTIVE, REST, _BURST)
    players = [Player("A", acts), Player("B", (REST, _INTERACTIVE, _INTERACTIVE, REST))]
    players += [Player(f"C{number}", (compiler,) * 4) for number in range(3 * cpus)]
    players += [Player("L", (REST, linker, linker, linker))]
    return Mix("cycles", (1_500_000,) * 4, tuple(players), cpus)


def idle(cpus: int = 1) -> Mix:
    """Nearly nothing to do: nothing to win, and nothing may be lost."""
    rare = Activity(Doing.SERVE, work_us=500, gap_us=50_000, slo_us=_SLO_US)
    now_and_then = Activity(Doing.CYCLE, work_us=2000, gap_us=80_000)
    return Mix("idle", (4_000_000,), (Player("A", (rare,)), Player("B", (now_and_then,))), cpus)


def pure_batch(cpus: int = 1) -> Mix:
    """Nobody waits for an answer."""
    players = (Player("B", (_BULK,)), *_hogs(2 * cpus, 1), Player("C", (Activity(Doing.CYCLE, 5000, 1000),)))
    return Mix("pure-batch", (4_000_000,), players, cpus)


def pure_latency(cpus: int = 1) -> Mix:
    """Only apps, which fit: 0.3 of each CPU."""
    calm = Activity(Doing.SERVE, work_us=500, gap_us=5000, slo_us=_SLO_US)
    return Mix("pure-latency", (4_000_000,), tuple(Player(f"A{number}", (calm,)) for number in range(3 * cpus)), cpus)


def stationary(cpus: int = 1) -> Mix:
    """One app, hogs, and nothing ever changes: the best static setting is the best."""
    return Mix("stationary", (5_000_000,), (Player("A", (_INTERACTIVE,)), *_hogs(2 * cpus, 1)), cpus)


HELD_OUT: Final[Mapping[str, Callable[[], Mix]]] = MappingProxyType(
    {
        "four-phase": four_phase,
        "four-phase-2": lambda: four_phase(hogs=4, cpus=2, phase_s=2.0),
        "fast-phases": fast_phases,
        "fast-phases-2": lambda: fast_phases(hogs=4, cpus=2),
        "role-changes": role_changes,
        "crowd": crowd,
        "sessions": sessions,
        "sessions-2": lambda: sessions(cpus=2),
        "cycles": cycles,
    }
)
"""Where a policy can win."""

CONTROLS: Final[Mapping[str, Callable[[], Mix]]] = MappingProxyType(
    {"idle": idle, "pure-batch": pure_batch, "pure-latency": pure_latency, "stationary": stationary}
)
"""Where it can only lose."""


def by_name(name: str) -> Mix:
    """The mix of this name.

    Raises:
        OptionError: there is none.
    """
    known = {**HELD_OUT, **CONTROLS}
    if name not in known:
        raise OptionError(f"no mix is called {name!r}", advice=nearest(name, known))
    return known[name]()


def is_reserved(doing: Doing, work_us: int) -> bool:
    """Whether work of this length belongs to the mixes above."""
    return any(low <= work_us <= high for low, high in RESERVED_US.get(doing, ()))
