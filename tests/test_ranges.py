from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from npuops.errors import DataError
from npuops.evaluate.sample_sources import fitted_samples
from npuops.quantize import ranges as module
from npuops.quantize.ranges import (
    BINS,
    Activation,
    ActivationTap,
    Method,
    choose_range,
    float_activations,
    observe_activations,
)
from small_graphs import BLOCK_INPUT, noise, outlier_block


def _tap(path: Path) -> ActivationTap:
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    return ActivationTap(model, float_activations(model))


def test_the_range_covers_every_sample_and_the_histogram_counts_every_value(tmp_path: Path) -> None:
    samples = noise(BLOCK_INPUT, 8, 0)
    seen = observe_activations(_tap(outlier_block(tmp_path / "f.onnx")), samples, histograms=True)["x"]
    fed = np.stack([sample["x"] for sample in samples.inputs])
    assert (seen.low, seen.high) == (float(fed.min()), float(fed.max()))
    assert seen.histogram is not None
    assert seen.histogram.sum() == fed.size


def test_fetching_in_small_parts_gives_the_same_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, samples = outlier_block(tmp_path / "f.onnx"), noise(BLOCK_INPUT, 4, 0)
    whole = observe_activations(_tap(path), samples, histograms=False)
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * 32 * 4)
    assert observe_activations(_tap(path), samples, histograms=False) == whole


def test_an_activation_that_overflows_names_sample_and_tensor(tmp_path: Path) -> None:
    rows = [{"x": np.zeros((4, 32), np.float32)}, {"x": np.full((4, 32), 3e38, np.float32)}]
    with pytest.raises(DataError, match=r"sample 1 .*'wide'"):
        observe_activations(
            _tap(outlier_block(tmp_path / "f.onnx")), fitted_samples(rows, BLOCK_INPUT, source="s"), histograms=False
        )


def _histogram(values: np.ndarray) -> Activation:
    low, high = float(values.min()), float(values.max())
    counts = np.histogram(values, BINS, (low, high))[0]
    return Activation(low=low, high=high, histogram=counts.astype(np.int64))


@pytest.mark.parametrize("method", [Method.PERCENTILE, Method.MSE, Method.ENTROPY])
def test_clipping_methods_cut_a_lone_outlier_and_minmax_keeps_it(method: Method) -> None:
    values = np.append(np.random.default_rng(0).standard_normal(100_000), 60.0)
    seen = _histogram(values)
    low, high = choose_range(seen, method, levels=256)
    assert seen.low <= low < -2
    assert 2 < high < 55
    assert choose_range(seen, Method.MINMAX, levels=256) == (seen.low, seen.high)


def test_mse_really_lowers_the_squared_error() -> None:
    values = np.append(np.random.default_rng(0).standard_normal(1_000_000), 60.0)

    def error(low: float, high: float) -> float:
        step = (high - low) / 255
        return float(np.mean((np.clip(np.round((values - low) / step), 0, 255) * step + low - values) ** 2))

    seen = _histogram(values)
    assert error(*choose_range(seen, Method.MSE, levels=256)) < error(seen.low, seen.high) * 0.8


@pytest.mark.parametrize("values", [np.zeros(10), np.linspace(-5, -1, 100), np.linspace(1, 5, 100)])
@pytest.mark.parametrize("method", list(Method))
def test_one_sided_and_constant_tensors_get_a_range_inside_what_was_seen(method: Method, values: np.ndarray) -> None:
    seen = _histogram(values) if values.any() else Activation(low=0.0, high=0.0)
    low, high = choose_range(seen, method, levels=256)
    assert seen.low <= low <= high <= seen.high


def test_mse_does_not_clip_sparse_values_for_the_sake_of_their_zeros() -> None:
    """Half of the values after a Relu are exactly zero: they cost nothing at any step."""
    rng = np.random.default_rng(0)
    values = np.where(rng.random(100_000) < 0.98, 0.0, rng.uniform(0, 10, 100_000))
    counts = np.histogram(values, BINS, (0.0, values.max()))[0].astype(np.int64)
    seen = Activation(low=0.0, high=float(values.max()), histogram=counts, zeros=int((values == 0).sum()))

    def error(clip: tuple[float, float]) -> float:
        step = (clip[1] - clip[0]) / 255
        return float(np.square(np.clip(np.round(values / step), 0, 255) * step - values).sum())

    chosen = choose_range(seen, Method.MSE, levels=256)
    assert error(chosen) <= error((seen.low, seen.high)) * 1.01


def test_mse_counts_the_step_of_the_range_that_holds_zero() -> None:
    """Cutting the low end of values near 100 gains nothing: the quantizer widens the range down to zero."""
    values = np.random.default_rng(0).normal(100.0, 1.0, 100_000)
    low, _ = choose_range(_histogram(values), Method.MSE, levels=256)
    assert low == float(values.min())


@pytest.mark.parametrize("scale", [1e-42, 3e38])
def test_ranges_at_the_ends_of_float32_are_kept_whole(tmp_path: Path, scale: float) -> None:
    array = np.zeros((4, 32), np.float32)
    array[0, :2] = np.float32(scale), np.float32(-scale)
    model = onnx.shape_inference.infer_shapes(onnx.load(outlier_block(tmp_path / "f.onnx")))
    samples = fitted_samples([{"x": array}], BLOCK_INPUT, source="s")
    seen = observe_activations(ActivationTap(model, ("x",)), samples, histograms=True)["x"]
    assert seen.histogram is None
    assert choose_range(seen, Method.MSE, levels=256) == (float(-np.float32(scale)), float(np.float32(scale)))
