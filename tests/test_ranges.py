from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from npuops.errors import DataError
from npuops.evaluate.sample_sources import fitted_samples
from npuops.quantize import ranges as module
from npuops.quantize.ranges import BINS, Activation, Method, choose_range, observe_activations
from small_graphs import BLOCK_INPUT, noise, outlier_block


def _shaped(path: Path) -> onnx.ModelProto:
    return onnx.shape_inference.infer_shapes(onnx.load(path))


def test_the_range_covers_every_sample_and_the_histogram_counts_every_value(tmp_path: Path) -> None:
    samples = noise(BLOCK_INPUT, 8, 0)
    seen = observe_activations(_shaped(outlier_block(tmp_path / "f.onnx")), samples, histograms=True)["x"]
    fed = np.stack([sample["x"] for sample in samples.inputs])
    assert (seen.low, seen.high) == (float(fed.min()), float(fed.max()))
    assert seen.histogram is not None
    assert seen.histogram.sum() == fed.size


def test_fetching_in_small_parts_gives_the_same_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, samples = _shaped(outlier_block(tmp_path / "f.onnx")), noise(BLOCK_INPUT, 4, 0)
    whole = observe_activations(model, samples, histograms=False)
    monkeypatch.setattr(module, "CHUNK_BYTES", 4 * 32 * 4)
    assert observe_activations(model, samples, histograms=False) == whole


def test_an_activation_that_overflows_names_sample_and_tensor(tmp_path: Path) -> None:
    rows = [{"x": np.zeros((4, 32), np.float32)}, {"x": np.full((4, 32), 3e38, np.float32)}]
    with pytest.raises(DataError, match=r"sample 1 .*'wide'"):
        observe_activations(
            _shaped(outlier_block(tmp_path / "f.onnx")), fitted_samples(rows, BLOCK_INPUT, source="s"), histograms=False
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
