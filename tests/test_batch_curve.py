from __future__ import annotations

from math import inf

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.runtime.batch_curve import NOISE, WIN, BatchCurve, measure_sizes, stepped

TINY = BatchCurve(((1, 13.0), (8, 50.0), (32, 134.0)))
"""A small CNN on one core: batching wins fourfold."""
MOBILENET = BatchCurve(((1, 7_240.0), (8, 61_400.0), (32, 272_000.0)))
"""On the same core batching loses."""

POINTS = st.lists(st.tuples(st.integers(1, 64), st.floats(1, 1e6)), min_size=1, max_size=12).map(tuple)


def test_sizes_double_up_to_the_largest() -> None:
    assert measure_sizes(1) == (1,)
    assert measure_sizes(8) == (1, 2, 4, 8)
    assert measure_sizes(12) == (1, 2, 4, 8, 12)


def test_measured_sizes_are_given_back_and_others_lie_between() -> None:
    assert (TINY.us(1), TINY.us(8), TINY.us(32)) == (13.0, 50.0, 134.0)
    assert TINY.us(20) == pytest.approx(92.0)
    assert TINY.us(0) == 0.0


def test_beyond_the_largest_each_row_costs_the_average_at_least() -> None:
    assert TINY.us(64) == pytest.approx(268.0)
    assert BatchCurve(((1, 10.0), (2, 30.0))).us(4) == pytest.approx(70.0)
    assert BatchCurve(((1, 10.0),)).us(5) == pytest.approx(50.0)


def test_batching_where_it_wins_and_as_far_as_the_budget_allows() -> None:
    assert TINY.best_rows(inf) == 32
    assert TINY.best_rows(134) == 32
    assert TINY.best_rows(60) == 10
    assert TINY.best_rows(5) == 1


def test_no_batching_where_it_loses_or_hardly_wins() -> None:
    assert MOBILENET.best_rows(inf) == 1
    assert BatchCurve(((1, 100.0), (2, 185.0), (4, 365.0))).best_rows(inf) == 1
    assert BatchCurve(((1, 100.0), (2, 170.0))).best_rows(inf) == 2


def test_of_sizes_that_are_as_good_the_smallest_is_taken() -> None:
    assert BatchCurve(((1, 100.0), (8, 400.0), (16, 795.0), (32, 1_585.0))).best_rows(inf) == 8


def test_noise_does_not_make_more_rows_faster_than_fewer() -> None:
    disturbed = BatchCurve(((1, 13.0), (2, 90.0), (4, 30.0), (8, 50.0)))
    assert disturbed.us(2) == 30.0


def test_without_a_measurement_nothing_is_batched() -> None:
    unknown = BatchCurve(())
    assert (unknown.best_rows(inf), unknown.us(7)) == (1, 0.0)


def test_a_static_artifact_costs_the_same_whatever_it_holds() -> None:
    static = BatchCurve(((8, 40.0),))
    assert (static.us(1), static.us(8), static.best_rows(inf)) == (40.0, 40.0, 8)


def test_static_artifacts_together_are_a_staircase() -> None:
    stairs = stepped({8: 50.0, 1: 13.0, 4: 30.0})
    assert [stairs.us(rows) for rows in (1, 2, 4, 5, 8)] == [13.0, 30.0, 30.0, 50.0, 50.0]


def test_a_backlog_is_worked_off_in_useful_batches() -> None:
    assert TINY.backlog_us(70, inf) == pytest.approx(2 * 134.0 + TINY.us(6))
    assert MOBILENET.backlog_us(3, inf) == pytest.approx(3 * 7_240.0)
    assert TINY.backlog_us(0, inf) == 0.0


def test_waiting_rows_are_split_where_that_is_faster_than_filling_up() -> None:
    linear = stepped({1: 10.0, 4: 40.0, 8: 80.0})
    assert [linear.first_rows(rows) for rows in range(1, 9)] == [1, 1, 1, 4, 4, 4, 4, 8]
    flat = stepped({1: 10.0, 4: 11.0, 8: 12.0})
    assert [flat.first_rows(rows) for rows in (*range(1, 9), 20)] == [1, 2, 3, 4, 5, 6, 7, 8, 20]
    assert BatchCurve(()).first_rows(3) == 3


@given(st.dictionaries(st.integers(1, 12), st.floats(1, 1000), min_size=1, max_size=4), st.integers(0, 12))
def test_no_way_to_split_over_artifacts_is_much_faster(times: dict[int, float], rows: int) -> None:
    curve = stepped(times)
    rows = min(rows, max(times))

    def spent_us(left: int) -> float:
        first = curve.first_rows(left)
        return curve.us(first) + spent_us(left - first) if left else 0.0

    least = [0.0] + [inf] * rows
    for left in range(1, rows + 1):
        least[left] = min(curve.us(size) + least[left - size] for size in range(1, left + 1))
    assert spent_us(rows) <= least[rows] / (1 - WIN) ** 4 * (1 + 1e-9)


@given(POINTS, st.integers(1, 64))
def test_splitting_saves_time_or_is_not_done(points: tuple[tuple[int, float], ...], rows: int) -> None:
    curve = BatchCurve(points)
    first = curve.first_rows(rows)
    assert 1 <= first <= rows
    if first < rows:
        assert curve.us(first) < curve.us(rows)


@given(POINTS, st.integers(0, 200), st.integers(0, 200))
def test_more_rows_never_take_less_time(points: tuple[tuple[int, float], ...], rows: int, more: int) -> None:
    curve = BatchCurve(points)
    assert curve.us(rows) <= curve.us(rows + more) * (1 + 1e-9)


@given(POINTS, st.floats(0, 2e6))
def test_a_batch_is_within_the_budget_and_wins(points: tuple[tuple[int, float], ...], budget_us: float) -> None:
    curve = BatchCurve(points)
    best = curve.best_rows(budget_us)
    assert 1 <= best <= max(rows for rows, _ in points)
    if best > 1:
        assert curve.us(best) <= budget_us
        assert curve.us(best) / best <= curve.us(1) * (1 - WIN)


@given(POINTS, st.floats(0, 2e6), st.floats(0, 2e6))
def test_a_larger_budget_never_makes_a_row_dearer(
    points: tuple[tuple[int, float], ...], budget_us: float, more_us: float
) -> None:
    curve = BatchCurve(points)
    small, large = curve.best_rows(budget_us), curve.best_rows(budget_us + more_us)
    assert curve.us(large) / large <= curve.us(small) / small * (1 + NOISE + 1e-9)
