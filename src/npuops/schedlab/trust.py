"""How far to follow the network: found by playing, for forecasts alone cannot tell it.

Of many candidates the one whose forecast is the best is often the one whose forecast errs the most. Two numbers keep
that in bounds: by how much a plan must beat the rule's, and how much a forecast loss of the slowest batch task counts,
which as the least of many forecasts is too low as a rule. Where applications tell for whom somebody waits, the rule is
nearly as good as can be, and the network has less to add: so these are other numbers there.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial
from itertools import count, islice, product
from typing import Final

import numpy as np

from npuops.hostsched.guard import Guard
from npuops.hostsched.guard_options import GuardOptions
from npuops.hostsched.learned import Learned, LearnedOptions
from npuops.hostsched.objective import Trust
from npuops.hostsched.plan import Policy
from npuops.hostsched.reactive import Reactive
from npuops.hostsched.reactive_options import ReactiveOptions
from npuops.hostsched.scorer_network import Weights
from npuops.hostsched.scorer_session import NumpyScorer
from npuops.hostsched.static_policy import Default
from npuops.schedlab.lessons import lesson
from npuops.schedlab.scene import outcome_of, worth_of_play

TRUSTS: Final = tuple(
    Trust(margin=margin, below_floor=floor) for margin, floor in product((0.02, 0.05, 0.1, 0.2), (0.3, 0.5, 1.0))
)
_LESS_IN_TIME: Final = 0.01
"""So much of the requests in time may be given for other things that the objective counts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Followed:
    """What lessons came to under one trust, or under the rule alone; the guard stands behind either.

    Attributes:
        worth: mean over the lessons, as the objective counts it.
        in_time: mean share of the requests that were answered in time.
    """

    worth: float
    in_time: float


def lessons_for_trust(first: int, number: int, *, told: bool) -> list[int]:
    """The next lessons in which applications tell of every task, or of none."""
    return list(islice(_lessons(first, told=told), number))


def _lessons(first: int, *, told: bool) -> Iterator[int]:
    for number in count(first):
        scene = lesson(number)
        if len(scene.telling) == (len(scene.mix.players) if told else 0):
            yield number


def followed(
    lessons: list[int], weights: Weights, thresholds: ReactiveOptions, executor: Executor
) -> Mapping[Trust | None, Followed]:
    """What comes of each trust; None is the rule alone.

    Args:
        lessons: numbers of lessons that no fit saw.
        weights: of the scorer.
        thresholds: of the rule that proposes.
        executor: plays several at once.
    """
    choices: tuple[Trust | None, ...] = (None, *TRUSTS)
    works = list(product(choices, lessons))
    found = list(executor.map(partial(_played, weights, thresholds), *zip(*works, strict=True)))
    means = np.nanmean(np.array(found).reshape(len(choices), len(lessons), 2), axis=1)
    return {
        choice: Followed(worth=float(worth), in_time=float(in_time))
        for choice, (worth, in_time) in zip(choices, means, strict=True)
    }


def best_trust(found: Mapping[Trust | None, Followed]) -> Trust:
    """Worth the most among those that answer as much in time as the rule; failing these, the most in time."""
    least = found[None].in_time - _LESS_IN_TIME
    trusts = {trust: each for trust, each in found.items() if trust is not None}
    fair = {trust: each.worth for trust, each in trusts.items() if each.in_time >= least}
    by = fair or {trust: each.in_time for trust, each in trusts.items()}
    return max(by, key=by.__getitem__)


def _played(weights: Weights, thresholds: ReactiveOptions, trust: Trust | None, number: int) -> tuple[float, float]:
    scene = lesson(number)
    policy: Policy = Reactive(thresholds)
    if trust is not None:
        policy = Learned(NumpyScorer(weights), LearnedOptions(trust=trust, trust_told=trust), proposer=policy)
    outcome = outcome_of(scene, policy, Guard(GuardOptions(control_share=0.0)))
    in_time = float("nan") if outcome.slo_share is None else outcome.slo_share
    return worth_of_play(outcome, outcome_of(scene, Default())), in_time
