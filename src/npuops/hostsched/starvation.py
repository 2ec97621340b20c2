"""Who gets no CPU, as far as the kernel's counters can tell.

The kernel books a wait only when the task runs again, and says nowhere whether a task that does not run sleeps or
waits. What is certain: a task that was pushed aside when it last ran still waits; a wait that was booked was one; an
application that has requests does not sleep. The rest is only silent: enough to stop holding that one task back.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npuops.eevdf import weights
from npuops.hostsched.features import HINT_STALE_US
from npuops.hostsched.frame import INVOLUNTARY, RUN_NS, TURNS, VOLUNTARY, WAIT_NS, Frame, TaskId
from npuops.hostsched.guard_options import GuardOptions
from npuops.hostsched.roster import Roster, carried

_WANTS = 0.9
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


class Starvation:
    """Watches frame after frame."""

    def __init__(self, options: GuardOptions) -> None:
        self._options = options
        self._roster = Roster()
        self._at_us: int | None = None
        nobody = np.zeros(0)
        self._counters = np.zeros((0, 5), np.int64)
        self._ran_at = nobody
        """When each was last seen to have run; the first look counts as one."""
        self._pushed = nobody
        """1 where the last thing known of a task is that it was made to leave."""
        self._run = nobody
        self._wait = nobody
        """Decaying means of the shares of time run and waited."""
        self._since = nobody

    def watch(self, frame: Frame, lowered: Collection[TaskId]) -> tuple[Starved, ...]:
        """Who starves now.

        Args:
            frame: the latest look.
            lowered: whom npuops itself holds back. A task that its owner set to a low weight is meant to get little.
        """
        options = self._options
        window = 0 if self._at_us is None else max(frame.at_us - self._at_us, 0)
        self._at_us = frame.at_us
        gone = self._follow(frame)
        ran, waited = gone[:, RUN_NS], gone[:, WAIT_NS]
        self._ran_at = np.where(ran > 0, float(frame.at_us), self._ran_at)
        left = gone[:, VOLUNTARY] > 0
        self._pushed = np.where(left, 0.0, np.where(gone[:, INVOLUNTARY] > 0, 1.0, self._pushed))
        if window == 0:
            return ()
        part = 1.0 - np.exp(-window / options.fair_us)
        self._run += part * (ran / (window * 1e3) - self._run)
        self._wait += part * (waited / (window * 1e3) - self._wait)
        silent = frame.at_us - self._ran_at
        found = [
            *self._at_last(frame, waited / np.maximum(gone[:, TURNS], 1) / 1e3),
            *self._still(frame, silent),
            *self._unfair(frame, lowered),
        ]
        return tuple(found)

    def silent_us(self, row: int) -> float:
        """How long the task of this row of the last frame has not run, be it that it sleeps or waits."""
        return float((self._at_us or 0) - self._ran_at[row])

    def _follow(self, frame: Frame) -> NDArray[np.int64]:
        rows = self._roster.moved(frame.tasks)
        if rows is not None:
            old = self._counters
            self._counters = frame.counters.copy()
            self._counters[rows >= 0] = old[rows[rows >= 0]]
            now, zero = np.array(float(frame.at_us)), np.array(0.0)
            self._ran_at = carried(self._ran_at, rows, now)
            self._since = carried(self._since, rows, now)
            self._pushed, self._run, self._wait = (
                carried(values, rows, zero) for values in (self._pushed, self._run, self._wait)
            )
        gone: NDArray[np.int64] = np.maximum(frame.counters - self._counters, 0)
        self._counters = frame.counters.copy()
        return gone

    def _at_last(self, frame: Frame, waits_us: NDArray[np.float64]) -> list[Starved]:
        limit = self._options.waiting_us
        return [
            Starved(frame.tasks[row].id, f"it waited {waits_us[row] / 1e6:.1f} s for a turn")
            for row in np.flatnonzero(waits_us > limit)
        ]

    def _still(self, frame: Frame, silent: NDArray[np.float64]) -> list[Starved]:
        found = []
        for row in np.flatnonzero(silent > self._options.waiting_us):
            hint = frame.hints[row]
            asked = hint is not None and frame.at_us - hint.at_us <= HINT_STALE_US and (hint.queued or 0) > 0
            if asked or self._pushed[row]:
                because = "has requests" if asked else "was pushed aside"
                found.append(
                    Starved(frame.tasks[row].id, f"it {because} and did not run for {silent[row] / 1e6:.1f} s")
                )
        return found

    def _unfair(self, frame: Frame, lowered: Collection[TaskId]) -> list[Starved]:
        options = self._options
        old = frame.at_us - self._since >= options.fair_us
        grown = np.maximum(1.0 - np.exp(-(frame.at_us - self._since) / options.fair_us), 1e-9)
        run, wants = self._run / grown, (self._run + self._wait) / grown
        hungry = wants > _WANTS
        equal = frame.host.cpus / max(frame.host.runnable, int(hungry.sum()), frame.host.cpus)
        share = options.fair_share * equal
        return [
            Starved(frame.tasks[row].id, f"it got {run[row]:.1%} of a CPU, of an equal share of {equal:.1%}")
            for row in np.flatnonzero(old & hungry & (run < share))
            if frame.tasks[row].id in lowered or weights.of(frame.settings[row]) >= weights.NICE_0
        ]
