"""Tunes the reactive rule with CMA-ES in the simulator: the baseline that a learned policy must beat is a tuned one.

Every set of thresholds plays the same mixes with the same arrivals; what counts is the same objective that plans,
training and experiments use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from functools import partial

import numpy as np
from cmaes import CMA

from npuops.hostsched.reactive import Reactive
from npuops.hostsched.reactive_options import ReactiveOptions, from_vector
from npuops.hostsched.static_policy import Default
from npuops.schedlab.outcome import Outcome
from npuops.schedlab.scene import Scene, outcome_of, worth_of_play


def mean_worth(scenes: Sequence[Scene], defaults: Sequence[Outcome], vector: Sequence[float]) -> float:
    """Of the reactive rule with these thresholds, over all scenes."""
    options = from_vector(np.asarray(vector))
    worths = [
        worth_of_play(outcome_of(scene, Reactive(options)), default)
        for scene, default in zip(scenes, defaults, strict=True)
    ]
    return float(np.mean(worths))


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a tuning came to.

    Attributes:
        options: the best thresholds.
        worth: of these, mean over the scenes.
        worth_before: of those it began with.
        generations: of CMA-ES.
    """

    options: ReactiveOptions
    worth: float
    worth_before: float
    generations: int


def tune(
    scenes: Sequence[Scene],
    executor: Executor,
    *,
    generations: int,
    seed: int,
    begin: ReactiveOptions | None = None,
    told: Callable[[int, float], None] = lambda _number, _best: None,
) -> Tuned:
    """Look for better thresholds; deterministic by the seed, however many processes work.

    Args:
        scenes: to play; more of them generalise better and take longer.
        executor: plays several sets at once.
        generations: of CMA-ES, each of 4 + 3 ln(n) sets.
        seed: of the search.
        begin: thresholds to begin with; None: the rule's own.
        told: hears of each generation and the best worth so far.
    """
    defaults = list(executor.map(_outcome_of_default, scenes))
    judged = partial(mean_worth, scenes, defaults)
    first = (begin or ReactiveOptions()).vector()
    before = judged(first.tolist())
    best, best_worth = first, before
    search = CMA(mean=first, sigma=0.2, bounds=np.array([[0.0, 1.0]] * len(first)), seed=seed)
    for number in range(generations):
        vectors = [search.ask() for _ in range(search.population_size)]
        worths = list(executor.map(judged, [vector.tolist() for vector in vectors]))
        search.tell([(vector, -found) for vector, found in zip(vectors, worths, strict=True)])
        top = int(np.argmax(worths))
        if worths[top] > best_worth:
            best, best_worth = vectors[top], worths[top]
        told(number, best_worth)
        if search.should_stop():
            break
    return Tuned(from_vector(best), best_worth, before, search.generation)


def _outcome_of_default(scene: Scene) -> Outcome:
    return outcome_of(scene, Default())
