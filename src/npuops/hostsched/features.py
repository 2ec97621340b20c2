"""From frames to what policies look at: rates, their recent past, and what the application said.

Pure: the same frames give the same states, bit for bit, whether they come from the kernel, a simulator or a trace.
Time is the frames' own (`at_us`); nothing counts frames, since a loop may be late or change its period.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.hostsched import own_time
from npuops.hostsched.feature_scales import (
    RUNNABLE_PER_CPU,
    TASKS,
    WINDOW_US,
    bursts,
    clipped,
    events,
    late_share,
    of_hint,
    of_setting,
    stillness,
    unsteadiness,
)
from npuops.hostsched.frame import INVOLUNTARY, RUN_NS, TURNS, VOLUNTARY, WAIT_NS, Frame, Host, TaskId

__all__ = [
    "FRAMES",
    "HISTORY",
    "HOST_FEATURES",
    "RATES",
    "TASK_FEATURES",
    "Features",
    "State",
    "pick_tasks",
]

RATES: Final = (
    "run_share",
    "wait_share",
    "turns_per_s",
    "voluntary_per_s",
    "involuntary_per_s",
    "burst_us",
    "served_per_s",
    "missed_per_s",
)
"""Columns of `State.rates`: shares of the window (1 is one CPU), events a second, CPU time for each voluntary switch
(all of the window's where there was none), answers and late answers as hints count them."""

TASK_FEATURES: Final = (
    "run_50ms",
    "run_200ms",
    "run_1s",
    "wait_50ms",
    "wait_1s",
    "voluntary_200ms",
    "involuntary_200ms",
    "burst_200ms",
    "burst_own_20ms",
    "burst_own_200ms",
    "still",
    "unsteady_1s",
    "weight",
    "reserved",
    "kind",
    "slo",
    "urgency",
    "queued",
    "missed_200ms",
)
"""Columns of `State.tasks`. A suffix is the time constant of a decaying mean; shares are as they are, the scales of the
rest are those of `feature_scales.py`. `own` is CPU time of the task itself (`own_time.py`); `still` is the time since
it last left the CPU by itself. `urgency` is 0 when a request still has its whole SLO, 0.5 when it is due, 1 when
it is late by one SLO."""

HISTORY: Final = ("run", "wait", "voluntary", "weight", "queued", "missed")
"""Columns of `State.history`, each over one window, on the scales of `TASK_FEATURES`."""

HOST_FEATURES: Final = (
    "busy_200ms",
    "steal_200ms",
    "pressure_200ms",
    "runnable",
    "managed_run",
    "managed_tasks",
    "reserved",
    "window",
)
"""Columns of `State.host`."""

FRAMES: Final = 8
"""Windows of `State.history`."""

_PER_S: Final = 1e6
_MEANS: Final = (
    ("run_share", 50),
    ("run_share", 200),
    ("run_share", 1000),
    ("wait_share", 50),
    ("wait_share", 1000),
    ("voluntary_per_s", 200),
    ("involuntary_per_s", 200),
    ("served_per_s", 200),
    ("missed_per_s", 200),
    ("voluntary_per_s", 1000),
)
"""Decaying means: of which rate, and the time constant in ms. One more holds the variance of voluntary switches."""
_OF: Final = np.array([RATES.index(name) for name, _ in _MEANS], np.intp)
_TAU_US: Final = np.array([ms * 1000.0 for _, ms in _MEANS] + [1e6])
_RUN_200, _VOLUNTARY_200, _SERVED, _MISSED, _VOLUNTARY_1S, _SPREAD = 1, 5, 7, 8, 9, 10
_HOST_TAU_US: Final = 200_000.0
_BURST_US, _SERVED_RATE, _MISSED_RATE = (
    RATES.index("burst_us"),
    RATES.index("served_per_s"),
    RATES.index("missed_per_s"),
)
_RUN_SHARE: Final = RATES.index("run_share")
_VOLUNTARY_RATE: Final = RATES.index("voluntary_per_s")
_COUNTED: Final = np.array([RUN_NS, WAIT_NS, TURNS, VOLUNTARY, INVOLUNTARY], np.intp)
_UNIT: Final = np.array([1e-3, 1e-3, _PER_S, _PER_S, _PER_S])
"""From a counter's difference by the window in us to the rate."""
_UNKNOWN: Final = -1


@dataclass(frozen=True, slots=True, eq=False)
class State:
    """What a policy looks at.

    Attributes:
        frame: the latest look.
        window_us: since the one before it; 0 for the first.
        rates: float64 of shape (tasks, columns of `RATES`), over that window.
        tasks: float32 of shape (tasks, columns of `TASK_FEATURES`), scaled to about -1 to 1 for a network.
        history: float32 of shape (tasks, `FRAMES`, columns of `HISTORY`), oldest first, zeros before a task was seen.
        host: float32 of shape (columns of `HOST_FEATURES`).
        seen: int32 of shape (tasks): frames in which each was seen, this one included.
    """

    frame: Frame
    window_us: int
    rates: NDArray[np.float64]
    tasks: NDArray[np.float32]
    history: NDArray[np.float32]
    host: NDArray[np.float32]
    seen: NDArray[np.int32]


class Features:
    """Turns frames into states, remembering what decaying means and the history need.

    All columns are finite and within -1 to 1, whatever the counters do: one that goes back (another task under the
    same number, a client that began anew) counts as no progress in that window, and so does a window of no length.
    """

    def __init__(self) -> None:
        """Nothing seen yet."""
        self._last: Frame | None = None
        self._rows: dict[TaskId, int] = {}
        self._memory = _Memory.of(0)
        self._host_means = np.zeros(3)
        self._host_known = False
        self._set = np.zeros((0, 2))

    def update(self, frame: Frame) -> State:
        """The state after one more look."""
        last, self._last = self._last, frame
        window_us = max(frame.at_us - last.at_us, 0) if last is not None else 0
        if last is None or frame.tasks is not last.tasks:
            self._follow(frame)
        memory = self._memory
        told = _told(frame)
        if last is None or not _set_alike(frame, last):
            self._set = _set_columns(frame)
        rates = memory.rates(frame, told, window_us)
        memory.learn(rates, window_us)
        columns = _task_columns(told, self._set, memory)
        memory.remember(_moment(rates, columns), window_us)
        host = self._host(frame, last, window_us, rates, columns)
        return State(frame, window_us, rates, columns, memory.history.copy(), host, memory.seen.copy())

    def _follow(self, frame: Frame) -> None:
        """Keep the rows of the tasks that stay, in the new order."""
        rows = np.array([self._rows.get(task.id, _UNKNOWN) for task in frame.tasks], np.intp)
        self._memory = self._memory.taken(rows)
        self._rows = {task.id: row for row, task in enumerate(frame.tasks)}

    def _host(
        self,
        frame: Frame,
        last: Frame | None,
        window_us: int,
        rates: NDArray[np.float64],
        columns: NDArray[np.float32],
    ) -> NDArray[np.float32]:
        host, cpus = frame.host, max(frame.host.cpus, 1)
        if last is not None and window_us > 0:
            now = _host_rates(host, last.host, window_us)
            part = -np.expm1(-window_us / _HOST_TAU_US) if self._host_known else 1.0
            self._host_means += part * (now - self._host_means)
            self._host_known = True
        found = np.array(
            [
                *self._host_means.tolist(),
                host.runnable / cpus / RUNNABLE_PER_CPU,
                float(rates[:, 0].sum()) / cpus,
                len(frame.tasks) / TASKS,
                float(columns[:, TASK_FEATURES.index("reserved")].sum()) / cpus,
                math.log10(window_us / WINDOW_US) if window_us else 0.0,
            ]
        )
        return clipped(found)


@dataclass(slots=True)
class _Memory:
    """What is remembered of each task; the rows are those of the latest frame."""

    counters: NDArray[np.int64]
    told: NDArray[np.int64]
    means: NDArray[np.float64]
    own: NDArray[np.float64]
    history: NDArray[np.float32]
    seen: NDArray[np.int32]
    measured: NDArray[np.bool_]

    @classmethod
    def of(cls, tasks: int) -> _Memory:
        return cls(
            counters=np.zeros((tasks, len(_COUNTED)), np.int64),
            told=np.full((tasks, 2), _UNKNOWN, np.int64),
            means=np.zeros((tasks, len(_TAU_US))),
            own=own_time.blank(tasks),
            history=np.zeros((tasks, FRAMES, len(HISTORY)), np.float32),
            seen=np.zeros(tasks, np.int32),
            measured=np.zeros(tasks, np.bool_),
        )

    def taken(self, rows: NDArray[np.intp]) -> _Memory:
        """These rows, a blank one for each `_UNKNOWN`."""
        found = _Memory.of(len(rows))
        new = np.flatnonzero(rows != _UNKNOWN)
        old = rows[new]
        for name in ("counters", "told", "means", "own", "history", "seen", "measured"):
            getattr(found, name)[new] = getattr(self, name)[old]
        return found

    def rates(self, frame: Frame, told: _Told, window_us: int) -> NDArray[np.float64]:
        """Over this window; zeros for a task that was not seen before it."""
        rates = np.zeros((len(frame.tasks), len(RATES)))
        if window_us > 0:
            seen = (self.seen > 0)[:, None]
            steps = np.where(seen, np.maximum(frame.counters - self.counters, 0), 0)
            rates[:, :5] = steps[:, _COUNTED] * (_UNIT / window_us)
            rates[:, _BURST_US] = steps[:, RUN_NS] * 1e-3 / np.maximum(steps[:, VOLUNTARY], 1)
            answers = np.maximum(told.answers - self.told, 0) * ((self.told >= 0) & (told.answers >= 0))
            rates[:, _SERVED_RATE : _MISSED_RATE + 1] = answers * (_PER_S / window_us)
        self.counters, self.told = frame.counters, told.answers
        self.seen = self.seen + np.int32(1)
        return rates

    def learn(self, rates: NDArray[np.float64], window_us: int) -> None:
        """Bring the decaying means forward; a task's first window is its mean so far."""
        if window_us <= 0:
            return
        ready = self.seen > 1
        part = np.where(self.measured[:, None], -np.expm1(-window_us / _TAU_US), 1.0) * ready[:, None]
        now = np.empty((len(rates), len(_TAU_US)))
        now[:, :-1] = rates[:, _OF]
        # Variance of the switches in a window, by their mean: the first window has none, so it is begun at zero.
        distance = (rates[:, _VOLUNTARY_RATE] - self.means[:, _VOLUNTARY_1S]) * (window_us / _PER_S)
        now[:, _SPREAD] = np.where(self.measured, distance * distance / (window_us / _PER_S), 0.0)
        self.means += part * (now - self.means)
        ran_us, sleeps = rates[:, _RUN_SHARE] * window_us, rates[:, _VOLUNTARY_RATE] * (window_us / _PER_S)
        own_time.learn(self.own, ran_us, sleeps, window_us)
        self.measured = self.measured | ready

    def remember(self, moment: NDArray[np.float32], window_us: int) -> None:
        """One window more in the history."""
        if window_us <= 0:
            return
        self.history[:, :-1] = self.history[:, 1:]
        self.history[:, -1] = np.where((self.seen > 1)[:, None], moment, np.float32(0))


@dataclass(slots=True)
class _Told:
    """What hints say, by row: int64 (tasks, 2) of served and missed, and float64 (tasks, 4) of scaled columns."""

    answers: NDArray[np.int64]
    columns: NDArray[np.float64]


def _told(frame: Frame) -> _Told:
    answers = np.full((len(frame.tasks), 2), _UNKNOWN, np.int64)
    columns = np.zeros((len(frame.tasks), 4))
    for row, hint in enumerate(frame.hints):
        if hint is not None:
            answers[row] = (hint.served, hint.missed)
            columns[row] = of_hint(hint)
    return _Told(answers, columns)


def _set_alike(one: Frame, other: Frame) -> bool:
    """By identity, which is cheap: nothing is lost if what is equal is computed again."""
    return one.settings is other.settings and one.group_nices is other.group_nices and one.tasks is other.tasks


def _set_columns(frame: Frame) -> NDArray[np.float64]:
    """Weight and reservation of each task."""
    rows = [
        of_setting(setting, frame.group_nices.get(task.group, 0) if task.group is not None else 0)
        for task, setting in zip(frame.tasks, frame.settings, strict=True)
    ]
    return np.array(rows, float).reshape(-1, 2)


def _task_columns(told: _Told, settings: NDArray[np.float64], memory: _Memory) -> NDArray[np.float32]:
    means = memory.means
    bursts_us = means[:, _RUN_200] * _PER_S / np.maximum(means[:, _VOLUNTARY_200], 1.0)
    found = np.empty((len(means), len(TASK_FEATURES)))
    found[:, :5] = means[:, :5]
    found[:, 5:7] = events(means[:, 5:7])
    found[:, 7] = bursts(bursts_us)
    found[:, 8:10] = bursts(own_time.bursts_us(memory.own))
    found[:, 10] = stillness(own_time.still_us(memory.own))
    found[:, 11] = unsteadiness(means[:, _SPREAD], means[:, _VOLUNTARY_1S])
    found[:, 12:14] = settings
    found[:, 14:18] = told.columns
    found[:, 18] = late_share(means[:, _MISSED], means[:, _SERVED])
    return clipped(found)


def _moment(rates: NDArray[np.float64], columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """Columns of `HISTORY` over the window itself."""
    found = np.empty((len(rates), len(HISTORY)))
    found[:, :2] = rates[:, :2]
    found[:, 2] = events(rates[:, _VOLUNTARY_RATE])
    found[:, 3] = columns[:, TASK_FEATURES.index("weight")]
    found[:, 4] = columns[:, TASK_FEATURES.index("queued")]
    found[:, 5] = late_share(rates[:, _MISSED_RATE], rates[:, _SERVED_RATE])
    return clipped(found)


def _host_rates(now: Host, last: Host, window_us: int) -> NDArray[np.float64]:
    """Busy and stolen, as shares of all CPUs; time in which somebody waited, as a share of the window."""
    cpus = max(now.cpus, 1)
    pressure_us = 0 if now.pressure_us is None or last.pressure_us is None else now.pressure_us - last.pressure_us
    steps = ((now.busy_us - last.busy_us) / cpus, (now.steal_us - last.steal_us) / cpus, pressure_us)
    return np.maximum(np.array(steps, float), 0.0) / window_us


def pick_tasks(state: State, most: int) -> NDArray[np.intp]:
    """Rows of the tasks that matter most, at most so many, rising: for a network of a fixed number of rows.

    Those of which an application spoke come first, then those that use or wait for a CPU; ties by `TaskId`, so that
    the order of the rows changes nothing.
    """
    count = len(state.frame.tasks)
    if count <= most:
        return np.arange(count, dtype=np.intp)
    hinted = np.array([hint is not None for hint in state.frame.hints])
    wanted = state.tasks[:, [TASK_FEATURES.index(name) for name in ("run_200ms", "run_1s", "wait_50ms", "wait_1s")]]
    ids = np.array([(task.id.tid, task.id.start_ticks) for task in state.frame.tasks], np.int64)
    order = np.lexsort((ids[:, 1], ids[:, 0], -wanted.sum(axis=1), ~hinted))
    return np.sort(order[: max(most, 0)]).astype(np.intp)
