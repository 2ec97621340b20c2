"""What the kernel says of forecasts is found, kept near the identity, and folded into the network's last layer."""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_states import made_state
from made_weights import noisy_weights
from npuops.errors import DataError
from npuops.hostsched.policy_card import Correction, Line
from npuops.hostsched.scorer import SHAPE, encode, encode_levels, feeds
from npuops.hostsched.scorer_network import forward
from npuops.schedlab.correction import LEAST_PLAYS, NOTHING, Residuals, Seen, corrected, correction, joined
from npuops.schedlab.export_onnx import write_onnx

WEIGHTS = noisy_weights(SHAPE, 7)
scales, misses, shifts = st.floats(0.5, 2.0), st.floats(-2.0, 2.0), st.floats(-0.3, 0.3)


def sigmoid(logits: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logits))


def seen(forecast: np.ndarray, came: np.ndarray, plays: int) -> Seen:
    return Seen(forecast, came, np.ones(len(forecast)), np.arange(len(forecast)) % plays)


def measured(scale: float, shift: float, *, plays: int = 24, noise: float = 0.0, seed: int = 0) -> Residuals:
    """A kernel whose truth is the forecast, scaled and shifted, and noise."""
    random = np.random.default_rng(seed)
    logits, progress = random.normal(-1, 2, 40 * plays), random.uniform(0.2, 1.5, 40 * plays)
    late = sigmoid(scale * logits + shift + noise * random.normal(size=logits.shape))
    came = scale * progress + shift + noise * random.normal(size=progress.shape)
    return Residuals(seen(logits, late, plays), seen(progress, came, plays))


def made(miss: Line, progress: Line) -> Correction:
    return Correction(miss=miss, progress=progress, plays=8, unclean=0, kernel="6.18")


@given(st.integers(0, 1000))
@settings(max_examples=10, deadline=None)
def test_forecasts_that_came_true_stay_as_they_are(seed: int) -> None:
    assert correction(measured(1.0, 0.0, seed=seed), "6.18").is_identity


@given(st.floats(0.6, 1.7), st.floats(0.1, 0.25), st.booleans())
@settings(max_examples=8, deadline=None)
def test_a_bias_is_found_and_said_to_help(scale: float, shift: float, below: bool) -> None:
    shift = -shift if below else shift
    found = correction(measured(scale, shift, plays=60), "6.18")
    for line in (found.miss, found.progress):
        assert line.scale == pytest.approx(scale, abs=0.1)
        assert line.shift == pytest.approx(shift, abs=0.1)
        assert line.before is not None
        assert line.after is not None
        assert line.after < line.before


def test_few_plays_correct_less_of_the_same_bias_than_many() -> None:
    few, many = (correction(measured(1.0, 0.2, plays=plays), "6.18") for plays in (5, 60))
    assert 0 < few.progress.shift < many.progress.shift < 0.2 + 1e-6
    assert 0 < few.miss.shift < many.miss.shift < 0.2 + 1e-6


def test_too_few_plays_correct_nothing() -> None:
    found = correction(measured(1.5, 0.2, plays=LEAST_PLAYS - 1), "6.18")
    assert found.is_identity
    assert found.miss.before is None
    assert found.plays == LEAST_PLAYS - 1
    assert correction(Residuals(), "6.18").is_identity


def test_what_one_play_says_and_no_other_is_not_believed() -> None:
    plays = 8
    progress = np.random.default_rng(0).uniform(0.5, 1.5, 40 * plays)
    odd = np.where(np.arange(len(progress)) % plays == 3, 0.3, 0.0)
    found = correction(Residuals(NOTHING, seen(progress, progress + odd, plays)), "6.18")
    assert found.progress.is_identity
    assert found.progress.before is not None


@given(st.floats(-8, 8), st.floats(-8, 8), st.integers(0, 100))
@settings(max_examples=15, deadline=None)
def test_whatever_is_measured_a_correction_keeps_its_bounds_and_its_card_is_read_back(
    scale: float, shift: float, seed: int
) -> None:
    found = correction(measured(scale, shift, plays=8, noise=0.5, seed=seed), "6.18")
    assert msgspec.json.decode(msgspec.json.encode(found), type=Correction) == found
    assert 0.5 <= found.progress.scale <= 2.0
    assert -0.3 <= found.progress.shift <= 0.3


@given(scales, misses, scales, shifts)
@settings(max_examples=15, deadline=None)
def test_folding_is_correcting_what_the_network_says(a: float, b: float, c: float, d: float) -> None:
    found = made(Line(scale=a, shift=b), Line(scale=c, shift=d))
    scene = encode(made_state(5, 1))
    levels = encode_levels(scene, np.random.default_rng(2).integers(0, SHAPE.levels, (8, 5)).astype(np.int8))
    given_ = (scene.tasks, scene.history, scene.host, levels, scene.repeats)
    plain, moved = forward(WEIGHTS, *given_), forward(corrected(WEIGHTS, found), *given_)
    np.testing.assert_allclose(moved[0], plain[0] * [a, c] + [b, d], rtol=1e-4, atol=1e-4)
    np.testing.assert_array_equal(moved[1], plain[1])
    np.testing.assert_array_equal(moved[2], plain[2])


def test_the_onnx_file_of_corrected_weights_says_the_corrected(tmp_path: Path) -> None:
    found = made(Line(scale=0.7, shift=1.5), Line(scale=1.3, shift=-0.2))
    scene = encode(made_state(5, 1))
    levels = encode_levels(scene, np.random.default_rng(2).integers(0, SHAPE.levels, (8, 5)).astype(np.int8))
    plain = forward(WEIGHTS, scene.tasks, scene.history, scene.host, levels, scene.repeats)[0]
    path = write_onnx(tmp_path / "scorer.onnx", corrected(WEIGHTS, found), SHAPE, 8)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    faces = session.run(["faces"], feeds(scene, levels, SHAPE, 8))[0][0].transpose(1, 2, 0)
    np.testing.assert_allclose(faces[:, :5], (plain * [0.7, 1.3] + [1.5, -0.2])[:, :5], rtol=1e-4, atol=1e-4)


def test_the_identity_leaves_every_weight_as_it_was() -> None:
    same = corrected(WEIGHTS, made(Line(), Line()))
    assert same.keys() == WEIGHTS.keys()
    assert all(np.array_equal(same[name], WEIGHTS[name]) for name in same)


def test_plays_are_put_together_and_nonsense_is_refused() -> None:
    one = measured(1.0, 0.0, plays=5)
    assert len(joined([one, one]).miss.play) == 2 * len(one.miss.play)
    assert joined([]).miss.plays == 0
    two = np.ones(2)
    for wrong in (
        (np.array([np.nan, 1]), two, two),
        (two, two, np.zeros(2)),
        (two, np.ones(3), two),
    ):
        with pytest.raises(DataError):
            Seen(*wrong, np.zeros(2, np.int64))
