"""Where each driver keeps its numbers: a table, and nothing else.

A row is (quantity, place, path, raw unit, form). Every row is optional: kernels differ, so each file is looked for by
itself. Of several rows for one quantity the first that gives a value counts: newer names stand first.
Sources: the kernels' own driver files as listed in docs/devices.md; no row was guessed from another driver.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from npuops.devices.quantities import Quantity
from npuops.devices.raw_values import Form, Raw


class Place(StrEnum):
    """The folders of one device."""

    MINOR = "minor"
    """Its folder in the class: `/sys/class/accel/accel0`, `/sys/class/apex/apex_0`."""
    DEVICE = "device"
    """The PCI or platform device behind it, where most drivers hang their attributes."""
    DEBUG = "debug"
    """Its folder in debugfs, which only root can enter."""
    DEVFREQ = "devfreq"
    """`/sys/class/devfreq/<address>`."""
    THERMAL = "thermal"
    """The thermal zone whose type is `npu-thermal`, never one by number."""


@dataclass(frozen=True, slots=True)
class Probe:
    """One number of one driver."""

    quantity: Quantity
    place: Place
    path: str
    raw: Raw
    form: Form = Form.NUMBER


_TEMP: Final = "hwmon/hwmon*/temp1_input"
_POWER: Final = "hwmon/hwmon*/power1_input"

IVPU: Final = (
    Probe(Quantity.BUSY, Place.DEVICE, "npu_busy_time_us", Raw.US),
    Probe(Quantity.MEMORY_USED, Place.DEVICE, "npu_memory_utilization", Raw.BYTES),
    Probe(Quantity.CLOCK, Place.DEVICE, "freq/current_freq", Raw.MHZ),
    Probe(Quantity.CLOCK, Place.DEVICE, "npu_current_frequency_mhz", Raw.MHZ),
    Probe(Quantity.CLOCK_MAX, Place.DEVICE, "freq/hw_max_freq", Raw.MHZ),
    Probe(Quantity.CLOCK_MAX, Place.DEVICE, "npu_max_frequency_mhz", Raw.MHZ),
    Probe(Quantity.CLOCK_MIN, Place.DEVICE, "freq/hw_min_freq", Raw.MHZ),
    Probe(Quantity.CLOCK_LIMIT, Place.DEVICE, "freq/set_max_freq", Raw.MHZ),
    Probe(Quantity.RESETS, Place.DEBUG, "reset_counter", Raw.COUNT),
    Probe(Quantity.SOFT_RESETS, Place.DEBUG, "engine_reset_counter", Raw.COUNT),
)
"""`npu_memory_utilization` is bytes despite its name; a clock of 0 is an idle device."""

AMDXDNA: Final = (
    Probe(Quantity.POWER, Place.DEVICE, _POWER, Raw.UW),
    Probe(Quantity.TEMPERATURE, Place.DEVICE, _TEMP, Raw.MILLI_CELSIUS),
)
"""The channels exist even where the platform has no value; reading then fails with EOPNOTSUPP."""

QAIC: Final = (
    Probe(Quantity.CORRECTED, Place.DEVICE, "ce_count", Raw.COUNT),
    Probe(Quantity.UNCORRECTED, Place.DEVICE, "ue_count", Raw.COUNT),
    Probe(Quantity.UNCORRECTED_NONFATAL, Place.DEVICE, "ue_nonfatal_count", Raw.COUNT),
)

_HABANA_FILES: Final = (
    (Quantity.RESETS, "hard_reset_cnt", Raw.COUNT),
    (Quantity.SOFT_RESETS, "soft_reset_cnt", Raw.COUNT),
    (Quantity.CLOCK, "clk_cur_freq_mhz", Raw.MHZ),
    (Quantity.CLOCK_MAX, "clk_max_freq_mhz", Raw.MHZ),
    (Quantity.POWER_LIMIT, "max_power", Raw.MW),
    (Quantity.POWER, _POWER, Raw.UW),
    (Quantity.TEMPERATURE, _TEMP, Raw.MILLI_CELSIUS),
)
HABANALABS: Final = tuple(
    Probe(quantity, place, path, raw) for quantity, path, raw in _HABANA_FILES for place in (Place.DEVICE, Place.MINOR)
)
"""Of class `accel` the attributes hang on the parent, of the old class `habanalabs` on the class folder."""

APEX: Final = (
    Probe(Quantity.TEMPERATURE, Place.MINOR, "temp", Raw.MILLI_CELSIUS),
    Probe(Quantity.TEMPERATURE_THROTTLE, Place.MINOR, "trip_point0_temp", Raw.MILLI_CELSIUS),
    Probe(Quantity.RESETS, Place.MINOR, "reset_count", Raw.COUNT),
)
"""Of little worth beside the heat: in the sources read, `status` is ALIVE unasked, and nothing raises `reset_count`."""

RKNPU: Final = (
    Probe(Quantity.BUSY_RATIO, Place.DEBUG, "load", Raw.PERCENT, Form.RKNPU_LOAD),
    Probe(Quantity.CLOCK, Place.DEVFREQ, "cur_freq", Raw.HZ),
    Probe(Quantity.CLOCK_MAX, Place.DEVFREQ, "max_freq", Raw.HZ),
    Probe(Quantity.CLOCK_MIN, Place.DEVFREQ, "min_freq", Raw.HZ),
    Probe(Quantity.TEMPERATURE, Place.THERMAL, "temp", Raw.MILLI_CELSIUS),
)

HAILO: Final = tuple(
    Probe(quantity, place, "vdma_monitor", Raw.COUNT, form)
    for quantity, form in ((Quantity.BUSY_TICKS, Form.VDMA_IN_USE), (Quantity.TICKS, Form.VDMA_TOTAL))
    for place in (Place.MINOR, Place.DEVICE)
)
"""Only the integrated driver has it; on PCIe modules all telemetry needs HailoRT."""

ROCKET: Final = (Probe(Quantity.TEMPERATURE, Place.THERMAL, "temp", Raw.MILLI_CELSIUS),)

SYNAP: Final = (
    Probe(Quantity.INFERENCES, Place.MINOR, "statistics/inference_count", Raw.COUNT),
    Probe(Quantity.BUSY, Place.MINOR, "statistics/inference_time", Raw.US),
)

VNPU: Final = (
    Probe(Quantity.BUSY, Place.DEVICE, "npu_busy_time_us", Raw.US),
    Probe(Quantity.MEMORY_USED, Place.DEVICE, "npu_memory_utilization", Raw.BYTES),
    Probe(Quantity.MEMORY_TOTAL, Place.DEVICE, "npu_memory_total_bytes", Raw.BYTES),
    Probe(Quantity.CLOCK, Place.DEVICE, "freq/current_freq", Raw.MHZ),
    Probe(Quantity.CLOCK_MAX, Place.DEVICE, "freq/hw_max_freq", Raw.MHZ),
    Probe(Quantity.CLOCK_MIN, Place.DEVICE, "freq/hw_min_freq", Raw.MHZ),
    Probe(Quantity.CLOCK_LIMIT, Place.DEVICE, "freq/set_max_freq", Raw.MHZ),
    Probe(Quantity.RESETS, Place.DEVICE, "reset_counter", Raw.COUNT),
    Probe(Quantity.COMMANDED_RESETS, Place.DEVICE, "commanded_reset_count", Raw.COUNT),
    Probe(Quantity.THROTTLES, Place.DEVICE, "throttle_count", Raw.COUNT),
    Probe(Quantity.TRIPS, Place.DEVICE, "trip_count", Raw.COUNT),
    Probe(Quantity.CORRECTED, Place.DEVICE, "ce_count", Raw.COUNT),
    Probe(Quantity.UNCORRECTED, Place.DEVICE, "ue_count", Raw.COUNT),
    Probe(Quantity.INFERENCES, Place.DEVICE, "inference_count", Raw.COUNT),
    Probe(Quantity.CANARY_FAILURES, Place.DEVICE, "canary_fail_count", Raw.COUNT),
    Probe(Quantity.CANARIES, Place.DEVICE, "canary_count", Raw.COUNT),
    Probe(Quantity.REFUSED_MEMORY, Place.DEVICE, "refused_memory_count", Raw.COUNT),
    Probe(Quantity.REFUSED_OPERATOR, Place.DEVICE, "refused_operator_count", Raw.COUNT),
    Probe(Quantity.REFUSED_VERSION, Place.DEVICE, "refused_version_count", Raw.COUNT),
    Probe(Quantity.ENERGY, Place.DEVICE, "energy_uj", Raw.UJ),
    Probe(Quantity.TEMPERATURE, Place.DEVICE, _TEMP, Raw.MILLI_CELSIUS),
    Probe(Quantity.TEMPERATURE_THROTTLE, Place.DEVICE, "hwmon/hwmon*/temp1_max", Raw.MILLI_CELSIUS),
    Probe(Quantity.TEMPERATURE_CRITICAL, Place.DEVICE, "hwmon/hwmon*/temp1_crit", Raw.MILLI_CELSIUS),
    Probe(Quantity.POWER, Place.DEVICE, _POWER, Raw.UW),
)
"""Of two that belong together the one that its daemon writes last is read first: no reset is seen before its command,
and no wrong canary before it is counted."""
