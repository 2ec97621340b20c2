"""The reactive rule is tuned: the same search finds the same, and what it finds is no worse than what it began with."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from concurrent.futures import Executor, Future
from typing import Any

import pytest

from npuops.hostsched.static_policy import Default
from npuops.schedlab.lessons import lesson
from npuops.schedlab.scene import outcome_of, worth_of_play
from npuops.schedlab.tuning import mean_worth, tune


class Here(Executor):
    """Works in this process."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done

    def map(self, fn: Callable[..., Any], *iterables: Iterable[Any], **_: Any) -> Any:
        return map(fn, *iterables)


def test_a_default_play_is_worth_what_the_objective_says() -> None:
    scene = lesson(3)
    outcome = outcome_of(scene, Default())
    missed = 0.0 if outcome.slo_share is None else 1 - outcome.slo_share
    assert worth_of_play(outcome, outcome) == pytest.approx(0.05 - missed)


@pytest.mark.slow
def test_tuning_is_repeatable_and_never_ends_below_its_beginning() -> None:
    scenes = [lesson(number) for number in (1, 2)]
    heard: list[float] = []
    one = tune(scenes, Here(), generations=2, seed=5, told=lambda _, best: heard.append(best))
    other = tune(scenes, Here(), generations=2, seed=5)
    assert one == other
    assert one.worth >= one.worth_before
    assert heard == sorted(heard)
    assert len(heard) == 2
    defaults = [outcome_of(scene, Default()) for scene in scenes]
    assert mean_worth(scenes, defaults, one.options.vector().tolist()) == pytest.approx(one.worth, abs=0.02)


def test_lessons_differ_and_repeat() -> None:
    assert lesson(11) == lesson(11)
    scenes = [lesson(number) for number in range(40)]
    assert len({scene.seed for scene in scenes}) == 40
    assert {scene.mix.cpus for scene in scenes} == {1, 2}
    assert {bool(scene.telling) for scene in scenes} == {True, False}
    assert {scene.pinned for scene in scenes} == {True, False}
