from __future__ import annotations

import numpy as np
import pytest

from npuops.evaluate.calibration import judge_calibration
from npuops.evaluate.sample_sources import fitted_samples
from npuops.evaluate.samples import Samples
from npuops.models.model import TensorInfo

X = (TensorInfo(name="x", dtype="float32", shape=(1, 8)),)


def _noise(count: int, seed: int = 0, scale: float = 1.0) -> Samples:
    rows = np.random.default_rng(seed).standard_normal((count, 8)) * scale
    return fitted_samples([{"x": row} for row in rows], X, source="noise")


def test_a_good_set_raises_no_warning() -> None:
    assert judge_calibration(_noise(32), _noise(16, seed=1)) == ()


@pytest.mark.parametrize(
    ("samples", "words"),
    [
        (_noise(3), "only 3"),
        (fitted_samples([{"x": np.arange(8.0)}] * 9, X, source="s"), "are equal"),
        (fitted_samples([*_noise(9).inputs, _noise(9).inputs[0]], X, source="s"), "duplicates"),
        (fitted_samples([{"x": np.full(8, 5.0)}] * 9, X, source="s"), "is 5 everywhere"),
        (Samples(inputs=(), source="empty", digest=""), "no sample"),
    ],
)
def test_a_poor_set_is_called_out(samples: Samples, words: str) -> None:
    assert any(words in warning for warning in judge_calibration(samples))


def test_different_scaling_and_leaked_samples_are_called_out() -> None:
    warnings = judge_calibration(_noise(32, scale=128.0), _noise(16, seed=1))
    assert any("scaled differently" in warning for warning in warnings)
    assert any("too good" in warning for warning in judge_calibration(_noise(32), _noise(8)))
