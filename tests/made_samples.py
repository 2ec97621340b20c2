"""Samples of a made-up world whose laws are known: CPU time is shared by weight, and who gets too little means misses.

Everything that the laws use is in the features, so a network can learn them exactly; no sum over the features can,
since a share is a ratio.
"""

from __future__ import annotations

import numpy as np

from npuops.hostsched.features import TASK_FEATURES
from npuops.hostsched.levels import LEVELS
from npuops.hostsched.scorer import SHAPE
from npuops.schedlab.samples import Samples

RUN, WEIGHT, KIND = (1 + TASK_FEATURES.index(name) for name in ("run_200ms", "weight", "kind"))
LEVEL_WEIGHTS = np.array([1.0, 0.1, 0.02, 8.0, 2.0, 4.0])
"""Of normal, demote, idle, boost and the two reservations, in this world."""


def made_samples(states: int = 400, candidates: int = 16, mixes: int = 20, seed: int = 0) -> Samples:
    """Candidate 0 of each state is the default; the same seed gives the same samples."""
    random = np.random.default_rng(seed)
    slots, shape = SHAPE.slots, SHAPE
    count = random.integers(2, 9, states)
    here = np.arange(slots)[None] < count[:, None]
    tasks = np.zeros((states, slots, shape.features), np.float32)
    tasks[:, :, 0] = here
    need = np.where(here, random.uniform(0.1, 0.9, here.shape), 0)
    serves = here & ((random.random(here.shape) < 0.4) | (np.arange(slots) == 0))
    tasks[:, :, RUN] = need
    tasks[:, :, KIND] = np.where(here, np.where(serves, 1.0, -0.5), 0)
    history = np.zeros((states, slots, shape.frames, shape.history), np.float32)
    history[..., 0] = need[:, :, None] * random.uniform(0.8, 1.2, (states, slots, shape.frames))
    levels = random.integers(0, len(LEVELS), (states, candidates, slots))
    levels[:, 0] = 0
    levels = np.where(here[:, None], levels, -1).astype(np.int8)
    got = shared(need, levels)
    lack = np.clip(1 - got / np.maximum(need, 1e-9)[:, None], 0, 1)
    return Samples(
        tasks=tasks,
        history=(history * here[:, :, None, None]).astype(np.float32),
        host=random.uniform(0, 1, (states, shape.host)).astype(np.float32),
        levels=levels,
        miss=(lack * serves[:, None]).astype(np.float32),
        miss_weight=np.broadcast_to(serves[:, None], lack.shape).astype(np.float32),
        progress=np.where((here & ~serves)[:, None], np.minimum(got / np.maximum(got[:, :1], 1e-9), 4), 0).astype("f4"),
        progress_weight=np.broadcast_to((here & ~serves)[:, None], lack.shape).astype(np.float32),
        waits=serves.astype(np.float32),
        waits_weight=here.astype(np.float32),
        switches=np.log2(1 + (levels > 1).sum(axis=2) / 4).astype(np.float32),
        mix=(np.arange(states) % mixes).astype(np.int32),
    )


def shared(need: np.ndarray, levels: np.ndarray) -> np.ndarray:
    """One CPU by weight times need, at most the need: (S, K, slots)."""
    asked = np.where(levels >= 0, LEVEL_WEIGHTS[levels], 0) * need[:, None]
    return np.minimum(asked / np.maximum(asked.sum(axis=2, keepdims=True), 1e-9), need[:, None])
