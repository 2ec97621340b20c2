"""The machine as a whole, from /proc."""

from __future__ import annotations

import ctypes
import os
from typing import Final

from npuops.hostsched.frame import Host
from npuops.hostsched.knobs import KnobError, NoSuchKnobError
from npuops.hostsched.look_library import LOAD, PRESSURE, TIMES, CHost, Library
from npuops.hostsched.proc_files import Descriptors, KeptFile

_SLOW_US: Final = 50_000
"""/proc/stat lists every interrupt and counts in hundredths of a second: read oftener, it costs much and tells
nothing more."""
_CPUS_US: Final = 1_000_000


class HostFiles:
    """Reads a `Host` at each look."""

    def __init__(self, descriptors: Descriptors, library: Library | None = None) -> None:
        """Nothing is read yet. Without a library, or a descriptor to keep, Python reads."""
        self._load = KeptFile("/proc/loadavg", descriptors)
        self._pressure = KeptFile("/proc/pressure/cpu", descriptors)
        self._stat = KeptFile("/proc/stat", descriptors)
        self._has_pressure = True
        self._times = (0, 0)
        self._times_at_us: int | None = None
        self._cpus = 1
        self._cpus_at_us: int | None = None
        self._tick_us = 1_000_000 // os.sysconf("SC_CLK_TCK")
        self._call = None if library is None else library.host
        self._raw = CHost()
        self._raw_at = ctypes.addressof(self._raw)

    def newest(self) -> int:
        """Number of the process or thread that was made last, in our namespace; it moves when another one is.

        Raises:
            NoSuchKnobError: there is no /proc here.
        """
        if self._ask(self._load) & LOAD:
            return int(self._raw.newest)
        return int(_there(self._load.read(128)).rpartition(b" ")[2])

    def read(self, now_us: int) -> Host:
        """The machine now; `busy_us` and `steal_us` may be 50 ms old.

        Raises:
            NoSuchKnobError: there is no /proc here.
        """
        if self._cpus_at_us is None or now_us - self._cpus_at_us >= _CPUS_US:
            self._cpus, self._cpus_at_us = os.cpu_count() or 1, now_us
        is_due = self._times_at_us is None or now_us - self._times_at_us >= _SLOW_US
        raw, told = self._raw, self._ask(self._load, self._stat if is_due else None, self._pressure)
        if is_due:
            ticks_us, self._times_at_us = self._tick_us, now_us
            if told & TIMES:
                self._times = raw.busy_ticks * ticks_us, raw.steal_ticks * ticks_us
            else:
                self._times = times_us(_there(self._stat.read(512)), ticks_us)
        return Host(
            cpus=self._cpus,
            runnable=raw.runnable if told & LOAD else runnable_others(_there(self._load.read(128))),
            busy_us=self._times[0],
            steal_us=self._times[1],
            pressure_us=raw.pressure_us if told & PRESSURE else self._pressure_us(),
        )

    def _ask(self, load: KeptFile, times: KeptFile | None = None, pressure: KeptFile | None = None) -> int:
        """The library, for those of these that are kept open: what it could tell, as bits."""
        if self._call is None:
            return 0
        load_fd, times_fd, pressure_fd = load.descriptor, times and times.descriptor, pressure and pressure.descriptor
        return int(
            self._call(
                -1 if load_fd is None else load_fd,
                -1 if times_fd is None else times_fd,
                -1 if pressure_fd is None else pressure_fd,
                self._raw_at,
            )
        )

    def _pressure_us(self) -> int | None:
        text = self._pressure_text()
        return None if text is None else some_pressure_us(text)

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
