"""Histograms of many series: nothing is lost, and percentiles are those of the values."""

from __future__ import annotations

from bisect import bisect_left
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from npuops.telemetry.folded_histogram import FoldedHistogram, log_bounds, quantile

BOUNDS = (50, 100, 200, 500)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 1000), st.integers(0, 9)), max_size=60))
def test_each_value_counts_in_the_bucket_that_its_bound_ends(values: list[tuple[int, int, int]]) -> None:
    histogram = FoldedHistogram(BOUNDS)
    series, numbers, weights = (np.array([value[k] for value in values], np.int64) for k in range(3))
    for part in (slice(0, 20), slice(20, None)):
        histogram.add(series[part], numbers[part], weights[part])
    for name in range(len(histogram.sums)):
        mine = [(number, weight) for owner, number, weight in values if owner == name]
        for bucket in range(len(BOUNDS) + 1):
            expected = sum(weight for number, weight in mine if bisect_left(BOUNDS, number) == bucket)
            assert histogram.counts[name, bucket] == expected
        assert histogram.sums[name] == sum(number * weight for number, weight in mine)
    assert histogram.counts.sum() == sum(weight for _, _, weight in values)


def test_a_copy_stays_as_it_was() -> None:
    histogram = FoldedHistogram(BOUNDS)
    histogram.add(np.array([0]), np.array([60]))
    copied = histogram.copy()
    histogram.add(np.array([0, 3]), np.array([60, 60]))
    assert copied.counts.tolist() == [[0, 1, 0, 0, 0]]
    assert copied.sums.tolist() == [60]


def test_bounds_reach_from_the_low_to_beyond_the_high_end_and_rise() -> None:
    bounds = log_bounds(16, 60_000_000, 8)
    assert (bounds[0], bounds[-1] >= 60_000_000) == (16, True)
    assert all(low < high <= low * 2 ** (1 / 8) + 1 for low, high in pairwise(bounds))


@given(st.lists(st.integers(20, 50_000_000), min_size=1, max_size=300), st.sampled_from([0.5, 0.95, 0.99, 1.0]))
def test_a_percentile_is_within_a_bucket_of_the_true_one(values: list[int], share: float) -> None:
    bounds = log_bounds(16, 60_000_000, 8)
    histogram = FoldedHistogram(bounds)
    histogram.add(np.zeros(len(values), np.int64), np.array(values))
    found = quantile(histogram.bounds, histogram.counts[0], share)
    rank = max(int(np.ceil(share * len(values) - 1e-9)), 1)
    true = sorted(values)[rank - 1]
    assert found is not None
    assert abs(found - true) <= true * 0.0906 + 1


def test_nothing_has_no_percentile_and_what_is_above_all_bounds_has_the_last() -> None:
    bounds = np.array(BOUNDS)
    assert quantile(bounds, np.zeros(5, np.int64), 0.5) is None
    assert quantile(bounds, np.array([0, 0, 0, 0, 3]), 0.5) == 500
