"""Tells the kernel what was ordered, so that all of it can be put back, whoever dies.

The order of things is the promise: what a task or group had stands in the lease file, and a reaper watches, before the
first change of it. Everything that is in force is renewed by each `beat`; the reaper puts it back when those stop.
"""

from __future__ import annotations

import fcntl
import os
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from npuops.errors import RunError, StorageError, UsageError
from npuops.hostsched.applied import Applied, Change, Denial, Report
from npuops.hostsched.group_claims import GroupClaims, GroupWrite
from npuops.hostsched.lease_file import Entry, LeaseFile, LetGo, runtime_folder
from npuops.hostsched.plan import Orders
from npuops.hostsched.process_stat import look_at
from npuops.hostsched.reaper_link import HEARTBEAT_TIMEOUT_MS, ReaperLink
from npuops.hostsched.restoration import Restored, put_back
from npuops.hostsched.restore import restore_leftovers
from npuops.hostsched.rights import Rights, find_rights
from npuops.hostsched.task_claims import TaskClaims, TaskWrite
from npuops.hostsched.task_id import TaskId

__all__ = ["Actuator", "Applied", "Change", "Denial"]

_LOCK = "hostsched.lock"
_ROOM = "make room there, check its permissions, or name another folder with --leases"


class Actuator:
    """One for each user at a time; use it from one thread, and close it, which puts everything back.

    `apply` counts as a heartbeat. Between two of them no more than the reaper's timeout may pass, less what a step
    takes: whoever is slower calls `beat` in between.
    """

    def __init__(
        self, folder: Path | None = None, *, timeout_ms: int = HEARTBEAT_TIMEOUT_MS, rights: Rights | None = None
    ) -> None:
        """Put back what dead agents left, start a reaper; nothing is changed yet.

        Args:
            folder: for the lease file; that of this user by default.
            timeout_ms: after which the reaper takes a silent agent for stuck.
            rights: found out by default.

        Raises:
            UsageError: another agent of this user acts already.
            StorageError: the lease file cannot be written.
            RunError: the reaper does not start.
            KnobError: this machine does not let tasks be set.
        """
        place = folder if folder is not None else runtime_folder()
        self._lock = _lock(place)
        try:
            self.leftovers = restore_leftovers(place)
            self._timeout_ms = timeout_ms
            self._agent = _myself()
            self._file = LeaseFile(place, self._agent)
            found = rights if rights is not None else find_rights()
            self._tasks = TaskClaims(self._file, found)
            self._groups = GroupClaims(self._file, found, self._tasks.spared)
            self.reapers: set[int] = set()
            """All that this one started; one more is in it before anybody could take it for a task of somebody's."""
            self._link = self._start_reaper()
        except BaseException:
            os.close(self._lock)
            raise
        self._closed = False

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Put everything back."""
        self.close()

    @property
    def reaper_pid(self) -> int:
        """Of the process that watches this one."""
        return self._link.pid

    def watcher_ns(self) -> int:
        """CPU time of that process so far."""
        return self._link.spent_ns()

    def beat(self) -> bool:
        """Renew everything that is in force; False when that was put back, because this came too late: `apply` then."""
        self._link.heartbeat.beat()
        return self._link.heartbeat.held

    def apply(self, orders: Orders) -> Applied:
        """Make it so; what is not ordered is put back.

        Raises:
            RunError: the reaper died, and another does not start: everything is put back.
        """
        self.beat()
        trouble = self._trouble()
        if trouble:
            return self._start_over(trouble)
        report = Report()
        for write in self._noted(orders, report):
            self._write(write, report)
        trouble = self._trouble()  # we may have been stopped in the middle, and have written what nobody watches
        if trouble:
            return self._start_over(trouble)
        self._note(self._tasks.sweep(report), report)
        return report.applied()

    def put_back(self) -> Applied:
        """Everything, and stay ready."""
        result = put_back(self._file.leases)
        self._forget(result)
        report = Report()
        report.denied, report.lost = result.failed, result.theirs
        return report.applied()

    def close(self) -> Applied:
        """Put everything back, send the reaper away; the lease file stays if the kernel refuses."""
        if self._closed:
            return Applied()
        self._closed = True
        applied = self.put_back()
        self._link.end()
        if self._file.leases:
            self._file.close()
        else:
            self._file.remove()
        os.close(self._lock)
        return applied

    def _noted(self, orders: Orders, report: Report) -> list[TaskWrite | GroupWrite]:
        """What to write, after it was noted; without room for notes, only what puts back."""
        try:
            self._tasks.adopt(orders.tasks)
        except StorageError as error:
            report.denied += [Denial(task, "no lease", error.message, error.advice) for task in orders.tasks][:1]
        tasks = self._tasks.intend(orders.tasks, report)
        groups = self._groups.intend(orders.groups, orders.tasks, report)
        writes: list[TaskWrite | GroupWrite] = [*tasks, *groups]
        writes.sort(key=lambda write: not write.back)
        entries = [entry for write in tasks for entry in self._tasks.entries(write)]
        entries += [entry for write in groups for entry in self._groups.entries(write)]
        try:
            self._file.note(entries)
        except StorageError as error:
            report.denied += [
                Denial(write.id, "no lease", error.message, error.advice) for write in writes if not write.back
            ]
            return [write for write in writes if write.back]
        return writes

    def _write(self, write: TaskWrite | GroupWrite, report: Report) -> None:
        if isinstance(write, TaskWrite):
            self._tasks.write(write, report)
        else:
            self._note(self._groups.write(write, report), report)

    def _note(self, entries: Sequence[Entry], report: Report) -> None:
        """What may also be noted later: it only says that there is less to put back."""
        try:
            self._file.note(entries)
        except StorageError as error:
            ends = (entry.what for entry in entries if isinstance(entry, LetGo))
            report.denied += [Denial(what, "no lease", error.message, error.advice) for what in ends]

    def _trouble(self) -> str:
        if not self._link.alive:
            return "the reaper died"
        return "" if self._link.heartbeat.held else "the heartbeat was late, and the reaper has put everything back"

    def _start_over(self, why: str) -> Applied:
        """Put back what is left, and begin another term; if the reaper is not done, at the next step."""
        result = put_back(self._file.leases)
        self._forget(result)
        if not self._link.alive:
            self._link.end()
            self._file.rewrite()
            self._link = self._start_reaper()
        elif not self._link.heartbeat.held:
            self._link.heartbeat.renew()
        report = Report()
        report.denied, report.lost = result.failed, result.theirs
        return report.applied(why)

    def _forget(self, result: Restored) -> None:
        """Leases of what the kernel did not let us put back stay."""
        stuck = {denial.what for denial in result.failed}
        leases = self._file.leases
        over: list[Entry] = [LetGo(task) for task in leases.tasks if task not in stuck]
        over += [LetGo(group) for group in leases.groups if group not in stuck]
        self._note(over, Report())
        self._tasks.forget(stuck)
        self._groups.forget(stuck)

    def _start_reaper(self) -> ReaperLink:
        link = ReaperLink(self._agent, self._file.path, self._timeout_ms)
        self._tasks.spared.add(link.pid)
        self.reapers.add(link.pid)
        return link


def _myself() -> TaskId:
    stat = look_at(os.getpid())
    if stat is None:
        raise RunError("/proc does not show this process", advice="mount /proc")
    return stat.id


def _lock(folder: Path) -> int:
    """Two agents would take each other's settings for what a task had before."""
    path = folder / _LOCK
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StorageError(f"{path} cannot be written: {error.strerror}", advice=_ROOM) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
    except BlockingIOError:
        holder = os.pread(descriptor, 20, 0).decode("ascii", "replace")
        os.close(descriptor)
        raise UsageError(
            f"another npuops hostsched acts already: process {holder}", advice="end that one first"
        ) from None
    except OSError as error:
        os.close(descriptor)
        raise StorageError(f"{path} cannot be written: {error.strerror}", advice=_ROOM) from error
    return descriptor
