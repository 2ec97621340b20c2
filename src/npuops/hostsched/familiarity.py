"""Whether a network saw the like of this in training: far outside of it, its forecasts mean nothing."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npuops.errors import OptionError
from npuops.hostsched.features import HOST_FEATURES, TASK_FEATURES, State
from npuops.hostsched.frame import TaskId

LEAST_WIDTH = 0.05
"""Of a feature that hardly moved in training; features are scaled to about -1 to 1."""


@dataclass(frozen=True, slots=True, eq=False)
class Ranges:
    """What each feature was in training; float arrays of shape (columns of `TASK_FEATURES`, then `HOST_FEATURES`).

    Attributes:
        low: the least.
        high: the most.
        q05: five of a hundred were below.
        q95: five of a hundred were above.
    """

    low: NDArray[np.float32]
    high: NDArray[np.float32]
    q05: NDArray[np.float32]
    q95: NDArray[np.float32]

    def __post_init__(self) -> None:
        """Refuse ranges of other features than ours.

        Raises:
            OptionError: a shape or an order that cannot be.
        """
        wanted = (len(TASK_FEATURES) + len(HOST_FEATURES),)
        for name in ("low", "high", "q05", "q95"):
            values = getattr(self, name)
            if values.shape != wanted or not np.isfinite(values).all():
                raise OptionError(f"the range {name} has shape {values.shape} or holds no numbers: {wanted} is needed")
        if (self.low > self.high).any() or (self.q05 > self.q95).any():
            raise OptionError("a range of features ends before it begins")


@dataclass(frozen=True, slots=True)
class Strange:
    """The feature that is farthest from what training saw.

    Attributes:
        feature: its name.
        task: whose; None for the host's.
        value: as it is.
        distance: beyond the range, in widths of the middle 90 %; 0 within it.
    """

    feature: str
    task: TaskId | None
    value: float
    distance: float


def ranges_of(tasks: NDArray[np.float32], hosts: NDArray[np.float32]) -> Ranges:
    """From training data: rows of `State.tasks` and of `State.host`, at least one of each.

    Raises:
        OptionError: no rows, or no such columns.
    """
    if not len(tasks) or not len(hosts):
        raise OptionError("ranges of features need at least one row of tasks and one of hosts")
    parts = [np.concatenate([f(tasks), f(hosts)]).astype(np.float32) for f in (_least, _most, _low, _high)]
    return Ranges(*parts)


def strangest(state: State, ranges: Ranges) -> Strange:
    """The feature farthest out; of all tasks and the host."""
    rows = np.concatenate([state.tasks.reshape(-1), state.host])
    split, count = len(TASK_FEATURES), len(state.frame.tasks)
    low, high = _spread(ranges.low, split, count), _spread(ranges.high, split, count)
    width = np.maximum(_spread(ranges.q95, split, count) - _spread(ranges.q05, split, count), LEAST_WIDTH)
    beyond = np.maximum(np.maximum(low - rows, rows - high), 0.0) / width
    beyond = np.where(np.isfinite(rows), beyond, np.inf)
    worst = int(np.argmax(beyond))
    task, column = divmod(worst, split)
    if task < count:
        return Strange(TASK_FEATURES[column], state.frame.tasks[task].id, float(rows[worst]), float(beyond[worst]))
    name = HOST_FEATURES[worst - count * split]
    return Strange(name, None, float(rows[worst]), float(beyond[worst]))


def _spread(values: NDArray[np.float32], split: int, count: int) -> NDArray[np.float32]:
    return np.concatenate([np.tile(values[:split], count), values[split:]])


def _least(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = rows.min(axis=0)
    return found


def _most(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    found: NDArray[np.float32] = rows.max(axis=0)
    return found


def _low(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.quantile(rows, 0.05, axis=0), np.float32)


def _high(rows: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(np.quantile(rows, 0.95, axis=0), np.float32)
