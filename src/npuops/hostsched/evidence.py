"""What the counters say about each task, by elapsed time and never by the number of frames.

The question is how long a task works between two sleeps. Its share of the CPU says little: one that starves and one
that computes look the same there.

Plain numbers, task by task: an agent that wakes 50 times a second finds its caches cold, and then a loop over 16 tasks
costs a third of what some forty calls into numpy do.
"""

from __future__ import annotations

import math
from typing import Final

from npuops.hostsched.frame import Frame
from npuops.hostsched.reactive_options import ReactiveOptions
from npuops.hostsched.roster import Roster

Column = list[float]
Flags = list[bool]

_FIELDS = 12
SHARE, FAIR, SLEEPS, WAIT, BURST, DEBT, STILL, LAST, ALIKE, SINCE, CREDIT, TAIL = range(_FIELDS)
"""Columns of `Evidence.known`: share of a CPU run over `rate_us` and over `fair_us`, sleeps a second, wait for a turn
in us (decaying mean over turns), work and wait since the last sleep in us, when it last ran or was seen to have
waited, 1 when it then left by itself, 1 when it also was pushed aside in that window, when it was first seen, how much
CPU time in us it may use up at one go before it counts as one that computes: earned by little work between sleeps, for
a server that works off a queue looks like a hog; and how much work at most in us followed its last sleep before the
look that showed that sleep."""

_KNOWN_SLEEPS: Final = 20
"""Who slept so often before it was first seen has a past by which it may be judged."""
_AMBIGUOUS: Final = 8.0
"""A task that both left by itself and was pushed aside in its last window must be still for so many times longer."""


class Evidence:
    """Follows tasks from frame to frame.

    Attributes:
        known: for each task its columns as above.
        sleeps: in this window, or by its silence, it showed that it works little between sleeps.
        computes: it works longer without a sleep than an interactive task would.
        works: it slept now and then, but works more between its sleeps than an interactive task would.
        gone_us: length of the window.
        ran_us: CPU time of each task in it.
    """

    def __init__(self, options: ReactiveOptions) -> None:
        self._options = options
        self._roster = Roster()
        self._counters: list[list[int]] = []
        self._at_us: int | None = None
        self.known: list[Column] = []
        self.sleeps: Flags = []
        self.computes: Flags = []
        self.works: Flags = []
        self.gone_us = 0
        self.ran_us: Column = []

    def update(self, frame: Frame) -> list[int] | None:
        """Take in a frame; for each task its row in the frame before (-1 if new), or None if nothing moved."""
        self.gone_us = gone = 0 if self._at_us is None else max(frame.at_us - self._at_us, 0)
        self._at_us = frame.at_us
        counters: list[list[int]] = frame.counters.tolist()
        moved = self._roster.moved(frame.tasks)
        rows: list[int] | None = None if moved is None else moved.tolist()
        if rows is not None:
            self._follow(frame, rows, counters)
        last, self._counters = self._counters, counters
        now, rate, fair = float(frame.at_us), self._part(self._options.rate_us), self._part(self._options.fair_us)
        self.ran_us, self.sleeps, self.computes, self.works = [], [], [], []
        for known, before, after in zip(self.known, last, counters, strict=True):
            run = max(after[0] - before[0], 0) / 1e3
            wait = max(after[1] - before[1], 0) / 1e3
            turns, left = max(after[2] - before[2], 0), max(after[3] - before[3], 0)
            if gone:
                known[SHARE] += rate * (run / gone - known[SHARE])
                known[SLEEPS] += rate * (left * (1e6 / gone) - known[SLEEPS])
                known[FAIR] += fair * (run / gone - known[FAIR])
                if turns > 0:
                    known[WAIT] += rate * (wait / turns - known[WAIT])
            self.ran_us.append(run)
            self._judge(known, run, wait, left, pushed=after[4] > before[4], now=now)
        return rows

    def _part(self, time_us: float) -> float:
        """Of a decaying mean over so long, what this window counts."""
        return 1.0 - math.exp(-self.gone_us / time_us)

    def _judge(self, known: Column, run: float, wait: float, left: int, *, pushed: bool, now: float) -> None:
        options, slept = self._options, left > 0
        # What it did before its first sleep may have been catching up; the bursts between its sleeps tell its kind.
        work = run / (left - 1) if left > 1 else known[BURST] + run
        # A single sleep ends what began after the one before it, which an earlier look showed.
        most = work if left > 1 else work + known[TAIL]
        forgiven = min(options.debt_gain * (known[DEBT] + wait), options.debt_cap_us)
        known[BURST] = 0.0 if slept else known[BURST] + run
        known[TAIL] = min(run, work) if slept else known[TAIL]
        known[DEBT] = 0.0 if slept else known[DEBT] + wait
        if run > 0 or wait > 0 or slept:
            known[STILL], known[LAST], known[ALIKE] = now, float(slept), float(slept and pushed)
        quiet = known[LAST] > 0 and (now - known[STILL] >= options.quiet_us * (_AMBIGUOUS if known[ALIKE] > 0 else 1.0))
        sleeps = quiet or (slept and most <= options.sleep_burst_us)
        computes = not sleeps and work > options.hog_burst_us + forgiven
        if sleeps:
            known[CREDIT] = min(known[CREDIT] + options.credit_gain * self.gone_us, options.credit_cap_us)
        elif computes and known[CREDIT] > 0:
            known[CREDIT] -= run
            computes = known[CREDIT] <= 0
        self.sleeps.append(sleeps)
        self.computes.append(computes)
        # What it did in this window lies in one piece more than it has sleeps; a part may have been catching up.
        self.works.append(left > 1 and run - forgiven > options.sleep_burst_us * (left + 1))

    def _follow(self, frame: Frame, rows: list[int], counters: list[list[int]]) -> None:
        """Those who stay keep what is known of them; newcomers begin with this frame, and what they did before it."""
        now = float(frame.at_us)
        blank = [0.0] * _FIELDS
        blank[STILL] = blank[SINCE] = now
        self.known = [self.known[row] if row >= 0 else blank.copy() for row in rows]
        for row, known, (ran_ns, _, _, left, _) in zip(rows, self.known, counters, strict=True):
            if row < 0:
                known[TAIL] = ran_ns / 1e3 / max(left, 1)
                if left >= _KNOWN_SLEEPS and known[TAIL] <= self._options.sleep_burst_us:
                    known[CREDIT] = self._options.credit_cap_us
        self._counters = [self._counters[row] if row >= 0 else counters[new] for new, row in enumerate(rows)]
