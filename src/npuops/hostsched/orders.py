"""From levels to what the kernel is told.

Nice counts only among the tasks of a group (autogroup or cgroup). So where all tasks of a group share a level, the
group as a whole is set and its tasks are left alone: one write instead of many, nothing that a child could inherit,
and even without privilege it can be taken back. Where they differ, each gets its own setting, which counts inside,
and the group gets what the best of them deserves, if they are most of what it does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.frame import Frame, GroupId, Task, TaskId
from npuops.hostsched.plan import NORMAL, Level, Orders, Plan


@dataclass(frozen=True, slots=True)
class Void:
    """An order that cannot have the effect that its level promises.

    Attributes:
        task: which.
        level: what was planned.
        why: in words.
    """

    task: TaskId
    level: str
    why: str


def orders_for(plan: Plan, frame: Frame) -> Orders:
    """What the kernel shall be told of every task of the frame, and of every group that may be set.

    Tasks of the plan that the frame does not know are left out. A reservation for a task that may not run everywhere
    is left out too, for the kernel would refuse it.
    """
    levels = {task.id: _possible(plan.levels.get(task.id, NORMAL), task, frame) for task in frame.tasks}
    tasks: dict[TaskId, Setting | None] = {task.id: levels[task.id].setting for task in frame.tasks}
    groups: dict[GroupId, int | None] = {}
    for group, rows in _members(frame).items():
        ran_ns = {task.id: int(frame.counters[row, 0]) for row, task in rows if not _reserves(levels[task.id])}
        shared = [levels[task] for task in ran_ns]
        groups[group] = _best(shared, list(ran_ns.values()))
        if len(set(shared)) == 1 and _is_all_nice(shared[0]):
            tasks |= dict.fromkeys(ran_ns)
    return Orders(tasks, groups)


class Standing:
    """The orders that stand: made anew only when levels, tasks or groups are others than before."""

    def __init__(self) -> None:
        """None were given."""
        self._levels: dict[TaskId, Level] | None = None
        self._frame: Frame | None = None
        self._orders = Orders({}, {})

    def orders(self, plan: Plan, frame: Frame) -> Orders:
        """As `orders_for`; the same object while nothing changes."""
        before = self._frame
        same = (
            before is not None
            and before.tasks is frame.tasks
            and before.group_nices is frame.group_nices
            and before.host.cpus == frame.host.cpus
            and self._levels == plan.levels
        )
        self._frame = frame
        if not same:
            self._levels = dict(plan.levels)
            self._orders = orders_for(plan, frame)
        return self._orders


def voids(plan: Plan, frame: Frame) -> tuple[Void, ...]:
    """What of the plan can have no effect, or not all of it, and why; for people."""
    found = []
    for task in frame.tasks:
        level = plan.levels.get(task.id, NORMAL)
        if level.setting is None:
            continue
        if _possible(level, task, frame) is not level:
            why = f"it may run on {task.cpus} of {frame.host.cpus} CPUs, and the kernel reserves only for all of them"
            found.append(Void(task.id, level.name, why))
        elif not _reserves(level) and task.group is not None and task.group not in frame.group_nices:
            kind = task.group.kind.rstrip("12")
            why = f"it counts only within {kind} {task.group.name}, which keeps its nice: not all tasks there opted in"
            found.append(Void(task.id, level.name, why))
    return tuple(found)


def _members(frame: Frame) -> dict[GroupId, list[tuple[int, Task]]]:
    """The tasks of each group that may be set, with their rows."""
    found: dict[GroupId, list[tuple[int, Task]]] = {group: [] for group in frame.group_nices}
    for row, task in enumerate(frame.tasks):
        if task.group in found:
            found[task.group].append((row, task))
    return found


def _possible(level: Level, task: Task, frame: Frame) -> Level:
    return NORMAL if _reserves(level) and task.cpus < frame.host.cpus else level


def _reserves(level: Level) -> bool:
    return level.setting is not None and level.setting.policy is SchedPolicy.DEADLINE


def _is_all_nice(level: Level) -> bool:
    """Whether the nice of a whole group says all that the level says: a slice, or the batch policy, is a task's own."""
    setting = level.setting
    if setting is None or level.group_nice is None:
        return False
    return setting.slice_us is None and setting.policy in (SchedPolicy.OTHER, SchedPolicy.IDLE)


_NEUTRAL: Final = 0


def _best(levels: Sequence[Level], ran_ns: Sequence[int]) -> int | None:
    """Nice of a group whose tasks have these levels: that of the one to be served first; None leaves it.

    Above the others it is raised only when those who shall be ahead did most of its work so far, and nobody in it is
    lowered: a waiting `make` must not carry its compilers past another session's server.
    """
    nices = [level.group_nice for level in levels]
    best = min(nices, key=_or_neutral, default=None)
    if _or_neutral(best) >= _NEUTRAL:
        return best
    ahead = sum(ran for nice, ran in zip(nices, ran_ns, strict=True) if _or_neutral(nice) < _NEUTRAL)
    return best if max(map(_or_neutral, nices)) <= _NEUTRAL and 2 * ahead >= sum(ran_ns) else None


def _or_neutral(nice: int | None) -> int:
    return _NEUTRAL if nice is None else nice
