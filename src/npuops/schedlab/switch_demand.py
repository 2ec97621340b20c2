"""What the tasks of a recorded play asked for, whatever they got: bursts of work, and when they wanted to begin.

Taken from who ran when: CPU time between a wake-up and the sleep after it is a burst. A wake-up by a timer is given by
the world; one by another task of the play comes when that task has worked as far as it had then. Times in which tasks
that are none of the play's had the CPU are given, too: to the play's tasks there is no CPU then.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from npuops.eevdf import world as at
from npuops.eevdf.parts import Parts
from npuops.eevdf.world import Table
from npuops.schedlab.switch_trace import KIND, NOBODY, ONE, OTHER, OTHERS, STAYS, TIME, Event, Events, SwitchTrace

_RATES: Final = (100, 250, 300, 1000)
"""Ticks in a second that Linux can be built with (CONFIG_HZ)."""
_NEAR_NS: Final = 200_000
"""A tick's handler begins so near its moment, or is late."""
_ENOUGH: Final = 0.6
"""So many of the ticks that a busy CPU should have had must be there."""


@dataclass(frozen=True, slots=True)
class Ticks:
    """Of the machine that recorded.

    Attributes:
        hz: in a second.
        first_ns: the first one after the trace began.
    """

    hz: int
    first_ns: int


def ticks_of(trace: SwitchTrace) -> Ticks | None:
    """From the timer interrupts of the trace, most of which are ticks; None if none fit.

    Other timers ring at any moment, ticks all at the same place within their span.
    """
    moments = np.sort(trace.of_kind(Event.TICK)[:, TIME])
    busy_ns = trace.play.cpus * trace.play.duration_ns - shares_of(trace)[NOBODY]
    for hz in _RATES:
        span = 1_000_000_000 // hz
        places = np.sort(moments % span)
        around = np.concatenate([places, places + span])
        crowds = np.searchsorted(around, places + _NEAR_NS) - np.arange(len(places))
        if len(places) and crowds.max() >= max(1, _ENOUGH * busy_ns / span):
            first = int(crowds.argmax())
            return Ticks(hz, int(np.median(around[first : first + int(crowds.max())])) % span)
    return None


class _Writer:
    """The part of one task, line by line."""

    def __init__(self, *, naps: bool) -> None:
        self.lines: list[tuple[int, int, int]] = []
        self.worked_ns = 0
        self.since: int | None = None
        self.awake = False
        self._slept_at = 0
        self._naps = naps

    def come(self, moment: int) -> None:
        self.since = moment

    def book(self, moment: int) -> None:
        """What it had of the CPU until now."""
        if self.since is not None:
            self.worked_ns += moment - self.since
            self.since = moment

    def leave(self, moment: int, *, stays: bool) -> None:
        self.book(moment)
        self.since = None
        if not stays:
            self.awake, self._slept_at = False, moment

    def wake(self, moment: int, *, called: bool) -> None:
        """It slept until now."""
        self.awake = True
        if not self.lines or not (called or self._naps):
            self._end_line(at.UNTIL, moment)
        elif called:
            self._end_line(at.CALL, 0)
        else:
            self._end_line(at.SPAN, moment - self._slept_at)

    def call(self, moment: int, other: int) -> None:
        """It wakes another one."""
        self.book(moment)
        self._end_line(at.WAKE, other)

    def end(self, duration_ns: int) -> Table:
        """The play is over: who wants more gets more, who sleeps sleeps on."""
        if not self.lines:
            self._end_line(at.UNTIL, duration_ns)
        self.lines.append((at.NEVER, at.EXIT, 0) if self.awake else (self.worked_ns, at.EXIT, 0))
        return np.array(self.lines, np.int64)

    def _end_line(self, then: int, what: int) -> None:
        self.lines.append((self.worked_ns if self.lines else 0, then, what))
        self.worked_ns = 0


def demand_of(trace: SwitchTrace, *, causes: bool = True) -> Parts:
    """Parts of the play's tasks, and after them one for each CPU: who is none of the play's takes it away.

    Args:
        trace: of a kernel.
        causes: a task that another one of the play woke waits for that one; otherwise for the moment.
    """
    players = len(trace.play.actors)
    writers = [_Writer(naps=actor.naps) for actor in trace.play.actors]
    for moment, kind, one, other, stays in trace.events[:, [TIME, KIND, ONE, OTHER, STAYS]].tolist():
        if kind == Event.WAKE and not writers[one].awake:
            called = causes and other >= 0 and writers[other].since is not None and bool(writers[one].lines)
            if called:
                writers[other].call(moment, one)
            writers[one].wake(moment, called=called)
        elif kind == Event.SWITCH:
            if one >= 0:
                _rouse(writers[one], 0)
                writers[one].leave(moment, stays=bool(stays))
            if other >= 0:
                _rouse(writers[other], moment)
                writers[other].come(moment)
    lines = [writer.end(trace.play.duration_ns) for writer in writers]
    stretches = trace.stretches()
    absences = {players + cpu: _absence(stretches, cpu) for cpu in range(trace.play.cpus)}
    ticks = ticks_of(trace)
    return Parts(
        [*lines, *absences.values()],
        {player: cpu for cpu, player in enumerate(absences)},
        None if ticks is None else ticks.first_ns,
    )


def _rouse(writer: _Writer, moment: int) -> None:
    """It runs, so it woke: before the trace began, or in a way that is not traced."""
    if not writer.awake:
        writer.wake(moment, called=False)
        if moment == 0:
            writer.come(0)


def _absence(stretches: Events, cpu: int) -> Table:
    """When this CPU was somebody else's."""
    theirs = stretches[(stretches[:, 2] == cpu) & (stretches[:, 3] == OTHERS)]
    begins, spans = theirs[:, 0], theirs[:, 1] - theirs[:, 0]
    works = np.concatenate([[0], spans])
    thens = np.concatenate([np.full(len(begins), at.UNTIL), [at.EXIT]])
    whats = np.concatenate([begins, [0]])
    found: Table = np.stack([works, thens, whats], axis=1).astype(np.int64)
    return found if len(begins) else np.array([(0, at.UNTIL, 0), (0, at.EXIT, 0)], np.int64)


def shares_of(trace: SwitchTrace) -> Mapping[int, int]:
    """CPU time in ns of each player, of others (`OTHERS`) and of nobody (`NOBODY`)."""
    stretches = trace.stretches()
    return {
        who: int((stretches[:, 1] - stretches[:, 0])[stretches[:, 3] == who].sum())
        for who in (*range(len(trace.play.actors)), OTHERS, NOBODY)
    }
