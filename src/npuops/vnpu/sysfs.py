"""The device as onlookers see it: the files of `devices/vnpu_tree.py`, written from telemetry.

Only what changed is written, each file beside its place and renamed, so no reader sees half a number. A device whose
driver is dead has no folder at all; of a daemon that was killed, the lock of `alive` tells.
"""

from __future__ import annotations

import errno
import fcntl
import os
import shutil
from contextlib import suppress
from pathlib import Path
from typing import Final

from npuops.devices.vnpu_tree import ALIVE_FILE
from npuops.vnpu.device_telemetry import ContextTelemetry, Refusal, Telemetry

_HOW: Final = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC


def device_texts(name: str, seen: Telemetry) -> dict[str, str]:
    """Path below the device's folder → text; whole numbers in the unit of the table.

    They are written in this order: a reset after its command, a wrong canary after it is counted.
    """
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
        "commanded_reset_count": str(seen.commanded_resets),
        "reset_counter": str(seen.resets),
        "throttle_count": str(seen.throttles),
        "trip_count": str(seen.trips),
        "ce_count": str(seen.ce_count),
        "ue_count": str(seen.ue_count),
        "inference_count": str(seen.completions),
        "canary_count": str(seen.canary_runs),
        "canary_fail_count": str(seen.canary_failures),
        "refused_memory_count": str(seen.refusals[Refusal.MEMORY]),
        "refused_operator_count": str(seen.refusals[Refusal.OPERATOR]),
        "refused_version_count": str(seen.refusals[Refusal.VERSION]),
        "energy_uj": str(int(seen.energy_uj)),
        "hwmon/hwmon0/name": "vnpu",
        "hwmon/hwmon0/temp1_input": str(round(seen.temperature_c * 1e3)),
        "hwmon/hwmon0/temp1_max": str(round(seen.throttle_c * 1e3)),
        "hwmon/hwmon0/temp1_crit": str(round(seen.critical_c * 1e3)),
        "hwmon/hwmon0/power1_input": str(round(seen.power_w * 1e6)),
    }


def context_texts(seen: ContextTelemetry) -> dict[str, str]:
    """Path below the context's folder → text."""
    return {
        "pid": str(seen.pid),
        "priority": seen.priority,
        "busy_time_us": str(int(seen.busy_us)),
        "wait_time_us": str(int(seen.wait_us)),
        "memory_bytes": str(seen.memory_bytes),
        "submissions": str(seen.submissions),
        "completions": str(seen.completions),
        "errors": str(seen.errors),
        "preemptions": str(seen.preemptions),
    }


class SysfsTree:
    """One device's folder `accelN` in the tree that all virtual devices share.

    Attributes:
        name: the device's.
    """

    def __init__(self, accel: Path, name: str) -> None:
        self.name = name
        self._accel = accel
        self._device = accel / "device"
        self._written: dict[str, str] = {}
        self._contexts: set[int] = set()
        self._alive: int | None = None

    def show(self, seen: Telemetry, events: str = "") -> None:
        """Make the tree say what the telemetry says.

        Args:
            seen: of the device.
            events: the text of `uevents`.

        Raises:
            OSError: a file cannot be written; the next call tries again.
        """
        if not seen.present:
            self.remove()
            return
        if self._written and not self._device.is_dir():  # somebody cleared the folder
            self._begin_anew()
        if self._alive is None:
            self._alive = _locked(self._device / ALIVE_FILE)
        texts = device_texts(self.name, seen)
        for context in seen.contexts:
            folder = f"contexts/{context.id}"
            texts |= {f"{folder}/{path}": text for path, text in context_texts(context).items()}
        for number in self._contexts - {context.id for context in seen.contexts}:
            self._forget(number)
        self._contexts = {context.id for context in seen.contexts}
        for path, text in {**texts, "uevents": events.removesuffix("\n")}.items():
            if self._written.get(path) != text:
                _replace(self._device / path, f"{text}\n".encode())
                self._written[path] = text

    def remove(self) -> None:
        """The device is unplugged, between one look of an onlooker and the next."""
        hidden = self._accel.with_name(f".{self._accel.name}")
        shutil.rmtree(hidden, ignore_errors=True)
        with suppress(OSError):  # it is gone already
            self._accel.rename(hidden)
        for folder in (hidden, self._accel):
            shutil.rmtree(folder, ignore_errors=True)
        self._begin_anew()

    def _begin_anew(self) -> None:
        if self._alive is not None:
            os.close(self._alive)
        self._alive = None
        self._written.clear()
        self._contexts.clear()

    def _forget(self, number: int) -> None:
        folder = f"contexts/{number}"
        shutil.rmtree(self._device / folder, ignore_errors=True)
        for path in [path for path in self._written if path.startswith(f"{folder}/")]:
            del self._written[path]


def _locked(place: Path) -> int:
    """An empty file that nobody ever sees without its lock; gives the descriptor that holds it."""
    scratch = f"{place}.part"
    place.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(scratch, _HOW, 0o644)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.rename(scratch, place)  # noqa: PTH104 - as below
    except OSError:
        os.close(descriptor)
        raise
    return descriptor


def _replace(place: Path, data: bytes) -> None:
    """Through a file beside it, which does not stay if the disk is full."""
    scratch = f"{place}.part"
    try:
        descriptor = os.open(scratch, _HOW, 0o644)
    except FileNotFoundError:
        place.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(scratch, _HOW, 0o644)
    try:
        _write_all(descriptor, data)
        os.rename(scratch, place)  # noqa: PTH104 - pathlib costs more than the call, ten files ten times a second
    except OSError:
        with suppress(OSError):
            os.unlink(scratch)  # noqa: PTH108 - as above
        raise
    finally:
        os.close(descriptor)


def _write_all(descriptor: int, data: bytes) -> None:
    if os.write(descriptor, data) != len(data):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
