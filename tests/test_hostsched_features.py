"""Features: finite whatever happens, by elapsed time, the same for any order of the tasks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.features import (
    FRAMES,
    HISTORY,
    HOST_FEATURES,
    RATES,
    TASK_FEATURES,
    Features,
    State,
    pick_tasks,
)
from npuops.hostsched.frame import COUNTERS, RUN_NS, VOLUNTARY, Frame, GroupId, Host, Task, TaskId
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.hint_book import HintBook, Subject
from npuops.hostsched.hint_wire import Word

GROUP = GroupId("autogroup", "7")
HOST = Host(cpus=2, runnable=1, busy_us=0, steal_us=0, pressure_us=0)


def task(number: int) -> Task:
    return Task(TaskId(100 + number, 5), 100, f"t{number}", GROUP, 2)


def frame(
    at_us: int,
    counters: list[list[int]],
    *,
    hints: dict[int, Hint] | None = None,
    settings: dict[int, Setting] | None = None,
    host: Host = HOST,
    numbers: list[int] | None = None,
) -> Frame:
    """Tasks 0, 1, 2 … with these counters."""
    numbers = list(range(len(counters))) if numbers is None else numbers
    return Frame(
        at_us=at_us,
        tasks=tuple(task(number) for number in numbers),
        counters=np.array(counters, np.int64).reshape(-1, len(COUNTERS)),
        settings=tuple((settings or {}).get(number, Setting()) for number in numbers),
        hints=tuple((hints or {}).get(number) for number in numbers),
        group_nices={GROUP: 0},
        host=host,
    )


def counted(ran_ns: int, sleeps: int) -> list[int]:
    """Counters of a task that ran so long, and left the CPU so often by itself."""
    found = [0] * len(COUNTERS)
    found[RUN_NS], found[VOLUNTARY] = ran_ns, sleeps
    return found


def rate(state: State, row: int, name: str) -> float:
    return float(state.rates[row, RATES.index(name)])


def feature(state: State, row: int, name: str) -> float:
    return float(state.tasks[row, TASK_FEATURES.index(name)])


maybe = st.one_of(st.none(), st.integers(-(10**12), 10**12))
hints = st.builds(
    Hint,
    at_us=st.integers(-(10**12), 10**13),
    kind=st.one_of(st.none(), st.sampled_from(Kind)),
    slo_us=maybe,
    slack_us=maybe,
    queued=maybe,
    served=st.integers(-5, 10**12),
    missed=st.integers(-5, 10**12),
)
settings = st.one_of(
    st.builds(Setting, st.sampled_from([SchedPolicy.OTHER, SchedPolicy.BATCH, SchedPolicy.IDLE]), st.integers(-20, 19)),
    st.builds(lambda part: Setting(SchedPolicy.DEADLINE, runtime_us=part, period_us=4000), st.integers(1, 4000)),
)


@st.composite
def frames(draw: st.DrawFn, most: int = 6) -> Frame:
    numbers = draw(st.lists(st.integers(0, 9), unique=True, max_size=most))
    big = st.integers(0, 2**62)
    return Frame(
        at_us=draw(st.integers(0, 10**13)),
        tasks=tuple(task(number) for number in numbers),
        counters=np.array([[draw(big) for _ in COUNTERS] for _ in numbers], np.int64).reshape(-1, len(COUNTERS)),
        settings=tuple(draw(settings) for _ in numbers),
        hints=tuple(draw(st.one_of(st.none(), hints)) for _ in numbers),
        group_nices=draw(st.sampled_from([{}, {GROUP: 19}, {GROUP: -20}])),
        host=Host(
            cpus=draw(st.integers(0, 512)),
            runnable=draw(st.integers(0, 10**6)),
            busy_us=draw(big),
            steal_us=draw(big),
            pressure_us=draw(st.one_of(st.none(), big)),
        ),
    )


@given(st.lists(frames(), min_size=1, max_size=6))
def test_whatever_the_counters_do_all_columns_are_finite_and_within_one(seen: list[Frame]) -> None:
    features = Features()
    for each in seen:
        state = features.update(each)
        tasks = len(each.tasks)
        assert state.rates.shape == (tasks, len(RATES))
        assert state.tasks.shape == (tasks, len(TASK_FEATURES))
        assert state.history.shape == (tasks, FRAMES, len(HISTORY))
        assert state.host.shape == (len(HOST_FEATURES),)
        assert np.isfinite(state.rates).all()
        assert (state.rates >= 0).all()
        for scaled in (state.tasks, state.history, state.host):
            assert scaled.dtype == np.float32
            assert np.isfinite(scaled).all()
            assert (np.abs(scaled) <= 1).all()


def turned(original: Frame, order: list[int]) -> Frame:
    return replace(
        original,
        tasks=tuple(original.tasks[row] for row in order),
        counters=original.counters[order],
        settings=tuple(original.settings[row] for row in order),
        hints=tuple(original.hints[row] for row in order),
    )


@given(st.lists(frames(), min_size=1, max_size=5), st.data())
def test_another_order_of_the_tasks_is_another_order_of_the_rows(seen: list[Frame], data: st.DataObject) -> None:
    straight, other = Features(), Features()
    for each in seen:
        order = data.draw(st.permutations(range(len(each.tasks))))
        expected, found = straight.update(each), other.update(turned(each, list(order)))
        np.testing.assert_array_equal(found.rates, expected.rates[order])
        np.testing.assert_array_equal(found.tasks, expected.tasks[order])
        np.testing.assert_array_equal(found.history, expected.history[order])
        np.testing.assert_array_equal(found.seen, expected.seen[order])
        assert {found.frame.tasks[row] for row in pick_tasks(found, 2)} == {
            expected.frame.tasks[row] for row in pick_tasks(expected, 2)
        }


@given(st.integers(1, 200), st.integers(2, 7), st.integers(0, 1000), st.integers(0, 300))
def test_decaying_means_count_time_not_frames(window_ms: int, parts: int, first: int, then: int) -> None:
    """A window seen as one or in parts, at a steady rate, ends at the same mean."""
    window_us = window_ms * 1000 * parts

    def play(steps: int) -> State:
        features, state = Features(), None
        features.update(frame(0, [[0] * 5]))
        features.update(frame(100_000, [[first * 100_000, 0, 0, 0, 0]]))
        for step in range(1, steps + 1):
            run_us = first * 100 + then * window_us // 1000 * step / steps
            state = features.update(frame(100_000 + window_us * step // steps, [[round(run_us * 1000), 0, 0, 0, 0]]))
        assert state is not None
        return state

    whole, split = play(1), play(parts)
    for name in ("run_50ms", "run_200ms", "run_1s"):
        assert feature(whole, 0, name) == pytest.approx(feature(split, 0, name), abs=1e-4)


def test_rates_are_what_happened_in_the_window() -> None:
    features = Features()
    features.update(frame(1_000_000, [[0, 0, 0, 0, 0]]))
    hint = Hint(at_us=1_000_000, served=10, missed=1)
    features.update(frame(1_000_000, [[0, 0, 0, 0, 0]], hints={0: hint}))
    later = replace(hint, served=14, missed=2)
    state = features.update(frame(1_020_000, [[5_000_000, 10_000_000, 6, 4, 2]], hints={0: later}))
    assert state.window_us == 20_000
    expected = (0.25, 0.5, 300, 200, 100, 1250, 200, 50)
    assert tuple(state.rates[0]) == pytest.approx(expected)
    assert feature(state, 0, "missed_200ms") == pytest.approx(0.25)


def test_a_task_is_not_charged_with_what_it_did_before_it_was_seen() -> None:
    features = Features()
    features.update(frame(0, [[0] * 5]))
    state = features.update(frame(20_000, [[10_000_000, 0, 1, 1, 0], [9 * 10**12, 10**12, 10**6, 10**6, 10**6]]))
    assert rate(state, 0, "run_share") == 0.5
    assert not state.rates[1].any()
    assert not state.history[1].any()
    assert state.seen.tolist() == [2, 1]


def test_a_task_that_comes_back_under_the_same_number_is_another_task() -> None:
    features = Features()
    features.update(frame(0, [[10**9] * 5]))
    other = replace(task(0), id=TaskId(100, 99))
    state = features.update(replace(frame(20_000, [[2 * 10**9] * 5]), tasks=(other,)))
    assert not state.rates.any()
    assert state.seen.tolist() == [1]


def test_counters_that_go_back_and_a_window_of_no_length_count_as_nothing() -> None:
    features = Features()
    features.update(frame(50_000, [[10**9] * 5]))
    back = features.update(frame(70_000, [[0] * 5]))
    assert not back.rates.any()
    assert features.update(frame(70_000, [[10**9] * 5])).window_us == 0
    assert features.update(frame(60_000, [[10**9] * 5])).window_us == 0


def test_history_is_oldest_first_and_empty_before_a_task_was_seen() -> None:
    features = Features()
    for number in range(4):
        state = features.update(frame(number * 20_000, [[number * 1_000_000 * (number + 1), 0, 0, 0, 0]]))
    shares = state.history[0, :, HISTORY.index("run")].tolist()
    assert shares == pytest.approx([0, 0, 0, 0, 0, 0.1, 0.2, 0.3])


def test_a_state_does_not_change_when_the_next_frame_comes() -> None:
    features = Features()
    features.update(frame(0, [[0] * 5]))
    state = features.update(frame(20_000, [[10_000_000] * 5]))
    kept = [each.copy() for each in (state.rates, state.tasks, state.history, state.host, state.seen)]
    features.update(frame(40_000, [[30_000_000] * 5]))
    for before, after in zip(kept, (state.rates, state.tasks, state.history, state.host, state.seen), strict=True):
        np.testing.assert_array_equal(before, after)


def test_what_an_application_says_is_scaled_and_its_moment_passes() -> None:
    """From the book that hears it to the features: slack runs down once, and counts a second like the queue."""
    features, book, first = Features(), HintBook(), task(0).id
    said = Word(kind=Kind.LATENCY, slo_us=10_000, slack_us=10_000, queued=3)
    book.note(Subject(first, whole=False), said, by=1, now_us=0)

    def at(now_us: int) -> tuple[float, ...]:
        state = features.update(frame(now_us, [[0] * 5], hints={0: book.hints(now_us)[first.tid]}))
        return tuple(feature(state, 0, name) for name in ("kind", "slo", "urgency", "queued"))

    assert at(0) == pytest.approx((1.0, 0.6, 0.0, 2 / 6))
    assert at(10_000) == pytest.approx((1.0, 0.6, 0.5, 2 / 6))
    assert at(20_000) == pytest.approx((1.0, 0.6, 1.0, 2 / 6))
    assert at(600_000) == pytest.approx((1.0, 0.6, 1.0, 2 / 6))
    assert at(1_000_001) == pytest.approx((1.0, 0.6, 0.0, 0.0))


def test_weight_and_reservation_tell_what_a_task_is_set_to() -> None:
    reserved = Setting(SchedPolicy.DEADLINE, runtime_us=1000, period_us=4000)
    said = {0: Setting(nice=19), 1: Setting(nice=-10), 2: Setting(SchedPolicy.IDLE), 3: reserved}
    state = Features().update(frame(0, [[0] * 5] * 4, settings=said))
    column = state.tasks[:, TASK_FEATURES.index("weight")]
    assert column.tolist() == pytest.approx([-0.609, 0.322, -0.841, 0.0], abs=1e-3)
    assert feature(state, 3, "reserved") == 0.25
    assert float(state.host[HOST_FEATURES.index("reserved")]) == 0.125


def test_a_clock_is_steadier_than_bursts() -> None:
    def unsteady(counts: list[int]) -> float:
        features, total = Features(), 0
        features.update(frame(0, [[0] * 5]))
        for number, count in enumerate(counts, 1):
            total += count
            state = features.update(frame(number * 20_000, [[0, 0, 0, total, 0]]))
        return feature(state, 0, "unsteady_1s")

    assert unsteady([5] * 60) == pytest.approx(0, abs=1e-6)
    assert unsteady([0] * 9 + [50] + [0] * 9 + [50]) > 0.5


def test_a_network_gets_those_that_spoke_and_then_the_busiest_in_the_order_of_the_frame() -> None:
    features = Features()
    features.update(frame(0, [[0] * 5] * 6, hints={4: Hint(at_us=0)}))
    used = [1, 6, 2, 5, 0, 3]
    state = features.update(frame(20_000, [[each * 1_000_000, 0, 0, 0, 0] for each in used], hints={4: Hint(at_us=0)}))
    assert pick_tasks(state, 3).tolist() == [1, 3, 4]
    assert pick_tasks(state, 16).tolist() == [0, 1, 2, 3, 4, 5]
    assert pick_tasks(state, 0).tolist() == []


def test_the_host_is_told_in_shares_of_all_its_processors() -> None:
    features = Features()
    features.update(frame(0, [[0] * 5]))
    busy = replace(HOST, busy_us=20_000, steal_us=4_000, pressure_us=5_000, runnable=4)
    state = features.update(frame(20_000, [[20_000_000, 0, 0, 0, 0]], host=busy))
    said = dict(zip(HOST_FEATURES, state.host.tolist(), strict=True))
    assert said["busy_200ms"] == pytest.approx(0.5)
    assert said["steal_200ms"] == pytest.approx(0.1)
    assert said["pressure_200ms"] == pytest.approx(0.25)
    assert said["runnable"] == pytest.approx(0.25)
    assert said["managed_run"] == pytest.approx(0.5)
    assert said["window"] == 0


def test_what_a_task_was_is_not_forgotten_while_it_starves() -> None:
    features = Features()
    steps = [(20_000 * step, step * 2_000_000, step * 4) for step in range(10)]
    for at_us, ran_ns, sleeps in steps:
        features.update(frame(at_us, [counted(ran_ns, sleeps)]))
    for waited in range(500):  # ten seconds in a queue
        state = features.update(frame(200_000 + 20_000 * waited, [counted(18_000_000, 36)]))
    assert feature(state, 0, "burst_own_20ms") == feature(state, 0, "burst_own_200ms") > 0
    assert feature(state, 0, "burst_own_200ms") == pytest.approx(np.log2(1 + 500 / 100) / 12, abs=0.02)
    assert feature(state, 0, "voluntary_200ms") == pytest.approx(0.0, abs=1e-6)
    assert feature(state, 0, "still") > 0.5


def test_what_a_task_was_is_forgotten_when_it_computes() -> None:
    features = Features()
    for step in range(10):
        features.update(frame(20_000 * step, [counted(step * 2_000_000, step * 4)]))
    for step in range(15):
        state = features.update(frame(200_000 + 20_000 * step, [counted(18_000_000 + step * 20_000_000, 36)]))
    assert feature(state, 0, "burst_own_20ms") > feature(state, 0, "burst_own_200ms") > 0.5
