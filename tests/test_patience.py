"""How long a run is waited for: as long as waiting costs nobody an answer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.runtime.patience import LEAST_US, MARGIN_US, OVERDUE, followed, is_overdue, left_us, must_move, rested

US = st.floats(1, 1e8)


def test_a_run_in_time_has_the_rest_of_its_length_left() -> None:
    assert left_us(1_000, 300) == 700


def test_the_later_a_run_is_the_longer_it_is_expected_to_take_still() -> None:
    assert left_us(1_000, 1_200) == 200
    assert left_us(1_000, 500_000) == 499_000


@given(US, US)
def test_a_short_delay_is_never_a_sign(predicted_us: float, taken_us: float) -> None:
    if is_overdue(predicted_us, taken_us):
        assert taken_us > LEAST_US
        assert taken_us > OVERDUE * predicted_us


def test_a_request_is_moved_when_the_other_device_just_makes_it_and_not_before() -> None:
    elsewhere_us = 5_000.0
    assert not must_move(10_000_000, elsewhere_us), "there is time to wait"
    assert must_move(MARGIN_US, elsewhere_us)
    assert must_move(elsewhere_us + 1, elsewhere_us)
    assert not must_move(elsewhere_us, elsewhere_us), "it is too late for both"
    assert not must_move(-1, elsewhere_us)


def test_a_throttled_device_is_known_after_some_runs_and_forgiven_after_as_many() -> None:
    pace = 1.0
    for _ in range(30):
        pace = followed(pace, 1_000, 2_000)
    assert pace == pytest.approx(2, rel=0.05)
    for _ in range(30):
        pace = followed(pace, 1_000, 1_000)
    assert pace == pytest.approx(1, rel=0.05)


@given(US, US)
def test_one_run_that_was_stuck_moves_the_pace_by_less_than_half(predicted_us: float, took_us: float) -> None:
    assert 0.5 < followed(1.0, predicted_us, took_us) < 1.5


def test_a_device_that_nobody_asks_is_given_another_chance() -> None:
    pace = 20.0
    for _ in range(50 * 10):
        pace = rested(pace)
    assert pace == pytest.approx(1, abs=0.01)


def test_a_length_that_was_never_measured_teaches_nothing() -> None:
    assert followed(1.0, 0.0, 1_000) == 1.0
