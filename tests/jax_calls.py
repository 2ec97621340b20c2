"""What tests ask of JAX, in a process of its own: one in which JAX has run must not fork, and other tests do."""

from __future__ import annotations

from typing import Any

import numpy as np

from npuops.hostsched.scorer_network import Weights
from npuops.schedlab.fit import _PARTS, FitOptions, _worth, fit
from npuops.schedlab.network import forward_many
from npuops.schedlab.samples import Samples


def fits_of(many: list[tuple[Samples, FitOptions]]) -> list[Any]:
    return [fit(samples, options).weights for samples, options in many]


def worths(samples: Samples) -> np.ndarray:
    given = {name: getattr(samples, name) for name in _PARTS}
    return np.asarray(_worth(samples.miss, samples.progress, given))


def forwards(weights: Weights, samples: Samples) -> list[np.ndarray]:
    levels = samples.levels.astype(np.int32)
    return [np.asarray(part) for part in forward_many(weights, samples.tasks, samples.history, samples.host, levels)]
