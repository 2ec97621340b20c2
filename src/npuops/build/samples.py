"""Inputs for calibration and evaluation: one entry is one inference, in the model's names, shapes and dtypes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A set of inputs, and labels where the source has them."""

    inputs: tuple[dict[str, NDArray[Any]], ...]
    labels: NDArray[np.int64] | None = None
    """Shape [len(inputs)]: the right class of each sample."""
    source: str
    """Where they came from, for messages and the manifest."""
    digest: str
    """`sha256:…` over names, dtypes, shapes and bytes, in order."""

    def __len__(self) -> int:
        return len(self.inputs)
