"""The plain numbers that the machine needs of a chip. Pure; `target.py` takes them from a profile."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Final

from npuops.errors import OptionError
from npuops.vnpu.versions import Versions

ABSOLUTE_ZERO_C: Final = -273.15
CORES_LIMIT: Final = 1024
CLOCK_LIMITS_MHZ: Final = (1.0, 1e5)
COOLING_LIMITS: Final = (1e-6, 1e6)
"""Of °C per W and J per °C: from a chip bolted to a block of copper to one that hangs in a vacuum, with room to spare;
within them no time constant rounds to nothing."""
LIMIT_US: Final = 600_000_000
"""Ten minutes, of a boot, a reset or a time slice: whoever switches a device on waits for it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ThermalSpec:
    """Two nodes in a row: junction - case - ambient (JEDEC's junction-to-case and case-to-ambient resistances).

    Attributes:
        junction_r_c_per_w: from junction to case, °C per W.
        junction_c_j_per_c: heat capacity of the die, J per °C.
        case_r_c_per_w: from case, heat sink included, to ambient, °C per W.
        case_c_j_per_c: heat capacity of case and heat sink, J per °C.
        ambient_c: temperature around the device, °C.
        throttle_c: the junction is too hot from here up, °C.
        resume_c: it has cooled from here down, °C; below `throttle_c`, or the clock would flutter.
        critical_c: the device switches itself off from here up, °C.
    """

    junction_r_c_per_w: float
    junction_c_j_per_c: float
    case_r_c_per_w: float
    case_c_j_per_c: float
    ambient_c: float = 25.0
    throttle_c: float
    resume_c: float
    critical_c: float

    def __post_init__(self) -> None:
        """Refuse what no cooling is.

        Raises:
            OptionError: a resistance or capacity that no cooling has, or temperatures out of order.
        """
        low, high = COOLING_LIMITS
        for name in ("junction_r_c_per_w", "junction_c_j_per_c", "case_r_c_per_w", "case_c_j_per_c"):
            _refuse_unless(low <= getattr(self, name) <= high, self, name, f"must be from {low} to {high}")
        _refuse_unless(self.ambient_c > ABSOLUTE_ZERO_C, self, "ambient_c", f"must be above {ABSOLUTE_ZERO_C}")
        order = (("resume_c", "ambient_c"), ("throttle_c", "resume_c"), ("critical_c", "throttle_c"))
        for upper, lower in order:
            above = math.inf > getattr(self, upper) > getattr(self, lower)
            _refuse_unless(above, self, upper, f"must be above {lower}, {getattr(self, lower)}")


@dataclass(frozen=True, slots=True, kw_only=True)
class MachineSpec:
    """A chip.

    Attributes:
        name: of the profile.
        cores: jobs that run at the same time.
        clock_points_mhz: in rising order; the last is the clock that programs are priced at.
        dram_bytes: device memory that programs and tensors may use.
        sram_bytes: on the chip; activations up to this size need no device memory.
        idle_w: power on, nothing running, W.
        busy_w: every core busy at the top clock, W.
        power_exponent: dynamic power grows with (clock / top clock) to this power: 1 at a fixed voltage, near 3 where
            the voltage falls with the clock (P = C·V²·f).
        thermal: how it gets rid of the heat.
        released: the versions that the vendor released together, and that the device has unless a fault changes one.
        boot_us: from power to the first job, µs.
        reset_us: from a reset to the next job, µs.
        time_slice_us: how long a tenant may run while another of its priority waits, µs.
    """

    name: str
    cores: int
    clock_points_mhz: tuple[float, ...]
    dram_bytes: int
    sram_bytes: int
    idle_w: float
    busy_w: float
    power_exponent: float
    thermal: ThermalSpec
    released: Versions
    boot_us: int
    reset_us: int
    time_slice_us: int

    def __post_init__(self) -> None:
        """Refuse what no chip is.

        Raises:
            OptionError: an impossible number, or a name that cannot be shown; the message names it.
        """
        _refuse_unless(bool(self.name) and self.name.isprintable(), self, "name", "must be printable, and not empty")
        _refuse_unless(1 <= self.cores <= CORES_LIMIT, self, "cores", f"must be from 1 to {CORES_LIMIT}")
        _refuse_unless(self.dram_bytes > 0, self, "dram_bytes", "must be above 0")
        for name in ("sram_bytes", "idle_w"):
            _refuse_unless(0 <= getattr(self, name) < math.inf, self, name, "must not be below 0")
        for name in ("boot_us", "reset_us"):
            _refuse_unless(0 <= getattr(self, name) <= LIMIT_US, self, name, f"must be from 0 to {LIMIT_US}")
        _refuse_unless(1 <= self.time_slice_us <= LIMIT_US, self, "time_slice_us", f"must be from 1 to {LIMIT_US}")
        _refuse_unless(
            self.idle_w <= self.busy_w < math.inf, self, "busy_w", f"must not be below idle_w, {self.idle_w}"
        )
        _refuse_unless(1 <= self.power_exponent <= 4, self, "power_exponent", "must be from 1 to 4")
        points, (low, high) = self.clock_points_mhz, CLOCK_LIMITS_MHZ
        ordered = all(lower < upper for lower, upper in pairwise(points))
        rising = bool(points) and low <= points[0] and points[-1] <= high and ordered
        rule = f"must be from {low:.0f} to {high:.0f} and rise from one to the next"
        _refuse_unless(rising, self, "clock_points_mhz", rule)

    @property
    def top_mhz(self) -> float:
        """The highest clock point."""
        return self.clock_points_mhz[-1]

    def at_ambient(self, ambient_c: float) -> MachineSpec:
        """The same chip and cooling at another place.

        Raises:
            OptionError: no temperature of air, or one at which the device could never cool to `resume_c`.
        """
        resume_c = self.thermal.resume_c
        if not ABSOLUTE_ZERO_C < ambient_c < resume_c:
            raise OptionError(
                f"an ambient temperature of {ambient_c} °C: {self.name} needs one below {resume_c}, to which it must"
                " cool before its clock may rise again",
                advice="choose a cooler place, or raise the trip points in a spec of your own",
            )
        return replace(self, thermal=replace(self.thermal, ambient_c=ambient_c))


def _refuse_unless(holds: bool, spec: MachineSpec | ThermalSpec, name: str, rule: str) -> None:
    if not holds:
        raise OptionError(f"{name} {rule}, found {getattr(spec, name)!r}", advice="correct the profile of the chip")
