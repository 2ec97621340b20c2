from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
from onnx import helper

from npuops.evaluate.sample_sources import fitted_samples
from npuops.quantize.ranges import ActivationTap, observe_activations
from npuops.quantize.softmax_ranges import choose_softmax_ranges, fake_quantize, softmax, softmax_inputs
from small_graphs import BLOCK_INPUT, save


def test_a_mask_of_minus_100_does_not_stretch_the_scores(tmp_path: Path) -> None:
    node = helper.make_node
    mask = np.where(np.arange(32) < 8, 0, -100).astype(np.float32)
    path = save(
        tmp_path / "f.onnx",
        [node("Add", ["x", "mask"], ["scores"]), node("Softmax", ["scores"], ["y"], axis=-1)],
        ([4, 32], [4, 32]),
        mask=mask,
    )
    rows = np.random.default_rng(0).standard_normal((8, 4, 32)) * 2
    samples = fitted_samples([{"x": row} for row in rows], BLOCK_INPUT, source="noise")
    model = onnx.shape_inference.infer_shapes(onnx.load(path))
    tap = ActivationTap(model, ("x", "scores", "y"))
    seen = observe_activations(tap, samples, histograms=False)
    low, high = choose_softmax_ranges(tap, softmax_inputs(model), samples, seen, levels=256)["scores"]
    assert seen["scores"].low < -100 < -64 < low < -4
    scores = rows.astype(np.float32) + mask

    def error(clip: tuple[float, float]) -> float:
        return float(np.square(softmax(fake_quantize(scores, clip, 256), -1) - softmax(scores, -1)).sum())

    assert error((low, high)) < error((seen["scores"].low, high)) / 5
