"""How long a task works between two sleeps, remembered by its own CPU time: a memory that does not fade in a queue.

A task that starves looks like one that computes, for it never sleeps. Means over wall time forget within a second what
it was before; a mean over its own CPU time forgets only as fast as it gets to work.
"""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

TAUS_US: Final = np.array([20_000.0, 200_000.0])
"""CPU time of its own after which a task's past counts for a third."""
_LEAST_SLEEPS: Final = 0.05
"""Fewer than that count as so many: a burst is at most twenty times the memory's length."""
_FIELDS: Final = 5
_RUN, _SLEEPS, _STILL = slice(0, 2), slice(2, 4), 4


def blank(tasks: int) -> NDArray[np.float64]:
    """Memory of tasks that were not seen yet, float64 of shape (tasks, 5)."""
    return np.zeros((tasks, _FIELDS))


def learn(
    memory: NDArray[np.float64], ran_us: NDArray[np.float64], sleeps: NDArray[np.float64], window_us: int
) -> None:
    """Bring it forward by a window, in place.

    Args:
        memory: of `blank`.
        ran_us: CPU time of each task in the window.
        sleeps: how often it left the CPU by itself in it.
        window_us: length of the window.
    """
    kept = np.exp(-ran_us[:, None] / TAUS_US)
    memory[:, _RUN] = memory[:, _RUN] * kept + ran_us[:, None]
    memory[:, _SLEEPS] = memory[:, _SLEEPS] * kept + sleeps[:, None]
    memory[:, _STILL] = np.where(sleeps > 0, 0.0, memory[:, _STILL] + window_us)


def bursts_us(memory: NDArray[np.float64]) -> NDArray[np.float64]:
    """CPU time for each sleep, float64 of shape (tasks, 2): one column for each of `TAUS_US`."""
    found: NDArray[np.float64] = memory[:, _RUN] / np.maximum(memory[:, _SLEEPS], _LEAST_SLEEPS)
    return found


def still_us(memory: NDArray[np.float64]) -> NDArray[np.float64]:
    """Since the last window in which it left the CPU by itself, float64 of shape (tasks)."""
    found: NDArray[np.float64] = memory[:, _STILL]
    return found
