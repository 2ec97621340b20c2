from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import OptionError
from npuops.hostsched.pace import EASY, OVERRUNS, SAVED_US, SLOWEST_US, THRIFTIEST_US, Pace
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


@pytest.mark.parametrize("share", [0.0, 0.0009, 1.01, -1.0])
def test_a_budget_of_nothing_or_of_more_than_a_core_is_refused(share: float) -> None:
    with pytest.raises(OptionError, match="core"):
        Pace(20_000, share)


@given(
    st.integers(10_000, 100_000),
    st.floats(0.005, 0.5),
    st.lists(st.tuples(st.floats(10, 700), st.booleans()), min_size=1, max_size=40),
)
def test_steps_never_take_more_than_the_budget_and_what_was_saved_up(
    period_us: int, share: float, phases: list[tuple[float, bool]]
) -> None:
    """As long as a step every 150 ms fits it; the rest is what a step, and the notches of the period, may be off."""
    pace, now, spent, most = Pace(period_us, share), 0, 0.0, 0.0
    for cost_us, lively in phases:
        for _ in range(30):
            spent, most = spent + cost_us, max(most, cost_us)
            due, _ = pace.after(now, now + int(cost_us), cost_us, lively=lively)
            assert now + int(cost_us) < due <= now + int(cost_us) + pace.period_us
            assert period_us <= pace.period_us <= THRIFTIEST_US
            now = due
    assert spent <= share * (now + SAVED_US) + 60 * most


def test_it_is_fast_while_things_change_and_it_can_afford_that_and_slow_otherwise() -> None:
    pace, now = Pace(20_000, 0.01), 0
    periods = []
    for lively in (False, True, False, False, True):
        for _ in range(30):
            now, _ = pace.after(now, now + 500, 500, lively=lively)
        periods.append(pace.period_us)
    assert periods == [65_000, 20_000, 65_000, 65_000, 20_000]
    for _ in range(1000):
        now, _ = pace.after(now, now + 500, 500, lively=True)
    changes = []
    began = now
    for _ in range(3000):
        now, change = pace.after(now, now + 500, 500, lively=True)
        changes += [change] if change is not None else []
    assert {change.after_us for change in changes} == {20_000, 65_000}
    assert not any(change.trouble for change in changes)
    assert len(changes) < (now - began) / 1e6, "it does not flutter"


def test_without_a_budget_it_is_as_fast_as_it_was_told() -> None:
    pace, now = Pace(20_000), 0
    for _ in range(200):
        now, change = pace.after(now, now + 5_000, 5_000.0, lively=False)
        assert change is None
    assert pace.period_us == 20_000
