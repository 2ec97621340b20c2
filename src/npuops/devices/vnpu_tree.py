"""The tree that a virtual NPU publishes, file by file: the contract between its daemon and every reader.

A machine's virtual NPUs share one root folder. Each is `class/accel/accelN/device/` below it, and this table is what
stands in there. Names and units are ivpu's, amdxdna's and qaic's wherever they have the thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

DEVICE_FOLDER: Final = "class/accel/accel{number}/device"
CONTEXT_FOLDER: Final = "contexts/{id}"
ALIVE_FILE: Final = "alive"
"""Empty, and locked (flock) by the daemon as long as it lives, however it ends. Readers of a tree whose file nobody
holds know that the rest is old; one without the file, such as a copy made to be read, is believed."""


@dataclass(frozen=True, slots=True)
class TreeFile:
    """One file, below the device's folder; a whole number in `unit`, or text."""

    path: str
    unit: str
    meaning: str


FILES: Final = (
    TreeFile("uevent", "text", "lines `DRIVER=vnpu` and `VNPU_NAME=<the device's name>`"),
    TreeFile("vendor", "text", "`npuops`"),
    TreeFile("vbnv", "text", "the profile's name"),
    TreeFile("fw_version", "text", "of the firmware that booted"),
    TreeFile("driver_version", "text", "of the driver side"),
    TreeFile("status", "text", "`online`, `offline`, `resetting` or `hung`; only a reset leads out of `hung`"),
    TreeFile("npu_busy_time_us", "µs", "counter: time with at least one job on the device, so never faster than time"),
    TreeFile("npu_memory_utilization", "bytes", "device memory in use"),
    TreeFile("npu_memory_total_bytes", "bytes", "device memory there is"),
    TreeFile("freq/current_freq", "MHz", "0 when idle"),
    TreeFile("freq/hw_max_freq", "MHz", "highest clock point"),
    TreeFile("freq/hw_min_freq", "MHz", "lowest clock point"),
    TreeFile("freq/set_max_freq", "MHz", "the cap in force"),
    TreeFile("reset_counter", "count", "counter: resets since the device came up, its boot not counted"),
    TreeFile(
        "commanded_reset_count", "count", "counter: of the resets, those that somebody ordered; not the cure of a hang"
    ),
    TreeFile("throttle_count", "count", "counter: times that heat or power lowered the clock"),
    TreeFile("trip_count", "count", "counter: times that the critical temperature switched the device off"),
    TreeFile("ce_count", "count", "counter: corrected memory errors"),
    TreeFile("ue_count", "count", "counter: uncorrected memory errors"),
    TreeFile("inference_count", "count", "counter: jobs that are through"),
    TreeFile("canary_count", "count", "counter: of them, those whose right answer was known"),
    TreeFile("canary_fail_count", "count", "counter: and those whose answer was another"),
    TreeFile("refused_memory_count", "count", "counter: programs and jobs that found no room"),
    TreeFile("refused_operator_count", "count", "counter: programs with an operator that the device lacks"),
    TreeFile("refused_version_count", "count", "counter: programs, and firmware at boot, whose version does not fit"),
    TreeFile("energy_uj", "µJ", "counter: the integral of power"),
    TreeFile("hwmon/hwmon0/name", "text", "`vnpu`"),
    TreeFile("hwmon/hwmon0/temp1_input", "m°C", "temperature of the die"),
    TreeFile("hwmon/hwmon0/temp1_max", "m°C", "at this temperature the clock falls"),
    TreeFile("hwmon/hwmon0/temp1_crit", "m°C", "at this temperature the device trips"),
    TreeFile("hwmon/hwmon0/power1_input", "µW", "power now"),
    TreeFile("uevents", "text", "the last lines `<µs> <add|remove|change|online|offline> SEQNUM=<n> [KEY=VALUE …]`"),
)

EVENTS_KEPT: Final = 256
"""Lines of `uevents`. SEQNUM grows by one with each, so that whoever reads too seldom sees how many it missed."""
EVENT_LIMIT: Final = 512
"""Bytes of a line, its end included."""

CONTEXT_FILES: Final = (
    TreeFile("pid", "count", "process that holds the context"),
    TreeFile("priority", "text", "`idle`, `normal`, `focus` or `realtime`"),
    TreeFile("busy_time_us", "µs", "counter: device time spent for it"),
    TreeFile("wait_time_us", "µs", "counter: time with a job in its queue and none on the device"),
    TreeFile("memory_bytes", "bytes", "device memory it holds"),
    TreeFile("submissions", "count", "counter: jobs submitted"),
    TreeFile("completions", "count", "counter: jobs that are through"),
    TreeFile("errors", "count", "counter: jobs that failed"),
    TreeFile("preemptions", "count", "counter: times it was made to wait for another"),
)
"""Below `contexts/<id>/`; the folder goes when the context ends."""
