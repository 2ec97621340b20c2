"""Heat: steps of any length are exact, and crossings are found."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_machine import THERMAL
from npuops.vnpu.thermal import NEXT, Heat, Network, Temperatures, Trip

NETWORK = Network(THERMAL)
DAY_S = 86_400.0


def close(one: Temperatures, other: Temperatures, tolerance_c: float) -> bool:
    return abs(one.junction_c - other.junction_c) <= tolerance_c and abs(one.case_c - other.case_c) <= tolerance_c


def test_a_day_in_one_step_is_right() -> None:
    found = NETWORK.after(NETWORK.at_rest, 4.0, DAY_S)
    assert found.case_c == pytest.approx(25 + 4 * 10)
    assert found.junction_c == pytest.approx(25 + 4 * 10 + 4 * 4)


def test_an_exact_step_is_what_many_tiny_euler_steps_come_to() -> None:
    junction_c, case_c, step_s, watts = 25.0, 25.0, 1e-4, 6.0
    for _ in range(50_000):
        across_w, out_w = (junction_c - case_c) / 4.0, (case_c - 25.0) / 10.0
        junction_c += step_s * (watts - across_w) / 0.5
        case_c += step_s * (across_w - out_w) / 20.0
    assert close(NETWORK.after(NETWORK.at_rest, watts, 5.0), Temperatures(junction_c, case_c), 2e-3)


states = st.builds(Temperatures, st.floats(0, 120), st.floats(0, 120))


@given(states, st.floats(0, 20), st.floats(1e-6, DAY_S), st.floats(0, 1))
def test_a_step_is_the_same_in_one_piece_or_in_two(
    start: Temperatures, watts: float, seconds: float, part: float
) -> None:
    halfway = NETWORK.after(start, watts, seconds * part)
    assert close(NETWORK.after(start, watts, seconds), NETWORK.after(halfway, watts, seconds * (1 - part)), 1e-8)


@given(states, st.floats(0, 1000), st.floats(1e-7, DAY_S))
def test_no_junction_is_warmer_than_its_case_by_more_than_the_power_explains(
    start: Temperatures, watts: float, seconds: float
) -> None:
    final = NETWORK.final(watts)
    warmest_c = max(start.case_c, final.case_c, THERMAL.ambient_c, start.junction_c - watts * 4.0) + watts * 4.0
    coldest_c = min(start.junction_c, start.case_c, THERMAL.ambient_c)
    assert coldest_c - 1e-6 <= NETWORK.after(start, watts, seconds).junction_c <= warmest_c + 1e-6


@settings(max_examples=300)
@given(states, st.floats(0, 20), st.floats(26, 130))
def test_a_crossing_is_found_exactly_if_there_is_one(start: Temperatures, watts: float, level_c: float) -> None:
    found = NETWORK.seconds_until(start, watts, level_c)
    surely_s = NETWORK.seconds_before(start, watts, level_c)
    grid = [10 ** (exponent / 8) for exponent in range(-48, 40)]
    above = [seconds for seconds in grid if NETWORK.after(start, watts, seconds).junction_c >= level_c + 1e-6]
    if found is None:
        assert start.junction_c < level_c
        assert above == []
    else:
        assert found == 0.0 or NETWORK.after(start, watts, found).junction_c == pytest.approx(level_c, abs=1e-4)
        assert surely_s <= found * (1 + 1e-6) + 1e-9
        assert all(seconds >= found * (1 - 1e-6) for seconds in above)


def test_a_peak_that_comes_and_goes_is_seen() -> None:
    """A hot case warms a cold junction, and then both cool: over the level in between, under it in the end."""
    start = Temperatures(junction_c=30.0, case_c=100.0)
    found = NETWORK.seconds_until(start, 0.0, 90.0)
    assert found is not None
    assert 0 < found < 60
    assert NETWORK.seconds_until(start, 0.0, 99.0) is None


def test_without_power_the_network_comes_to_rest() -> None:
    assert close(NETWORK.after(Temperatures(110.0, 90.0), 0.0, DAY_S), NETWORK.at_rest, 1e-6)
    assert NETWORK.seconds_before(NETWORK.at_rest, 0.0, 85.0) == math.inf


def test_the_table_has_hysteresis_and_one_way_out_of_the_critical_state() -> None:
    assert NEXT[Heat.COOL, Trip.HOT] is Heat.THROTTLED
    assert {trip for heat, trip in NEXT if heat is Heat.CRITICAL} == {Trip.COOLED}
    assert (Heat.COOL, Trip.COOLED) not in NEXT
