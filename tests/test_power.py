"""Power from clock and load, and the governor's choice."""

from __future__ import annotations

from dataclasses import replace

import pytest

from made_machine import SPEC, THERMAL
from npuops.vnpu.power import core_power_w, next_point, power_w
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
