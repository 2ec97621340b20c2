"""The hand rule: lower what only computes while somebody waits for an answer, and look again whether it does.

The mandatory baseline of the learned policy, and what ships if that does not beat it. It works on frames of 10 to
100 ms, by elapsed time. It uses hints where they are there; without them it takes a task that works little between two
sleeps for interactive, and one that works on and on for a hog. A starved interactive task looks like a hog, for it
never sleeps: so one hog at a time is put to normal for a moment, and one that then sleeps was none.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.hostsched.evidence import FAIR, LAST, SHARE, SINCE, SLEEPS, Evidence
from npuops.hostsched.features import State
from npuops.hostsched.frame import Frame, TaskId
from npuops.hostsched.hint import Kind
from npuops.hostsched.late_answers import Answers, LateAnswers
from npuops.hostsched.levels import BOOST, DEMOTE, IDLE
from npuops.hostsched.plan import NORMAL, Level, Plan
from npuops.hostsched.reactive_options import BOUNDS, ReactiveOptions
from npuops.hostsched.relief import Relief, worst
from npuops.hostsched.task_life import Happening, Role, after

Flags = NDArray[np.bool_]

_LATENCY, _BATCH, _BACKGROUND = 1, 2, 3
_TOLD: Final = {None: 0, Kind.LATENCY: _LATENCY, Kind.BATCH: _BATCH, Kind.BACKGROUND: _BACKGROUND}
_ACTIVE_SHARE: Final = 0.02
"""A task that runs less does not compete."""
_MEMORY = 2
_DUE, _BACKOFF = range(_MEMORY)
"""Rows of what is remembered of each task: when to probe it next, and after how long again."""
_FLOOR_LEFT: Final = 1.25
"""A task below its floor is let run until it has so many times the floor: no flutter around it."""
_PROBE_LIMIT: Final = 4.0
"""A probe waits for its task to run at all, up to so many times its length."""


class Reactive:
    """See above; one for each run."""

    def __init__(self, options: ReactiveOptions | None = None) -> None:
        self._options = options or ReactiveOptions()
        self._evidence = Evidence(self._options)
        self._answers = LateAnswers(self._options)
        self._relief = Relief(self._options)
        self._roles: NDArray[np.int8] = np.zeros(0, np.int8)
        self._memory = np.zeros((_MEMORY, 0))
        self._lowered: Flags = np.zeros(0, bool)
        self._short: Flags = np.zeros(0, bool)
        self._probe: TaskId | None = None
        self._probe_began_us = self._probe_ended_us = 0
        self._probe_ran_us = 0.0
        self._present_us: int | None = None
        self._missed_us: int | None = None
        self._late_us: int | None = None

    @property
    def name(self) -> str:
        """As on the command line."""
        return "reactive"

    @property
    def roles(self) -> tuple[Role, ...]:
        """What each task of the last frame is taken for."""
        return tuple(Role(role) for role in self._roles)

    def decide(self, state: State) -> Plan:
        """What should hold until the next frame."""
        frame = state.frame
        self._follow(self._evidence.update(frame), frame)
        told = np.array([_TOLD[hint.kind if hint is not None else None] for hint in frame.hints], np.int8)
        answers = self._answers.update(frame, self._evidence.gone_us)
        self._live(frame, told)
        chatty = self._chatty(told)
        looks = (self._roles == Role.INTERACTIVE) & (told == 0) & ~chatty
        low = self._low(frame, told, answers, looks, (self._roles == Role.HOG) | (told == _BACKGROUND) | chatty)
        return self._plan(frame, low, answers, looks)

    def _follow(self, rows: NDArray[np.intp] | None, frame: Frame) -> None:
        if rows is None:
            return
        kept = rows >= 0
        roles, memory = np.zeros(len(rows), np.int8), np.zeros((_MEMORY, len(rows)))
        lowered, short = np.zeros(len(rows), bool), np.zeros(len(rows), bool)
        memory[_BACKOFF] = self._options.backoff_us
        roles[kept], lowered[kept] = self._roles[rows[kept]], self._lowered[rows[kept]]
        short[kept] = self._short[rows[kept]]
        memory[:, kept] = self._memory[:, rows[kept]]
        self._roles, self._memory, self._lowered, self._short = roles, memory, lowered, short
        if self._probe is not None and all(task.id != self._probe for task in frame.tasks):
            self._probe, self._probe_ended_us = None, frame.at_us

    def _live(self, frame: Frame, told: NDArray[np.int8]) -> None:
        """Take each task one step along its table."""
        seen, options, now = self._evidence, self._options, frame.at_us
        nothing, sleeps, computes = Happening.NOTHING, Happening.SLEEPS, Happening.COMPUTES
        happened = np.where(seen.sleeps, sleeps, np.where(seen.computes, computes, nothing)).astype(np.int8)
        happened[told == _LATENCY] = Happening.SLEEPS
        happened[told >= _BATCH] = Happening.COMPUTES
        self._end_probe(frame, happened)
        if self._probe is None and now - self._probe_ended_us >= options.probe_gap_us:
            self._begin_probe(frame, told, happened)
        before, self._roles = self._roles, after(self._roles, happened)
        free = (before == Role.HOG) & ~self._lowered & (happened == Happening.COMPUTES)  # as good as a probe in vain
        self._memory[_DUE, free] = now + self._memory[_BACKOFF, free]
        fresh = (self._roles != before) & (before != Role.PROBE) & (self._roles == Role.HOG)
        awake = (self._roles == Role.INTERACTIVE) & (before != Role.INTERACTIVE)
        self._memory[_BACKOFF, fresh | awake] = options.backoff_us
        self._memory[_DUE, fresh] = now + options.backoff_us

    def _end_probe(self, frame: Frame, happened: NDArray[np.int8]) -> None:
        if self._probe is None:
            return
        options, now = self._options, frame.at_us
        row = next(row for row, task in enumerate(frame.tasks) if task.id == self._probe)
        self._probe_ran_us += float(self._evidence.ran_us[row])
        length = now - self._probe_began_us
        over = length >= options.probe_us and (self._probe_ran_us > 0 or length >= _PROBE_LIMIT * options.probe_us)
        if happened[row] != Happening.SLEEPS and not over:
            return
        self._probe, self._probe_ended_us = None, now
        if happened[row] != Happening.SLEEPS:
            happened[row] = Happening.OVER
            longer = self._memory[_BACKOFF, row] * options.backoff_growth
            self._memory[_BACKOFF, row] = min(longer, options.backoff_cap_us)
            self._memory[_DUE, row] = now + self._memory[_BACKOFF, row]

    def _begin_probe(self, frame: Frame, told: NDArray[np.int8], happened: NDArray[np.int8]) -> None:
        can = (self._roles == Role.HOG) & self._lowered & (happened != Happening.SLEEPS)
        due = can & (told == 0) & (self._memory[_DUE] <= frame.at_us)
        if not due.any():
            return
        row = int(np.argmin(np.where(due, self._memory[_DUE], np.inf)))
        happened[row] = Happening.DUE
        self._probe, self._probe_began_us, self._probe_ran_us = frame.tasks[row].id, frame.at_us, 0.0

    def _equal_share(self, frame: Frame) -> float:
        """Of a CPU, if all who want to run got the same."""
        known = self._evidence.known
        rivals = int(((known[SHARE] >= _ACTIVE_SHARE) | (known[LAST] == 0)).sum())
        return frame.host.cpus / max(rivals, frame.host.runnable, frame.host.cpus)

    def _is_short(self, frame: Frame, told: NDArray[np.int8]) -> Flags:
        """Who wants to run and got less than the floor, until it has a little more than that."""
        known, options = self._evidence.known, self._options
        age = frame.at_us - known[SINCE]
        grown = np.maximum(1.0 - np.exp(-age / options.fair_us), 1e-9)
        floor = options.floor_share * self._equal_share(frame) * np.where(self._short, _FLOOR_LEFT, 1.0)
        hungry = (known[LAST] == 0) & (told != _BACKGROUND) & (age >= options.fair_us / 2)
        found: Flags = hungry & (known[FAIR] / grown < floor)
        return found

    def _chatty(self, told: NDArray[np.int8]) -> Flags:
        known, options = self._evidence.known, self._options
        if options.chatty_per_s >= BOUNDS["chatty_per_s"].high:
            return np.zeros(len(told), bool)
        found: Flags = (told == 0) & (known[SLEEPS] > options.chatty_per_s) & (known[SHARE] > options.chatty_share)
        return found

    def _low(
        self, frame: Frame, told: NDArray[np.int8], answers: dict[TaskId, Answers], looks: Flags, wanted: Flags
    ) -> Flags:
        """Who is lowered: those of `wanted`, while somebody interactive is there."""
        options, now = self._options, frame.at_us
        here = self._evidence.known[SHARE] >= options.present_share
        active = np.array([task.id in answers and answers[task.id].active for task in frame.tasks], bool)
        waited_for = (told == _LATENCY) & (here | active)
        if (waited_for | (looks & here)).any():
            self._present_us = now
        if worst(answers) >= options.demote_missing or (looks & here).any():
            self._missed_us = now
        lowering = _is_recent(now, self._present_us, options.release_us)
        lowering = lowering and _is_recent(now, self._missed_us, max(options.calm_us, options.release_us))
        self._short = self._is_short(frame, told)
        found: Flags = wanted & lowering & (told != _LATENCY) & ~self._short
        return found

    def _plan(self, frame: Frame, low: Flags, answers: dict[TaskId, Answers], looks: Flags) -> Plan:
        options = self._options
        if worst(answers) >= options.idle_missing:
            self._late_us = frame.at_us
        lowest = IDLE if _is_recent(frame.at_us, self._late_us, options.calm_us) else DEMOTE
        interactive = {frame.tasks[row].id for row in np.flatnonzero(looks)}
        levels: dict[TaskId, Level] = {}
        why: dict[TaskId, str] = {}
        if self._probe is not None:
            most = self._equal_share(frame)
            modest = [row for row in np.flatnonzero(looks) if self._evidence.known[SHARE, row] <= most]
            served = [task for task, one in answers.items() if one.active]
            levels = dict.fromkeys((*(frame.tasks[row].id for row in modest), *served), BOOST)
            why = dict.fromkeys(levels, "somebody else is probed, and should not delay it")
        for task, (level, because) in self._relief.levels(frame, self._evidence, answers, interactive).items():
            levels[task], why[task] = level, because
        for row in np.flatnonzero(low):
            task = frame.tasks[row].id
            levels[task] = lowest
            why[task] = _why_low(frame, int(row))
        self._lowered = low
        return Plan({task: level for task, level in levels.items() if level != NORMAL}, why)


def _is_recent(now_us: int, last_us: int | None, within_us: float) -> bool:
    return last_us is not None and now_us - last_us <= within_us


def _why_low(frame: Frame, row: int) -> str:
    hint = frame.hints[row]
    if hint is not None and hint.kind is not None:
        return f"its application calls it {hint.kind.value}, and somebody else waits for answers"
    return "it works on and on, and somebody else waits for answers"
