"""From levels to what the kernel is told.

Nice counts only among the tasks of a group (autogroup or cgroup). So where all tasks of a group share a level, the
group as a whole is set and its tasks are left alone: one write instead of many, nothing that a child could inherit,
and even without privilege it can be taken back. Where they differ, the group gets what those deserve who do its work,
and the others, or all of them where nobody does most of it, get settings of their own, which count inside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.frame import Frame, GroupId, Task, TaskId
from npuops.hostsched.group_work import HOLD_US, GroupWork, Work
from npuops.hostsched.hint import Kind
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


def orders_for(plan: Plan, frame: Frame, work: GroupWork | None = None) -> Orders:
    """What the kernel shall be told of every task of the frame, and of every group that may be set.

    Tasks of the plan that the frame does not know are left out. A reservation for a task that may not run everywhere
    is left out too, for the kernel would refuse it.

    Args:
        plan: what is wanted.
        frame: the latest look.
        work: what tasks did before, those included that ended; None: all that is known is this frame.
    """
    levels = {task.id: _possible(plan.levels.get(task.id, NORMAL), task, frame) for task in frame.tasks}
    tasks: dict[TaskId, Setting | None] = {task.id: levels[task.id].setting for task in frame.tasks}
    groups: dict[GroupId, int | None] = {}
    awaited = {
        task.id for task, hint in zip(frame.tasks, frame.hints, strict=True) if hint and hint.kind is Kind.LATENCY
    }
    lately = (work or GroupWork()).follow(frame, {task: _served_by_group(level) for task, level in levels.items()})
    for group, members in _members(frame).items():
        shared = {task: levels[task] for task in members if not _reserves(levels[task])}
        may_sink = awaited.isdisjoint(shared)
        groups[group] = _nice_of(list(shared.values()), lately.get(group, Work()), frame.at_us, may_sink=may_sink)
        same = len(set(shared.values())) == 1
        sinks = _or_neutral(groups[group]) > _NEUTRAL  # and whoever waits in it is boosted inside
        tasks |= {
            task: None
            for task, level in shared.items()
            if _is_all_nice(level) and (same or (sinks and _or_neutral(level.group_nice) > _NEUTRAL))
        }
    return Orders(tasks, groups)


class Standing:
    """The orders that stand: made anew only when levels, tasks or groups are others than before, or for some time."""

    def __init__(self) -> None:
        """None were given."""
        self._levels: dict[TaskId, Level] | None = None
        self._frame: Frame | None = None
        self._made_us = 0
        self._work = GroupWork()
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
            and frame.at_us - self._made_us < HOLD_US
        )
        self._frame = frame
        if not same:
            self._levels, self._made_us = dict(plan.levels), frame.at_us
            made = orders_for(plan, frame, self._work)
            if made != self._orders:
                self._orders = made
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


def _members(frame: Frame) -> dict[GroupId, list[TaskId]]:
    """The tasks of each group that may be set."""
    found: dict[GroupId, list[TaskId]] = {group: [] for group in frame.group_nices}
    for task in frame.tasks:
        if task.group in found:
            found[task.group].append(task.id)
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
_LITTLE: Final = 0.05


def _served_by_group(level: Level) -> int | None:
    return None if _reserves(level) else _or_neutral(level.group_nice)


def _nice_of(levels: Sequence[Level], lately: Work, now_us: int, *, may_sink: bool) -> int | None:
    """Nice of a group whose tasks have these levels, and did this work; None leaves it.

    All of a level: that. Otherwise what those deserve who do its work: it is raised when those ahead did most of it,
    and nobody in it is lowered: a waiting `make` must not carry its compilers past another session's server. It is
    lowered when next to nothing is done by others than those who are: for `make`, a build must not be a normal
    session. To lower only them, inside, helps nobody outside, and gathers the group's share on the CPUs of the rest.
    `may_sink` is False where an application said that somebody waits for one of them.
    """
    best = min(levels, key=lambda level: _or_neutral(level.group_nice), default=NORMAL).group_nice
    worst = max((_or_neutral(level.group_nice) for level in levels), default=_NEUTRAL)
    if _or_neutral(best) > _NEUTRAL:
        return best
    if _or_neutral(best) < _NEUTRAL and worst <= _NEUTRAL and 2 * lately.ahead_ns >= lately.total_ns:
        return best
    is_held = lately.lowered_us is not None and now_us - lately.lowered_us <= HOLD_US
    others_ns = lately.ahead_ns + lately.neutral_ns
    if may_sink and is_held and lately.lowered_ns > 0 and others_ns <= _LITTLE * lately.lowered_ns:
        return lately.nice
    return None


def _or_neutral(nice: int | None) -> int:
    return _NEUTRAL if nice is None else nice
