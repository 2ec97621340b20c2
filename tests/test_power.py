"""Power from clock and load, and the governor's choice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from made_machine import SPEC, THERMAL
from npuops.vnpu.power import core_power_w, next_point, power_w
from npuops.vnpu.profile import load_profile, machine_spec
from npuops.vnpu.thermal import Heat


def test_power_goes_from_idle_to_busy_with_the_cores_and_falls_faster_than_the_clock() -> None:
    spec = replace(SPEC, cores=4)
    assert power_w(spec, 2, 0) == SPEC.idle_w
    assert power_w(spec, 2, 4) == pytest.approx(SPEC.busy_w)
    assert power_w(spec, 2, 2) == pytest.approx((SPEC.idle_w + SPEC.busy_w) / 2)
    assert core_power_w(SPEC, 1) == pytest.approx(5.5 * 0.6**2.5)
    energy_per_job = [core_power_w(SPEC, point) / SPEC.clock_points_mhz[point] for point in range(3)]
    assert energy_per_job == sorted(energy_per_job), "a slower clock does the same work with less energy"


@pytest.mark.parametrize(
    ("chip", "volts"),
    [
        ("rk3588", {700.0: 0.70, 800.0: 0.75, 900.0: 0.80, 1000.0: 0.85}),
        ("rk3576", {700.0: 0.775, 800.0: 0.80, 900.0: 0.85, 950.0: 0.875}),
    ],
)
def test_a_chips_power_falls_with_its_clock_as_its_voltages_say(chip: str, volts: dict[float, float]) -> None:
    """The tables of the vendor's kernel; the exponent is fitted where the chips throttle."""
    spec = machine_spec(load_profile(chip))
    for mhz, volt in volts.items():
        power = core_power_w(spec, spec.clock_points_mhz.index(mhz)) / core_power_w(spec, -1)
        assert power == pytest.approx(mhz / spec.top_mhz * (volt / volts[spec.top_mhz]) ** 2, rel=0.035)


@pytest.mark.parametrize(
    ("heat", "junction_c", "point", "chosen"),
    [
        (Heat.THROTTLED, 86.0, 2, 1),
        (Heat.THROTTLED, 86.0, 0, 0),
        (Heat.THROTTLED, 80.0, 1, 1),
        (Heat.COOL, 75.0, 1, 2),
        (Heat.COOL, 75.0, 2, 2),
        (Heat.COOL, 80.0, 1, 1),
        (Heat.CRITICAL, 106.0, 2, 0),
    ],
)
def test_the_governor_goes_down_when_hot_up_when_cooled_and_waits_between(
    heat: Heat, junction_c: float, point: int, chosen: int
) -> None:
    assert next_point(THERMAL, heat, junction_c, point, top=2) == chosen
