"""The hand rule: lower what only computes while somebody waits for an answer, and look again whether it does.

The mandatory baseline of the learned policy, and what ships if that does not beat it. It works on frames of 10 to
100 ms, by elapsed time. It uses hints where they are there; without them it takes a task that works little between two
sleeps for interactive, and one that works on and on for a hog. A starved interactive task looks like a hog, for it
never sleeps: so one hog at a time is put to normal for a moment, and one that then sleeps was none.
"""

from __future__ import annotations

import math
from typing import ClassVar, Final

from npuops.hostsched.evidence import FAIR, LAST, SHARE, SINCE, SLEEPS, Evidence, Flags
from npuops.hostsched.features import State
from npuops.hostsched.frame import Frame, TaskId
from npuops.hostsched.hint import Kind
from npuops.hostsched.late_answers import Answers, LateAnswers
from npuops.hostsched.levels import BOOST, DEMOTE, IDLE
from npuops.hostsched.plan import Level, Plan
from npuops.hostsched.reactive_options import BOUNDS, ReactiveOptions
from npuops.hostsched.relief import Relief, worst
from npuops.hostsched.task_life import Happening, Role, after

_LATENCY, _BATCH, _BACKGROUND = 1, 2, 3
_TOLD: Final = {None: 0, Kind.LATENCY: _LATENCY, Kind.BATCH: _BATCH, Kind.BACKGROUND: _BACKGROUND}
_ACTIVE_SHARE: Final = 0.02
"""A task that runs less does not compete."""
_FLOOR_LEFT: Final = 1.25
"""A task below its floor is let run until it has so many times the floor: no flutter around it."""
_PROBE_LIMIT: Final = 4.0
"""A probe waits for its task to run at all, up to so many times its length."""
_INTERACTIVE, _HOG, _PROBE = int(Role.INTERACTIVE), int(Role.HOG), int(Role.PROBE)
_NOTHING, _SLEEPS, _COMPUTES = int(Happening.NOTHING), int(Happening.SLEEPS), int(Happening.COMPUTES)
_DUE, _OVER, _WORKS = int(Happening.DUE), int(Happening.OVER), int(Happening.WORKS)
"""Plain numbers: an enumeration's members cost ten times as much to look up and compare."""


