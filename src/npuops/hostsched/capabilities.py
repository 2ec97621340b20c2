"""What this machine lets npuops see and set, and why not the rest: tried on a child of ours, not read off a version."""

from __future__ import annotations

import gzip
import os
import platform
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final

from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.errors import NpuopsError
from npuops.hostsched.energy_meter import energy_sources
from npuops.hostsched.group_knobs import CGROUP1, CGROUP2, autogroup_of, mounts, write_native
from npuops.hostsched.knobs import (
    AdmissionError,
    KnobError,
    base_slice_ns,
    read_attributes,
    write_attributes,
    write_setting,
)
from npuops.hostsched.look_library import usual_reader
from npuops.hostsched.reservations import most_cpus, promised
from npuops.hostsched.rights import find_rights, throw_away_child

_AUTOGROUPS: Final = Path("/proc/sys/kernel/sched_autogroup_enabled")
_DEBUG: Final = Path("/sys/kernel/debug/sched")
_LOCKDOWN: Final = Path("/sys/kernel/security/lockdown")


@dataclass(frozen=True, slots=True)
class Capability:
    """One thing that may be set or read.

    Attributes:
        name: for people and in JSON.
        kind: `knob` (set by npuops), `signal` (read by npuops), `machine` (neither; counts for what can be said of it).
        usable: here, by this process.
        found: why not, or what is to be known about it.
    """

    name: str
    kind: str
    usable: bool
    found: str


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What was found.

    Attributes:
        kernel: release.
        machine: of the processor.
        cpus: online.
        hz: ticks a second of the kernel; None where it is not told.
        base_slice_us: of the fair scheduler; None before Linux 6.12.
        privileged: what was lowered can be raised again, whatever a task's limits are.
        lockdown: of the kernel; empty where it is not told.
        list: knobs, signals and the machine.
    """

    kernel: str
    machine: str
    cpus: int
    hz: int | None
    base_slice_us: int | None
    privileged: bool
    lockdown: str
    list: tuple[Capability, ...]

    def __getitem__(self, name: str) -> Capability:
        """By name."""
        return next(capability for capability in self.list if capability.name == name)

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def probe() -> Capabilities:
    """Try everything; nothing stays changed.

    Raises:
        KnobError: tasks cannot be set on this machine at all.
    """
    rights = find_rights()
    base = base_slice_ns()
    return Capabilities(
        kernel=platform.release(),
        machine=platform.machine(),
        cpus=os.cpu_count() or 1,
        hz=_hz(),
        base_slice_us=base // 1000 or None,
        privileged=rights.may_raise,
        lockdown=_lockdown(),
        list=(*_task_knobs(), *_group_knobs(), *_kernel_knobs(), *_signals(), *_energy()),
    )


def _task_knobs() -> list[Capability]:
    idle, batch = Setting(SchedPolicy.IDLE), Setting(SchedPolicy.BATCH)
    return [
        _tried("nice up", lambda pid: _there_and_back(pid, Setting(nice=5)), "and back again"),
        _tried("nice down", lambda pid: write_setting(pid, Setting(nice=-10)), "below 0"),
        _tried("slice", _slice, "a task's own, on 6.12 and later"),
        _tried("batch", lambda pid: _there_and_back(pid, batch), "and back again"),
        _tried("idle", lambda pid: _there_and_back(pid, idle), "and back again"),
        _tried("reservation", _reservation, "SCHED_DEADLINE, unless pinned"),
    ]


def _tried(name: str, trial: Callable[[int], None], good: str) -> Capability:
    with throw_away_child() as pid:
        try:
            trial(pid)
        except NpuopsError as error:
            return Capability(name, "knob", False, error.message.replace(f"task {pid}", "a child"))
    return Capability(name, "knob", True, good)


def _there_and_back(pid: int, setting: Setting) -> None:
    before = read_attributes(pid)
    write_setting(pid, setting)
    write_attributes(pid, before)


def _reservation(pid: int) -> None:
    asked = Setting(SchedPolicy.DEADLINE, runtime_us=1000, period_us=10_000)
    try:
        write_setting(pid, asked)
    except AdmissionError as error:
        raise AdmissionError(f"{asked} is refused: {promised().refusal(asked.share, most_cpus())}") from error


def _slice(pid: int) -> None:
    write_setting(pid, Setting(slice_us=500))
    if read_attributes(pid).runtime_ns != 500_000:
        raise KnobError("this kernel takes no slice from user space: it is older than 6.12")


def _group_knobs() -> list[Capability]:
    return [_autogroups(), _cgroups(CGROUP1, "cpu.shares"), _cgroups(CGROUP2, "cpu.weight")]


def _autogroups() -> Capability:
    name = "autogroup nice"
    if not _AUTOGROUPS.exists():
        return Capability(name, "knob", False, "this kernel makes no autogroups")
    if _text(_AUTOGROUPS) != "1":
        return Capability(name, "knob", False, "autogroups are off (kernel.sched_autogroup_enabled)")
    with throw_away_child() as pid:
        group = autogroup_of(pid)
        if group is None:
            return Capability(name, "knob", False, "a new session has none")
        try:
            write_native(group[0], 5, pid)
        except KnobError as error:
            return Capability(name, "knob", False, error.message)
    return Capability(name, "knob", True, "nice of a task counts only within its session")


def _cgroups(kind: str, file: str) -> Capability:
    mount = mounts().get(kind)
    if mount is None:
        return Capability(f"{kind} weight", "knob", False, "there is no such tree with a cpu controller")
    if not os.access(mount.point, os.W_OK):
        return Capability(f"{kind} weight", "knob", False, f"only in cgroups that this user may write ({mount.point})")
    return Capability(f"{kind} weight", "knob", True, f"{file} of the cgroups below {mount.point}")


def _kernel_knobs() -> list[Capability]:
    return [
        _path("sched_ext", "knob", "/sys/kernel/sched_ext", "npuops does not use it", "not built into this kernel"),
        _path("uclamp", "knob", "/proc/sys/kernel/sched_util_clamp_min", "npuops does not use it", "not built in"),
        _debug_slice(),
    ]


def _debug_slice() -> Capability:
    name, path = "base slice", _DEBUG / "base_slice_ns"
    try:
        with path.open("r+b"):
            return Capability(name, "knob", True, "debugfs; npuops does not set it: it is for all tasks")
    except FileNotFoundError:
        return Capability(name, "knob", False, "debugfs is not mounted")
    except OSError as error:
        reason = f", lockdown is {_lockdown()}" if _lockdown() not in ("", "none") else ""
        return Capability(name, "knob", False, f"debugfs: {error.strerror}{reason}")


def _signals() -> list[Capability]:
    return [
        _read("schedstat", "/proc/self/schedstat", "run and wait of each task"),
        _read("pressure", "/proc/pressure/cpu", "PSI"),
        _read("/proc/PID/sched", "/proc/self/sched", "not needed"),
        _reader(),
    ]


def _reader() -> Capability:
    found = usual_reader()
    return Capability("reader", "signal", found.library is not None, f"looks are taken by {found.words}")


def _read(name: str, path: str, good: str) -> Capability:
    try:
        Path(path).read_bytes()
    except OSError as error:
        return Capability(name, "signal", False, f"{path}: {error.strerror}")
    return Capability(name, "signal", True, good)


def _path(name: str, kind: str, path: str, good: str, bad: str) -> Capability:
    there = Path(path).exists()
    return Capability(name, kind, there, good if there else bad)


def _energy() -> list[Capability]:
    return [
        *(Capability(each.name, "machine", each.gauge is not None, each.words) for each in energy_sources()),
        _path("cpufreq", "machine", "/sys/devices/system/cpu/cpufreq/policy0", "there", "no frequency control here"),
    ]


def _hz() -> int | None:
    texts = (_config(Path("/proc/config.gz")), _config(Path(f"/boot/config-{platform.release()}")))
    for text in texts:
        found = re.search(r"^CONFIG_HZ=(\d+)$", text, re.MULTILINE)
        if found is not None:
            return int(found.group(1))
    return None


def _config(path: Path) -> str:
    try:
        data = path.read_bytes()
        return (gzip.decompress(data) if path.suffix == ".gz" else data).decode("ascii", "replace")
    except OSError:
        return ""


def _lockdown() -> str:
    found = re.search(r"\[(\w+)\]", _text(_LOCKDOWN))
    return found.group(1) if found is not None else ""


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="ascii").strip()
    except OSError:
        return ""
