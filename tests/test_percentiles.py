"""Exact percentiles."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.loadgen.percentiles import percentile_table, quantile, summary

LATENCIES = st.lists(st.floats(1e-6, 100), min_size=1, max_size=300)


@given(values=LATENCIES, share=st.floats(0, 0.999))
def test_a_percentile_is_the_smallest_value_that_so_many_do_not_exceed(values: list[float], share: float) -> None:
    ordered = np.sort(np.array(values))
    found = quantile(ordered, share)
    if found is None:
        assert len(values) * (1 - share) < 1
        return
    assert found in ordered
    assert np.mean(ordered <= found) >= share - 1e-9
    below = ordered[ordered < found]
    assert below.size / ordered.size < share or not below.size


def test_a_percentile_with_too_few_values_behind_it_is_absent() -> None:
    found = summary(np.arange(1, 100) / 1e3)
    assert found is not None
    assert (found.p50_ms, found.p90_ms, found.p95_ms) == pytest.approx((50, 90, 95))
    assert found.p99_ms is None
    assert found.tail_ms == found.max_ms == pytest.approx(99)
    exact = summary(np.arange(1, 101) / 1e3)
    assert exact is not None
    assert exact.p99_ms == pytest.approx(99)
    assert exact.p999_ms is None


def test_no_values_have_no_summary_and_no_table() -> None:
    assert summary(np.empty(0)) is None
    assert percentile_table(np.empty(0)) == ()


@given(values=LATENCIES)
def test_the_table_ascends_to_the_largest_value_and_counts_rightly(values: list[float]) -> None:
    rows = percentile_table(np.array(values))
    latencies = np.array(values) * 1e3
    assert rows[-1].count == len(values)
    assert rows[-1].percentile == 100
    for row in rows:
        assert row.count == np.sum(latencies <= row.ms)
    assert [row.count for row in rows] == sorted({row.count for row in rows})
