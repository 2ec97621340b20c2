from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hostsched_frames import Actor, Stage
from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.errors import OptionError
from npuops.hostsched.familiarity import Ranges, ranges_of
from npuops.hostsched.features import HOST_FEATURES, TASK_FEATURES
from npuops.hostsched.frame import TaskId
from npuops.hostsched.guard import Guard, Rule
from npuops.hostsched.guard_options import Act, GuardOptions, acts_named, acts_of
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.levels import BOOST, DEMOTE, IDLE, LEVELS, RESERVE_25, RESERVE_50
from npuops.hostsched.plan import NORMAL, Forecast, Level, Plan

GOOD = {"expected": Forecast(0.0, 1.0), "expected_default": Forecast(0.5, 1.0)}
QUIET = GuardOptions(control_share=0.0, hysteresis_us=0)
NICE = Level("nice -15", Setting(nice=-15))
FIFO = Level("fifo", Setting(SchedPolicy.FIFO, rt_priority=1))
SHORT = Level("short", Setting(slice_us=100))


def stage_of(count: int, **kinds: object) -> Stage:
    return Stage(*(Actor(f"t{number}", **kinds) for number in range(count)))  # type: ignore[arg-type]


def awake(stage: Stage) -> None:
    for actor in stage.actors:
        actor.does(run_us=1000, pushed=1)


def seen(stage: Stage, guard: Guard, plan: Plan | None = None) -> None:
    for _ in range(2):
        awake(stage)
        guard.check(stage.look(), plan or Plan())


def rules(checked) -> set[Rule]:
    return {refusal.rule for refusal in checked.refusals}


