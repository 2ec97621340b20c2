"""Promises that no single module keeps: each is a mistake from the field that the whole pipeline must catch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import helper, numpy_helper

from npuops.artifacts.evidence import Verdict
from npuops.build.pipeline import BuildRequest, build
from npuops.evaluate.sample_sources import load_samples
from npuops.models.open import open_model
from npuops.models.zoo import zoo_model
from npuops.quantize.quantize import QuantizeOptions, quantize
from npuops.targets.registry import open_target

HTP = "qnn-htp:sm8650"


@pytest.fixture
def htp() -> str:
    probe = open_target(HTP).probe()
    if not probe.available:
        pytest.skip(f"{HTP}: {probe.why_not}; {probe.install}")
    return HTP


def quantize_activation_per_channel(path: Path, before: str) -> None:
    """As NNCF does it: one scale per channel on the activation that the node `before` reads."""
    model = onnx.load(path)
    graph = model.graph
    constants = {item.name: numpy_helper.to_array(item) for item in graph.initializer}
    producers = {output: node for node in graph.node for output in node.output}
    dequantize = producers[next(node for node in graph.node if node.name == before).input[0]]
    quantize_node = producers[dequantize.input[0]]
    scale, zero = constants[quantize_node.input[1]], constants[quantize_node.input[2]]
    channels = 32
    scales = (scale * np.random.default_rng(0).uniform(0.5, 1.0, channels)).astype(np.float32)
    graph.initializer.append(numpy_helper.from_array(scales, "per_channel_scale"))
    graph.initializer.append(numpy_helper.from_array(np.full(channels, zero, zero.dtype), "per_channel_zero"))
    for node in (quantize_node, dequantize):
        node.input[1], node.input[2] = "per_channel_scale", "per_channel_zero"
        del node.attribute[:]
        node.attribute.append(helper.make_attribute("axis", 1))
    onnx.checker.check_model(model)
    onnx.save(model, path)


@pytest.mark.slow
def test_a_graph_that_compiles_whole_and_computes_garbage_is_caught_and_located(htp: str, tmp_path: Path) -> None:
    zoo = zoo_model("digits-cnn")
    inputs = open_model(zoo.model).inputs
    bad = tmp_path / "per_channel_activation.onnx"
    quantize(zoo.model, load_samples(str(zoo.calibration), inputs), QuantizeOptions(), bad)
    quantize_activation_per_channel(bad, before="/down/MaxPool")
    evaluation = load_samples(str(zoo.evaluation), inputs, limit=32)
    manifest = build(BuildRequest(model=bad, target=htp, evaluation=evaluation), tmp_path / "art").artifact.manifest

    assert manifest.placement.fallback_ratio.ops == 0, "the toolchain took every operator, without a warning"
    assert manifest.parity is not None
    assert manifest.parity.verdict is Verdict.FAIL
    assert any("the toolchain is to blame: node '/Add'" in reason for reason in manifest.parity.reasons)
    assert manifest.gate is not None
    assert manifest.gate.verdict is Verdict.FAIL