class Reactive:
    """See above; one for each run."""

    frames_alone: ClassVar = True

    def __init__(self, options: ReactiveOptions | None = None, *, name: str = "reactive") -> None:
        """With nothing remembered.

        Args:
            options: its thresholds; None: those found by hand.
            name: for people, and in traces.
        """
        self._name = name
        self._options = options or ReactiveOptions()
        self._evidence = Evidence(self._options)
        self._answers = LateAnswers(self._options)
        self._relief = Relief(self._options)
        self._roles: list[int] = []
        self._due_us: list[float] = []
        """When to probe each task next,"""
        self._backoff_us: list[float] = []
        """and after how long again."""
        self._lowered: Flags = []
        self._short: Flags = []
        self._probe: TaskId | None = None
        self._probe_began_us = self._probe_ended_us = 0
        self._probe_ran_us = 0.0
        self._present_us: int | None = None
        self._missed_us: int | None = None
        self._late_us: int | None = None

    @property
    def name(self) -> str:
        """As on the command line."""
        return self._name

    @property
    def roles(self) -> tuple[Role, ...]:
        """What each task of the last frame is taken for."""
        return tuple(map(Role, self._roles))

    def decide(self, state: State) -> Plan:
        """What should hold until the next frame."""
        frame = state.frame
        self._follow(self._evidence.update(frame), frame)
        told = [0 if hint is None else _TOLD[hint.kind] for hint in frame.hints]
        answers = self._answers.update(frame, self._evidence.gone_us)
        self._live(frame, told)
        chatty = self._chatty(told)
        looks = [
            role == _INTERACTIVE and word == 0 and not talks
            for role, word, talks in zip(self._roles, told, chatty, strict=True)
        ]
        wanted = [
            role == _HOG or word == _BACKGROUND or talks
            for role, word, talks in zip(self._roles, told, chatty, strict=True)
        ]
        low = self._low(frame, told, answers, looks, wanted)
        return self._plan(frame, low, answers, looks)

    def _follow(self, rows: list[int] | None, frame: Frame) -> None:
        if rows is None:
            return
        self._roles = [self._roles[row] if row >= 0 else 0 for row in rows]
        self._due_us = [self._due_us[row] if row >= 0 else 0.0 for row in rows]
        self._backoff_us = [self._backoff_us[row] if row >= 0 else self._options.backoff_us for row in rows]
        self._lowered = [row >= 0 and self._lowered[row] for row in rows]
        self._short = [row >= 0 and self._short[row] for row in rows]
        if self._probe is not None and all(task.id != self._probe for task in frame.tasks):
            self._probe, self._probe_ended_us = None, frame.at_us

    def _live(self, frame: Frame, told: list[int]) -> None:
        """Take each task one step along its table."""
        seen, options, now = self._evidence, self._options, frame.at_us
        happened = [
            _happened(word, sleeps, computes, works)
            for word, sleeps, computes, works in zip(told, seen.sleeps, seen.computes, seen.works, strict=True)
        ]
        self._end_probe(frame, happened)
        if self._probe is None and now - self._probe_ended_us >= options.probe_gap_us:
            self._begin_probe(frame, told, happened)
        before, self._roles = self._roles, after(self._roles, happened)
        for row, (old, new) in enumerate(zip(before, self._roles, strict=True)):
            if old == _HOG and happened[row] == _COMPUTES and not self._lowered[row]:
                self._due_us[row] = now + self._backoff_us[row]  # as good as a probe in vain
            if new != old and new == _INTERACTIVE:
                self._backoff_us[row] = options.backoff_us
            elif new != old and new == _HOG and old != _PROBE:
                self._backoff_us[row] = options.backoff_us
                self._due_us[row] = now + options.backoff_us

    def _end_probe(self, frame: Frame, happened: list[int]) -> None:
        if self._probe is None:
            return
        options, now = self._options, frame.at_us
        row = next(row for row, task in enumerate(frame.tasks) if task.id == self._probe)
        self._probe_ran_us += self._evidence.ran_us[row]
        length = now - self._probe_began_us
        over = length >= options.probe_us and (self._probe_ran_us > 0 or length >= _PROBE_LIMIT * options.probe_us)
        if happened[row] != _SLEEPS and not over:
            return
        self._probe, self._probe_ended_us = None, now
        if happened[row] != _SLEEPS:
            happened[row] = _OVER
            self._backoff_us[row] = min(self._backoff_us[row] * options.backoff_growth, options.backoff_cap_us)
            self._due_us[row] = now + self._backoff_us[row]

    def _begin_probe(self, frame: Frame, told: list[int], happened: list[int]) -> None:
        due = [
            row
            for row, role in enumerate(self._roles)
            if role == _HOG
            and self._lowered[row]
            and happened[row] != _SLEEPS
            and told[row] == 0
            and self._due_us[row] <= frame.at_us
        ]
        if not due:
            return
        row = min(due, key=self._due_us.__getitem__)
        happened[row] = _DUE
        self._probe, self._probe_began_us, self._probe_ran_us = frame.tasks[row].id, frame.at_us, 0.0

    def _equal_share(self, frame: Frame) -> float:
        """Of a CPU, if all who want to run got the same."""
        rivals = sum(known[SHARE] >= _ACTIVE_SHARE or known[LAST] == 0 for known in self._evidence.known)
        return frame.cpus / max(rivals, frame.host.runnable, frame.cpus)

    def _is_short(self, frame: Frame, told: list[int]) -> Flags:
        """Who wants to run and got less than the floor, until it has a little more than that."""
        options, now = self._options, frame.at_us
        floor = options.floor_share * self._equal_share(frame)
        found = []
        for known, word, was in zip(self._evidence.known, told, self._short, strict=True):
            age = now - known[SINCE]
            hungry = known[LAST] == 0 and word != _BACKGROUND and age >= options.fair_us / 2
            grown = max(1.0 - math.exp(-age / options.fair_us), 1e-9) if hungry else 1.0
            found.append(hungry and known[FAIR] / grown < floor * (_FLOOR_LEFT if was else 1.0))
        return found

    def _chatty(self, told: list[int]) -> Flags:
        options = self._options
        if options.chatty_per_s >= BOUNDS["chatty_per_s"].high:
            return [False] * len(told)
        return [
            word == 0 and known[SLEEPS] > options.chatty_per_s and known[SHARE] > options.chatty_share
            for word, known in zip(told, self._evidence.known, strict=True)
        ]

    def _low(self, frame: Frame, told: list[int], answers: dict[TaskId, Answers], looks: Flags, wanted: Flags) -> Flags:
        """Who is lowered: those of `wanted`, while somebody interactive is there."""
        options, now = self._options, frame.at_us
        here = [known[SHARE] >= options.present_share for known in self._evidence.known]
        looking = any(is_here and looks for is_here, looks in zip(here, looks, strict=True))
        if looking or any(
            word == _LATENCY and (is_here or answers[task.id].active)
            for task, word, is_here in zip(frame.tasks, told, here, strict=True)
        ):
            self._present_us = now
        if looking or worst(answers) >= options.demote_missing:
            self._missed_us = now
        lowering = _is_recent(now, self._present_us, options.release_us)
        lowering = lowering and _is_recent(now, self._missed_us, max(options.calm_us, options.release_us))
        self._short = self._is_short(frame, told)
        return [
            wants and lowering and word != _LATENCY and not short
            for wants, word, short in zip(wanted, told, self._short, strict=True)
        ]

    def _plan(self, frame: Frame, low: Flags, answers: dict[TaskId, Answers], looks: Flags) -> Plan:
        options = self._options
        if worst(answers) >= options.idle_missing:
            self._late_us = frame.at_us
        lowest = IDLE if _is_recent(frame.at_us, self._late_us, options.calm_us) else DEMOTE
        interactive = [row for row, looks_so in enumerate(looks) if looks_so]
        levels: dict[TaskId, Level] = {}
        why: dict[TaskId, str] = {}
        if self._probe is not None:
            most = self._equal_share(frame)
            known, least = self._evidence.known, options.present_share
            modest = [frame.tasks[row].id for row in interactive if least <= known[row][SHARE] <= most]
            served = [task for task, one in answers.items() if one.active]
            levels = dict.fromkeys((*modest, *served), BOOST)
            why = dict.fromkeys(levels, "somebody else is probed, and should not delay it")
        for task, (level, because) in self._relief.levels(frame, self._evidence, answers, interactive).items():
            levels[task], why[task] = level, because
        for row, is_low in enumerate(low):
            if is_low:
                task = frame.tasks[row].id
                levels[task] = lowest
                why[task] = _why_low(frame, row)
        self._lowered = low
        return Plan(levels, why)


def _happened(told: int, sleeps: bool, computes: bool, works: bool) -> int:
    if told == _LATENCY or (sleeps and told == 0):
        return _SLEEPS
    if told or computes:
        return _COMPUTES
    return _WORKS if works else _NOTHING


def _is_recent(now_us: int, last_us: int | None, within_us: float) -> bool:
    return last_us is not None and now_us - last_us <= within_us


def _why_low(frame: Frame, row: int) -> str:
    hint = frame.hints[row]
    if hint is not None and hint.kind is not None:
        return f"its application calls it {hint.kind.value}, and somebody else waits for answers"
    return "it works on and on, and somebody else waits for answers"
