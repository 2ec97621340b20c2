"""The whole training: tune the reactive rule, gather, fit, let the scorer act and gather again (DAgger), judge, build.

Reproducible: the same options give the same lessons, samples and thresholds, however many processes work; weights are
the same on the same machine.
"""

from __future__ import annotations

import math
import multiprocessing
import os
from collections.abc import Iterator, Mapping
from concurrent.futures import Executor, ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
from msgspec import structs
from numpy.typing import NDArray

from npuops.artifacts.disk import storage_errors
from npuops.clock import Clock, SystemClock
from npuops.errors import OptionError
from npuops.events import Observer, StepFinished, StepProgressed, StepStarted, ignore
from npuops.hostsched.learned import Learned
from npuops.hostsched.objective import Trust
from npuops.hostsched.plan import Policy
from npuops.hostsched.policy_card import RULE_NAME, PolicyFolder
from npuops.hostsched.reactive import Reactive
from npuops.hostsched.reactive_options import ReactiveOptions
from npuops.hostsched.scorer import SHAPE
from npuops.hostsched.scorer_network import Weights
from npuops.hostsched.scorer_session import NumpyScorer
from npuops.schedlab.build_policy import Built, build_policy
from npuops.schedlab.fit import FitOptions, Fitted, fit_apart, trained
from npuops.schedlab.lessons import lesson
from npuops.schedlab.recipe import recipe_of
from npuops.schedlab.rollouts import RolloutOptions, Wanderer, gather
from npuops.schedlab.samples import Samples, join
from npuops.schedlab.trust import TRUSTS, best_trust, followed, lessons_for_trust
from npuops.schedlab.tuning import tune

_TUNING_LESSONS: Final = 500_000
"""Lessons from here on are for tuning the reactive rule; the scorer gathers in those from 0 on;"""
_JUDGING_LESSONS: Final = 550_000
"""those from here on judge what the tuner found;"""
_TRUST_LESSONS: Final = 600_000
"""and from here on is found how far to trust it."""
_TYPICAL_PERIOD_US: Final = 20_000


@dataclass(frozen=True, slots=True, kw_only=True)
class TrainingOptions:
    """How much of what.

    Attributes:
        seed: of the fit and the tuner; lessons are numbered, and the same for every seed.
        thresholds: of the reactive rule, that the search for better ones begins with; None: the rule's own.
        generations: of CMA-ES; 0: no search.
        tuning_lessons: that every set of thresholds of one generation plays; each generation plays others.
        judging_lessons: that none plays, and that choose between the generations and the beginning.
        lessons: that are gathered from before the first fit.
        rounds: of DAgger: the scorer acts, its states are labelled, and it is fitted on all; at last once more, anew.
        round_lessons: in each round.
        trust_lessons: on so many is found how far to trust the network, with hints and without.
        rollouts: how states are gathered.
        fit: of the first fit and the last; those between go on with its weights for half as many epochs.
        processes: that gather and tune.
    """

    seed: int = 0
    thresholds: ReactiveOptions | None = None
    generations: int = 10
    tuning_lessons: int = 24
    judging_lessons: int = 96
    lessons: int = 1800
    rounds: int = 2
    round_lessons: int = 600
    trust_lessons: int = 32
    rollouts: RolloutOptions = field(default_factory=RolloutOptions)
    fit: FitOptions = field(default_factory=FitOptions)
    processes: int = field(default_factory=lambda: len(os.sched_getaffinity(0)))

    def __post_init__(self) -> None:
        """Refuse what trains nothing.

        Raises:
            OptionError: fewer than two lessons, or a negative number of anything.
        """
        parts = (self.tuning_lessons, self.judging_lessons, self.trust_lessons, self.processes)
        if self.lessons < 2 or min(parts) < 1:
            raise OptionError("training takes two lessons, one to tune and to judge with, and one process at least")
        if min(self.generations, self.rounds, self.round_lessons) < 0:
            raise OptionError("generations, rounds and lessons of a round are not negative")


def train(
    folder: Path, options: TrainingOptions | None = None, *, observe: Observer = ignore, clock: Clock | None = None
) -> tuple[PolicyFolder, tuple[Built, ...]]:
    """Train a policy, and write it with all that it needs to `folder`.

    Args:
        folder: made if absent; gets thresholds of the reactive rule, weights, ONNX, artifacts, and the card last.
        options: how much of what.
        observe: hears of each step.
        clock: measures the steps.

    Raises:
        AccuracyError: the network does not keep its decisions in eight bits.
        NpuopsError: of the step that could not be done.
    """
    options, clock = options or TrainingOptions(), clock or SystemClock()
    with _executor(options.processes) as executor:
        thresholds = _tuned(folder, options, executor, observe, clock)
        samples = _gathered(options, executor, (0, options.lessons), thresholds, None, observe, clock)
        fitted = fit_apart(samples, options.fit, observe=observe)
        for number in range(options.rounds):
            first = options.lessons + number * options.round_lessons
            span = (first, first + options.round_lessons)
            more = _gathered(options, executor, span, thresholds, fitted.weights, observe, clock)
            samples = join([samples, more])
            fitted = fit_apart(samples, _again(options.fit, number), start=fitted.weights, observe=observe)
        if options.rounds:
            fitted = fit_apart(samples, options.fit, observe=observe)
        trust = _trust(options, executor, thresholds, fitted.weights, observe, clock)
    return _built(folder, fitted, samples, options, trust, observe)


@contextmanager
def _executor(processes: int) -> Iterator[Executor]:
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(processes, mp_context=context) as executor:
        try:
            yield executor
        except BaseException:
            executor.shutdown(wait=False, cancel_futures=True)
            raise


