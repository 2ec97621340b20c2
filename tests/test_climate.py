"""Heat, power and clock through time: what a load does, and that looking does nothing."""

from __future__ import annotations

import re

import pytest

from made_machine import SPEC, THERMAL
from npuops.vnpu.climate import Climate
from npuops.vnpu.profile import load_profile, machine_spec, profile_names
from npuops.vnpu.spec import MachineSpec
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
    assert climate.power_w == 0
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


CHIPS = profile_names()


@pytest.mark.parametrize("name", CHIPS)
def test_the_cooling_of_a_chip_is_what_its_source_says(name: str) -> None:
    chip = load_profile(name)
    spec, words = machine_spec(chip), chip.sources["derived-cooling"]
    thermal = spec.thermal
    whole = thermal.junction_r_c_per_w + thermal.case_r_c_per_w
    ends = re.search(r"together end (busy_w|tdp_w).* at ambient_c at ([0-9.]+) °C", words)
    if ends is not None:
        watts = {"busy_w": spec.busy_w, "tdp_w": chip.power.tdp_w.value}[ends[1]]
        assert thermal.ambient_c + watts * whole == pytest.approx(float(ends[2]), abs=0.5)
        assert ("full load throttles" in words) == (thermal.ambient_c + spec.busy_w * whole > thermal.throttle_c)
    else:
        stated = re.match(r"([0-9.]+) °C per W from junction to air", words)
        assert stated is not None
        assert whole == pytest.approx(float(stated[1]))
    shares = re.search(r"([0-9.]+) % of (?:them|it) in the package", words)
    times = re.search(r"of ([0-9.]+) s \(die\) and ([0-9.]+) s \(", words)
    assert shares is not None
    assert times is not None
    assert thermal.junction_r_c_per_w / whole == pytest.approx(float(shares[1]) / 100, rel=0.02)
    assert thermal.junction_r_c_per_w * thermal.junction_c_j_per_c == pytest.approx(float(times[1]), rel=0.02)
    assert thermal.case_r_c_per_w * thermal.case_c_j_per_c == pytest.approx(float(times[2]), rel=0.02)


LONG = 1200
"""Seconds: four time constants of the slowest heat sink."""


def heated(spec: MachineSpec, busy_cores: int) -> tuple[Climate, list[Trip], float]:
    climate = Climate(spec, 0)
    climate.load(busy_cores, 0)
    trips = [trip for _, trip in run(climate, LONG * S)]
    return climate, trips, climate.look(LONG * S).temperatures.junction_c


@pytest.mark.parametrize("name", CHIPS)
def test_long_full_load_throttles_without_a_fan_and_not_with_one_and_switches_nothing_off(name: str) -> None:
    chip = load_profile(name)
    spec = machine_spec(chip)
    climate, trips, junction_c = heated(spec, spec.cores)
    passive = "Without a fan" in chip.sources["derived-cooling"]
    assert (Trip.HOT in trips) == (climate.throttles > 0) == passive
    assert Trip.TOO_HOT not in trips
    assert junction_c < spec.thermal.throttle_c + 2
    assert not passive or junction_c > spec.thermal.resume_c - 2, "the governor uses what the cooling allows"


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in CHIPS if len(load_profile(name).clock.points_mhz.value) > 1])
def test_a_chip_that_can_lower_its_clock_survives_full_load_in_the_hottest_place_it_allows(name: str) -> None:
    spec = machine_spec(load_profile(name))
    hot = spec.at_ambient(min(60.0, spec.thermal.resume_c - 10))
    climate, trips, junction_c = heated(hot, hot.cores)
    assert Trip.TOO_HOT not in trips
    assert junction_c < spec.thermal.critical_c
    assert climate.look(LONG * S).energy_mj <= LONG * 1000 * spec.busy_w


@pytest.mark.parametrize(
    ("ambient_c", "busy_cores", "throttles"), [(25.0, 3, False), (40.0, 1, False), (40.0, 2, False), (40.0, 3, True)]
)
def test_an_rk3588_throttles_when_all_its_cores_work_in_a_warm_case_and_else_not(
    ambient_c: float, busy_cores: int, throttles: bool
) -> None:
    climate, _, junction_c = heated(machine_spec(load_profile("rk3588")).at_ambient(ambient_c), busy_cores)
    assert (climate.throttles > 0) == throttles
    assert (junction_c > 78.5) == throttles
