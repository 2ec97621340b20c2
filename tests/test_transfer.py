from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import DataError, OptionError
from npuops.vnpu.profile import profile_names
from npuops.vnpu.profile_sections import FitError, Interval
from npuops.vnpu.transfer import Transfer, share_of, transferred, transfers, transfers_from


def pair(share: float = 1.0) -> Transfer:
    error = FitError(mape=0.05, median=0.04, within_10=0.9, rows=97, how="each family left out once")
    return Transfer(share=share, interval=Interval(low=0.9, high=1.1), error=error)


@pytest.mark.parametrize(("share", "us"), [(0.0, 100.0), (0.5, 200.0), (1.0, 400.0)])
def test_a_surprise_on_the_sibling_carries_over_by_its_share(share: float, us: float) -> None:
    told = transferred(law_us=100.0, sibling_law_us=10.0, measured_us=40.0, transfer=pair(share))
    assert told.us == pytest.approx(us)
    assert (told.low_us, told.high_us) == pytest.approx((0.9 * us, 1.1 * us))


def test_a_measurement_that_the_law_expected_changes_nothing() -> None:
    assert transferred(100.0, 10.0, 10.0, pair(0.7)).us == pytest.approx(100.0)


@pytest.mark.parametrize("measured_us", [0.0, -1.0, float("nan"), float("inf")])
def test_what_is_no_latency_is_refused(measured_us: float) -> None:
    with pytest.raises(DataError, match="no measurement"):
        transferred(100.0, 10.0, measured_us, pair())


def test_the_share_is_what_explains_a_chips_surprises_best() -> None:
    sibling = np.array([0.5, -0.2, 0.1])
    assert share_of(0.6 * sibling, sibling) == pytest.approx(0.6)
    assert share_of(-sibling, sibling) == 0
    assert share_of(3 * sibling, sibling) == 1
    assert share_of(sibling, np.zeros(3)) == 0


@given(st.lists(st.tuples(st.floats(-3, 3), st.floats(-3, 3)), min_size=1, max_size=9))
def test_a_share_never_makes_known_errors_worse(surprises: list[tuple[float, float]]) -> None:
    here, there = (np.array(column) for column in zip(*surprises, strict=True))
    left = here - share_of(here, there) * there
    assert left @ left <= here @ here + 1e-9


def test_every_pair_is_of_two_bundled_profiles_and_was_judged() -> None:
    known = set(profile_names())
    for measured_on, pairs in transfers().items():
        assert {measured_on, *pairs} <= known
        assert measured_on not in pairs
        assert all(one.error.rows >= 20 for one in pairs.values())


def test_a_chip_without_measured_siblings_is_told_with_those_that_have_some() -> None:
    with pytest.raises(OptionError) as told:
        transfers_from("dpu-b4096")
    assert "rk3588" in told.value.advice


def test_a_share_beyond_one_is_refused() -> None:
    with pytest.raises(OptionError, match="share"):
        pair(1.1)
