from __future__ import annotations

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.devices.quantities import Quantity, Reading
from npuops.devices.rates import Change, change, derived, restarted

COUNTS = st.integers(min_value=0, max_value=2**53).map(float)
WRAP = 1000.0


def counter(value: float, wraps_at: float | None = None) -> Reading:
    return Reading(value, "/counter", wraps_at)


@given(COUNTS, COUNTS, st.sampled_from([None, WRAP, 2.0**32]))
def test_a_change_is_finite_and_never_negative(before: float, now: float, wraps_at: float | None) -> None:
    amount = change(counter(before, wraps_at), counter(now, wraps_at)).amount
    assert math.isfinite(amount)
    assert amount >= 0


@given(st.lists(st.integers(min_value=0, max_value=499), max_size=50))
def test_the_sum_over_wraps_is_what_was_really_counted(steps: list[int]) -> None:
    total, seen = 0, [0]
    for step in steps:
        total += step
        seen.append(total)
    raw = [counter(value % WRAP, WRAP) for value in seen]
    assert sum(change(one, two).amount for one, two in itertools.pairwise(raw)) == total


def test_a_counter_without_a_width_that_falls_started_over() -> None:
    assert change(counter(900), counter(3)) == Change(3, restarted=True)
    assert restarted({Quantity.RESETS: counter(9)}, {Quantity.RESETS: counter(0)}) == (Quantity.RESETS,)


def test_a_counter_that_falls_from_far_below_its_width_started_over_too() -> None:
    assert change(counter(300, WRAP), counter(10, WRAP)) == Change(10, restarted=True)


def test_a_gauge_that_falls_is_no_restart() -> None:
    assert restarted({Quantity.POWER: counter(9)}, {Quantity.POWER: counter(1)}) == ()


def test_busy_ratio_power_and_energy_come_from_counters_and_the_clock() -> None:
    before = {Quantity.BUSY: counter(10.0), Quantity.ENERGY: counter(100.0)}
    now = {Quantity.BUSY: counter(11.0), Quantity.ENERGY: counter(106.0)}
    found = derived(before, now, 2.0)
    assert found[Quantity.BUSY_RATIO].value == 0.5
    assert found[Quantity.POWER].value == 3.0
    assert "over 2.00 s" in found[Quantity.BUSY_RATIO].source
    assert Quantity.ENERGY not in found


def test_hailos_ratio_is_of_ticks_and_needs_no_clock_of_ours() -> None:
    before = {Quantity.BUSY_TICKS: counter(100), Quantity.TICKS: counter(1000)}
    now = {Quantity.BUSY_TICKS: counter(125), Quantity.TICKS: counter(1100)}
    assert derived(before, now, 1.0)[Quantity.BUSY_RATIO].value == 0.25
    assert derived(now, now, 1.0) == {}


def test_power_is_integrated_where_there_is_no_energy_counter() -> None:
    before = {Quantity.POWER: counter(2.0)}
    first = derived(before, {Quantity.POWER: counter(4.0)}, 1.0)
    assert first[Quantity.ENERGY].value == 3.0
    second = derived({Quantity.POWER: counter(4.0), **first}, {Quantity.POWER: counter(4.0)}, 2.0)
    assert second[Quantity.ENERGY].value == 11.0
    assert "integrated" in second[Quantity.ENERGY].source


@pytest.mark.parametrize("interval_s", [0.0, -1.0])
def test_nothing_is_derived_without_time_between(interval_s: float) -> None:
    busy = {Quantity.BUSY: counter(1.0)}
    assert derived(busy, busy, interval_s) == {}


def test_nothing_is_derived_across_a_restart() -> None:
    assert derived({Quantity.BUSY: counter(9.0)}, {Quantity.BUSY: counter(0.5)}, 1.0) == {}


@given(COUNTS, COUNTS, st.floats(min_value=1e-6, max_value=1e6))
def test_a_ratio_is_between_0_and_1(before: float, now: float, interval_s: float) -> None:
    found = derived({Quantity.BUSY: counter(before)}, {Quantity.BUSY: counter(now)}, interval_s)
    assert all(0 <= reading.value <= 1 for reading in found.values())
