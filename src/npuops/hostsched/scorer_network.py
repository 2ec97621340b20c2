"""The scorer's network: what each task would get under each candidate, by the levels of all.

One definition for NumPy (the agent) and JAX (training): `forward` takes the array module. The ONNX file that an NPU
runs is the same sums in another layout (`schedlab/export_onnx.py`), and a test holds the two together.

What a task does alone with a level does not depend on the other tasks' levels, so it is computed once for each pair
of task and level; a candidate only picks its rows, pools them, and pays one hidden layer of its own.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError

Weights = Mapping[str, Any]
"""Name → array, as `NetworkShape.layers` lists them; NumPy or JAX."""

ABSENT: Final = -1
"""Level of a row where no task is."""

FACES: Final = 2
"""Of a candidate, for each task: logit of the share of missed answers, progress relative to the default setting."""
SPAN: Final = 2
"""Frames that one step of the TCN joins, without overlap."""
_ONE_THREAD: Final = 4 * 65536
"""Multiplications in one product: OpenBLAS' GEMM_MULTITHREAD_THRESHOLD times its SMP_THRESHOLD_MIN."""


@dataclass(frozen=True, slots=True, kw_only=True)
class NetworkShape:
    """Sizes of the network; the weights of a policy fit one of these only.

    Attributes:
        slots: rows for tasks, a power of two; those that no task takes are zero.
        features: columns of a task, the mask (1: a task is here) included.
        frames: of history; a power of two.
        history: columns of a frame.
        host: columns of the host.
        levels: that a task may have.
        embed: width of what is computed once for a state.
        width: of what is computed for each candidate.
    """

    slots: int = 16
    features: int
    frames: int
    history: int
    host: int
    levels: int
    embed: int = 64
    width: int = 32

    def __post_init__(self) -> None:
        """Refuse what no network can be.

        Raises:
            DataError: a size below 1, or slots or frames that cannot be halved down to one.
        """
        if min(self.slots, self.features, self.history, self.host, self.levels, self.embed, self.width) < 1:
            raise DataError(f"a network with a size below 1: {self}")
        if self.frames < SPAN or self.frames & (self.frames - 1):
            raise DataError(f"{self.frames} frames of history: the TCN halves them, so it takes 2, 4, 8, 16 …")
        if self.slots & (self.slots - 1):
            raise DataError(f"{self.slots} slots: they are pooled by halves, so it takes 1, 2, 4, 8, 16 …")

    @property
    def steps(self) -> int:
        """Layers of the TCN."""
        return self.frames.bit_length() - 1

    def layers(self) -> dict[str, tuple[int, int]]:
        """Matrices by name: rows in, columns out. Each has a bias `NAME.b` besides, but `level`, a table."""
        embed, width = self.embed, self.width
        past = [self.history] + [min(embed, 32 * (step + 1)) for step in range(self.steps - 1)] + [embed]
        found = {f"tcn{step}": (SPAN * past[step], past[step + 1]) for step in range(self.steps)}
        return found | {
            "task": (self.features + embed, embed),
            "task2": (embed, embed),
            "host": (2 * embed + self.host, embed),
            "task3": (embed, embed),
            "waits": (embed, 1),
            "first": (embed, width),
            "level": (self.levels, width),
            "second": (width, width),
            "crowd": (2 * width, width),
            "own": (width, width),
            "third": (width, width),
            "faces": (width, FACES),
            "switches": (width, 1),
        }

    def weights(self) -> dict[str, tuple[int, ...]]:
        """Shapes of all arrays by name."""
        found: dict[str, tuple[int, ...]] = {}
        for name, shape in self.layers().items():
            found[name] = shape
            if name != "level":
                found[f"{name}.b"] = shape[1:]
        return found

    @property
    def parameters(self) -> int:
        """Numbers in all arrays."""
        return sum(int(np.prod(shape)) for shape in self.weights().values())

    def check(self, weights: Weights) -> None:
        """Refuse weights of another network.

        Raises:
            DataError: an array is missing, too much, of another shape or dtype, or not finite.
        """
        wanted = self.weights()
        if set(weights) != set(wanted):
            odd = ", ".join(sorted(set(weights) ^ set(wanted)))
            raise DataError(f"these weights are of another network: {odd} missing or unknown")
        for name, shape in wanted.items():
            if weights[name].dtype != np.float32:
                raise DataError(f"weight {name} is {weights[name].dtype}, not float32")
            if tuple(weights[name].shape) != shape:
                raise DataError(f"weight {name} has shape {tuple(weights[name].shape)}, the network has {shape}")
            if not np.isfinite(weights[name]).all():
                raise DataError(f"weight {name} holds a number that is not finite")


