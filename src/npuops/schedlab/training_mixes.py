"""Mixes that policies learn from: drawn by a seed, each another machine full of work."""

from __future__ import annotations

import math
from typing import Final

import numpy as np

from npuops.eevdf.mix import REST, Activity, Doing, Mix, Player
from npuops.schedlab.mixes import is_reserved

LEAST_TASKS, MOST_TASKS = 2, 12
PHASES_US: Final = (300_000, 3_000_000)
SERVE_US: Final = (100, 3000)
CYCLE_US: Final = (300, 12_000)
PIPE_US: Final = (8, 120)
_GRID_US: Final = 10_000
_SHARE: Final = (0.03, 0.55)
"""Of a CPU that one app wants."""
_MOST_LOAD: Final = 0.85
"""Of all CPUs that the apps may want together: more than that nobody can serve, and nothing is learned."""
_SLO: Final = (2.0, 8.0)
"""In times of the work."""
_LOYAL: Final = (0.15, 0.8)
"""In which share of the phases an app that changes its role goes on serving: some serve now and then only."""
_LEAST_SLO_US: Final = 500


def training_mix(seed: int, cpus: int = 1) -> Mix:
    """Draw a mix: 2 to 12 tasks in 2 to 6 phases of 0.3 to 3 s; apps that change their role, batch, builds, pipes.

    Never draws work that is reserved for the mixes that rivals are judged on (`mixes.RESERVED_US`).
    """
    random = np.random.default_rng([seed, cpus])
    lengths = tuple(_log_uniform(random, PHASES_US, _GRID_US) for _ in range(int(random.integers(2, 7))))
    count = int(random.integers(LEAST_TASKS, MOST_TASKS + 1))
    pipes = int(random.random() < 0.35 and count >= 4)
    apps = min(max(1, int(random.binomial(count, 0.35))), count - 2 * pipes)
    grouped = random.random() < 0.35
    players = [
        Player(f"A{number}", _app(random, len(lengths)), _session(random, grouped=grouped)) for number in range(apps)
    ]
    players += [
        Player(f"H{number}", _batch(random, len(lengths)), _session(random, grouped=grouped))
        for number in range(count - apps - 2 * pipes)
    ]
    if pipes:
        acts, session = _chat(random, len(lengths)), _session(random, grouped=grouped)
        players += [Player("P0", acts, session, "P1"), Player("P1", acts, session, "P0")]
    return Mix(f"training-{seed}", lengths, tuple(_bearable(players, cpus)), cpus)


def _session(random: np.random.Generator, *, grouped: bool) -> int:
    return int(random.integers(0, 4)) if grouped else 0


def _app(random: np.random.Generator, phases: int) -> tuple[Activity, ...]:
    """Serves; now and then it does something else, or serves another kind of request."""
    changes = random.random() < 0.6
    loyal = random.uniform(*_LOYAL)
    serving = _serve(random)
    acts = []
    for _ in range(phases):
        drawn = (random.random() - loyal) / (1 - loyal) if changes else -1.0
        if drawn < 0:
            acts.append(serving)
        elif drawn < 0.3:
            serving = _serve(random)
            acts.append(serving)
        elif drawn < 0.6:
            acts.append(REST)
        else:
            acts.append(_endless(random))
    return tuple(acts)


def _serve(random: np.random.Generator) -> Activity:
    work = _work(random, Doing.SERVE, SERVE_US)
    gap = math.ceil(work / _log_uniform_real(random, _SHARE))
    slo = max(_LEAST_SLO_US, round(work * _log_uniform_real(random, _SLO) / 100) * 100)
    return Activity(Doing.SERVE, work, gap, bool(random.random() < 0.25), slo)


def _endless(random: np.random.Generator) -> Activity:
    return Activity(Doing.SCAN if random.random() < 0.5 else Doing.COMPUTE)


def _batch(random: np.random.Generator, phases: int) -> tuple[Activity, ...]:
    """Works without end, or in bursts; some of it comes and goes."""
    usual = _endless(random)
    if random.random() < 0.3:
        work = _work(random, Doing.CYCLE, CYCLE_US)
        gap = _log_uniform(random, (200, 10_000), 10)
        usual = Activity(Doing.CYCLE, work, gap, bool(random.random() < 0.5))
    rests = 0.3 if random.random() < 0.4 else 0.0
    return tuple(REST if random.random() < rests else usual for _ in range(phases))


def _chat(random: np.random.Generator, phases: int) -> tuple[Activity, ...]:
    chatting = Activity(Doing.PIPE, _work(random, Doing.PIPE, PIPE_US))
    return tuple(chatting if random.random() < 0.6 else REST for _ in range(phases))


def _bearable(players: list[Player], cpus: int) -> list[Player]:
    """The same with fewer requests in the phases in which the apps together want more than they can get."""
    phases = len(players[0].acts)
    loads = [
        sum(act.work_us / act.gap_us for act in (one.acts[phase] for one in players) if act.doing is Doing.SERVE)
        for phase in range(phases)
    ]
    stretch = [max(1.0, load / (_MOST_LOAD * cpus)) for load in loads]
    return [
        Player(
            one.name,
            tuple(_stretched(act, factor) for act, factor in zip(one.acts, stretch, strict=True)),
            one.session,
            one.peer,
        )
        for one in players
    ]


def _stretched(act: Activity, factor: float) -> Activity:
    if act.doing is not Doing.SERVE or factor == 1.0:
        return act
    return Activity(Doing.SERVE, act.work_us, math.ceil(act.gap_us * factor), act.periodic, act.slo_us)


def _work(random: np.random.Generator, doing: Doing, bounds_us: tuple[int, int]) -> int:
    while is_reserved(doing, found := _log_uniform(random, bounds_us, 1)):
        pass
    return found


def _log_uniform(random: np.random.Generator, bounds: tuple[int, int], grid: int) -> int:
    return min(bounds[1], max(bounds[0], round(_log_uniform_real(random, bounds) / grid) * grid))


def _log_uniform_real(random: np.random.Generator, bounds: tuple[float, float]) -> float:
    return float(math.exp(random.uniform(math.log(bounds[0]), math.log(bounds[1]))))
