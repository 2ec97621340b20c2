"""Tasks that the agent has changed, or is about to: what may be done to them, and what is theirs to get back."""

from __future__ import annotations

import os
import time
from collections.abc import Collection, Mapping
from dataclasses import dataclass, replace
from typing import Final

from npuops.eevdf.setting import FAIR, SchedPolicy, Setting
from npuops.hostsched.applied import Change, Denial, Report
from npuops.hostsched.attributes import Attributes, inherited, kept_from_children, no_way_back, wanted
from npuops.hostsched.bounds import LEAST_NICE, LEAST_SLICE_US, MOST_RESERVED
from npuops.hostsched.knobs import KnobError, TaskGoneError, Watch, read_attributes, write_attributes
from npuops.hostsched.lease_file import Entry, Given, LeaseFile, LetGo, TaskClaimed
from npuops.hostsched.leases import TaskLease
from npuops.hostsched.lineage import Family, may_be_ours, origin
from npuops.hostsched.process_stat import TaskStat, alive, look_at, now_ticks, process_of
from npuops.hostsched.restoration import Restored, put_slack_back, put_strays_back, read_slack_ns
from npuops.hostsched.rights import Rights
from npuops.hostsched.task_id import GroupId, TaskId

_AGAIN_S: Final = 1.0
"""What the kernel refused is not asked of it at every step."""
_SWEEP_EVERY_S: Final = 1.0
"""Children of tasks that are back are looked for no oftener,"""
_SWEEP_SHARE: Final = 0.001
"""nor in more of a core's time than this: all processes are looked at, and there may be thousands."""


@dataclass(frozen=True, slots=True)
class TaskWrite:
    """One write to come.

    Attributes:
        id: the task.
        present: what it has.
        target: what it shall have.
        back: this ends our claim.
        claim: the first change of this task.
    """

    id: TaskId
    present: Attributes
    target: Attributes
    back: bool
    claim: TaskLease | None = None


