"""The reactive rule is tuned: the same search finds the same, and what it finds is no worse than what it began with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from npuops.hostsched.static_policy import Default
from npuops.schedlab.lessons import lesson
from npuops.schedlab.scene import outcome_of, worth_of_play
from npuops.schedlab.tuning import Course, tune


class Here(Executor):
    """Works in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], **_: Any) -> Any:
        return map(fn, *iterables)


def lessons_of(number: int) -> list[int]:
    return [20 + number]


def test_a_default_play_is_worth_what_the_objective_says() -> None:
    scene = lesson(3)
    outcome = outcome_of(scene, Default())
    missed = 0.0 if outcome.slo_share is None else 1 - outcome.slo_share
    assert worth_of_play(outcome, outcome) == pytest.approx(0.05 - missed)


@pytest.mark.slow
def test_tuning_is_repeatable_and_never_ends_below_its_beginning() -> None:
    """What counts is what the judges say, not the lessons that were searched."""
    heard: list[float] = []
    one = tune(lessons_of, [1, 2], Here(), generations=2, seed=5, told=lambda _, best: heard.append(best))
    other = tune(lessons_of, [1, 2], Here(), generations=2, seed=5)
    assert one == other
    assert one.worth >= one.worth_before
    assert heard == sorted(heard)
    assert len(heard) == 2
    (worth,) = Course([1, 2], Here()).worths([one.options.vector()])
    assert worth == pytest.approx(one.worth, abs=0.02)


def test_lessons_differ_and_repeat() -> None:
    assert lesson(11) == lesson(11)
    scenes = [lesson(number) for number in range(40)]
    assert len({scene.seed for scene in scenes}) == 40
    assert {scene.mix.cpus for scene in scenes} == {1, 2}
    assert {bool(scene.telling) for scene in scenes} == {True, False}
    assert {scene.pinned for scene in scenes} == {True, False}
