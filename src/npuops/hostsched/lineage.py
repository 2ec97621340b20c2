"""Tasks that began with what npuops gave to their parent: put back too, or the child of a demoted task stays demoted.

A thread or process begins with the settings of the task that makes it. It counts as such a child when all of this
holds:

- it was born after npuops first changed the parent;
- it has exactly what a child of the parent would have begun with under something that npuops gave to the parent;
- it belongs to the same process, or descends from it, or is an orphan of its session (its chain of parents within the
  session is broken, as after a parent that ended).

Not found: a daemon that left its session and lost its parent.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Iterable, Iterator
from dataclasses import dataclass

from npuops.hostsched.attributes import Attributes, inherited
from npuops.hostsched.knobs import TaskGoneError, read_attributes
from npuops.hostsched.leases import TaskLease
from npuops.hostsched.process_stat import TaskStat, look_at, processes, threads
from npuops.hostsched.task_id import TaskId


@dataclass(frozen=True, slots=True)
class Stray:
    """A child that has what was meant for its parent.

    Attributes:
        id: the thread.
        present: what it has.
        natural: what it would have had without npuops.
        parent: the lease that it comes from.
    """

    id: TaskId
    present: Attributes
    natural: Attributes
    parent: TaskLease


def origin(
    stat: TaskStat, pid: int, present: Attributes, leases: Iterable[TaskLease], family: Family
) -> TaskLease | None:
    """The lease that this task has its settings from; None when they are its own.

    Args:
        stat: of the thread.
        pid: its process.
        present: what it has.
        leases: of all tasks.
        family: of all processes.
    """
    likely = (lease for lease in leases if _passed_on(stat, present, lease))
    return next((lease for lease in likely if family.related(pid, lease)), None)


def may_be_ours(present: Attributes, leases: Iterable[TaskLease]) -> bool:
    """A child of one of these would begin with this, and without npuops it would not: then `origin` is to be asked."""
    return any(_would_pass_on(present, lease) for lease in leases)


def strays(parents: Collection[TaskLease], leased: Container[TaskId]) -> Iterator[Stray]:
    """All children of these, as of now, that are not `leased` themselves."""
    given = [lease for lease in parents if any(_differs(lease, value) for value in lease.given)]
    if not given:
        return
    since = min(lease.since_ticks for lease in given)
    own = {lease.process.tid for lease in given}
    family = Family({pid: stat for pid in processes() if (stat := look_at(pid)) is not None})
    for pid, process in list(family.known.items()):
        if process.kernels or (process.start_ticks < since and pid not in own):
            continue
        related = [lease for lease in given if family.related(pid, lease)]
        if related:
            yield from _of_process(pid, related, leased)


def _of_process(pid: int, parents: list[TaskLease], leased: Container[TaskId]) -> Iterator[Stray]:
    for tid in threads(pid):
        stat = look_at(tid)
        if stat is None or stat.over or stat.id in leased:
            continue
        try:
            present = read_attributes(tid)
        except TaskGoneError:
            continue
        parent = next((lease for lease in parents if _passed_on(stat, present, lease)), None)
        if parent is not None:
            yield Stray(stat.id, present, inherited(parent.original), parent)


def _passed_on(stat: TaskStat, present: Attributes, lease: TaskLease) -> bool:
    return stat.start_ticks >= lease.since_ticks and _would_pass_on(present, lease)


def _would_pass_on(present: Attributes, lease: TaskLease) -> bool:
    return present != inherited(lease.original) and any(present == inherited(value) for value in lease.given)


def _differs(lease: TaskLease, given: Attributes) -> bool:
    return inherited(given) != inherited(lease.original)


class Family:
    """Who descends from whom; asks for a process only once."""

    def __init__(self, known: dict[int, TaskStat]) -> None:
        """With what was looked at just now, by process."""
        self.known = known
        self._absent: set[int] = set()
        self._lines: dict[int, _Line] = {}

    def related(self, pid: int, lease: TaskLease) -> bool:
        """Same process, descendant, or orphan of its session."""
        line = self._lines.get(pid)
        if line is None:
            line = self._lines[pid] = self._line(pid)
        return lease.process in line.members or (line.orphan_of is not None and line.orphan_of == lease.session)

    def _line(self, pid: int) -> _Line:
        process = self._look(pid)
        if process is None:
            return _Line(frozenset(), None)
        members = set()
        top, one = process, process
        for _ in range(1000):  # a bound: what is read while it changes may go round in a circle
            members.add(one.id)
            if one.session == process.session:
                top = one
            parent = self._look(one.parent) if one.parent else None
            if parent is None:
                break
            one = parent
        return _Line(frozenset(members), process.session if top.tid != process.session else None)

    def _look(self, pid: int) -> TaskStat | None:
        if pid in self.known:
            return self.known[pid]
        stat = look_at(pid) if pid not in self._absent else None
        if stat is None:
            self._absent.add(pid)
            return None
        self.known[pid] = stat
        return stat


@dataclass(frozen=True, slots=True)
class _Line:
    """A process and its ancestors.

    Attributes:
        members: it, its parent, and so on.
        orphan_of: its session, if the chain of parents within it does not lead to who began it.
    """

    members: frozenset[TaskId]
    orphan_of: int | None