def _tuned(
    folder: Path, options: TrainingOptions, executor: Executor, observe: Observer, clock: Clock
) -> ReactiveOptions:
    if not options.generations:
        _write_thresholds(folder, options.thresholds or ReactiveOptions())
        return options.thresholds or ReactiveOptions()
    began_us = clock.now_us()
    observe(StepStarted(step="tune", detail=f"the reactive rule, on {options.tuning_lessons} mixes at a time"))

    def lessons(number: int) -> range:
        first = _TUNING_LESSONS + number * options.tuning_lessons
        return range(first, first + options.tuning_lessons)

    def told(number: int, best: float) -> None:
        observe(StepProgressed(step="tune", done=number + 1, total=options.generations, detail=f"worth {best:+.4f}"))

    judges = range(_JUDGING_LESSONS, _JUDGING_LESSONS + options.judging_lessons)
    begin, seed = options.thresholds, options.seed
    found = tune(lessons, judges, executor, generations=options.generations, seed=seed, begin=begin, told=told)
    _write_thresholds(folder, found.options)
    words = f"worth {found.worth_before:+.4f} → {found.worth:+.4f}"
    observe(StepFinished(step="tune", seconds=(clock.now_us() - began_us) / 1e6, detail=words))
    return found.options


def _write_thresholds(folder: Path, thresholds: ReactiveOptions) -> None:
    with storage_errors("write", folder):
        folder.mkdir(parents=True, exist_ok=True)
        (folder / RULE_NAME).write_text(thresholds.to_toml(), encoding="utf-8")


def _gathered(
    options: TrainingOptions,
    executor: Executor,
    span: tuple[int, int],
    thresholds: ReactiveOptions,
    weights: Weights | None,
    observe: Observer,
    clock: Clock,
) -> Samples:
    began_us = clock.now_us()
    observe(StepStarted(step="gather", detail=f"{span[1] - span[0]} mixes"))
    work = partial(gather_lesson, options.rollouts, thresholds, weights)
    parts = []
    for done, part in enumerate(executor.map(work, range(*span)), start=1):
        parts += [part] if part is not None else []
        observe(
            StepProgressed(step="gather", done=done, total=span[1] - span[0], detail=f"{sum(map(len, parts))} states")
        )
    samples = join(parts)
    observe(StepFinished(step="gather", seconds=(clock.now_us() - began_us) / 1e6, detail=f"{len(samples)} states"))
    return samples


def gather_lesson(
    options: RolloutOptions, thresholds: ReactiveOptions, weights: Weights | None, number: int
) -> Samples | None:
    """States of one lesson; whoever acts depends on its number, so that the scorer sees what all of them cause.

    Args:
        options: how states are gathered, at a period of 20 ms; other periods have as many states a second.
        thresholds: of the reactive rule, which acts in half of the lessons without a scorer, and always proposes.
        weights: of the scorer, which then acts in three lessons of four.
        number: of the lesson.
    """
    scene = lesson(number)
    policy: Policy = Wanderer(number) if number % 4 == 0 or (weights is None and number % 2) else Reactive(thresholds)
    if weights is not None and number % 4:
        policy = Learned(NumpyScorer(weights), proposer=Reactive(thresholds))
    share = options.share * scene.period_us / _TYPICAL_PERIOD_US
    rollouts = replace(options, period_us=scene.period_us, share=share)
    return gather(scene.host(), policy, rollouts, number, number, proposer=Reactive(thresholds))


def _trust(
    options: TrainingOptions,
    executor: Executor,
    thresholds: ReactiveOptions,
    weights: Weights,
    observe: Observer,
    clock: Clock,
) -> tuple[tuple[Trust, Trust], Mapping[str, float]]:
    """The best where the network must guess and where it is told; and for the card what each came to."""
    best, metrics = [], {}
    for word, told in (("untold", False), ("told", True)):
        began_us = clock.now_us()
        lessons = lessons_for_trust(_TRUST_LESSONS, options.trust_lessons, told=told)
        observe(StepStarted(step="trust", detail=f"{len(TRUSTS)} degrees, on {len(lessons)} mixes each"))
        found = followed(lessons, weights, thresholds, executor)
        best.append(best_trust(found))
        ours, rule = found[best[-1]], found[None]
        words = f"{word}: worth {rule.worth:+.3f} → {ours.worth:+.3f}, in time {rule.in_time:.1%} → {ours.in_time:.1%}"
        observe(StepFinished(step="trust", seconds=(clock.now_us() - began_us) / 1e6, detail=words))
        for trust, each in found.items():
            name = "rule" if trust is None else f"{trust.margin:g}_{trust.below_floor:g}"
            metrics[f"played_{word}_{name}_worth"] = each.worth
            metrics[f"played_{word}_{name}_in_time"] = each.in_time
    return (best[0], best[1]), metrics


def _again(first: FitOptions, number: int) -> FitOptions:
    return replace(first, epochs=math.ceil(first.epochs / 2), rate=first.rate / (number + 2))


def _built(
    folder: Path,
    fitted: Fitted,
    samples: Samples,
    options: TrainingOptions,
    trust: tuple[tuple[Trust, Trust], Mapping[str, float]],
    observe: Observer,
) -> tuple[PolicyFolder, tuple[Built, ...]]:
    source = f"{len(np.unique(samples.mix))} simulated mixes (schedlab.lessons), eevdf kernel 6.18"
    training = trained(fitted, samples, options.fit, source)
    best, worths = trust
    training = structs.replace(training, metrics={**training.metrics, **worths}, recipe=recipe_of(options))
    weights: dict[str, NDArray[np.float32]] = dict(fitted.weights)
    return build_policy(folder, weights, SHAPE, samples, training, trust=best, observe=observe)
