from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import OptionError
from npuops.hostsched.objective import Weights, worth, worth_of
from npuops.hostsched.plan import Forecast

share = st.floats(0, 1)


def test_saving_misses_is_worth_some_progress_but_not_a_starved_job() -> None:
    default = worth_of(Forecast(0.6, 1.0))
    assert worth_of(Forecast(0.01, 0.9), changes=4) > default
    assert worth_of(Forecast(0.5, 0.2), changes=4) < default


def test_above_the_floor_misses_decide_and_among_equals_the_quieter_plan() -> None:
    assert worth_of(Forecast(0.02, 0.86)) > worth_of(Forecast(0.03, 1.0))
    assert worth_of(Forecast(0.02, 0.9), changes=1) > worth_of(Forecast(0.02, 0.9), changes=2)


@given(share, share, share, share, st.integers(0, 64))
def test_less_misses_and_more_progress_are_never_worth_less(miss, other, progress, more, changed) -> None:
    low, high = sorted((miss, other))
    less, most = sorted((progress, more))
    assert worth(low, most, float(changed)) >= worth(high, less, float(changed)) - 1e-12


def test_arrays_give_what_numbers_give() -> None:
    miss, progress, changed = np.array([0.0, 0.5]), np.array([1.2, 0.3]), np.array([0.0, 3.0])
    rows = zip(miss, progress, changed, strict=True)
    assert worth(miss, progress, changed).tolist() == [worth(*map(float, row)) for row in rows]


def test_a_weight_that_rewards_harm_is_refused() -> None:
    with pytest.raises(OptionError):
        Weights(below_floor=-1.0)
