"""Why each decision was taken, from a trace: what was seen, proposed, refused by which rule, and done."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from npuops.hostsched.applied import Applied, Denial
from npuops.hostsched.decision_words import LevelChange, level_changes
from npuops.hostsched.frame import Frame, Task, TaskId
from npuops.hostsched.guard import Refusal
from npuops.hostsched.live_view import Row, rows_of
from npuops.hostsched.plan import Forecast, Plan
from npuops.hostsched.task_id import GroupId
from npuops.hostsched.trace_wire import Entry

SEEN_OVER_US: Final = 200_000
"""Rates that are shown are over so long; a single frame's are mostly chance."""

Wanted = Callable[[Task], bool]


@dataclass(frozen=True, slots=True, kw_only=True)
class Decision:
    """One step of a trace in which something changed, or was refused for the first time in a row.

    Attributes:
        number: of the entry, from 1.
        at_us: since the first.
        seen: those of the tasks that the decision is about, over the last 200 ms.
        wanted: what the policy newly wants.
        changes: what of it passed the guard and is new.
        refusals: what the guard newly refused.
        control: forecasts are not followed, for comparison.
        expected: the policy's forecast for its plan; None without.
        expected_default: the same for leaving everything normal.
        changed: what the kernel took.
        denied: what it newly did not take, and what somebody else set.
        gone: tasks that ended before they could be set.
        revoked: why everything was put back instead; "" if it was not.
    """

    number: int
    at_us: int
    seen: tuple[Row, ...]
    wanted: tuple[LevelChange, ...]
    changes: tuple[LevelChange, ...]
    refusals: tuple[Refusal, ...]
    control: bool
    expected: Forecast | None
    expected_default: Forecast | None
    changed: tuple[str, ...]
    denied: tuple[Denial, ...]
    gone: tuple[TaskId, ...]
    revoked: str

    @property
    def is_news(self) -> bool:
        """Something happened."""
        return bool(
            self.wanted or self.changes or self.refusals or self.changed or self.denied or self.gone or self.revoked
        )


@dataclass(slots=True)
class _Memory:
    proposed: Plan = field(default_factory=Plan)
    plan: Plan = field(default_factory=Plan)
    refused: set[tuple[str, TaskId | None]] = field(default_factory=set)
    denied: set[tuple[str, object]] = field(default_factory=set)
    frames: deque[Frame] = field(default_factory=deque)


def decisions(entries: Iterable[Entry], wanted: Wanted | None = None, *, every: bool = False) -> Iterator[Decision]:
    """Of a trace, in order.

    Args:
        entries: all of it, from the beginning.
        wanted: only what concerns such tasks, and what concerns everybody.
        every: also the looks in which nothing happened.
    """
    memory, began_us = _Memory(), None
    for number, entry in enumerate(entries, start=1):
        began_us = entry.frame.at_us if began_us is None else began_us
        decision = _decision(memory, number, entry, began_us, wanted)
        if every or decision.is_news:
            yield decision


def _decision(memory: _Memory, number: int, entry: Entry, began_us: int, wanted: Wanted | None) -> Decision:
    frame = entry.frame
    shown = {task.id for task in frame.tasks if wanted is None or wanted(task)}
    groups = {task.group for task in frame.tasks if task.id in shown}
    proposed = entry.proposed or Plan()
    plan = entry.checked.plan if entry.checked is not None else proposed
    refusals = entry.checked.refusals if entry.checked is not None else ()
    applied = entry.applied or Applied()
    refused = {(str(refusal.rule), refusal.task) for refusal in refusals}
    denials: set[tuple[str, object]] = {(denial.rule, denial.what) for denial in applied.denied}

    def concerns(what: TaskId | GroupId | None) -> bool:
        return wanted is None or what is None or what in shown or what in groups

    wants = tuple(change for change in level_changes(memory.proposed, proposed, frame) if change.task in shown)
    changes = tuple(change for change in level_changes(memory.plan, plan, frame) if change.task in shown)
    news = tuple(
        refusal
        for refusal in refusals
        if (str(refusal.rule), refusal.task) not in memory.refused and concerns(refusal.task)
    )
    denied = tuple(
        denial
        for denial in (*applied.denied, *applied.lost)
        if (denial.rule, denial.what) not in memory.denied and concerns(denial.what)
    )
    about = {change.task for change in (*wants, *changes)} | {refusal.task for refusal in news}
    seen = tuple(row for row in _rows(memory, frame, plan) if row.task in about)
    control = entry.checked is not None and entry.checked.control
    memory.proposed, memory.plan, memory.refused, memory.denied = proposed, plan, refused, denials
    return Decision(
        number=number,
        at_us=frame.at_us - began_us,
        seen=seen,
        wanted=wants,
        changes=changes,
        refusals=news,
        control=control,
        expected=proposed.expected,
        expected_default=proposed.expected_default,
        changed=tuple(str(change) for change in applied.changed if concerns(change.what)),
        denied=denied,
        gone=tuple(task for task in applied.gone if concerns(task)),
        revoked=applied.revoked,
    )


def _rows(memory: _Memory, frame: Frame, plan: Plan) -> list[Row]:
    frames = memory.frames
    while len(frames) > 1 and frames[1].at_us <= frame.at_us - SEEN_OVER_US:
        frames.popleft()
    before = frames[0] if frames and frames[0].at_us < frame.at_us else None
    frames.append(frame)
    return rows_of(frame, before, plan)


def decision_lines(decision: Decision, names: dict[TaskId, str]) -> Iterator[str]:
    """For people; `names` of the tasks that were seen so far."""
    head = f"{decision.at_us / 1e6:9.3f} s  look {decision.number}"
    expected, default = decision.expected, decision.expected_default
    if expected is not None:
        words = f"expects {expected.miss_share:.1%} late, slowest other at {expected.progress:.0%}"
        if default is not None:
            words += f" (by default {default.miss_share:.1%}, {default.progress:.0%})"
        head += f": {words}"
    yield head + (": a window without forecasts, for comparison" if decision.control else "")
    for row in decision.seen:
        tid, command, _, run, wait, switches, setting, hint, _ = row.cells()
        said = f"; says {hint}" if hint != "-" else ""
        yield f"    seen      {command} {tid}: runs {run}, waits {wait}, {switches} switches/s, {setting}{said}"
    for change in decision.wanted:
        yield f"    proposed  {change}"
    for refusal in decision.refusals:
        whom = "everything" if refusal.task is None else names.get(refusal.task, f"task {refusal.task.tid}")
        yield f"    refused   {whom}: {refusal.rule}: {refusal.why}"
    passed = {(change.task, change.after) for change in decision.wanted}
    for change in decision.changes:
        if (change.task, change.after) not in passed:  # it was proposed before, or ended without the policy's wish
            yield f"    holds     {change}"
    for done in decision.changed:
        yield f"    changed   {done}"
    for denial in decision.denied:
        yield f"    not done  {denial}" + (f" ({denial.advice})" if denial.advice else "")
    for task in decision.gone:
        yield f"    gone      {names.get(task, f'task {task.tid}')}"
    if decision.revoked:
        yield f"    all back  {decision.revoked}"
