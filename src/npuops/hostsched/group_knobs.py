"""Weights of groups: the nice value of an autogroup, cpu.shares of a cgroup v1, cpu.weight of a cgroup v2.

Each has a value of its own kind, here `native`: it is kept and put back as it was found, since only an autogroup's is a
nice value. A nice value becomes shares or weight by the kernel's own table, as cpu.weight.nice does it.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from itertools import chain
from pathlib import Path, PurePosixPath
from typing import Final

from npuops.eevdf.setting import LEAST_NICE
from npuops.eevdf.weights import BY_NICE, NICE_0, of_nice
from npuops.hostsched.knobs import KnobError, NoSuchKnobError, NotNowError, NotPermittedError, TaskGoneError
from npuops.hostsched.proc_files import read_whole
from npuops.hostsched.process_stat import processes
from npuops.hostsched.task_id import GroupId

AUTOGROUP: Final = "autogroup"
CGROUP1: Final = "cgroup1"
CGROUP2: Final = "cgroup2"
_FILES: Final = {CGROUP1: "cpu.shares", CGROUP2: "cpu.weight"}
_WEIGHT_OF_NICE_0: Final = {CGROUP1: NICE_0, CGROUP2: 100}


@dataclass(frozen=True, slots=True)
class Mount:
    """Where a tree of cgroups is seen.

    Attributes:
        point: folder.
        root: the cgroup that stands there; "/" unless a part of the tree is mounted.
    """

    point: Path
    root: str


def autogroup_of(pid: int) -> tuple[GroupId, int] | None:
    """The autogroup of a process and its nice value; None where the kernel makes none, or the process ended."""
    name, nice, value = read_whole(f"/proc/{pid}/autogroup").partition(b" nice ")
    group = autogroup_named(name)
    return (group, int(value)) if group is not None and nice else None


def autogroup_named(name: bytes) -> GroupId | None:
    """By the first word of its file; None for an empty one: a process that the kernel started with has none."""
    words = name.decode("ascii").partition("/autogroup-")
    return GroupId(AUTOGROUP, words[2]) if words[1] else None


def read_native(group: GroupId, member: int | None = None) -> int:
    """The group's value as it is kept; `member` is a process that is probably in it (for an autogroup only).

    Raises:
        TaskGoneError: the group is gone: no process is in the autogroup, or there is no such cgroup.
        NoSuchKnobError: this group's weight cannot be set here.
        NotPermittedError: it may not be read.
    """
    if group.kind == AUTOGROUP:
        return member_of(group, member)[1]
    folder = _folder(group)
    if _read_number(folder / "cpu.idle", group, absent=0) == 1:
        raise NoSuchKnobError(f"{group.kind} {group.name} is idle as a whole", advice="it has no weight; leave it so")
    return _read_number(folder / _FILES[group.kind], group)


def write_native(group: GroupId, native: int, member: int | None = None) -> None:
    """Set the group.

    Raises:
        NotNowError: the kernel takes ten changes of autogroups a second from all who lack CAP_SYS_ADMIN together.
        TaskGoneError: the group is gone.
        NotPermittedError: as it says.
        KnobError: whatever else the kernel has against it.
    """
    if group.kind == AUTOGROUP:
        path = Path(f"/proc/{member_of(group, member)[0]}/autogroup")
    else:
        path = _folder(group) / _FILES[group.kind]
    try:
        _write(path, str(native))
    except OSError as error:
        raise _refused(group, native, error) from error


def native_of_nice(kind: str, nice: int) -> int:
    """What a group of this kind is set to so that it shares like a task of this nice value."""
    if kind == AUTOGROUP:
        return nice
    return max(1, round(of_nice(nice) * _WEIGHT_OF_NICE_0[kind] / NICE_0))


def nice_of_native(kind: str, native: int) -> int:
    """The nearest nice value."""
    if kind == AUTOGROUP:
        return native
    weight = native * NICE_0 / _WEIGHT_OF_NICE_0[kind]
    return min(range(len(BY_NICE)), key=lambda index: abs(BY_NICE[index] - weight)) + LEAST_NICE


def read_group_nice(group: GroupId, member: int | None = None) -> int:
    """As `read_native`, as a nice value."""
    return nice_of_native(group.kind, read_native(group, member))


@cache
def mounts() -> dict[str, Mount]:
    """Where the cpu controller is, by kind of group; empty where it is nowhere."""
    found: dict[str, Mount] = {}
    for line in Path("/proc/self/mountinfo").read_text(encoding="utf-8", errors="surrogateescape").splitlines():
        before, _, after = line.partition(" - ")
        root, point = (_unescaped(word) for word in before.split()[3:5])
        system, _, options = after.split()[:3]
        if system == "cgroup" and "cpu" in options.split(","):
            found.setdefault(CGROUP1, Mount(Path(point), root))
        if system == "cgroup2" and _has_cpu(Path(point)):
            found.setdefault(CGROUP2, Mount(Path(point), root))
    return found


def _has_cpu(point: Path) -> bool:
    try:
        return "cpu" in (point / "cgroup.controllers").read_text(encoding="ascii").split()
    except OSError:
        return False


def _unescaped(word: str) -> str:
    for code, sign in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        word = word.replace(code, sign)
    return word


def _folder(group: GroupId) -> Path:
    mount = mounts().get(group.kind)
    if mount is None:
        raise NoSuchKnobError(f"there is no {group.kind} with a cpu controller here")
    name = PurePosixPath(group.name)
    if not name.is_absolute() or ".." in name.parts:
        raise NoSuchKnobError(f"cgroup {group.name} is outside of what this process sees")
    if name.is_relative_to(mount.root):
        name = PurePosixPath("/") / name.relative_to(mount.root)
    if name == PurePosixPath("/"):
        raise NoSuchKnobError("the root cgroup has no weight", advice="start what should share by itself in a cgroup")
    return mount.point / name.relative_to("/")


def member_of(group: GroupId, likely: int | None = None) -> tuple[int, int]:
    """A process of an autogroup, and the group's nice value; `likely` is asked first.

    Raises:
        TaskGoneError: there is none any more.
    """
    asked = () if likely is None else (likely,)
    for pid in chain(asked, _all_processes()):
        seen = autogroup_of(pid)
        if seen is not None and seen[0] == group:
            return pid, seen[1]
    raise TaskGoneError(f"no process is in autogroup {group.name} any more")


def _all_processes() -> Iterator[int]:
    yield from processes()  # listed only when they are asked for


def _read_number(path: Path, group: GroupId, absent: int | None = None) -> int:
    try:
        return int(path.read_text(encoding="ascii"))
    except FileNotFoundError as error:
        if absent is not None:
            return absent
        if path.parent.is_dir():
            raise NoSuchKnobError(
                f"{group.kind} {group.name} has no {path.name}", advice="enable the cpu controller for it"
            ) from error
        raise TaskGoneError(f"{group.kind} {group.name} is gone") from error
    except PermissionError as error:
        raise NotPermittedError(f"{path} may not be read") from error
    except OSError as error:
        raise KnobError(f"{path} cannot be read: {error.strerror}") from error


def _write(path: Path, text: str) -> None:
    """In one call, from the beginning: the kernel takes nothing else."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(descriptor, text.encode("ascii"))
    finally:
        os.close(descriptor)


def _refused(group: GroupId, native: int, error: OSError) -> KnobError:
    what = f"the kernel refuses {native} for {group.kind} {group.name}"
    if error.errno == errno.EAGAIN:
        return NotNowError(f"{what} for the moment", advice="without CAP_SYS_ADMIN, ten changes a second in all")
    if error.errno in (errno.ENOENT, errno.ESRCH, errno.ENODEV):
        return TaskGoneError(f"{group.kind} {group.name} is gone")
    if error.errno in (errno.EPERM, errno.EACCES, errno.EROFS):
        return NotPermittedError(f"{what}: {error.strerror}", advice="run as its owner, or with CAP_SYS_NICE")
    return KnobError(f"{what}: {error.strerror}")
