"""The device as onlookers see it: the files of `devices/vnpu_tree.py`, written from telemetry.

Only what changed is written, each file beside its place and renamed, so no reader sees half a number. A device whose
driver is dead has no folder at all.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path

from npuops.vnpu.device_events import ClockChanged, DeviceEvent, LifeChanged, MemoryErrors
from npuops.vnpu.device_telemetry import ContextTelemetry, Telemetry
from npuops.vnpu.life import STATUS, Life


def device_texts(name: str, seen: Telemetry) -> dict[str, str]:
    """Path below the device's folder → text; whole numbers in the unit of the table."""
    return {
        "uevent": f"DRIVER=vnpu\nVNPU_NAME={name}",
        "vendor": "npuops",
        "vbnv": seen.name,
        "fw_version": seen.versions.firmware,
        "driver_version": seen.versions.driver,
        "status": seen.status,
        "npu_busy_time_us": str(int(seen.busy_us)),
        "npu_memory_utilization": str(seen.memory_used_bytes),
        "npu_memory_total_bytes": str(seen.memory_total_bytes),
        "freq/current_freq": str(round(seen.current_mhz)),
        "freq/hw_max_freq": str(round(seen.max_mhz)),
        "freq/hw_min_freq": str(round(seen.min_mhz)),
        "freq/set_max_freq": str(round(seen.cap_mhz)),
        "reset_counter": str(seen.resets),
        "throttle_count": str(seen.throttles),
        "ce_count": str(seen.ce_count),
        "ue_count": str(seen.ue_count),
        "energy_uj": str(int(seen.energy_uj)),
        "hwmon/hwmon0/name": "vnpu",
        "hwmon/hwmon0/temp1_input": str(round(seen.temperature_c * 1e3)),
        "hwmon/hwmon0/temp1_crit": str(round(seen.critical_c * 1e3)),
        "hwmon/hwmon0/power1_input": str(round(seen.power_w * 1e6)),
    }


def context_texts(seen: ContextTelemetry) -> dict[str, str]:
    """Path below the context's folder → text."""
    return {
        "pid": str(seen.pid),
        "priority": seen.priority,
        "busy_time_us": str(int(seen.busy_us)),
        "memory_bytes": str(seen.memory_bytes),
        "submissions": str(seen.submissions),
        "errors": str(seen.errors),
        "preemptions": str(seen.preemptions),
    }


def uevent(event: DeviceEvent) -> str | None:
    """The line of an event that can be seen from outside; faults themselves cannot."""
    at = round(event.at_us)
    if isinstance(event, LifeChanged):
        action = {Life.READY: "online", Life.OFF: "offline", Life.GONE: "remove"}.get(event.after, "change")
        return f"{at} {action} STATUS={STATUS[event.after]} WHY={'_'.join(event.why.split())}"
    if isinstance(event, ClockChanged) and event.after_mhz < event.before_mhz:
        return f"{at} change THROTTLED_MHZ={event.after_mhz:.0f} TEMP={event.temperature_c * 1e3:.0f}"
    if isinstance(event, MemoryErrors):
        return f"{at} change CE={event.corrected} UE={event.uncorrected}"
    return None


class SysfsTree:
    """One device's folder `accelN` in the tree that all virtual devices share."""

    def __init__(self, accel: Path, name: str) -> None:
        self._accel, self._name = accel, name
        self._device = accel / "device"
        self._written: dict[str, str] = {}
        self._contexts: set[int] = set()

    def show(self, seen: Telemetry, events: Iterable[DeviceEvent] = ()) -> None:
        """Make the tree say what the telemetry says; events become lines of `uevents`."""
        lines = [line for line in map(uevent, events) if line is not None]
        if not seen.present:
            self.remove()
            return
        if not self._written:
            at = lines[0].partition(" ")[0] if lines else "0"
            lines.insert(0, f"{at} add DRIVER=vnpu VNPU_NAME={self._name}")
        texts = device_texts(self._name, seen)
        for context in seen.contexts:
            folder = f"contexts/{context.id}"
            texts |= {f"{folder}/{path}": text for path, text in context_texts(context).items()}
        for number in self._contexts - {context.id for context in seen.contexts}:
            self._forget(number)
        self._contexts = {context.id for context in seen.contexts}
        self._write(texts)
        with (self._device / "uevents").open("a", encoding="utf-8") as file:
            file.writelines(f"{line}\n" for line in lines)

    def remove(self) -> None:
        """The device is unplugged."""
        shutil.rmtree(self._accel, ignore_errors=True)
        self._written.clear()
        self._contexts.clear()

    def _write(self, texts: Mapping[str, str]) -> None:
        for path, text in texts.items():
            if self._written.get(path) == text:
                continue
            place = self._device / path
            scratch = f"{place}.part"
            try:
                descriptor = os.open(scratch, _HOW, 0o644)
            except FileNotFoundError:
                place.parent.mkdir(parents=True, exist_ok=True)
                descriptor = os.open(scratch, _HOW, 0o644)
            try:
                os.write(descriptor, f"{text}\n".encode())
            finally:
                os.close(descriptor)
            os.rename(scratch, place)  # noqa: PTH104 - pathlib costs more than the call, ten files ten times a second
            self._written[path] = text

    def _forget(self, number: int) -> None:
        folder = f"contexts/{number}"
        shutil.rmtree(self._device / folder, ignore_errors=True)
        for path in [path for path in self._written if path.startswith(f"{folder}/")]:
            del self._written[path]


_HOW = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
