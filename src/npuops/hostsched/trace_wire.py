"""One step of the agent as the trace keeps it: what differs from the step before, in plain tuples for msgpack.

Most of a frame is as it was. What is left are counters, as differences, and of the rest only what changed; the stream
is compressed on top of that (`trace_file.py`), which takes care of words that come again and again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from npuops.eevdf.setting import Setting
from npuops.hostsched.applied import Applied
from npuops.hostsched.frame import COUNTERS, Frame, Host, Task
from npuops.hostsched.guard import Checked, Refusal, Rule
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.plan import Plan
from npuops.hostsched.task_id import TaskId
from npuops.hostsched.trace_rows import (
    Row,
    applied_of,
    groups_of,
    of_applied,
    of_groups,
    of_plan,
    of_setting,
    of_task,
    plan_of,
    setting_of,
    task_of,
)

_KINDS: Final = tuple(Kind)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Entry:
    """One step of the agent.

    Attributes:
        frame: what was seen.
        proposed: what the policy wanted; None where there is none (`observe`).
        checked: what the guard let pass, and what not and why; None as above.
        applied: what the kernel took; None unless the agent acts.
        late_us: how late the step began.
    """

    frame: Frame
    proposed: Plan | None = None
    checked: Checked | None = None
    applied: Applied | None = None
    late_us: int = 0


class Step(msgspec.Struct, array_like=True, frozen=True, forbid_unknown_fields=True):
    """An entry, less what the one before it says already.

    Attributes:
        later_us: than the step before; the first one's own time.
        late_us: as in `Entry`.
        rows: whose counters changed.
        counters: by how much, as `planes` has it.
        host: CPUs, runnable, and differences of busy, steal and pressure time.
        tasks: all of them, if they changed.
        settings: row and setting, of those that changed; of all, if the tasks did.
        hints: row and hint of those that changed; the row alone where there is none any more.
        groups: all of them, if they changed.
        proposed: a plan; 0 for the one before, None for none.
        passed: a plan; 0 for the one proposed, 1 for the one before, None for none.
        refusals: all; 0 for those before.
        control: as in `Checked`.
        applied: all of it; 0 for nothing to tell, None for none.
    """

    later_us: int
    late_us: int
    rows: list[int]
    counters: bytes
    host: tuple[int, int, int, int, int | None]
    tasks: list[Row] | None = None
    settings: list[Row] = []
    hints: list[Row] = []
    groups: list[Row] | None = None
    proposed: Row | int | None = None
    passed: Row | int | None = None
    refusals: list[Row] | int = 0
    control: bool = False
    applied: Row | int | None = None


class Encoder:
    """Entries to steps, in order."""

    def __init__(self) -> None:
        """Before the first entry."""
        self._last: Entry | None = None

    def step(self, entry: Entry) -> Step:
        """What is new in this one."""
        last, self._last = self._last, entry
        frame, before = entry.frame, last.frame if last is not None else None
        same_tasks = before is not None and (frame.tasks is before.tasks or frame.tasks == before.tasks)
        found = _counter_steps(frame, before)
        changed = np.flatnonzero(found.any(axis=1))
        host, host_before = frame.host, before.host if before is not None else _NO_HOST
        pressure = None if host.pressure_us is None else host.pressure_us - (host_before.pressure_us or 0)
        return Step(
            later_us=frame.at_us - (before.at_us if before is not None else 0),
            late_us=entry.late_us,
            rows=changed.tolist(),
            counters=planes(found[changed]),
            host=(
                host.cpus,
                host.runnable,
                host.busy_us - host_before.busy_us,
                host.steal_us - host_before.steal_us,
                pressure,
            ),
            tasks=None if same_tasks else [of_task(task) for task in frame.tasks],
            settings=list(_changed_settings(frame, before if same_tasks else None)),
            hints=list(_changed_hints(frame, before if same_tasks else None)),
            groups=None if before is not None and before.group_nices == frame.group_nices else of_groups(frame),
            proposed=_of_plan_after(entry.proposed, last.proposed if last is not None else None),
            **_of_checked(entry, last.checked if last is not None else None),
            applied=of_applied(entry.applied),
        )


class Decoder:
    """Steps to entries, in order; the opposite of `Encoder`."""

    def __init__(self) -> None:
        """Before the first step."""
        self._last: Entry | None = None

    def entry(self, step: Step) -> Entry:
        """Whole again.

        Raises:
            ValueError, TypeError, LookupError, NpuopsError: no encoder makes such a step.
        """
        last = self._last
        frame = _frame_of(step, last.frame if last is not None else None)
        before = last.proposed if last is not None else None
        proposed = before if step.proposed == 0 else plan_of(step.proposed)
        entry = Entry(
            frame=frame,
            proposed=proposed,
            checked=_checked_of(step, proposed, last.checked if last is not None else None),
            applied=applied_of(step.applied),
            late_us=step.late_us,
        )
        self._last = entry
        return entry


_NO_HOST: Final = Host(cpus=0, runnable=0, busy_us=0, steal_us=0, pressure_us=None)


def _counter_steps(frame: Frame, before: Frame | None) -> NDArray[np.int64]:
    return frame.counters - _counters_before(frame.tasks, before)


def planes(steps: NDArray[np.int64]) -> bytes:
    """The lowest bytes of all numbers, column by column, then the next bytes, and so on up to the last that is not 0.

    The high bytes of differences are mostly alike; side by side they cost the compressor next to nothing.
    """
    octets = np.ascontiguousarray(steps, "<i8").view(np.uint8).reshape(*steps.shape, 8)
    return octets.transpose(2, 1, 0).tobytes().rstrip(b"\0")


def of_planes(octets: bytes, rows: int) -> NDArray[np.int64]:
    """The opposite of `planes`.

    Raises:
        ValueError: more bytes than so many rows have.
    """
    full = np.frombuffer(octets.ljust(8 * len(COUNTERS) * rows, b"\0"), np.uint8)
    steps = np.ascontiguousarray(full.reshape(8, len(COUNTERS), rows).transpose(2, 1, 0)).view("<i8")
    return steps.reshape(rows, len(COUNTERS)).astype(np.int64)


def _counters_before(tasks: Sequence[Task], before: Frame | None) -> NDArray[np.int64]:
    """In the rows of these tasks; zeros for those who are new."""
    if before is not None and tasks is before.tasks:
        return before.counters
    found = np.zeros((len(tasks), len(COUNTERS)), np.int64)
    if before is not None:
        rows = {task.id: row for row, task in enumerate(before.tasks)}
        for row, task in enumerate(tasks):
            if task.id in rows:
                found[row] = before.counters[rows[task.id]]
    return found


def _changed_settings(frame: Frame, before: Frame | None) -> Iterator[Row]:
    if before is not None and frame.settings is before.settings:
        return
    for row, setting in enumerate(frame.settings):
        if before is None or setting != before.settings[row]:
            yield row, *of_setting(setting)


def _changed_hints(frame: Frame, before: Frame | None) -> Iterator[Row]:
    if before is not None and frame.hints is before.hints:
        return
    for row, hint in enumerate(frame.hints):
        known = before.hints[row] if before is not None else None
        if hint is None:
            if known is not None:
                yield (row,)
        elif hint != known:
            served, missed = (known.served, known.missed) if known is not None else (0, 0)
            kind = None if hint.kind is None else _KINDS.index(hint.kind)
            said = (frame.at_us - hint.at_us, kind, hint.slo_us, hint.slack_us, hint.queued)
            yield row, *said, hint.served - served, hint.missed - missed


def _frame_of(step: Step, before: Frame | None) -> Frame:
    at_us = step.later_us + (before.at_us if before is not None else 0)
    tasks = before.tasks if step.tasks is None and before is not None else tuple(map(task_of, step.tasks or ()))
    same = before if step.tasks is None else None
    counters = _counters_before(tasks, before).copy()
    counters[step.rows] += of_planes(step.counters, len(step.rows))
    settings = list(same.settings) if same is not None else [Setting()] * len(tasks)
    for row, *words in step.settings:
        settings[row] = setting_of(words)
    hints: list[Hint | None] = list(same.hints) if same is not None else [None] * len(tasks)
    for row, *words in step.hints:
        hints[row] = _hint(words, at_us, hints[row])
    cpus, runnable, busy_us, steal_us, pressure_us = step.host
    last = before.host if before is not None else _NO_HOST
    groups = before.group_nices if step.groups is None and before is not None else groups_of(step.groups or [])
    return Frame(
        at_us=at_us,
        tasks=tasks,
        counters=counters,
        settings=same.settings if same is not None and not step.settings else tuple(settings),
        hints=same.hints if same is not None and not step.hints else tuple(hints),
        group_nices=groups,
        host=Host(
            cpus=cpus,
            runnable=runnable,
            busy_us=busy_us + last.busy_us,
            steal_us=steal_us + last.steal_us,
            pressure_us=None if pressure_us is None else pressure_us + (last.pressure_us or 0),
        ),
    )


def _hint(words: Sequence[Any], at_us: int, known: Hint | None) -> Hint | None:
    if not words:
        return None
    age_us, kind, slo_us, slack_us, queued, served, missed = words
    return Hint(
        at_us=at_us - age_us,
        kind=None if kind is None else _KINDS[kind],
        slo_us=slo_us,
        slack_us=slack_us,
        queued=queued,
        served=served + (known.served if known is not None else 0),
        missed=missed + (known.missed if known is not None else 0),
    )


def _of_plan_after(plan: Plan | None, before: Plan | None) -> Row | int | None:
    if plan is None:
        return None
    return 0 if before is not None and _same(plan, before) else of_plan(plan)


def _same(one: Plan, other: Plan) -> bool:
    """Equal, and in the same order: a mapping's order is told to people."""
    return one is other or (
        one == other and list(one.levels) == list(other.levels) and list(one.why) == list(other.why)
    )


