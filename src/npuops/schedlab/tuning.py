"""Tunes the reactive rule with CMA-ES in the simulator: the baseline that a learned policy must beat is a tuned one.

Every set of thresholds of a generation plays the same mixes with the same arrivals, each generation other mixes, and
what is taken is what does best in mixes that no generation played: over the same few mixes a search soon finds
thresholds that suit these, and are worse than where it began in any others. What counts is the same objective that
plans, training and experiments use.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final

import numpy as np
from cmaes import CMA
from numpy.typing import NDArray

from npuops.hostsched.reactive import Reactive
from npuops.hostsched.reactive_options import ReactiveOptions, from_vector
from npuops.hostsched.static_policy import Default
from npuops.schedlab.lessons import lesson
from npuops.schedlab.outcome import Outcome
from npuops.schedlab.scene import outcome_of, worth_of_play

_SIGMA: Final = 0.2
"""How far the first sets lie from where the search begins, as a share of each threshold's range."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """What a tuning came to.

    Attributes:
        options: the best thresholds.
        worth: of these, mean over the lessons that judge.
        worth_before: of those it began with, over the same.
        generations: of CMA-ES.
    """

    options: ReactiveOptions
    worth: float
    worth_before: float
    generations: int


class Course:
    """Lessons that sets of thresholds play, and what the default comes to in each."""

    def __init__(self, lessons: Sequence[int], executor: Executor) -> None:
        """Play the default.

        Args:
            lessons: their numbers.
            executor: plays several at once.
        """
        self._lessons, self._executor = lessons, executor
        self._defaults = list(executor.map(_outcome_of_default, lessons))

    def worths(self, vectors: Sequence[NDArray[np.float64]]) -> list[float]:
        """Of the reactive rule with each of these thresholds, its mean over the lessons."""
        count = len(self._lessons)
        sets = [vector for vector in vectors for _ in range(count)]
        plays = self._executor.map(_worth, sets, [*self._lessons] * len(vectors), self._defaults * len(vectors))
        return [float(each) for each in np.reshape(list(plays), (len(vectors), count)).mean(axis=1)]


def tune(
    lessons: Callable[[int], Sequence[int]],
    judges: Sequence[int],
    executor: Executor,
    *,
    generations: int,
    seed: int,
    begin: ReactiveOptions | None = None,
    told: Callable[[int, float], None] = lambda _number, _best: None,
) -> Tuned:
    """Look for better thresholds; deterministic by the seed, however many processes work.

    Args:
        lessons: by the number of a generation those that it plays; others for each, or it learns them by heart.
        judges: numbers of the lessons in which the middle of each generation, and the beginning, are compared.
        executor: plays several sets at once.
        generations: of CMA-ES, each of 4 + 3 ln(n) sets.
        seed: of the search.
        begin: thresholds to begin with; None: the rule's own.
        told: hears of each generation and the best worth so far.
    """
    judge = Course(judges, executor)
    best = (begin or ReactiveOptions()).vector()
    (before,) = judge.worths([best])
    best_worth = before
    search = CMA(mean=best, sigma=_SIGMA, bounds=np.array([[0.0, 1.0]] * len(best)), seed=seed)
    for number in range(generations):
        vectors = [search.ask() for _ in range(search.population_size)]
        worths = Course(lessons(number), executor).worths(vectors)
        search.tell([(vector, -found) for vector, found in zip(vectors, worths, strict=True)])
        middle = search.mean.copy()
        (worth,) = judge.worths([middle])
        if worth > best_worth:
            best, best_worth = middle, worth
        told(number, best_worth)
        if search.should_stop():
            break
    return Tuned(from_vector(best), best_worth, before, search.generation)


def _outcome_of_default(number: int) -> Outcome:
    return outcome_of(lesson(number), Default())


def _worth(vector: NDArray[np.float64], number: int, default: Outcome) -> float:
    return worth_of_play(outcome_of(lesson(number), Reactive(from_vector(vector))), default)