def forward(
    weights: Weights,
    tasks: Any,
    history: Any,
    host: Any,
    levels: Any,
    repeats: Any,
    xp: Any = np,
) -> tuple[Any, Any, Any]:
    """What is expected of each candidate.

    Rows may be fewer than the network's slots: equal rows give equal results, so the empty ones are computed once and
    count `repeats` times.

    Args:
        weights: of `NetworkShape.weights`.
        tasks: float32 (rows, features), the mask first.
        history: float32 (rows, frames, columns), oldest first.
        host: float32 (columns).
        levels: integers (candidates, rows), `ABSENT` where no task is.
        repeats: float32 (rows): how many slots each row stands for; their sum is the number of slots.
        xp: `numpy` or `jax.numpy`.

    Returns:
        faces: float32 (candidates, rows, 2): logit of the miss share, and progress.
        waits: float32 (rows): logit that somebody waits for this task's answers.
        switches: float32 (candidates): log2 of context switches relative to the default setting.
    """
    alone, waits = _alone(weights, tasks, history, host, repeats, xp)
    rows = xp.arange(tasks.shape[0])
    picked = alone[rows, levels]  # (candidates, rows, width); the last entry of a row is `ABSENT`
    share = (repeats / repeats.sum())[:, None]
    crowd = xp.concatenate([(picked * share).sum(axis=1), picked.max(axis=1)], axis=1)
    crowd = _relu(_dense(weights, "crowd", crowd), xp)
    own = _dense(weights, "own", alone)[rows, levels]
    hidden = _relu(own + crowd[:, None, :], xp)
    hidden = _relu(_dense(weights, "third", hidden), xp)
    return _dense(weights, "faces", hidden), waits, _dense(weights, "switches", crowd)[:, 0]


def _alone(weights: Weights, tasks: Any, history: Any, host: Any, repeats: Any, xp: Any) -> tuple[Any, Any]:
    """Each task with each level, as if it were alone: (rows, levels + 1, width); and who waits, (rows)."""
    rows = tasks.shape[0]
    past, step = history, 0
    while f"tcn{step}" in weights:
        past = past.reshape(rows, past.shape[1] // SPAN, SPAN * past.shape[2])
        past = _relu(_dense(weights, f"tcn{step}", past), xp)
        step += 1
    embedded = _relu(_dense(weights, "task", xp.concatenate([tasks, past[:, 0]], axis=1)), xp)
    embedded = _relu(_dense(weights, "task2", embedded), xp)
    share = (repeats / repeats.sum())[:, None]
    pooled = xp.concatenate([(embedded * share).sum(axis=0), embedded.max(axis=0), host])
    context = _relu(_dense(weights, "host", pooled), xp)
    embedded = _relu(_dense(weights, "task3", embedded) + context, xp)
    table = xp.concatenate([weights["level"], xp.zeros_like(weights["level"][:1])])
    alone = _relu(_dense(weights, "first", embedded)[:, None, :] + table[None], xp)
    return _relu(_dense(weights, "second", alone), xp), _dense(weights, "waits", embedded)[:, 0]


def _dense(weights: Weights, name: str, given: Any) -> Any:
    return _product(given, weights[name]) + weights[f"{name}.b"]


def _product(given: Any, matrix: Any) -> Any:
    """`given @ matrix`. For NumPy in pieces that OpenBLAS computes in this thread.

    Larger ones it shares among a pool whose threads spin for milliseconds, on the very CPUs that the policy should
    leave to others; and a stack of small matrices takes twice as long as the same numbers in one.
    """
    if not isinstance(given, np.ndarray) or given.ndim < 2:
        return given @ matrix
    flat = given.reshape(-1, given.shape[-1])
    rows = max(_ONE_THREAD // matrix.size, 1)
    found = np.empty((len(flat), matrix.shape[1]), np.result_type(given, matrix))
    for begin in range(0, len(flat), rows):
        np.matmul(flat[begin : begin + rows], matrix, out=found[begin : begin + rows])
    return found.reshape(*given.shape[:-1], matrix.shape[1])


def _relu(given: Any, xp: Any) -> Any:
    return xp.maximum(given, 0)


def rows_of(count: int, slots: int) -> NDArray[np.float32]:
    """`repeats` for `count` tasks: a row for each, and one that stands for all empty slots if there are any."""
    found = np.ones(min(count + 1, slots), np.float32)
    if count < slots:
        found[-1] = slots - count
    return found
