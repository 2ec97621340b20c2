"""What the counters say about each task, by elapsed time and never by the number of frames.

The question is how long a task works between two sleeps. Its share of the CPU says little: one that starves and one
that computes look the same there.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npuops.hostsched.frame import INVOLUNTARY, RUN_NS, TURNS, VOLUNTARY, WAIT_NS, Frame
from npuops.hostsched.reactive_options import ReactiveOptions
from npuops.hostsched.roster import Roster

Column = NDArray[np.float64]
Flags = NDArray[np.bool_]

_FIELDS = 10
SHARE, FAIR, SLEEPS, WAIT, BURST, DEBT, STILL, LAST, ALIKE, SINCE = range(_FIELDS)
"""Rows of `Evidence.known`: share of a CPU run over `rate_us` and over `fair_us`, sleeps a second, wait for a turn in
us (decaying mean over turns), work and wait since the last sleep in us, when it last ran or was seen to have waited,
1 when it then left by itself, 1 when it also was pushed aside in that window, when it was first seen."""

_AMBIGUOUS = 8.0
"""A task that both left by itself and was pushed aside in its last window must be still for so many times longer."""


class Evidence:
    """Follows tasks from frame to frame.

    Attributes:
        known: float64 of shape (rows as above, tasks).
        sleeps: in this window, or by its silence, it showed that it works little between sleeps.
        computes: it works longer without a sleep than an interactive task would.
        gone_us: length of the window.
        ran_us: CPU time of each task in it.
    """

    def __init__(self, options: ReactiveOptions) -> None:
        self._options = options
        self._roster = Roster()
        self._counters = np.zeros((0, 5), np.int64)
        self._at_us: int | None = None
        self.known = np.zeros((_FIELDS, 0))
        self.sleeps: Flags = np.zeros(0, bool)
        self.computes: Flags = np.zeros(0, bool)
        self.gone_us = 0
        self.ran_us: Column = np.zeros(0)

    def update(self, frame: Frame) -> NDArray[np.intp] | None:
        """Take in a frame; for each task its row in the frame before (-1 if new), or None if nothing moved."""
        self.gone_us = gone = 0 if self._at_us is None else max(frame.at_us - self._at_us, 0)
        self._at_us = frame.at_us
        rows = self._roster.moved(frame.tasks)
        if rows is not None:
            self._follow(frame, rows)
        news = np.maximum(frame.counters - self._counters, 0)
        self._counters = frame.counters.copy()
        self.ran_us = run = news[:, RUN_NS] / 1e3
        wait, turns, left = news[:, WAIT_NS] / 1e3, news[:, TURNS], news[:, VOLUNTARY]
        known, options, now = self.known, self._options, float(frame.at_us)
        if gone:
            part = 1.0 - np.exp(-gone / options.rate_us)
            known[SHARE] += part * (run / gone - known[SHARE])
            known[SLEEPS] += part * (left * (1e6 / gone) - known[SLEEPS])
            known[FAIR] += (1.0 - np.exp(-gone / options.fair_us)) * (run / gone - known[FAIR])
            took = turns > 0
            known[WAIT] += np.where(took, part * (wait / np.maximum(turns, 1) - known[WAIT]), 0.0)
        slept = left > 0
        # What it did before its first sleep may have been catching up; the bursts between its sleeps tell its kind.
        work = np.where(left > 1, run / np.maximum(left - 1, 1), known[BURST] + run)
        known[BURST] = np.where(slept, 0.0, known[BURST] + run)
        forgiven = np.minimum(options.debt_gain * (known[DEBT] + wait), options.debt_cap_us)
        known[DEBT] = np.where(slept, 0.0, known[DEBT] + wait)
        moved = (run > 0) | (wait > 0) | slept
        known[STILL] = np.where(moved, now, known[STILL])
        known[LAST] = np.where(moved, slept, known[LAST])
        known[ALIKE] = np.where(moved, slept & (news[:, INVOLUNTARY] > 0), known[ALIKE])
        patience = options.quiet_us * np.where(known[ALIKE] > 0, _AMBIGUOUS, 1.0)
        quiet = (known[LAST] > 0) & (now - known[STILL] >= patience)
        self.sleeps = (slept & (work <= options.sleep_burst_us)) | quiet
        self.computes = ~self.sleeps & (work > options.hog_burst_us + forgiven)
        return rows

    def _follow(self, frame: Frame, rows: NDArray[np.intp]) -> None:
        kept = rows >= 0
        known = np.zeros((_FIELDS, len(rows)))
        known[[STILL, SINCE]] = float(frame.at_us)
        known[:, kept] = self.known[:, rows[kept]]
        counters = frame.counters.copy()
        counters[kept] = self._counters[rows[kept]]
        self.known, self._counters = known, counters
