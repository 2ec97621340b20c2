"""The scorer's network in JAX: fresh weights, and many states at once."""

from __future__ import annotations

from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import NDArray

from npuops.hostsched.scorer_network import NetworkShape, Weights, forward


def fresh_weights(shape: NetworkShape, seed: int) -> dict[str, NDArray[np.float32]]:
    """Weights before training: normal with He's variance for ReLU, biases zero.

    The last layers begin small, so that training begins near "every candidate is the same".
    """
    random = np.random.default_rng(seed)
    found: dict[str, NDArray[np.float32]] = {}
    for name, size in shape.weights().items():
        if len(size) == 1:
            found[name] = np.zeros(size, np.float32)
            continue
        inputs = 1 if name == "level" else size[0]
        scale = np.sqrt(2.0 / inputs) * (0.1 if name in ("faces", "switches", "waits") else 1.0)
        found[name] = (random.standard_normal(size) * scale).astype(np.float32)
    return found


@partial(jax.vmap, in_axes=(None, 0, 0, 0, 0))
def forward_many(weights: Weights, tasks: Any, history: Any, host: Any, levels: Any) -> tuple[Any, Any, Any]:
    """`forward` for many states, all slots as rows; every array has a leading axis of states."""
    return forward(weights, tasks, history, host, levels, jnp.ones(tasks.shape[0]), xp=jnp)
