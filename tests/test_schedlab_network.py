"""The network in JAX is the network in NumPy."""

from __future__ import annotations

import numpy as np
import pytest

pytest.importorskip("jax", reason="training needs the extra `hostsched`")

from jax_calls import forwards
from made_samples import made_samples
from made_weights import noisy_weights
from npuops.hostsched.scorer import SHAPE
from npuops.hostsched.scorer_network import forward
from npuops.schedlab.network import fresh_weights
from npuops.targets.child import call


@pytest.mark.slow
def test_jax_and_numpy_agree_within_a_hundred_thousandth() -> None:
    weights, samples = noisy_weights(SHAPE, 1), made_samples(8, 6, 2)
    levels = samples.levels.astype(np.int32)
    many = call(forwards, {"weights": weights, "samples": samples}, what="forward", timeout_s=280.0).value
    for row in range(len(samples)):
        arrays = (samples.tasks[row], samples.history[row], samples.host[row], levels[row])
        one = forward(weights, *arrays, np.ones(SHAPE.slots, np.float32))
        for part, whole in zip(one, many, strict=True):
            np.testing.assert_allclose(part, np.asarray(whole[row]), atol=1e-5, rtol=1e-5)


def test_fresh_weights_fit_their_network_and_follow_their_seed() -> None:
    one, same, other = (fresh_weights(SHAPE, seed) for seed in (4, 4, 5))
    SHAPE.check(one)
    assert all(np.array_equal(one[name], same[name]) for name in one)
    assert not np.array_equal(one["task"], other["task"])
