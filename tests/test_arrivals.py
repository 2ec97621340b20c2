"""Schedules of the open loop."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import OptionError
from npuops.loadgen.arrivals import Arrivals, schedule, turns


@given(rate=st.floats(0.1, 500), seconds=st.floats(0.1, 5), kind=st.sampled_from(Arrivals), seed=st.integers(0, 99))
def test_a_schedule_is_ascending_within_its_time_and_the_same_for_the_same_seed(
    rate: float, seconds: float, kind: Arrivals, seed: int
) -> None:
    instants = schedule(rate, seconds, kind, seed)
    assert np.all(np.diff(instants) >= 0)
    assert np.all((instants >= 0) & (instants < seconds))
    assert np.array_equal(instants, schedule(rate, seconds, kind, seed))


def test_a_constant_rate_is_exact() -> None:
    assert schedule(4, 1, Arrivals.CONSTANT, 0).tolist() == [0, 0.25, 0.5, 0.75]
    assert schedule(100, 2, Arrivals.CONSTANT, 7).size == 200


def test_poisson_arrivals_have_the_mean_and_the_spread_of_their_law() -> None:
    gaps = np.diff(schedule(1000, 100, Arrivals.POISSON, 3))
    assert gaps.mean() == pytest.approx(1e-3, rel=0.02)
    assert gaps.std() == pytest.approx(1e-3, rel=0.02), "an exponential law's deviation is its mean"


def test_more_than_memory_holds_is_refused() -> None:
    with pytest.raises(OptionError, match="at most"):
        schedule(1e6, 1e6, Arrivals.POISSON, 0)


def test_turns_follow_the_weights_and_use_every_input() -> None:
    drawn = turns([1, 3], 4, 20_000, 5)
    assert np.mean(drawn // 4 == 1) == pytest.approx(0.75, abs=0.02)
    assert set(drawn.tolist()) == set(range(8))
    assert np.array_equal(drawn, turns([1, 3], 4, 20_000, 5))
