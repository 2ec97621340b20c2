from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import OptionError
from npuops.hostsched.pace import EASY, OVERRUNS, SLOWEST_US, Pace
from npuops.hostsched.reaper_link import HEARTBEAT_TIMEOUT_MS


def test_moments_lie_on_a_grid_whatever_a_step_takes() -> None:
    pace, began = Pace(20_000), 1_000
    for spent in (3_000, 19_000, 1, 7_000):
        due, change = pace.after(began, began + spent)
        assert change is None
        assert (due - 1_000) % 20_000 == 0
        began = due + 137  # late by a little: the grid stays
    assert due == 1_000 + 4 * 20_000


def test_missed_moments_are_skipped_not_made_up_for() -> None:
    pace = Pace(20_000)
    due, _ = pace.after(0, 95_000)
    assert due == 100_000


def test_steps_that_do_not_fit_make_it_slower_and_steps_that_fit_again_bring_it_back() -> None:
    pace, now = Pace(20_000), 0
    changes = []
    for _ in range(OVERRUNS):
        now, change = pace.after(now, now + 25_000)
        changes.append(change)
    assert changes[:-1] == [None] * (OVERRUNS - 1)
    assert changes[-1] is not None
    assert (changes[-1].before_us, changes[-1].after_us, pace.period_us) == (20_000, 40_000, 40_000)
    assert "25.0 ms" in changes[-1].why
    for _ in range(EASY):
        now, change = pace.after(now, now + 2_000)
    assert change is not None
    assert change.after_us == 20_000
    assert pace.overruns == OVERRUNS


def test_it_never_becomes_so_slow_that_it_is_taken_for_dead() -> None:
    pace, now = Pace(100_000), 0
    for _ in range(100):
        now, _ = pace.after(now, now + 10_000_000)
    assert pace.period_us == SLOWEST_US < HEARTBEAT_TIMEOUT_MS * 1000


@pytest.mark.parametrize("period_us", [0, 9_999, 100_001, -1])
def test_a_period_outside_of_10_to_100_ms_is_refused(period_us: int) -> None:
    with pytest.raises(OptionError, match="period"):
        Pace(period_us)


@given(st.integers(10_000, 100_000), st.lists(st.integers(0, 400_000), min_size=1, max_size=200))
def test_the_next_moment_is_always_ahead_and_never_further_than_a_period(period_us: int, spent: list[int]) -> None:
    pace, began = Pace(period_us), 5
    for each in spent:
        ended = began + each
        due, _ = pace.after(began, ended)
        assert ended < due <= ended + pace.period_us
        assert period_us <= pace.period_us <= SLOWEST_US
        began = due
