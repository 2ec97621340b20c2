"""Heat, power and clock through time: what a load does, and that looking does nothing."""

from __future__ import annotations

import pytest

from made_machine import SPEC, THERMAL
from npuops.vnpu.climate import Climate
from npuops.vnpu.thermal import Heat, Trip

S = 1_000_000_000


def run(climate: Climate, until_ns: int, looks: int = 0) -> list[tuple[int, Trip]]:
    found = []
    for moment in [*(until_ns * look // (looks + 1) for look in range(1, looks + 1)), until_ns]:
        while (due := climate.next_ns(moment)) is not None and due <= moment:
            trip = climate.act(due)
            if trip is not None:
                found.append((due, trip))
        climate.look(moment)
    return found


def test_a_steady_load_throttles_by_itself_and_stays_below_the_critical_point() -> None:
    climate = Climate(SPEC, 0)
    climate.load(1, 0)
    trips = run(climate, 3600 * S)
    assert trips[0][1] is Trip.HOT
    assert {trip for _, trip in trips} == {Trip.HOT, Trip.COOLED}
    assert climate.throttles == [trip for _, trip in trips].count(Trip.HOT) > 10
    assert climate.look(3600 * S).temperatures.junction_c <= THERMAL.throttle_c + 1


def test_looking_changes_nothing() -> None:
    seen = []
    for looks in (0, 1, 997):
        climate = Climate(SPEC, 0)
        climate.load(1, 0)
        seen.append((run(climate, 600 * S, looks), climate.look(600 * S), climate.throttles))
    assert seen[0] == seen[1] == seen[2]


def test_a_device_that_is_off_takes_no_energy_and_cools() -> None:
    climate = Climate(SPEC, 0)
    climate.load(1, 0)
    run(climate, 100 * S)
    before = climate.look(100 * S)
    climate.load(None, 100 * S)
    run(climate, 4000 * S)
    after = climate.look(4000 * S)
    assert after.energy_mj == before.energy_mj
    assert after.power_w == 0
    assert after.temperatures.junction_c == pytest.approx(25.0, abs=0.1)


def test_from_the_critical_state_it_comes_back_at_the_lowest_clock_and_climbs() -> None:
    climate = Climate(SPEC, 0)
    climate.load(1, 0)
    climate.heat_up(THERMAL.critical_c, 0)
    assert run(climate, 0) == [(0, Trip.HOT), (0, Trip.TOO_HOT)]
    assert climate.mhz == 300.0
    climate.load(None, 0)
    later = run(climate, 600 * S)
    assert [trip for _, trip in later] == [Trip.COOLED]
    assert climate.heat is Heat.COOL
    assert climate.mhz == 1000.0


def test_energy_is_idle_energy_and_that_of_the_cores() -> None:
    climate = Climate(SPEC, 0)
    climate.load(0, 0)
    climate.load(1, 10 * S)
    climate.load(0, 15 * S)
    weather = climate.look(20 * S)
    assert weather.idle_energy_mj == pytest.approx(20 * 500)
    assert weather.energy_mj == pytest.approx(20 * 500 + 5 * 5500)
