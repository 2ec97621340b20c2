"""Reservations that are used up."""

from __future__ import annotations

from hostsched_frames import Actor, Stage
from npuops.hostsched.levels import RESERVE_25, RESERVE_50
from npuops.hostsched.outgrown import BARRED_US, Outgrown


def stage_under(level: object) -> Stage:
    stage = Stage(Actor("app"), Actor("hog"))
    stage.actors[0].setting = level.setting  # type: ignore[attr-defined]
    stage.look()
    return stage


def looks(stage: Stage, outgrown: Outgrown, run_us: int, number: int) -> dict[str, float]:
    found = {}
    for _ in range(number):
        stage.actors[0].does(run_us=run_us, sleeps=1)
        stage.actors[1].does(run_us=20_000, pushed=1)
        found = dict(outgrown.update(stage.look()))
    return {name: found[stage.id(name)] for name in ("app", "hog") if stage.id(name) in found}


def test_a_task_that_runs_as_long_as_it_may_has_outgrown_its_reservation() -> None:
    assert looks(stage_under(RESERVE_25), Outgrown(), 5_000, 20) == {"app": 0.25}
    assert looks(stage_under(RESERVE_50), Outgrown(), 5_000, 20) == {}


def test_a_task_without_one_outgrows_nothing_however_much_it_runs() -> None:
    stage = Stage(Actor("app"), Actor("hog"))
    assert looks(stage, Outgrown(), 20_000, 20) == {}


def test_it_is_forgotten_after_a_while() -> None:
    stage, outgrown = stage_under(RESERVE_25), Outgrown()
    assert looks(stage, outgrown, 5_000, 20) == {"app": 0.25}
    stage.actors[0].setting = RESERVE_50.setting
    assert looks(stage, outgrown, 7_000, 10) == {"app": 0.25}
    assert looks(stage, outgrown, 7_000, BARRED_US // 20_000) == {}
