"""What can be read of a device, in base units, and which values are believable.

A value that lies outside its range is absent with that reason: drivers write sentinels (all ones, 0x7fff…) for
"not supported", and a sentinel must never reach a chart.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """How a series of values is to be read."""

    GAUGE = "gauge"
    COUNTER = "counter"


class Unit(StrEnum):
    """The base units; a raw file in another unit is scaled to one of these."""

    SECONDS = "s"
    BYTES = "bytes"
    HERTZ = "Hz"
    WATTS = "W"
    JOULES = "J"
    CELSIUS = "°C"
    RATIO = "ratio"
    COUNT = "count"


class Quantity(StrEnum):
    """A reading; its value is the key in JSON and ends in the unit where it has one."""

    BUSY = "busy_seconds"
    BUSY_RATIO = "busy_ratio"
    BUSY_TICKS = "busy_ticks"
    TICKS = "ticks"
    INFERENCES = "inferences"
    CANARIES = "canaries"
    CANARY_FAILURES = "canary_failures"
    REFUSED_MEMORY = "refused_for_memory"
    REFUSED_OPERATOR = "refused_for_operator"
    REFUSED_VERSION = "refused_for_version"
    CHANNELS_ASSIGNED = "channels_assigned"
    CHANNELS_CRASHED = "channels_crashed"
    MEMORY_USED = "memory_used_bytes"
    MEMORY_TOTAL = "memory_total_bytes"
    MEMORY_TRAFFIC = "memory_traffic_bytes"
    CLOCK = "clock_hertz"
    CLOCK_MIN = "clock_min_hertz"
    CLOCK_MAX = "clock_max_hertz"
    CLOCK_LIMIT = "clock_limit_hertz"
    TEMPERATURE = "temperature_celsius"
    TEMPERATURE_THROTTLE = "temperature_throttle_celsius"
    TEMPERATURE_CRITICAL = "temperature_critical_celsius"
    POWER = "power_watts"
    POWER_LIMIT = "power_limit_watts"
    ENERGY = "energy_joules"
    RESETS = "resets"
    SOFT_RESETS = "soft_resets"
    COMMANDED_RESETS = "commanded_resets"
    THROTTLES = "throttles"
    TRIPS = "thermal_trips"
    CORRECTED = "corrected_errors"
    UNCORRECTED = "uncorrected_errors"
    UNCORRECTED_NONFATAL = "uncorrected_nonfatal_errors"


@dataclass(frozen=True, slots=True)
class Meaning:
    """Unit, kind and the range that is believed, both ends included."""

    unit: Unit
    kind: Kind
    low: float
    high: float


_GAUGE: Final = Kind.GAUGE
_COUNTER: Final = Kind.COUNTER
_DECADES_S: Final = 3.2e9
"""A hundred years."""

_BYTES: Final = Meaning(Unit.BYTES, _GAUGE, 0, 2.0**50)
_CLOCK: Final = Meaning(Unit.HERTZ, _GAUGE, 0, 2e10)
_TEMPERATURE: Final = Meaning(Unit.CELSIUS, _GAUGE, -60, 250)
_LIMIT: Final = Meaning(Unit.CELSIUS, _GAUGE, 20, 250)
"""A limit of 0 means that there is none, and must not make every device too hot."""
_POWER: Final = Meaning(Unit.WATTS, _GAUGE, 0, 1e4)
_EVENTS: Final = Meaning(Unit.COUNT, _COUNTER, 0, 2.0**32 - 2)
_MANY: Final = Meaning(Unit.COUNT, _COUNTER, 0, 2.0**62)

MEANINGS: Final[Mapping[Quantity, Meaning]] = {
    Quantity.BUSY: Meaning(Unit.SECONDS, _COUNTER, 0, _DECADES_S),
    Quantity.BUSY_RATIO: Meaning(Unit.RATIO, _GAUGE, 0, 1),
    Quantity.BUSY_TICKS: _MANY,
    Quantity.TICKS: _MANY,
    Quantity.INFERENCES: _MANY,
    Quantity.CANARIES: _MANY,
    Quantity.CANARY_FAILURES: _MANY,
    Quantity.REFUSED_MEMORY: _MANY,
    Quantity.REFUSED_OPERATOR: _MANY,
    Quantity.REFUSED_VERSION: _MANY,
    Quantity.CHANNELS_ASSIGNED: Meaning(Unit.COUNT, _GAUGE, 0, 256),
    Quantity.CHANNELS_CRASHED: Meaning(Unit.COUNT, _GAUGE, 0, 256),
    Quantity.MEMORY_USED: _BYTES,
    Quantity.MEMORY_TOTAL: _BYTES,
    Quantity.MEMORY_TRAFFIC: Meaning(Unit.BYTES, _COUNTER, 0, 2.0**62),
    Quantity.CLOCK: _CLOCK,
    Quantity.CLOCK_MIN: _CLOCK,
    Quantity.CLOCK_MAX: _CLOCK,
    Quantity.CLOCK_LIMIT: _CLOCK,
    Quantity.TEMPERATURE: _TEMPERATURE,
    Quantity.TEMPERATURE_THROTTLE: _LIMIT,
    Quantity.TEMPERATURE_CRITICAL: _LIMIT,
    Quantity.POWER: _POWER,
    Quantity.POWER_LIMIT: _POWER,
    Quantity.ENERGY: Meaning(Unit.JOULES, _COUNTER, 0, 1e4 * _DECADES_S),
    Quantity.RESETS: _EVENTS,
    Quantity.SOFT_RESETS: _EVENTS,
    Quantity.COMMANDED_RESETS: _EVENTS,
    Quantity.THROTTLES: _EVENTS,
    Quantity.TRIPS: _EVENTS,
    Quantity.CORRECTED: _EVENTS,
    Quantity.UNCORRECTED: _EVENTS,
    Quantity.UNCORRECTED_NONFATAL: _EVENTS,
}


@dataclass(frozen=True, slots=True)
class Reading:
    """A value in the base unit of its quantity.

    Attributes:
        value: always finite and within the quantity's range.
        source: the file below the root, or how it was derived.
        wraps_at: a counter of limited width starts over at this value; None for one that never does.
    """

    value: float
    source: str
    wraps_at: float | None = None


@dataclass(frozen=True, slots=True)
class Absent:
    """Why there is no value. `missing` tells a file that does not exist from one that gave nothing."""

    why: str
    missing: bool = False


def believed(quantity: Quantity, value: float, source: str, *, wraps_at: float | None = None) -> Reading | Absent:
    """The value as a reading, or why nobody should believe it."""
    meaning = MEANINGS[quantity]
    if not meaning.low <= value <= meaning.high:
        return Absent(f"{value:g} {meaning.unit} is not believable ({source})")
    return Reading(value, source, wraps_at)
