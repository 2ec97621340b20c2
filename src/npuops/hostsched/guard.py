"""What of a plan may happen. Pure: time is the frames' own, and whatever it refuses it says why.

What passes is a part of the plan, or of its fallback where only its forecasts are in doubt; the rest is normal. Going
back to normal is never refused.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from npuops.eevdf.setting import FAIR, SchedPolicy
from npuops.hostsched.drift import Drift, is_control
from npuops.hostsched.familiarity import Ranges, strangest
from npuops.hostsched.features import State
from npuops.hostsched.frame import Task, TaskId
from npuops.hostsched.guard_options import GuardOptions, acts_of
from npuops.hostsched.objective import worth_of
from npuops.hostsched.plan import NORMAL, Forecast, Level, Plan
from npuops.hostsched.starvation import Starvation


class Rule(StrEnum):
    """Why something was refused; in the order in which they are asked."""

    STARVED = "starved"
    """A task certainly got no CPU: everything normal, for a while."""
    COOLING = "cooling"
    """The while is not over."""
    DRIFTED = "drifted"
    """Forecasts did not come true, or following them was worse than not: the fallback, for a while."""
    DOUBTED = "doubted"
    """That while is not over."""
    CONTROL = "control"
    """A short window in which the fallback holds, for comparison."""
    STRANGE = "strange"
    """Nothing like it was seen in training: the fallback."""
    GAIN = "gain"
    """The forecast is not worth more than leaving everything normal."""
    ENDED = "ended"
    NEW = "new"
    """Seen too seldom."""
    BOUNDS = "bounds"
    """A policy, nice or slice beyond what any policy may set."""
    ALLOWED = "allowed"
    """Not among what was allowed."""
    PINNED = "pinned"
    """The kernel reserves only for tasks that may run on all CPUs."""
    RESERVED = "reserved"
    """All reservations together would take too much."""
    SILENT = "silent"
    """A lowered task did not run for long, and may be starving."""
    HYSTERESIS = "hysteresis"
    """Not wanted for long enough."""
    DWELL = "dwell"
    """It had this level, left it, and wants it again too soon."""
    RATE = "rate"
    """Too many changes a second."""


@dataclass(frozen=True, slots=True)
class Refusal:
    """Something that will not happen.

    Attributes:
        rule: which rule.
        task: whose level; None where all of the plan is refused.
        why: what was found.
    """

    rule: Rule
    task: TaskId | None
    why: str


@dataclass(frozen=True, slots=True)
class Checked:
    """The guard's answer.

    Attributes:
        plan: what may happen; its forecast is gone where it is no longer the plan that was forecast.
        refusals: what may not.
        control: the fallback holds for comparison; count this time apart.
    """

    plan: Plan
    refusals: tuple[Refusal, ...] = ()
    control: bool = False


_OF_FORECASTS: Final = frozenset({Rule.DOUBTED, Rule.CONTROL, Rule.STRANGE})
"""These speak against the forecasts, and not against acting."""
_SECOND_US: Final = 1_000_000
_ROUNDING: Final = 1e-9
_MOST_STRIKES: Final = 5
"""The cool-down doubles with each drift, so many times."""


class Guard:
    """Remembers what passed, and when."""

    def __init__(self, options: GuardOptions | None = None, ranges: Ranges | None = None) -> None:
        """A guard for one policy.

        Args:
            options: bounds, patience and doubt.
            ranges: of the features in training; None for a policy that was not trained.
        """
        self._options = options or GuardOptions()
        self._ranges = ranges
        self._starvation = Starvation(self._options)
        self._drift = Drift(self._options)
        self._calm_until_us: int | None = None
        self._doubt_until_us: int | None = None
        self._strikes = 0
        self._passed = Plan()
        self._mode = ""
        self._entered: dict[tuple[TaskId, Level], int] = {}
        self._wanted: dict[TaskId, tuple[Level, int]] = {}
        self._entries: deque[int] = deque()
        self._swept_us = 0
        self._tasks: tuple[Task, ...] = ()
        self._rows: dict[TaskId, int] = {}
        self._at_us: int | None = None

    def check(self, state: State, plan: Plan) -> Checked:
        """What of this plan may happen until the next frame; call it once for each."""
        before_us, at_us = self._at_us, max(state.frame.at_us, self._at_us or 0)
        self._at_us = at_us
        refusals = self._watch(state, at_us)
        whole = self._whole(state, plan, at_us)
        wanted = plan
        if whole is not None:
            wanted = plan.fallback if whole.rule in _OF_FORECASTS and plan.fallback is not None else Plan()
        if whole is not None and (plan.levels or wanted.levels or whole.rule is Rule.CONTROL):
            refusals.append(whole)
        self._want(wanted, at_us if before_us is None else before_us)
        levels = self._each(state, wanted, at_us, refusals)
        same = len(levels) == sum(level != NORMAL for level in wanted.levels.values())
        self._passed = Plan(
            levels,
            {task: wanted.why[task] for task in levels if task in wanted.why},
            wanted.expected if same else None,
            plan.expected_default,
        )
        control = whole is not None and whole.rule is Rule.CONTROL
        self._mode = "control" if control else "acting" if levels and wanted is plan else ""
        return Checked(self._passed, tuple(refusals), control)

    def _watch(self, state: State, at_us: int) -> list[Refusal]:
        """What became of the last decision."""
        lowered = {task for task, level in self._passed.levels.items() if _lowers(level)}
        starved = self._starvation.watch(state.frame, lowered)
        expected = self._passed.expected.miss_share if self._passed.expected else None
        drifted = self._drift.watch(state.frame, self._mode, expected)
        refusals = [Refusal(Rule.STARVED, one.task, one.why) for one in starved]
        if drifted and _left_us(self._doubt_until_us, at_us) is None:
            refusals.append(Refusal(Rule.DRIFTED, None, drifted))
            self._doubt_until_us = at_us + self._options.cool_us * 2 ** min(self._strikes, _MOST_STRIKES)
            self._strikes += 1
            self._drift.forget()
        if starved:
            self._calm_until_us = at_us + self._options.cool_us
        return refusals

    def _whole(self, state: State, plan: Plan, at_us: int) -> Refusal | None:
        """Why nothing of this plan may happen."""
        if (left_us := _left_us(self._calm_until_us, at_us)) is not None:
            return Refusal(Rule.COOLING, None, f"everything stays normal for another {left_us / 1e6:.1f} s")
        return None if plan.expected is None else self._doubt(state, plan.expected, plan.expected_default, at_us)

    def _doubt(self, state: State, expected: Forecast, by_default: Forecast | None, at_us: int) -> Refusal | None:
        """Why this forecast is not followed."""
        options = self._options
        if (left_us := _left_us(self._doubt_until_us, at_us)) is not None:
            return Refusal(Rule.DOUBTED, None, f"forecasts are not followed for another {left_us / 1e6:.1f} s")
        if is_control(at_us, options):
            why = f"one of the windows of {options.control_us // 1000} ms for comparison"
            return Refusal(Rule.CONTROL, None, why)
        if self._ranges is not None:
            found = strangest(state, self._ranges)
            if found.distance > options.distance:
                why = f"{found.feature} is {found.value:.2f}, {found.distance:.1f} widths beyond what training saw"
                return Refusal(Rule.STRANGE, found.task, why)
        if by_default is not None:
            gain = worth_of(expected) - worth_of(by_default)
            if not gain > options.gain:
                return Refusal(Rule.GAIN, None, f"the forecast gains {gain:.3f}, and {options.gain} is needed")
        return None

    def _want(self, plan: Plan, since_us: int) -> None:
        """What is new may be wanted since the look before: who looks seldom changes seldom, and need not wait twice."""
        now: dict[TaskId, tuple[Level, int]] = {}
        for task, level in plan.levels.items():
            before = self._wanted.get(task)
            now[task] = before if before is not None and before[0] == level else (level, since_us)
        self._wanted = now

    def _each(self, state: State, plan: Plan, at_us: int, refusals: list[Refusal]) -> dict[TaskId, Level]:
        if state.frame.tasks is not self._tasks:
            self._tasks = state.frame.tasks
            self._rows = {task.id: row for row, task in enumerate(self._tasks)}
        rows = self._rows
        if at_us - self._swept_us >= _SECOND_US:
            self._swept_us, horizon = at_us, at_us - self._options.dwell_us
            self._entered = {key: at for key, at in self._entered.items() if key[0] in rows and at > horizon}
        while self._entries and self._entries[0] <= at_us - _SECOND_US:
            self._entries.popleft()
        held, reserved = self._passed.levels, 0.0
        passed: dict[TaskId, Level] = {}
        wished = [(task, level) for task, level in plan.levels.items() if level != NORMAL]
        for task, level in sorted(wished, key=lambda wish: held.get(wish[0]) != wish[1]):
            refusal = self._single(state, rows.get(task), task, level, is_held=held.get(task) is level)
            share = level.setting.share if level.setting else 0.0
            limit = self._options.reserved_share * state.frame.host.cpus
            if refusal is None and share and reserved + share > limit + _ROUNDING:
                refusal = Refusal(Rule.RESERVED, task, f"{reserved + share:.2f} CPUs reserved; {limit:.2f} may be")
            if refusal is None and held.get(task) != level:
                refusal = self._entry(task, level, at_us, forecast=plan.expected is not None)
            if refusal is not None:
                refusals.append(refusal)
                continue
            passed[task] = level
            reserved += share
        return passed

    def _single(self, state: State, row: int | None, task: TaskId, level: Level, *, is_held: bool) -> Refusal | None:
        """Why this task may not have this level; what it has already is within the bounds."""
        options, frame = self._options, state.frame
        if row is None:
            return Refusal(Rule.ENDED, task, "it is not there any more")
        if state.seen[row] < options.frames:
            return Refusal(Rule.NEW, task, f"seen {state.seen[row]} times, {options.frames} are needed")
        if not is_held:
            beyond, more = self._beyond(level), acts_of(level) - options.allowed
            if beyond:
                return Refusal(Rule.BOUNDS, task, beyond)
            if more:
                return Refusal(Rule.ALLOWED, task, f"{', '.join(sorted(more))} is not allowed here")
        if level.setting is not None and level.setting.share and frame.tasks[row].cpus < frame.host.cpus:
            return Refusal(Rule.PINNED, task, _pinned(frame.tasks[row], frame.host.cpus))
        silent = self._starvation.silent_us(row)
        if _lowers(level) and silent >= options.silent_us:
            return Refusal(Rule.SILENT, task, f"it did not run for {silent / 1e6:.1f} s")
        return None

    def _beyond(self, level: Level) -> str:
        options, setting = self._options, level.setting
        nices = [] if level.group_nice is None else [level.group_nice]
        if setting is not None:
            if setting.policy not in FAIR and setting.policy is not SchedPolicy.DEADLINE:
                return f"{setting.policy.name} is never set"
            nices.append(setting.nice)
            if setting.slice_us is not None and not options.least_slice_us <= setting.slice_us <= options.most_slice_us:
                return f"a slice of {setting.slice_us} us; {options.least_slice_us} to {options.most_slice_us} may be"
        if any(not options.least_nice <= nice <= options.most_nice for nice in nices):
            return f"nice {nices[0]}; {options.least_nice} to {options.most_nice} may be"
        return ""

    def _entry(self, task: TaskId, level: Level, at_us: int, *, forecast: bool) -> Refusal | None:
        """Why this level may not begin now; otherwise it begins."""
        options = self._options
        wanted_us = at_us - self._wanted[task][1]
        if forecast and wanted_us < options.hysteresis_us:
            return Refusal(Rule.HYSTERESIS, task, f"wanted for {wanted_us / 1e3:.0f} ms, not for long enough")
        before = self._entered.get((task, level))
        if before is not None and at_us - before < options.dwell_us:
            return Refusal(Rule.DWELL, task, f"it entered {level.name} {(at_us - before) / 1e3:.0f} ms ago")
        if len(self._entries) >= options.changes_per_s:
            return Refusal(Rule.RATE, task, f"{len(self._entries)} changes in the last second")
        self._entered[task, level] = at_us
        self._entries.append(at_us)
        return None


def _left_us(until_us: int | None, at_us: int) -> int | None:
    return until_us - at_us if until_us is not None and at_us <= until_us else None


def _pinned(task: Task, cpus: int) -> str:
    return f"it may run on {task.cpus} of {cpus} CPUs"


def _lowers(level: Level) -> bool:
    setting = level.setting
    return (
        setting is not None and setting.policy in FAIR and (setting.policy is not SchedPolicy.OTHER or setting.nice > 0)
    )