def _of_checked(entry: Entry, before: Checked | None) -> dict[str, Any]:
    checked = entry.checked
    if checked is None:
        return {"passed": None, "refusals": 0, "control": False}
    passed: Row | int
    if entry.proposed is not None and _same(checked.plan, entry.proposed):
        passed = 0
    elif before is not None and _same(checked.plan, before.plan):
        passed = 1
    else:
        passed = of_plan(checked.plan)
    known = before.refusals if before is not None else ()
    refusals = (
        0
        if checked.refusals == known
        else [
            (str(each.rule), None if each.task is None else (each.task.tid, each.task.start_ticks), each.why)
            for each in checked.refusals
        ]
    )
    return {"passed": passed, "refusals": refusals, "control": checked.control}


def _checked_of(step: Step, proposed: Plan | None, before: Checked | None) -> Checked | None:
    if step.passed is None:
        return None
    same = {0: proposed, 1: before.plan if before is not None else None}
    plan = same[step.passed] if isinstance(step.passed, int) else plan_of(step.passed)
    if plan is None:
        raise ValueError("it repeats a plan that was not told")
    known = before.refusals if before is not None else ()
    refusals = (
        known
        if isinstance(step.refusals, int)
        else tuple(
            Refusal(Rule(rule), None if task is None else TaskId(*task), why) for rule, task, why in step.refusals
        )
    )
    return Checked(plan, refusals, step.control)
