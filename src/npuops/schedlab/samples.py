"""What the scorer is trained on: states, candidates, and what came of each in the simulator.

One row is a state of one mix, with the same number of candidates in every row. All candidates of a row were rolled
out from the same instant with the same arrivals (common random numbers), so their differences are theirs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError
from npuops.hostsched.scorer_network import ABSENT, NetworkShape

Floats = NDArray[np.float32]

_DTYPES: Final = {"levels": np.dtype(np.int8), "mix": np.dtype(np.int32)}
_FLOAT: Final = np.dtype(np.float32)


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class Samples:
    """Arrays; S states, K candidates each, 16 slots for tasks (`NetworkShape.slots`).

    Weights say how much a number counts: 0 where it is unknown or means nothing, such as the miss share of a task
    that was asked nothing. A slot without a task is 0 everywhere, `ABSENT` in `levels`, and has no weight.

    Attributes:
        tasks: float32 (S, slots, features): mask (1: a task is here), then the columns of `TASK_FEATURES`,
            then what the rule would do.
        history: float32 (S, slots, frames, columns of `HISTORY`), oldest first.
        host: float32 (S, columns of `HOST_FEATURES`).
        levels: int8 (S, K, slots): index into `LEVELS`. Candidate 0 is the default: everything `NORMAL`.
        miss: float32 (S, K, slots): requests that were or stay late (`Consequence.miss`), 0 to 1.
        miss_weight: float32 (S, K, slots): above 0 for tasks that had requests; 1, or more for more requests.
        progress: float32 (S, K, slots): work done / work done with candidate 0 from the same instant; cut at 4.
        progress_weight: float32 (S, K, slots): above 0 for tasks without an SLO that had something to do.
        waits: float32 (S, slots): 1 if somebody waits for this task's answers, else 0.
        waits_weight: float32 (S, slots).
        switches: float32 (S, K): log2 of context switches / those of candidate 0.
        mix: int32 (S): which mix the state is of; training and validation never share one.
    """

    tasks: Floats
    history: Floats
    host: Floats
    levels: NDArray[np.int8]
    miss: Floats
    miss_weight: Floats
    progress: Floats
    progress_weight: Floats
    waits: Floats
    waits_weight: Floats
    switches: Floats
    mix: NDArray[np.int32]

    def __len__(self) -> int:
        return len(self.mix)

    @property
    def candidates(self) -> int:
        """For each state."""
        return int(self.levels.shape[1])

    def __post_init__(self) -> None:
        """Refuse arrays that contradict each other.

        Raises:
            DataError: shapes, dtypes, numbers that are not finite, or out of their range.
        """
        for field in fields(self):
            array = getattr(self, field.name)
            wanted = _DTYPES.get(field.name, _FLOAT)
            if array.dtype != wanted:
                raise DataError(f"samples: {field.name} is {array.dtype}, not {wanted}")
            if wanted == _FLOAT and not np.isfinite(array).all():
                raise DataError(f"samples: {field.name} holds a number that is not finite")
        self._check_shapes()
        self._check_ranges()

    def _check_shapes(self) -> None:
        if self.tasks.ndim != 3 or self.history.ndim != 4 or self.host.ndim != 2 or self.levels.ndim != 3:
            raise DataError("samples: tasks, history, host and levels have 3, 4, 2 and 3 axes")
        states, candidates, slots = self.levels.shape
        each, one = (states, candidates, slots), (states, slots)
        wanted: dict[str, tuple[int, ...]] = {
            "tasks": (*one, self.tasks.shape[2]),
            "history": (*one, *self.history.shape[2:]),
            "host": (states, self.host.shape[1]),
            **dict.fromkeys(("miss", "miss_weight", "progress", "progress_weight"), each),
            **dict.fromkeys(("waits", "waits_weight"), one),
            "switches": (states, candidates),
            "mix": (states,),
        }
        for name, shape in wanted.items():
            if getattr(self, name).shape != shape:
                raise DataError(f"samples: {name} has the shape {getattr(self, name).shape}, not {shape}")
        if not states or not candidates:
            raise DataError("samples: there are none")

    def _check_ranges(self) -> None:
        empty = self.tasks[:, :, 0] == 0
        if not np.isin(self.tasks[:, :, 0], (0, 1)).all() or (self.levels < ABSENT).any():
            raise DataError("samples: the mask is not 0 or 1, or a level is below -1")
        if ((self.levels == ABSENT) != empty[:, None, :]).any():
            raise DataError("samples: levels are -1 where no task is, and only there")
        if self.tasks[empty].any() or self.history[empty].any():
            raise DataError("samples: a slot without a task has features")
        for name in ("miss_weight", "progress_weight", "waits_weight"):
            weights = getattr(self, name)
            nowhere = np.broadcast_to(empty if weights.ndim == 2 else empty[:, None, :], weights.shape)
            if (weights < 0).any() or weights[nowhere].any():
                raise DataError(f"samples: {name} is negative, or counts a slot without a task")
        for name, most in (("miss", 1.0), ("waits", 1.0), ("progress", 4.0)):
            array = getattr(self, name)
            if (array < 0).any() or (array > most).any():
                raise DataError(f"samples: {name} is not within 0 to {most}")

    def check(self, shape: NetworkShape) -> None:
        """Refuse samples for another network.

        Raises:
            DataError: other sizes, or a level that it does not have.
        """
        found = (*self.tasks.shape[1:], *self.history.shape[2:], self.host.shape[1])
        wanted = (shape.slots, shape.features, shape.frames, shape.history, shape.host)
        if found != wanted or self.levels.max() >= shape.levels:
            raise DataError(f"samples of sizes {found}, levels to {self.levels.max()}, do not fit the network: {shape}")

    def rows(self, which: NDArray[Any]) -> Samples:
        """Some states, by index or mask."""
        return Samples(**{field.name: getattr(self, field.name)[which] for field in fields(self)})

    @property
    def digest(self) -> str:
        """`sha256:…` over all arrays."""
        found = hashlib.sha256()
        for field in fields(self):
            array = np.ascontiguousarray(getattr(self, field.name))
            found.update(f"{field.name}\0{array.dtype.str}\0{array.shape}\0".encode())
            found.update(array.tobytes())
        return f"sha256:{found.hexdigest()}"


def join(parts: Sequence[Samples]) -> Samples:
    """Several sets as one. The caller sees to it that mixes have numbers of their own.

    Raises:
        DataError: none, or they differ in the number of candidates or in their columns.
    """
    if not parts:
        raise DataError("no samples to join")
    try:
        return Samples(
            **{field.name: np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(Samples)}
        )
    except ValueError as error:
        raise DataError(f"samples of different shapes cannot be joined: {error}") from error
