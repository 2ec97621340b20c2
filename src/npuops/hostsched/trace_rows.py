"""The nouns of a step as msgpack has them: plain tuples, and back."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import astuple
from typing import Any

from npuops.eevdf.setting import SchedPolicy, Setting
from npuops.hostsched.applied import Applied, Change, Denial
from npuops.hostsched.frame import Frame, Task
from npuops.hostsched.plan import Forecast, Level, Plan
from npuops.hostsched.task_id import GroupId, TaskId

Row = tuple[Any, ...]
"""A noun's tuple; the functions here give it a type again, or fail."""


def of_task(task: Task) -> Row:
    """A task."""
    group = None if task.group is None else (task.group.kind, task.group.name)
    return task.id.tid, task.id.start_ticks, task.pid, task.command, group, task.cpus


def task_of(words: Sequence[Any]) -> Task:
    """Back again."""
    tid, start_ticks, pid, command, group, cpus = words
    return Task(TaskId(tid, start_ticks), pid, command, None if group is None else GroupId(*group), cpus)


def of_setting(setting: Setting) -> Row:
    """A setting."""
    return astuple(setting)


def setting_of(words: Sequence[Any]) -> Setting:
    """Back again."""
    policy, *others = words
    return Setting(SchedPolicy(policy), *others)


def of_groups(frame: Frame) -> list[Row]:
    """The groups of a frame."""
    return [(group.kind, group.name, nice) for group, nice in frame.group_nices.items()]


def groups_of(rows: Sequence[Row]) -> dict[GroupId, int]:
    """Back again."""
    return {GroupId(kind, name): nice for kind, name, nice in rows}


def of_plan(plan: Plan) -> Row:
    """A plan, in its order."""
    levels = [
        (
            task.tid,
            task.start_ticks,
            level.name,
            None if level.setting is None else of_setting(level.setting),
            level.group_nice,
        )
        for task, level in plan.levels.items()
    ]
    why = [(task.tid, task.start_ticks, words) for task, words in plan.why.items()]
    return levels, why, _of_forecast(plan.expected), _of_forecast(plan.expected_default)


def plan_of(words: Any) -> Plan | None:
    """Back again."""
    if words is None:
        return None
    levels, why, expected, expected_default = words
    return Plan(
        levels={
            TaskId(tid, start): Level(name, None if setting is None else setting_of(setting), nice)
            for tid, start, name, setting, nice in levels
        },
        why={TaskId(tid, start): text for tid, start, text in why},
        expected=None if expected is None else Forecast(*expected),
        expected_default=None if expected_default is None else Forecast(*expected_default),
    )


def _of_forecast(forecast: Forecast | None) -> Row | None:
    return None if forecast is None else (float(forecast.miss_share), float(forecast.progress))


def of_applied(applied: Applied | None) -> Row | int | None:
    """What became of orders; 0 for nothing to tell."""
    if applied is None:
        return None
    if applied == Applied():
        return 0
    return (
        [
            (_of_what(change.what), _of_value(change.before), _of_value(change.after), change.back)
            for change in applied.changed
        ],
        [(_of_what(denial.what), denial.rule, denial.found, denial.advice) for denial in applied.denied],
        [(_of_what(denial.what), denial.rule, denial.found, denial.advice) for denial in applied.lost],
        [(task.tid, task.start_ticks) for task in applied.gone],
        applied.revoked,
    )


def applied_of(words: Any) -> Applied | None:
    """Back again."""
    if words is None:
        return None
    if words == 0:
        return Applied()
    changed, denied, lost, gone, revoked = words
    return Applied(
        tuple(Change(_what(what), _value(before), _value(after), back) for what, before, after, back in changed),
        tuple(Denial(_what(what), *others) for what, *others in denied),
        tuple(Denial(_what(what), *others) for what, *others in lost),
        tuple(TaskId(*task) for task in gone),
        revoked,
    )


def _of_what(what: TaskId | GroupId) -> Row:
    return astuple(what)


def _what(words: Sequence[Any]) -> TaskId | GroupId:
    """A task begins with a number, a group with its kind."""
    return TaskId(*words) if isinstance(words[0], int) else GroupId(*words)


def _of_value(value: Setting | int) -> Row | int:
    return of_setting(value) if isinstance(value, Setting) else value


def _value(words: Any) -> Setting | int:
    return words if isinstance(words, int) else setting_of(words)
