"""The machine as a whole, from /proc."""

from __future__ import annotations

import os
from typing import Final

from npuops.hostsched.frame import Host
from npuops.hostsched.knobs import KnobError, NoSuchKnobError
from npuops.hostsched.proc_files import Descriptors, KeptFile

_SLOW_US: Final = 50_000
"""/proc/stat lists every interrupt and counts in hundredths of a second: read oftener, it costs much and tells
nothing more."""
_CPUS_US: Final = 1_000_000


class HostFiles:
    """Reads a `Host` at each look."""

    def __init__(self, descriptors: Descriptors) -> None:
        """Nothing is read yet."""
        self._load = KeptFile("/proc/loadavg", descriptors)
        self._pressure = KeptFile("/proc/pressure/cpu", descriptors)
        self._stat = KeptFile("/proc/stat", descriptors)
        self._has_pressure = True
        self._times = (0, 0)
        self._times_at_us: int | None = None
        self._cpus = 1
        self._cpus_at_us: int | None = None
        self._tick_us = 1_000_000 // os.sysconf("SC_CLK_TCK")

    def newest(self) -> int:
        """Number of the process or thread that was made last, in our namespace; it moves when another one is.

        Raises:
            NoSuchKnobError: there is no /proc here.
        """
        return int(_there(self._load.read(128)).rpartition(b" ")[2])

    def read(self, now_us: int) -> Host:
        """The machine now; `busy_us` and `steal_us` may be 50 ms old.

        Raises:
            NoSuchKnobError: there is no /proc here.
        """
        if self._cpus_at_us is None or now_us - self._cpus_at_us >= _CPUS_US:
            self._cpus, self._cpus_at_us = os.cpu_count() or 1, now_us
        if self._times_at_us is None or now_us - self._times_at_us >= _SLOW_US:
            self._times, self._times_at_us = times_us(_there(self._stat.read(512)), self._tick_us), now_us
        pressure = self._pressure_text()
        return Host(
            cpus=self._cpus,
            runnable=runnable_others(_there(self._load.read(128))),
            busy_us=self._times[0],
            steal_us=self._times[1],
            pressure_us=None if pressure is None else some_pressure_us(pressure),
        )

    def _pressure_text(self) -> bytes | None:
        """None where the kernel has no PSI, or was told at boot not to count it (the file is there, reading fails)."""
        if not self._has_pressure:
            return None
        try:
            text = self._pressure.read(256)
        except KnobError:
            text = None
        self._has_pressure = bool(text)
        return text or None


def times_us(stat: bytes, tick_us: int) -> tuple[int, int]:
    """Busy and stolen time of all CPUs since boot, from /proc/stat. Time of guests is in that of users already."""
    user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, stat.split(None, 9)[1:9])
    return (user + nice + system + irq + softirq) * tick_us, steal * tick_us


def runnable_others(loadavg: bytes) -> int:
    """Tasks that run or want to, without the one that asks: it runs, since it reads this."""
    return max(int(loadavg.split(None, 4)[3].partition(b"/")[0]) - 1, 0)


def some_pressure_us(pressure: bytes) -> int:
    """Time in which some task waited, from /proc/pressure/cpu."""
    line = pressure.partition(b"\n")[0]
    return int(line.rpartition(b"total=")[2])


def _there(text: bytes | None) -> bytes:
    if not text:
        raise NoSuchKnobError("/proc does not tell the load of this machine", advice="mount /proc")
    return text
