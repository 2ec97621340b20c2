"""Whom a task shares with: nice counts only among the tasks of one group.

A cgroup with a weight of its own comes before the autogroup: the kernel makes autogroups only among the tasks of the
root cgroup (kernel/sched/autogroup.c). An autogroup is born with a session and has the same members.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from npuops.hostsched.group_knobs import AUTOGROUP, CGROUP1, CGROUP2, Mount, autogroup_named, autogroup_of, mounts
from npuops.hostsched.proc_files import read_whole
from npuops.hostsched.task_id import GroupId

AUTOGROUP_SWITCH: Final = "/proc/sys/kernel/sched_autogroup_enabled"


def group_told(cgroups: bytes, autogroup: bytes, switch: bytes) -> GroupId | None:
    """The group of a thread; None in the root of everything, or when it ended.

    Args:
        cgroups: what /proc/PID/task/TID/cgroup says.
        autogroup: the first word of what /proc/PID/autogroup says.
        switch: what `AUTOGROUP_SWITCH` says; empty where the kernel was built without it.
    """
    seen = mounts()
    for controllers, path in _lines(cgroups):
        if CGROUP1 in seen and "cpu" in controllers.split(",") and path != "/":
            return GroupId(CGROUP1, path)
        if CGROUP2 in seen and controllers == "":
            weighed = _weighed(seen[CGROUP2], path)
            if weighed is not None:
                return GroupId(CGROUP2, weighed)
    return autogroup_named(autogroup) if switch.strip() == b"1" else None


def cgroup_lines(path: str) -> list[tuple[str, str]]:
    """Controllers and path of each hierarchy, from /proc/PID/cgroup; empty when the task ended."""
    return _lines(read_whole(path))


def folder_of(mount: Mount, name: str) -> Path:
    """Where a cgroup is seen."""
    path = PurePosixPath(name)
    below = path.relative_to(mount.root) if path.is_relative_to(mount.root) else path.relative_to("/")
    return mount.point / below


def processes_below(group: GroupId) -> set[int] | None:
    """Processes of a cgroup and of those below it; None when that cannot be told."""
    mount = mounts().get(group.kind)
    if mount is None:
        return None
    found: set[int] = set()
    try:
        for folder, _, _ in os.walk(folder_of(mount, group.name), onerror=_unless_gone):
            found.update(map(int, (Path(folder) / "cgroup.procs").read_text(encoding="ascii").split()))
    except OSError:  # it is gone, not ours to look at, or in threaded mode (EOPNOTSUPP)
        return None
    return None if 0 in found else found  # 0 is a process that this namespace does not see


def whole(groups: Collection[GroupId], opted_in: Collection[int], sessions: Mapping[int, int]) -> set[GroupId]:
    """Those groups of which all opted in.

    Args:
        groups: which.
        opted_in: processes that did.
        sessions: process → session, of everybody that is known.
    """
    has_autogroups = any(group.kind == AUTOGROUP for group in groups)
    inside = _sessions_inside(opted_in, sessions) if has_autogroups else {}
    found = set()
    for group in groups:
        if group.kind in (CGROUP1, CGROUP2):
            members = processes_below(group)
            if members is not None and members <= set(opted_in):
                found.add(group)
            continue
        own = inside.get(group, set())
        # 0: its leader is outside of this namespace, and so may be others
        if own and 0 not in own and all(pid in opted_in for pid, session in sessions.items() if session in own):
            found.add(group)
    return found


def _sessions_inside(opted_in: Iterable[int], sessions: Mapping[int, int]) -> dict[GroupId, set[int]]:
    """Sessions of each autogroup. The eldest that can be asked tells: some of a build ended since they were seen."""
    group_of: dict[int, GroupId] = {}
    for pid in sorted(opted_in):
        session = sessions.get(pid)
        if session is not None and session not in group_of and (told := autogroup_of(pid)) is not None:
            group_of[session] = told[0]
    inside: dict[GroupId, set[int]] = {}
    for session, group in group_of.items():
        inside.setdefault(group, set()).add(session)
    return inside


def _weighed(mount: Mount, name: str) -> str | None:
    """The nearest cgroup v2 with a weight; the real root has none."""
    path = PurePosixPath(name)
    for each in (path, *path.parents):
        if (folder_of(mount, str(each)) / "cpu.weight").exists():
            return str(each)
    return None


def _lines(cgroups: bytes) -> list[tuple[str, str]]:
    words = (os.fsdecode(line).split(":", 2) for line in cgroups.split(b"\n") if line.count(b":") >= 2)
    return [(controllers, path) for _, controllers, path in words]


def _unless_gone(error: OSError) -> None:
    if error.errno != errno.ENOENT:
        raise error
