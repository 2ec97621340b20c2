"""By how much the network must beat the rule to be followed: found by playing, for forecasts alone cannot tell it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from concurrent.futures import Executor
from functools import partial
from itertools import product
from typing import Final

import numpy as np

from npuops.hostsched.learned import Learned, LearnedOptions
from npuops.hostsched.reactive import Reactive
from npuops.hostsched.reactive_options import ReactiveOptions
from npuops.hostsched.scorer_network import Weights
from npuops.hostsched.scorer_session import NumpyScorer
from npuops.hostsched.static_policy import Default
from npuops.schedlab.lessons import lesson
from npuops.schedlab.scene import outcome_of, worth_of_play

MARGINS: Final = (0.0, 0.02, 0.05, 0.1, 0.2)


def worths_of_margins(
    lessons: Sequence[int], weights: Weights, thresholds: ReactiveOptions, executor: Executor
) -> Mapping[float, float]:
    """The mean worth of whole plays, by margin.

    Args:
        lessons: numbers of lessons that no fit saw.
        weights: of the scorer.
        thresholds: of the rule that proposes.
        executor: plays several at once.
    """
    works = list(product(MARGINS, lessons))
    found = list(executor.map(partial(_worth, weights, thresholds), *zip(*works, strict=True)))
    table = np.array(found).reshape(len(MARGINS), len(lessons))
    return dict(zip(MARGINS, table.mean(axis=1).tolist(), strict=True))


def _worth(weights: Weights, thresholds: ReactiveOptions, margin: float, number: int) -> float:
    scene = lesson(number)
    policy = Learned(NumpyScorer(weights), LearnedOptions(margin=margin), proposer=Reactive(thresholds))
    return worth_of_play(outcome_of(scene, policy), outcome_of(scene, Default()))
