"""Power from clock and load, and the governor that chooses the clock point. Pure."""

from __future__ import annotations

from typing import Final

from npuops.vnpu.spec import MachineSpec, ThermalSpec
from npuops.vnpu.thermal import Heat

GOVERNOR_PERIOD_NS: Final = 100_000_000
"""A device that is not cool and at its top clock is looked at this often (the kernel polls passive trip points every
20 to 250 ms)."""


def core_power_w(spec: MachineSpec, point: int) -> float:
    """What one busy core adds to the idle power at a clock point: (clock / top)^exponent of its share."""
    ratio = spec.clock_points_mhz[point] / spec.top_mhz
    return float((spec.busy_w - spec.idle_w) / spec.cores * ratio**spec.power_exponent)


def power_w(spec: MachineSpec, point: int, busy_cores: int) -> float:
    """Of the whole device, switched on."""
    return spec.idle_w + busy_cores * core_power_w(spec, point)


def next_point(spec: ThermalSpec, heat: Heat, junction_c: float, point: int, top: int) -> int:
    """The governor's choice: one down while too hot, one up once cooled, and in between it waits.

    The kernel's `step_wise` policy with the trip point's hysteresis. A device that was switched off for its heat
    begins at the lowest point.
    """
    if heat is Heat.CRITICAL:
        return 0
    if junction_c >= spec.throttle_c:
        return max(point - 1, 0)
    return min(point + 1, top) if junction_c <= spec.resume_c else point