wishes = st.lists(
    st.tuples(
        st.dictionaries(st.integers(0, 5), st.sampled_from([*LEVELS, NICE, FIFO, SHORT])),
        st.integers(1_000, 300_000),
        st.sampled_from(["none", "good", "bad"]),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(wishes, st.sets(st.sampled_from(Act)), st.integers(1, 6), st.integers(0, 200_000))
def test_whatever_a_policy_wants_bounds_rates_and_dwell_hold(steps, allowed, rate, dwell_us) -> None:
    options = GuardOptions(allowed=frozenset(allowed), changes_per_s=rate, dwell_us=dwell_us, hysteresis_us=0)
    guard, stage = Guard(options), stage_of(4)
    stage.actors[3].cpus = 1
    held: dict[TaskId, Level] = {}
    entries: list[tuple[int, TaskId, Level]] = []
    for number, (levels, gap_us, forecast) in enumerate(steps):
        awake(stage)
        state = stage.look(gap_us)
        wanted = {stage.id(f"t{n}") if n < 4 else TaskId(n, 9): level for n, level in levels.items()}
        figures = {
            "none": {},
            "good": GOOD,
            "bad": {"expected": Forecast(0.5, 1.0), **GOOD} | {"expected": Forecast(1, 0)},
        }
        plan = Plan(
            wanted,
            expected=figures[forecast].get("expected"),
            expected_default=figures[forecast].get("expected_default"),
        )
        checked = guard.check(state, plan)
        passed = dict(checked.plan.levels)
        assert all(wanted.get(task) == level and level != NORMAL for task, level in passed.items())
        assert forecast != "bad" or not passed
        assert number > 0 or not passed, "nobody is touched at first sight"
        for task, level in passed.items():
            assert task.start_ticks == 1, "only who is there"
            assert acts_of(level) <= options.allowed
            assert level not in (NICE, FIFO, SHORT)
            if held.get(task) != level:
                entries.append((state.frame.at_us, task, level))
        reserved = [task for task, level in passed.items() if level in (RESERVE_25, RESERVE_50)]
        assert stage.id("t3") not in reserved
        assert sum(passed[task].setting.share for task in reserved) <= 0.6 * 2 + 1e-9
        refused = {refusal.task for refusal in checked.refusals}
        lost = {task for task, level in wanted.items() if level != NORMAL and task not in passed}
        assert lost <= refused or None in refused, "whatever is refused is told"
        held = passed
    for at_us, task, level in entries:
        assert sum(at_us - 1_000_000 < other <= at_us for other, _, _ in entries) <= rate
        again = [other for other, same, equal in entries if (same, equal) == (task, level) and other < at_us]
        assert all(at_us - other >= dwell_us for other in again)


def test_going_back_to_normal_is_never_refused() -> None:
    stage, guard = stage_of(1), Guard(replace(QUIET, changes_per_s=1, dwell_us=10_000_000))
    plan = Plan({stage.id("t0"): DEMOTE})
    seen(stage, guard, plan)
    assert guard.check(stage.look(), plan).plan.levels == plan.levels
    assert guard.check(stage.look(), Plan()).plan.levels == {}
    assert rules(guard.check(stage.look(), plan)) == {Rule.DWELL}


def test_a_lowered_task_that_is_silent_goes_back_within_a_second_and_alone() -> None:
    stage, guard = stage_of(2), Guard(QUIET)
    plan = Plan({stage.id("t0"): DEMOTE, stage.id("t1"): DEMOTE})
    seen(stage, guard, plan)
    stage.actors[0].does(run_us=500, sleeps=1)
    for _ in range(51):
        stage.actors[1].does(run_us=10_000, pushed=1)
        checked = guard.check(stage.look(), plan)
    assert rules(checked) == {Rule.SILENT}
    assert set(checked.plan.levels) == {stage.id("t1")}


@pytest.mark.parametrize("way", ["pushed aside", "has requests", "waited"])
def test_a_task_that_certainly_starved_brings_everybody_back_for_a_while(way: str) -> None:
    stage, guard = stage_of(2), Guard(QUIET)
    plan = Plan({stage.id("t1"): BOOST})
    seen(stage, guard, plan)
    victim = stage.actors[0]
    victim.does(run_us=100, **({"pushed": 1} if way == "pushed aside" else {"sleeps": 1}))
    for step in range(52):
        stage.actors[1].does(run_us=20_000, pushed=1)
        if way == "has requests":
            victim.hint = Hint(stage.at_us, Kind.LATENCY, slo_us=2000, queued=3)
        if way == "pushed aside":
            victim.does(wait_us=20_000)
        if way == "waited" and step == 51:
            victim.does(run_us=100, wait_us=1_030_000, sleeps=1)
        checked = guard.check(stage.look(), plan)
        if checked.refusals:
            break
    assert rules(checked) == {Rule.STARVED, Rule.COOLING}
    assert [refusal.task for refusal in checked.refusals if refusal.rule is Rule.STARVED] == [stage.id("t0")]
    assert way in checked.refusals[0].why
    assert not checked.plan.levels
    stage.actors[1].does(run_us=1_900_000, sleeps=1)
    victim.does(run_us=100, sleeps=1)
    assert guard.check(stage.look(1_900_000), plan).plan.levels == {}
    awake(stage)
    victim.does(sleeps=1)
    assert guard.check(stage.look(200_000), plan).plan.levels == plan.levels


@pytest.mark.parametrize("way", ["its first requests came just now", "it was told late that it had been pushed aside"])
def test_a_task_that_slept_for_long_did_not_starve(way: str) -> None:
    stage, guard = stage_of(2), Guard(QUIET)
    plan = Plan({stage.id("t1"): BOOST})
    seen(stage, guard, plan)
    sleeper = stage.actors[0]
    sleeper.does(run_us=100, sleeps=1)
    for step in range(100):
        stage.actors[1].does(run_us=20_000, pushed=1)
        if way.startswith("it was") and step == 3:
            sleeper.does(pushed=1)
        if way.startswith("its") and step == 98:
            sleeper.hint = Hint(stage.at_us, Kind.LATENCY, slo_us=2000, queued=5)
        checked = guard.check(stage.look(), plan)
        assert checked.plan.levels == plan.levels


@settings(deadline=None, max_examples=30)
@given(st.lists(st.integers(5_000, 100_000), min_size=1, max_size=20), st.sampled_from([DEMOTE, IDLE]))
def test_a_starved_task_always_gets_the_default_within_the_watchdogs_time(gaps, level) -> None:
    stage, guard = stage_of(2), Guard(QUIET)
    plan = Plan({stage.id("t0"): level})
    seen(stage, guard, plan)
    began_us = stage.at_us
    while stage.at_us - began_us < 3_000_000:
        for gap_us in gaps:
            stage.actors[1].does(run_us=gap_us, pushed=1)
            checked = guard.check(stage.look(gap_us), plan)
            silent_us = stage.at_us - began_us
            assert silent_us < QUIET.silent_us or not checked.plan.levels


def test_a_task_with_a_sliver_of_its_share_brings_everybody_back() -> None:
    stage, guard = Stage(Actor("t0"), Actor("t1"), cpus=1), Guard(QUIET)
    stage.runnable = 2
    plan = Plan({stage.id("t0"): DEMOTE})
    found = set()
    for _ in range(150):
        stage.actors[0].does(run_us=400, wait_us=19_600, pushed=1)
        stage.actors[1].does(run_us=19_600, wait_us=400, pushed=1)
        found |= rules(guard.check(stage.look(), plan))
    assert Rule.STARVED in found


def test_a_task_that_its_owner_made_unimportant_may_get_little() -> None:
    stage, guard = Stage(Actor("t0", setting=Setting(nice=19)), Actor("t1"), cpus=1), Guard(QUIET)
    stage.runnable = 2
    plan = Plan({stage.id("t1"): BOOST})
    for _ in range(150):
        stage.actors[0].does(run_us=400, wait_us=19_600, pushed=1)
        stage.actors[1].does(run_us=19_600, wait_us=400, pushed=1)
        checked = guard.check(stage.look(), plan)
    assert checked.plan.levels == plan.levels


def test_a_forecast_must_gain_and_a_forecasting_policy_must_insist() -> None:
    stage, guard = stage_of(1), Guard(replace(QUIET, hysteresis_us=30_000))
    levels = {stage.id("t0"): DEMOTE}
    seen(stage, guard)
    poor = Plan(levels, expected=Forecast(0.5, 1.0), expected_default=Forecast(0.505, 1.0))
    assert rules(guard.check(stage.look(), poor)) == {Rule.GAIN}
    good = Plan(levels, **GOOD)
    stage, guard = stage_of(1), Guard(replace(QUIET, hysteresis_us=30_000))
    seen(stage, guard)
    assert rules(guard.check(stage.look(10_000), good)) == {Rule.HYSTERESIS}
    assert rules(guard.check(stage.look(10_000), good)) == {Rule.HYSTERESIS}
    assert guard.check(stage.look(10_000), good).plan.levels == levels


def test_who_looks_seldom_need_not_insist_for_that_is_patience_enough() -> None:
    stage, guard = stage_of(1), Guard(replace(QUIET, hysteresis_us=30_000))
    good = Plan({stage.id("t0"): DEMOTE}, **GOOD)
    seen(stage, guard)
    assert guard.check(stage.look(30_000), good).plan.levels == good.levels


def test_nothing_happens_far_outside_of_what_training_saw_and_the_feature_is_told() -> None:
    width = len(TASK_FEATURES) + len(HOST_FEATURES)
    low, high = np.full(width, -1, np.float32), np.full(width, 2, np.float32)
    high[TASK_FEATURES.index("run_50ms")] = -0.5
    stage = stage_of(2)
    levels = {stage.id("t0"): DEMOTE}
    for ranges, wanted in ((Ranges(low, high, low, high), {Rule.STRANGE}), (None, set())):
        guard = Guard(replace(QUIET, distance=0.1), ranges)
        seen(stage, guard)
        checked = guard.check(stage.look(), Plan(levels, **GOOD))
        assert rules(checked) == wanted
        assert not wanted or "run_50ms" in checked.refusals[0].why
        stage = stage_of(2)


def test_ranges_come_from_training_rows_and_hold_them_all() -> None:
    random = np.random.default_rng(1)
    tasks = random.normal(size=(50, len(TASK_FEATURES))).astype(np.float32)
    hosts = random.normal(size=(50, len(HOST_FEATURES))).astype(np.float32)
    ranges = ranges_of(tasks, hosts)
    assert (ranges.low[: len(TASK_FEATURES)] <= tasks).all()
    assert (ranges.high[len(TASK_FEATURES) :] >= hosts).all()
    with pytest.raises(OptionError):
        ranges_of(tasks[:0], hosts)
    with pytest.raises(OptionError):
        Ranges(ranges.high, ranges.low, ranges.q05, ranges.q95)


def drive(guard: Guard, stage: Stage, plan: Plan, miss_share: float, steps: int) -> list[set[Rule]]:
    served = missed = 0
    found = []
    for _ in range(steps):
        awake(stage)
        served, missed = served + 10, missed + round(10 * miss_share)
        stage.actors[0].hint = Hint(stage.at_us, Kind.LATENCY, slo_us=2000, served=served, missed=missed)
        found.append(rules(guard.check(stage.look(), plan)))
    return found


def test_forecasts_that_do_not_come_true_end_the_acting_and_it_comes_back() -> None:
    stage, guard = stage_of(2), Guard(QUIET)
    plan = Plan({stage.id("t1"): DEMOTE}, **GOOD)
    found = drive(guard, stage, plan, 0.5, 60)
    assert {Rule.DRIFTED, Rule.DOUBTED} in found
    awake(stage)
    assert guard.check(stage.look(2_100_000), plan).plan.levels == plan.levels


def test_while_forecasts_are_doubted_the_fallback_holds_and_passes_the_same_bounds() -> None:
    stage, guard = stage_of(3), Guard(QUIET)
    fallback = Plan({stage.id("t2"): IDLE, stage.id("t1"): NICE}, {stage.id("t2"): "it computes"})
    plan = Plan({stage.id("t1"): DEMOTE}, **GOOD, fallback=fallback)
    found = drive(guard, stage, plan, 0.5, 60)
    assert {Rule.DOUBTED, Rule.BOUNDS} in found
    assert not any(Rule.COOLING in each for each in found)
    awake(stage)
    held = guard.check(stage.look(), plan).plan
    assert held.levels == {stage.id("t2"): IDLE}
    assert held.why == {stage.id("t2"): "it computes"}
    assert held.expected is None
    awake(stage)
    assert guard.check(stage.look(2_100_000), plan).plan.levels == plan.levels


def test_a_task_that_starved_ends_the_fallback_too() -> None:
    stage, guard = stage_of(2), Guard(QUIET)
    levels = {stage.id("t1"): BOOST}
    plan = Plan(levels, **GOOD, fallback=Plan(levels))
    seen(stage, guard, plan)
    stage.actors[0].does(run_us=100, pushed=1)
    for _ in range(52):
        stage.actors[1].does(run_us=20_000, pushed=1)
        stage.actors[0].does(wait_us=20_000)
        checked = guard.check(stage.look(), plan)
    assert Rule.COOLING in rules(checked)
    assert not checked.plan.levels


def test_what_training_never_saw_is_left_to_the_fallback() -> None:
    stage = stage_of(1)
    columns = len(TASK_FEATURES) + len(HOST_FEATURES)
    never = Ranges(*(np.full(columns, 5, np.float32) for _ in range(4)))
    guard = Guard(QUIET, never)
    plan = Plan({stage.id("t0"): IDLE}, **GOOD, fallback=Plan({stage.id("t0"): DEMOTE}))
    seen(stage, guard, plan)
    checked = guard.check(stage.look(), plan)
    assert rules(checked) == {Rule.STRANGE}
    assert checked.plan.levels == {stage.id("t0"): DEMOTE}


def test_forecasts_are_compared_with_the_fallback_where_there_is_one() -> None:
    stage, guard = stage_of(1), Guard(GuardOptions(hysteresis_us=0, dwell_us=0, control_share=0.2))
    plan = Plan({stage.id("t0"): IDLE}, **GOOD, fallback=Plan({stage.id("t0"): DEMOTE}))
    seen(stage, guard, plan)
    windows = 0
    for _ in range(1000):
        awake(stage)
        checked = guard.check(stage.look(), plan)
        assert checked.plan.levels == {stage.id("t0"): DEMOTE if checked.control else IDLE}
        windows += checked.control
    assert windows > 100


def test_forecasts_that_come_true_are_left_alone() -> None:
    stage, guard = stage_of(2), Guard(QUIET)
    found = drive(guard, stage, Plan({stage.id("t1"): DEMOTE}, **GOOD), 0.1, 200)
    assert set().union(*found[2:]) == set()


def test_windows_of_comparison_take_their_share_are_told_and_are_the_same_in_a_replay() -> None:
    told = []
    for _ in range(2):
        stage, guard = stage_of(1), Guard(GuardOptions(hysteresis_us=0, control_share=0.2))
        plan = Plan({stage.id("t0"): DEMOTE}, **GOOD)
        seen(stage, guard, plan)
        windows = []
        for _ in range(5000):
            awake(stage)
            checked = guard.check(stage.look(), plan)
            assert checked.control == (Rule.CONTROL in rules(checked))
            assert not (checked.control and checked.plan.levels)
            windows.append(checked.control)
        told.append(windows)
    assert told[0] == told[1]
    assert 0.15 < sum(told[0]) / 5000 < 0.25


def test_a_policy_without_forecasts_is_never_interrupted_for_comparison() -> None:
    stage, guard = stage_of(1), Guard(GuardOptions(control_share=0.5))
    plan = Plan({stage.id("t0"): DEMOTE})
    seen(stage, guard, plan)
    for _ in range(100):
        awake(stage)
        assert guard.check(stage.look(), plan).plan.levels == plan.levels


def test_a_plan_that_passed_only_in_part_has_no_forecast_any_more() -> None:
    stage, guard = stage_of(2), Guard(QUIET)
    seen(stage, guard)
    checked = guard.check(stage.look(), Plan({stage.id("t0"): DEMOTE, stage.id("t1"): NICE}, {}, **GOOD))
    assert set(checked.plan.levels) == {stage.id("t0")}
    assert checked.plan.expected is None
    assert rules(checked) == {Rule.BOUNDS}


def test_a_task_that_ended_while_the_policy_thought_is_left_out() -> None:
    stage, guard = stage_of(2), Guard(QUIET)
    plan = Plan({stage.id("t0"): DEMOTE, stage.id("t1"): DEMOTE})
    seen(stage, guard, plan)
    stage.actors.pop()
    checked = guard.check(stage.look(), plan)
    assert set(checked.plan.levels) == {stage.id("t0")}
    assert rules(checked) == {Rule.ENDED}


def test_a_clock_that_steps_back_breaks_nothing() -> None:
    stage, guard = stage_of(1), Guard(QUIET)
    plan = Plan({stage.id("t0"): DEMOTE})
    seen(stage, guard, plan)
    guard.check(stage.look(-500_000), plan)
    assert guard.check(stage.look(), plan).plan.levels == plan.levels


def test_what_may_be_allowed_has_names_and_a_misspelt_one_is_told() -> None:
    assert acts_named(("demote", "reserve")) == {Act.DEMOTE, Act.RESERVE}
    with pytest.raises(OptionError) as caught:
        acts_named(("boots",))
    assert "boost" in caught.value.advice


@pytest.mark.parametrize("wrong", [{"control_share": 0.9}, {"least_nice": 5, "most_nice": 1}, {"silent_us": 0}])
def test_a_guard_that_guards_nothing_is_refused(wrong) -> None:
    with pytest.raises(OptionError):
        GuardOptions(**wrong)
