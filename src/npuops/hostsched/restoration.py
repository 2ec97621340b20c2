"""Put back what was changed: the same for an agent that ends, for its reaper, and for whoever comes after both.

Only what still has a value of ours is put back. What somebody else set meanwhile is theirs. Doing it twice, or from two
processes at once, does no harm.
"""

from __future__ import annotations

import time
from collections.abc import Collection, Container, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from npuops.hostsched.applied import Denial
from npuops.hostsched.group_knobs import read_native, write_native
from npuops.hostsched.knobs import KnobError, NotNowError, TaskGoneError, read_attributes, write_attributes
from npuops.hostsched.leases import GroupLease, Leases, TaskLease
from npuops.hostsched.lineage import strays
from npuops.hostsched.proc_files import read_whole
from npuops.hostsched.process_stat import alive
from npuops.hostsched.task_id import GroupId, TaskId

PATIENCE_S: Final = 5.0
_AGAIN_S: Final = 0.02
_GROUP_S: Final = 0.2
"""Twice what the kernel asks of those who lack CAP_SYS_ADMIN between two changes of autogroups."""
_SWEEPS: Final = 4
"""A child may be born while we look for children; after these, whoever is born has a parent that was put back."""


@dataclass(slots=True)
class Restored:
    """What became of leases.

    Attributes:
        back: these have again what they had, children of leased tasks included.
        gone: ended.
        theirs: somebody else set them meanwhile.
        failed: the kernel refuses.
    """

    back: list[TaskId | GroupId] = field(default_factory=list)
    gone: list[TaskId | GroupId] = field(default_factory=list)
    theirs: list[Denial] = field(default_factory=list)
    failed: list[Denial] = field(default_factory=list)


def put_back(leases: Leases, patience_s: float = PATIENCE_S) -> Restored:
    """Everything of these; `patience_s`, or more, is for autogroups: the kernel takes only so many a second."""
    result = Restored()
    for lease in leases.tasks.values():
        put_task_back(lease, result)
    waiting = list(leases.groups.values())
    until = time.monotonic() + max(patience_s, _GROUP_S * len(waiting))
    swept = False
    while True:
        late = time.monotonic() >= until
        waiting = [lease for lease in waiting if not put_group_back(lease, result, final=late)]
        if not swept:  # between the first and the second try of groups: it takes long where there are many processes
            put_strays_back(leases.tasks.values(), leases.tasks, result)
            swept = True
        if not waiting:
            return result
        time.sleep(_AGAIN_S)


def put_task_back(lease: TaskLease, result: Restored) -> None:
    """One task, if it is still that task, and has something of ours."""
    try:
        present = read_attributes(lease.id.tid)
        if not alive(lease.id):
            result.gone.append(lease.id)
            return
        if present != lease.original:
            if present not in lease.given:
                result.theirs.append(Denial(lease.id, "somebody else's", f"it has `{present}` by other hands"))
                return
            write_attributes(lease.id.tid, lease.original)
            result.back.append(lease.id)
        put_slack_back(lease)
    except TaskGoneError:
        result.gone.append(lease.id)
    except KnobError as error:
        result.failed.append(Denial(lease.id, "the kernel", error.message, error.advice))


def put_group_back(lease: GroupLease, result: Restored, *, final: bool) -> bool:
    """One group; False when the kernel puts it off, unless this is the `final` try."""
    try:
        present = read_native(lease.id)
        if present == lease.original:
            return True
        if present not in lease.given:
            result.theirs.append(Denial(lease.id, "somebody else's", f"it has {present} by other hands"))
            return True
        write_native(lease.id, lease.original)
    except TaskGoneError:
        result.gone.append(lease.id)
        return True
    except NotNowError as error:
        if final:
            result.failed.append(Denial(lease.id, "not now", error.message, error.advice))
        return final
    except KnobError as error:
        result.failed.append(Denial(lease.id, "the kernel", error.message, error.advice))
        return True
    result.back.append(lease.id)
    return True


def put_strays_back(parents: Collection[TaskLease], leased: Container[TaskId], result: Restored) -> None:
    """Children that began with what was meant for one of `parents`, and are not `leased` themselves."""
    refused: set[TaskId] = set()
    for _ in range(_SWEEPS):
        found = [stray for stray in strays(parents, leased) if stray.id not in refused]
        for stray in found:
            try:
                if alive(stray.id):
                    write_attributes(stray.id.tid, stray.natural)
                    result.back.append(stray.id)
            except TaskGoneError:
                result.gone.append(stray.id)
            except KnobError as error:
                refused.add(stray.id)
                result.failed.append(Denial(stray.id, "the kernel", error.message, error.advice))
        if not found:
            return


def words(result: Restored) -> Iterable[str]:
    """For people, a line each."""
    if result.back:
        yield f"put back: {len(result.back)}"
    yield from (str(denial) for denial in (*result.theirs, *result.failed))


def read_slack_ns(tid: int) -> int:
    """Timer slack of a task; 0 where it may not be read."""
    try:
        return int(read_whole(f"/proc/{tid}/timerslack_ns"))
    except (KnobError, ValueError):
        return 0


def put_slack_back(lease: TaskLease) -> None:
    """A reservation sets it to 0, and its end to the default: a task that had chosen its own would lose it."""
    if not lease.slack_ns or not any(value.reserved for value in lease.given):
        return
    if read_slack_ns(lease.id.tid) in (lease.slack_ns, 0):
        return
    try:
        Path(f"/proc/{lease.id.tid}/timerslack_ns").write_text(str(lease.slack_ns), encoding="ascii")
    except OSError as error:
        raise KnobError(f"timer slack of task {lease.id.tid} cannot be put back: {error.strerror}") from error
