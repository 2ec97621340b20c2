"""Autogroups and cgroups that the agent has changed, or is about to."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from npuops.eevdf.setting import MOST_NICE
from npuops.hostsched.applied import Change, Denial, Report
from npuops.hostsched.bounds import LEAST_NICE
from npuops.hostsched.group_knobs import (
    AUTOGROUP,
    autogroup_of,
    native_of_nice,
    nice_of_native,
    read_native,
    write_native,
)
from npuops.hostsched.knobs import KnobError, NotNowError, TaskGoneError
from npuops.hostsched.lease_file import Entry, Given, GroupClaimed, LeaseFile, LetGo
from npuops.hostsched.leases import GroupLease
from npuops.hostsched.recently import Recently
from npuops.hostsched.rights import Rights
from npuops.hostsched.task_id import GroupId, TaskId


@dataclass(frozen=True, slots=True)
class GroupWrite:
    """One write to come; values as in `group_knobs`.

    Attributes:
        id: the group.
        present: what it has.
        target: what it shall have.
        back: this ends our claim.
        claim: the first change of this group.
    """

    id: GroupId
    present: int
    target: int
    back: bool
    claim: GroupLease | None = None


class GroupClaims:
    """Of one agent; as `TaskClaims`."""

    def __init__(self, file: LeaseFile, rights: Rights, spared: Collection[int] = ()) -> None:
        """Nothing is claimed yet; groups of the `spared` processes, who may become more, never are."""
        self._spared = spared
        self._file = file
        self._rights = rights
        self._current: dict[GroupId, int] = {}
        self._hands_off: Recently[GroupId] = Recently()
        self._members: dict[GroupId, int] = {}

    def intend(self, wants: Mapping[GroupId, int | None], tasks: Iterable[TaskId], report: Report) -> list[GroupWrite]:
        """What is to be written; a group that is not named is put back. `tasks` are asked for autogroups."""
        asked = {**wants, **dict.fromkeys(set(self._current) - set(wants))}
        self._find_members(asked, tasks)
        found = [self._intend(group, nice, report) for group, nice in asked.items() if group not in self._hands_off]
        writes = [write for write in found if write is not None]
        return sorted(writes, key=lambda write: not write.back)

    @staticmethod
    def entries(write: GroupWrite) -> list[Entry]:
        """What must stand in the lease file before it."""
        claim: list[Entry] = [GroupClaimed(write.claim)] if write.claim is not None else []
        return claim if write.back else [*claim, Given(write.id, write.target)]

    def write(self, write: GroupWrite, report: Report) -> list[Entry]:
        """Do it; what is to stand in the lease file after it."""
        try:
            write_native(write.id, write.target, self._members.get(write.id))
        except TaskGoneError:
            self._current.pop(write.id, None)
            return [LetGo(write.id)]
        except KnobError as error:
            rule = "not now" if isinstance(error, NotNowError) else "the kernel"
            report.denied.append(Denial(write.id, rule, error.message, error.advice))
            return []
        kind = write.id.kind
        before, after = nice_of_native(kind, write.present), nice_of_native(kind, write.target)
        report.changed.append(Change(write.id, before, after, write.back))
        if write.back:
            self._current.pop(write.id, None)
            return [LetGo(write.id)]
        self._current[write.id] = write.target
        return []

    def forget(self, stuck: Collection[TaskId | GroupId]) -> None:
        """Everything was put back, except these."""
        self._current = {group: value for group, value in self._current.items() if group in stuck}

    def _intend(self, group: GroupId, nice: int | None, report: Report) -> GroupWrite | None:
        ours = self._current.get(group)
        if nice is None and ours is None:
            return None
        try:
            present = read_native(group, self._members.get(group))
        except TaskGoneError:
            self._current.pop(group, None)
            return None
        except KnobError as error:
            report.denied.append(Denial(group, "the kernel", error.message, error.advice))
            return None
        if ours is not None and present != ours:
            self._lose(group, present, ours, report)
            return None
        lease = self._file.leases.groups.get(group)
        if lease is not None and ours is None and present != lease.original:
            lease = None  # it was noted and not done, and somebody set it since
        original = lease.original if lease is not None else present
        target = original if nice is None else native_of_nice(group.kind, nice)
        if present == target and (nice is not None or ours is None):
            return None
        denial = None if nice is None else self._against(group, original, nice)
        if denial is not None:
            report.denied.append(denial)
            return None
        claim = GroupLease(group, original) if lease is None else None
        return GroupWrite(group, present, target, ours is not None and target == original, claim)

    def _against(self, group: GroupId, original: int, nice: int) -> Denial | None:
        if not LEAST_NICE <= nice <= MOST_NICE:
            found = f"nice {nice} is out of the bounds {LEAST_NICE} to {MOST_NICE}"
            return Denial(group, "bounds", found)
        if group.kind == AUTOGROUP and original < 0 and nice > original and not self._rights.may_raise:
            return Denial(group, "no way back", f"nice {original} cannot be given back")
        if group.kind == AUTOGROUP and any((seen := autogroup_of(pid)) and seen[0] == group for pid in self._spared):
            return Denial(group, "not ours", "the agent itself, its reaper or init is in it")
        return None

    def _lose(self, group: GroupId, present: int, ours: int, report: Report) -> None:
        self._current.pop(group)
        self._hands_off.add(group)
        found = f"it has {present}, and we had set {ours}"
        report.lost.append(Denial(group, "somebody else's", found))

    def _find_members(self, groups: Iterable[GroupId], tasks: Iterable[TaskId]) -> None:
        """A task of each autogroup, so that not all processes have to be asked."""
        missing = {group for group in groups if group.kind == AUTOGROUP and not self._still_in(group)}
        for task in tasks:
            if not missing:
                return
            seen = autogroup_of(task.tid)
            if seen is not None and seen[0] in missing:
                self._members[seen[0]] = task.tid
                missing.discard(seen[0])

    def _still_in(self, group: GroupId) -> bool:
        member = self._members.get(group)
        seen = autogroup_of(member) if member is not None else None
        return seen is not None and seen[0] == group