class TaskClaims:
    """Of one agent. Its lease file is asked and told here; who calls writes in between."""

    def __init__(self, file: LeaseFile, rights: Rights) -> None:
        """Nothing is claimed yet."""
        self.spared: set[int] = {os.getpid(), 1}
        """Processes that are never touched."""
        self._file = file
        self._rights = rights
        self._current: dict[TaskId, Attributes] = {}
        self._known: set[TaskId] = set()
        self._seen: list[TaskId] = []
        self._held: dict[TaskId, tuple[Setting, bytes]] = {}
        self._watch = Watch()
        self._hands_off: set[TaskId] = set()
        self._refused: dict[tuple[TaskId, Attributes], tuple[float, Denial]] = {}
        self._sweep_at = 0.0

    def adopt(self, tasks: Collection[TaskId]) -> None:
        """Those seen for the first time that began with what we gave to a parent: take them for changed by us.

        Raises:
            StorageError: nothing is adopted; ask again.
        """
        seen = list(tasks)
        if seen == self._seen:  # mostly: nobody came, nobody went
            return
        fresh = [task for task in tasks if task not in self._known]
        leases, family = self._file.leases.tasks, Family({})
        found = [lease for task in fresh if leases and task not in leases and (lease := self._inherited(task, family))]
        self._file.note([TaskClaimed(lease) for lease in found])
        self._current.update((lease.id, lease.given[0]) for lease in found)
        self._known = set(seen)
        self._seen = seen

    def intend(self, wants: Mapping[TaskId, Setting | None], report: Report) -> list[TaskWrite]:
        """What is to be written so that each task has what is wanted; a task that is not named is put back."""
        writes = []
        held = 0
        for task, want in wants.items():
            if self._holds(task, want):
                held += 1
                continue
            write = self._intend(task, want, report)
            if write is not None:
                writes.append(write)
        if held < len(self._current):
            unnamed = [task for task in self._current if task not in wants]
            writes += [write for task in unnamed if (write := self._intend(task, None, report)) is not None]
        return self._within_budget(sorted(writes, key=lambda write: (not write.back, write.target.reserved)), report)

    @staticmethod
    def entries(write: TaskWrite) -> list[Entry]:
        """What must stand in the lease file before it."""
        claim: list[Entry] = [TaskClaimed(write.claim)] if write.claim is not None else []
        return claim if write.back else [*claim, Given(write.id, write.target)]

    def write(self, write: TaskWrite, report: Report) -> None:
        """Do it."""
        try:
            if not alive(write.id):
                self._gone(write.id, report)
                return
            write_attributes(write.id.tid, write.target)
            taken = read_attributes(write.id.tid)
            if taken != write.target:
                write_attributes(write.id.tid, write.present)
                self._refuse(write, f"the kernel makes `{taken}` of it", "see `npuops hostsched probe`", report)
                return
            if write.back:
                put_slack_back(self._file.leases.tasks[write.id])
                self._release(write.id)
            else:
                self._current[write.id] = taken
            change = Change(write.id, write.present.setting(), write.target.setting(), write.back)
            report.changed.append(change)
        except TaskGoneError:
            self._gone(write.id, report)
        except KnobError as error:
            self._refuse(write, error.message, error.advice, report)

    def sweep(self, report: Report) -> list[Entry]:
        """Put back children that were born while a task that is back, or gone, was changed; then let that task go."""
        now = time.monotonic()
        self._refused = {key: seen for key, seen in self._refused.items() if now - seen[0] < _AGAIN_S}
        retired = [lease for task, lease in self._file.leases.tasks.items() if task not in self._current]
        if not retired or now < self._sweep_at:
            return []
        result, began_ns = Restored(), time.thread_time_ns()
        put_strays_back(retired, self._file.leases.tasks, result)
        spent_s = (time.thread_time_ns() - began_ns) / 1e9
        self._sweep_at = now + max(_SWEEP_EVERY_S, spent_s / _SWEEP_SHARE)
        report.denied += result.failed
        self._hands_off = {task for task in self._hands_off if alive(task)}
        return [LetGo(lease.id) for lease in retired]

    def forget(self, stuck: Collection[TaskId | GroupId]) -> None:
        """Everything was put back, except these."""
        self._current = {task: value for task, value in self._current.items() if task in stuck}
        self._known.clear()
        self._seen.clear()
        self._held.clear()
        self._refused.clear()

    def _holds(self, task: TaskId, want: Setting | None) -> bool:
        """As a glance tells: it is wanted as before, and has it still."""
        held = self._held.get(task)
        if held is None or want is None or not (want is held[0] or want == held[0]):
            return False
        return self._watch.raw(task.tid) == held[1]

    def _intend(self, task: TaskId, want: Setting | None, report: Report) -> TaskWrite | None:
        ours = self._current.get(task)
        if (want is None and ours is None) or task in self._hands_off:
            return None
        try:
            present = read_attributes(task.tid)
        except TaskGoneError:
            self._gone(task, report)
            return None
        except KnobError as error:
            report.denied.append(Denial(task, "the kernel", error.message, error.advice))
            return None
        if ours is not None and present != ours:
            self._lose(task, present, ours, report)
            return None
        lease = self._file.leases.tasks.get(task)
        if lease is not None and ours is None and present != lease.original:
            lease = None  # put back, and set by somebody else since: that is what it gets back next time
        if want is None:
            if lease is None:
                return None
            return self._unless_refused(TaskWrite(task, present, lease.original, back=True), report)
        original = lease.original if lease is not None else present
        target = wanted(want, original)
        if self._rights.may_raise:
            target = kept_from_children(target, original)
        write = TaskWrite(task, present, target, back=ours is not None and target == original)
        if present == target:
            if ours is not None:
                self._held[task] = want, self._watch.raw(task.tid)
            return None
        if self._unless_refused(write, report) is None:
            return None
        if lease is None:
            lease = self._claim(task, original, report)
            if lease is None:
                return None
            write = replace(write, claim=lease)
        denial = self._against(lease, target, want)
        if denial is not None:
            self._refused[task, target] = time.monotonic(), denial
            report.denied.append(denial)
            return None
        return write

    def _unless_refused(self, write: TaskWrite, report: Report) -> TaskWrite | None:
        """The write, unless the same was refused lately, which is told again."""
        at, denial = self._refused.get((write.id, write.target), (0.0, None))
        if denial is None or time.monotonic() - at >= _AGAIN_S:
            return write
        report.denied.append(denial)
        return None

    def _refuse(self, write: TaskWrite, found: str, advice: str, report: Report) -> None:
        denial = Denial(write.id, "the kernel", found, advice)
        self._refused[write.id, write.target] = time.monotonic(), denial
        report.denied.append(denial)

    def _against(self, lease: TaskLease, target: Attributes, want: Setting) -> Denial | None:
        outside = out_of_bounds(want)
        if outside:
            return Denial(lease.id, "bounds", outside)
        if not lease.original.fair:
            found = f"it has `{lease.original}`"
            return Denial(lease.id, "somebody else's", found, "npuops leaves real-time tasks alone")
        if not self._rights.may_raise:
            blocked = no_way_back(lease.original, target, self._rights.nice_limit(lease.id.tid))
            if blocked:
                advice = "give npuops CAP_SYS_NICE, or the task a higher RLIMIT_NICE"
                return Denial(lease.id, "no way back", blocked, advice)
        return None

    def _claim(self, task: TaskId, original: Attributes, report: Report) -> TaskLease | None:
        stat, process = _looked(task)
        if stat is None or process is None or stat.over:
            self._gone(task, report)
            return None
        if stat.kernels or process.tid in self.spared:
            report.denied.append(Denial(task, "not ours", "it is the kernel's, init, or the agent itself"))
            return None
        slack = read_slack_ns(task.tid)
        return TaskLease(task, process.id, process.session, now_ticks(), original, slack)

    def _inherited(self, task: TaskId, family: Family) -> TaskLease | None:
        try:
            present = read_attributes(task.tid)
        except TaskGoneError:
            return None
        leases = self._file.leases.tasks.values()
        if not may_be_ours(present, leases):  # that costs little, and asking who it is does not
            return None
        stat, process = _looked(task)
        if stat is None or process is None:
            return None
        family.known[process.tid] = process
        parent = origin(stat, process.tid, present, leases, family)
        if parent is None:
            return None
        natural, slack = inherited(parent.original), parent.slack_ns
        return TaskLease(task, process.id, process.session, stat.start_ticks, natural, slack, [present])

    def _lose(self, task: TaskId, present: Attributes, ours: Attributes, report: Report) -> None:
        if not alive(task):
            self._gone(task, report)
            return
        self._release(task)
        self._hands_off.add(task)
        report.lost.append(Denial(task, "somebody else's", f"it has `{present}`, and we had set `{ours}`"))

    def _gone(self, task: TaskId, report: Report) -> None:
        self._release(task)
        report.gone.append(task)

    def _release(self, task: TaskId) -> None:
        self._current.pop(task, None)
        self._held.pop(task, None)

    def _within_budget(self, writes: list[TaskWrite], report: Report) -> list[TaskWrite]:
        written = {write.id for write in writes}
        most = MOST_RESERVED * (os.cpu_count() or 1)
        total = sum(_share(value) for task, value in self._current.items() if task not in written)
        kept = []
        for write in writes:
            share = _share(write.target)
            if share and total + share > most + 1e-9:
                found = f"{total + share:.2f} CPUs would be reserved, and {most:.2f} may be"
                report.denied.append(Denial(write.id, "bounds", found))
                continue
            total += share
            kept.append(write)
        return kept


def _looked(task: TaskId) -> tuple[TaskStat | None, TaskStat | None]:
    """It and its process, as /proc has them; None where they ended, or another task has the number by now."""
    stat = look_at(task.tid)
    if stat is None or stat.id != task:
        return None, None
    pid = process_of(task.tid)
    if pid == task.tid:
        return stat, stat
    return stat, None if pid is None else look_at(pid)


def out_of_bounds(want: Setting) -> str:
    """What is wrong with it by the rules of npuops, which are narrower than the kernel's; empty when nothing is."""
    if want.policy not in FAIR and want.policy is not SchedPolicy.DEADLINE:
        return f"npuops never sets {want.policy.name}"
    if want.nice < LEAST_NICE:
        return f"nice {want.nice} is less than {LEAST_NICE}"
    if want.slice_us is not None and want.slice_us < LEAST_SLICE_US:
        return f"a slice of {want.slice_us} us is less than {LEAST_SLICE_US}"
    return ""


def _share(attributes: Attributes) -> float:
    return attributes.runtime_ns / attributes.period_ns if attributes.reserved else 0.0
