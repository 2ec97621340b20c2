"""Who gets no CPU, as far as the kernel's counters can tell.

The kernel books a wait only when the task runs again, and says nowhere whether a task that does not run sleeps or
waits. What is certain: a task that was pushed aside when it last ran still waits; a wait that was booked was one; an
application that has requests does not sleep. The rest is only silent: enough to stop holding that one task back.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

from npuops.eevdf import weights
from npuops.hostsched.frame import Frame, TaskId
from npuops.hostsched.guard_options import GuardOptions
from npuops.hostsched.roster import Roster

_WANTS: Final = 0.9
"""A task that runs or waits in so much of the time never sleeps of its own will."""


@dataclass(frozen=True, slots=True)
class Starved:
    """A task that certainly got too little.

    Attributes:
        task: which.
        why: what was found.
    """

    task: TaskId
    why: str


@dataclass(slots=True)
class _Fate:
    """Of one task.

    Attributes:
        since_us: first seen.
        ran_us: when it was last seen to have run; the first look counts as one.
        pushed: the last thing known of it is that it was made to leave.
        waits: it waited in this window. Counters may tell late that it was pushed aside, and it sleeps since.
        asked_us: since when it has had requests without a break; None while it has none, or did not say so lately.
        run: decaying mean of the share of time run,
        wait: and waited.
        turn_us: what it waited for each of its turns in this window.
    """

    since_us: int
    ran_us: int
    pushed: bool = False
    waits: bool = False
    asked_us: int | None = None
    run: float = 0.0
    wait: float = 0.0
    turn_us: float = 0.0


class Starvation:
    """Watches frame after frame."""

    def __init__(self, options: GuardOptions) -> None:
        self._options = options
        self._roster = Roster()
        self._at_us: int | None = None
        self._counters: list[list[int]] = []
        self._fates: list[_Fate] = []

    def watch(self, frame: Frame, lowered: Collection[TaskId]) -> tuple[Starved, ...]:
        """Who starves now.

        Args:
            frame: the latest look.
            lowered: whom npuops itself holds back. A task that its owner set to a low weight is meant to get little.
        """
        window = 0 if self._at_us is None else max(frame.at_us - self._at_us, 0)
        self._at_us = frame.at_us
        self._follow(frame, window)
        if window == 0:
            return ()
        return (*self._at_last(frame), *self._still(frame), *self._unfair(frame, lowered))

    def silent_us(self, row: int) -> float:
        """How long the task of this row of the last frame has not run, be it that it sleeps or waits."""
        return float((self._at_us or 0) - self._fates[row].ran_us)

    def _follow(self, frame: Frame, window: int) -> None:
        counters: list[list[int]] = frame.counters.tolist()
        rows = self._roster.moved(frame.tasks)
        if rows is not None:
            places = list(enumerate(rows.tolist()))
            self._counters = [self._counters[row] if row >= 0 else counters[new] for new, row in places]
            blank = frame.at_us
            self._fates = [self._fates[row] if row >= 0 else _Fate(blank, blank) for _, row in places]
        last, self._counters = self._counters, counters
        part = 1.0 - math.exp(-window / self._options.fair_us)
        for fate, before, after in zip(self._fates, last, counters, strict=True):
            ran, waited, turns = max(after[0] - before[0], 0), max(after[1] - before[1], 0), after[2] - before[2]
            if ran:
                fate.ran_us = frame.at_us
            if after[3] > before[3]:
                fate.pushed = False
            elif after[4] > before[4]:
                fate.pushed = True
            fate.waits = waited > 0
            fate.turn_us = waited / max(turns, 1) / 1e3
            if window:
                fate.run += part * (ran / (window * 1e3) - fate.run)
                fate.wait += part * (waited / (window * 1e3) - fate.wait)

    def _at_last(self, frame: Frame) -> list[Starved]:
        limit = self._options.waiting_us
        return [
            Starved(frame.tasks[row].id, f"it waited {fate.turn_us / 1e6:.1f} s for a turn")
            for row, fate in enumerate(self._fates)
            if fate.turn_us > limit
        ]

    def _still(self, frame: Frame) -> list[Starved]:
        found, latest = [], frame.at_us - self._options.waiting_us
        for row, fate in enumerate(self._fates):
            hint = frame.hints[row]
            asked = hint is not None and (hint.queued or 0) > 0
            if not asked:
                fate.asked_us = None
            elif fate.asked_us is None:
                fate.asked_us = frame.at_us
            asked = fate.asked_us is not None and fate.asked_us < latest
            if fate.ran_us < latest and (asked or (fate.pushed and fate.waits)):
                because = "has requests" if asked else "was pushed aside"
                silent = (frame.at_us - fate.ran_us) / 1e6
                found.append(Starved(frame.tasks[row].id, f"it {because} and did not run for {silent:.1f} s"))
        return found

    def _unfair(self, frame: Frame, lowered: Collection[TaskId]) -> list[Starved]:
        options, now = self._options, frame.at_us
        hungry = []
        for row, fate in enumerate(self._fates):
            grown = max(1.0 - math.exp(-(now - fate.since_us) / options.fair_us), 1e-9)
            if (fate.run + fate.wait) / grown > _WANTS:
                hungry.append((row, fate, fate.run / grown))
        equal = frame.cpus / max(frame.host.runnable, len(hungry), frame.cpus)
        share = options.fair_share * equal
        return [
            Starved(frame.tasks[row].id, f"it got {run:.1%} of a CPU, of an equal share of {equal:.1%}")
            for row, fate, run in hungry
            if now - fate.since_us >= options.fair_us and run < share
            if frame.tasks[row].id in lowered or weights.of(frame.settings[row]) >= weights.NICE_0
        ]
