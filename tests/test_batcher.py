from __future__ import annotations

from dataclasses import dataclass
from math import inf

from hypothesis import given
from hypothesis import strategies as st

from npuops.runtime.batch_curve import BatchCurve, stepped
from npuops.runtime.batcher import LEAD_US, rows_to_take

TINY = BatchCurve(((1, 13.0), (8, 50.0), (32, 134.0)))
MOBILENET = BatchCurve(((1, 7_240.0), (8, 61_400.0), (32, 272_000.0)))


def take(
    waiting: int,
    first: int = 1,
    *,
    in_flight: int = 0,
    free: int = 2,
    curve: BatchCurve = TINY,
    budget_us: float = inf,
    max_rows: int = 32,
    remaining_us: float = 0.0,
) -> int:
    return rows_to_take(waiting, first, in_flight, free, curve, budget_us, max_rows, remaining_us)


def test_a_lone_request_on_an_idle_device_goes_at_once() -> None:
    assert take(1) == 1
    assert take(1, curve=MOBILENET) == 1


def test_an_idle_device_gets_all_that_waits_up_to_the_useful_batch() -> None:
    assert take(20) == 20
    assert take(100) == 32
    assert take(100, max_rows=16) == 16
    assert take(100, budget_us=60) == 10


def test_where_batching_loses_each_request_runs_alone() -> None:
    assert take(100, curve=MOBILENET) == 1
    assert take(100, in_flight=1, free=1, curve=MOBILENET) == 1


def test_beside_a_run_the_next_one_is_prepared_when_half_a_useful_batch_waits() -> None:
    assert take(15, in_flight=1, free=1) == 0
    assert take(16, in_flight=1, free=1) == 16
    assert take(16, first=16, in_flight=1, free=1) == 16


def test_the_next_run_is_not_prepared_long_before_it_can_begin() -> None:
    assert take(100, in_flight=1, free=1, remaining_us=LEAD_US + 1) == 0
    assert take(100, in_flight=1, free=1, remaining_us=LEAD_US) == 32
    assert take(100, in_flight=0, remaining_us=LEAD_US + 1) == 32


def test_without_credits_nothing_is_taken() -> None:
    assert take(100, free=0) == 0
    assert take(100, in_flight=2, free=0) == 0


def test_static_artifacts_are_filled_up_only_where_that_is_faster() -> None:
    assert take(5, curve=stepped({1: 10.0, 4: 20.0, 8: 38.0})) == 4
    assert take(5, curve=stepped({1: 10.0, 4: 20.0, 8: 24.0})) == 5
    assert take(5, first=5, curve=stepped({1: 10.0, 4: 20.0, 8: 38.0})) == 5


def test_a_request_of_many_rows_is_not_divided() -> None:
    assert take(24, first=24, curve=MOBILENET) == 24
    assert take(40, first=24, budget_us=60) == 24


@dataclass
class Load:
    waiting: int
    first: int
    in_flight: int
    free: int
    budget_us: float
    max_rows: int
    curve: BatchCurve


CURVES = st.lists(st.tuples(st.integers(1, 64), st.floats(1, 1e5)), max_size=8).map(
    lambda points: BatchCurve(tuple(points))
)


@st.composite
def loads(draw: st.DrawFn) -> Load:
    max_rows = draw(st.integers(1, 64))
    first = draw(st.integers(1, max_rows))
    return Load(
        waiting=first + draw(st.integers(0, 200)),
        first=first,
        in_flight=draw(st.integers(0, 3)),
        free=draw(st.integers(0, 3)),
        budget_us=draw(st.floats(0, 2e5)),
        max_rows=max_rows,
        curve=draw(CURVES),
    )


def judged(load: Load) -> int:
    return rows_to_take(load.waiting, load.first, load.in_flight, load.free, load.curve, load.budget_us, load.max_rows)


@given(loads())
def test_a_run_holds_the_first_request_and_no_more_than_waits_or_fits(load: Load) -> None:
    rows = judged(load)
    assert rows == 0 or load.first <= rows <= min(load.waiting, load.max_rows)


@given(loads())
def test_a_run_is_longer_than_useful_only_for_one_request(load: Load) -> None:
    assert judged(load) <= max(load.curve.best_rows(load.budget_us), load.first)


@given(loads())
def test_an_idle_device_with_work_is_never_left_idle(load: Load) -> None:
    if load.in_flight == 0 and load.free:
        assert judged(load) > 0


@given(loads(), st.integers(0, 100))
def test_more_that_waits_never_stops_a_run(load: Load, more: int) -> None:
    before = judged(load)
    load.waiting += more
    assert (judged(load) > 0) >= (before > 0)


@given(loads())
def test_what_is_kept_waiting_goes_when_the_run_under_way_ends(load: Load) -> None:
    load.free = 1
    if judged(load) == 0:
        assert load.in_flight > 0
        load.in_flight = 0
        assert judged(load) > 0
