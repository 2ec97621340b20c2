"""Weights without training: every layer matters, and JAX is not needed."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from npuops.hostsched.scorer_network import NetworkShape


def noisy_weights(shape: NetworkShape, seed: int) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(seed)
    return {
        name: (random.standard_normal(size) * (0.3 if len(size) == 1 else np.sqrt(1.5 / size[0]))).astype(np.float32)
        for name, size in shape.weights().items()
    }
