"""What a classifier's scores say: probabilities, and the best classes."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def softmax(scores: NDArray[Any]) -> NDArray[np.float32]:
    """exp(score) / Σ exp, over the last axis.

    Computed in float64, and the largest is taken off first, so that nothing overflows. A row that holds NaN, or no
    finite value, becomes NaN.
    """
    wide = np.asarray(scores, dtype=np.float64)
    with np.errstate(invalid="ignore"):
        raised = np.exp(wide - wide.max(axis=-1, keepdims=True, initial=-np.inf))
        return np.asarray(raised / raised.sum(axis=-1, keepdims=True), dtype=np.float32)


def top_k(scores: NDArray[Any], k: int) -> NDArray[np.int64]:
    """Classes of the `k` largest values of each row, best first.

    Of equal scores the lower class comes first, on every machine; NaN comes last.

    Args:
        scores: [rows, classes].
        k: at most the classes.

    Returns:
        [rows, k].
    """
    # Of unsigned integers the negative would wrap around.
    wide = np.asarray(scores, dtype=np.float64)
    return np.argsort(-wide, axis=-1, kind="stable")[:, :k]
