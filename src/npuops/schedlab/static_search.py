"""Looks for the best static setting by trying all of a grid in the simulator: a baseline should be the best it can be.

Two winners: the one with the most requests in time, whatever it costs the others, and the best of those that leave
every batch task its fair part.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Final

from npuops.eevdf.mix import Mix
from npuops.eevdf.rules import Rules
from npuops.eevdf.setting import DEFAULT, SchedPolicy, Setting
from npuops.hostsched.objective import WEIGHTS
from npuops.schedlab.comparison import progress_by_task
from npuops.schedlab.outcome import Outcome, judge
from npuops.schedlab.rivals import Scripted, StaticRule, by_rule
from npuops.schedlab.simulated_theatre import play_scripted

FAIR: Final = WEIGHTS.floor
"""Of the default's progress, for the slowest batch task of a scene, in the mean over scenes."""
_APPS: Final = (
    *(Setting(nice=nice) for nice in (0, -5, -10, -20)),
    Setting(slice_us=100),
    Setting(nice=-5, slice_us=100),
)
_BATCH: Final = (
    *(Setting(nice=nice) for nice in (0, 5, 10, 19)),
    Setting(SchedPolicy.IDLE),
    Setting(SchedPolicy.BATCH),
    Setting(slice_us=20_000),
)


@dataclass(frozen=True, slots=True)
class Trial:
    """One static rule over all scenes.

    Attributes:
        rule: what was tried.
        slo_share: mean over the scenes with requests.
        worst_progress: of the slowest batch task, mean over the scenes with batch tasks.
    """

    rule: StaticRule
    slo_share: float
    worst_progress: float


@dataclass(frozen=True, slots=True)
class Searched:
    """What came of it.

    Attributes:
        trials: all, in the order of the grid.
        best: the most requests in time.
        best_fair: of those whose `worst_progress` is `FAIR` or more; the default always is.
    """

    trials: tuple[Trial, ...]
    best: Trial
    best_fair: Trial


@dataclass(frozen=True, slots=True)
class Place:
    """Where a rule is tried: a mix, the seed of its arrivals, and the kernel's rules."""

    mix: Mix
    seed: int
    rules: Rules


def grid() -> Iterator[StaticRule]:
    """Every combination; pipes like the batch, or left alone."""
    for app, batch in product(_APPS, _BATCH):
        yield StaticRule(app=app, batch=batch, chat=batch)
        if batch != DEFAULT:
            yield StaticRule(app=app, batch=batch)


def search(
    places: Sequence[Place],
    rules: Sequence[StaticRule] = (),
    told: Callable[[int, int], None] = lambda _done, _all: None,
) -> Searched:
    """Try every rule in every scene.

    Args:
        places: where; at least one.
        rules: which; all of `grid` if none is given. The default is always among them.
        told: hears how many are done, of how many.
    """
    wanted = list(dict.fromkeys([StaticRule(), *(rules or grid())]))
    defaults = [_outcome(StaticRule(), place) for place in places]
    trials = []
    for number, rule in enumerate(wanted):
        trials.append(_trial(rule, [_outcome(rule, place) for place in places], defaults))
        told(number + 1, len(wanted))
    fair = [trial for trial in trials if trial.worst_progress >= FAIR]
    return Searched(tuple(trials), max(trials, key=_merit), max(fair, key=_merit))


def _merit(trial: Trial) -> tuple[float, float]:
    return trial.slo_share, trial.worst_progress


def _trial(rule: StaticRule, outcomes: Sequence[Outcome], defaults: Sequence[Outcome]) -> Trial:
    shares = [one.slo_share for one in outcomes if one.slo_share is not None]
    worst = [
        min(found.values())
        for one, default in zip(outcomes, defaults, strict=True)
        if (found := progress_by_task(one, default))
    ]
    return Trial(rule, _mean(shares), _mean(worst))


def _mean(values: Sequence[float]) -> float:
    """1 where there is nothing to lose."""
    return sum(values) / len(values) if values else 1.0


def _outcome(rule: StaticRule, place: Place) -> Outcome:
    rival = Scripted(name=str(rule), levels=by_rule({}, rule), note="")
    return judge(play_scripted(place.mix, rival, place.seed, place.rules), rival.name)
