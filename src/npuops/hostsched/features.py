"""From frames to what policies look at: rates, their recent past, and what the application said."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npuops.hostsched.frame import Frame


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
