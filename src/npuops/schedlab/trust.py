"""How far to follow the network: found by playing, for forecasts alone cannot tell it.

Of many candidates the one whose forecast is the best is often the one whose forecast errs the most. Two numbers keep
that in bounds: by how much a plan must beat the rule's, and how much a forecast loss of the slowest batch task counts,
which as the least of many forecasts is too low as a rule.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import product
from typing import Final

import numpy as np

from npuops.hostsched.learned import Learned, LearnedOptions
from npuops.hostsched.objective import Weights as Objective
from npuops.hostsched.policy_card import Trust
from npuops.hostsched.reactive import Reactive
from npuops.hostsched.reactive_options import ReactiveOptions
from npuops.hostsched.scorer_network import Weights
from npuops.hostsched.scorer_session import NumpyScorer
from npuops.hostsched.static_policy import Default
from npuops.schedlab.lessons import lesson
from npuops.schedlab.scene import outcome_of, worth_of_play

TRUSTS: Final = tuple(
    Trust(margin=margin, below_floor=floor) for margin, floor in product((0.0, 0.02, 0.05, 0.1), (0.3, 0.5, 1.0))
)


def worths_of_trusts(
    lessons: Sequence[int], weights: Weights, thresholds: ReactiveOptions, executor: Executor
) -> Mapping[Trust, float]:
    """The mean worth of whole plays, as the objective counts it, by trust.

    Args:
        lessons: numbers of lessons that no fit saw.
        weights: of the scorer.
        thresholds: of the rule that proposes.
        executor: plays several at once.
    """
    works = list(product(TRUSTS, lessons))
    found = list(executor.map(partial(_worth, weights, thresholds), *zip(*works, strict=True)))
    table = np.array(found).reshape(len(TRUSTS), len(lessons))
    return dict(zip(TRUSTS, table.mean(axis=1).tolist(), strict=True))


def _worth(weights: Weights, thresholds: ReactiveOptions, trust: Trust, number: int) -> float:
    scene = lesson(number)
    options = LearnedOptions(margin=trust.margin, weights=Objective(below_floor=trust.below_floor))
    policy = Learned(NumpyScorer(weights), options, proposer=Reactive(thresholds))
    return worth_of_play(outcome_of(scene, policy), outcome_of(scene, Default()))
