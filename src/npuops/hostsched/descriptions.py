"""What seldom changes about a thread: its name, whom it shares with, on how many CPUs."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from npuops.hostsched.frame import Task
from npuops.hostsched.grouping import AUTOGROUP_SWITCH, group_told
from npuops.hostsched.membership import Member
from npuops.hostsched.proc_files import read_whole
from npuops.hostsched.process_stat import look_at
from npuops.hostsched.task_id import GroupId

_FORGET_US: Final = 4_000_000
"""To find a group may ask for folders of cgroups, which come and go: what was found is not believed for longer."""


class Place(NamedTuple):
    """What a description depends on, as the kernel writes it. As long as this is the same, so is the description.

    Attributes:
        cpus: how many it may use; 0 when it ended.
        command: its name.
        cgroups: all that it is in.
        autogroup: that of its session, without the nice value, which is no part of who shares with whom.
        switch: whether autogroups count.
    """

    cpus: int
    command: bytes
    cgroups: bytes
    autogroup: bytes
    switch: bytes


class Descriptions:
    """Of threads; groups are looked up once for all that are in them."""

    def __init__(self) -> None:
        """Nothing is known yet."""
        self._groups: dict[tuple[bytes, bytes, bytes], GroupId | None] = {}
        self._since_us = 0

    def describe(self, member: Member, place: Place, now_us: int) -> Task | None:
        """One thread, whose `place` was read before; None when it ended."""
        seen = look_at(member.id.tid)
        if seen is None or seen.id != member.id or seen.over or not place.cpus:
            return None
        if now_us - self._since_us >= _FORGET_US:
            self._groups.clear()
            self._since_us = now_us
        key = place.cgroups, place.autogroup, place.switch
        if key not in self._groups:
            self._groups[key] = group_told(*key)
        command = os.fsdecode(place.command.rstrip(b"\n"))
        return Task(member.id, member.pid, command, self._groups[key], place.cpus)


def place_of(member: Member) -> Place:
    """As it is now; with empty parts when it ended."""
    folder = f"/proc/{member.pid}/task/{member.id.tid}"
    try:
        cpus = len(os.sched_getaffinity(member.id.tid))
    except ProcessLookupError:
        cpus = 0
    return Place(
        cpus=cpus,
        command=read_whole(f"{folder}/comm"),
        cgroups=read_whole(f"{folder}/cgroup"),
        autogroup=read_whole(f"/proc/{member.pid}/autogroup").partition(b" nice")[0],
        switch=read_whole(AUTOGROUP_SWITCH),
    )
