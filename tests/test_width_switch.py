from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import onnx
import pytest

from npuops.evaluate.metrics import cosine
from npuops.evaluate.reference import run_reference
from npuops.quantize.quantize import Calibrated, QuantizeOptions, build_qdq, calibrate
from npuops.quantize.width_switch import WidthSwitch
from small_graphs import BLOCK_INPUT, CNN_INPUT, noise, outlier_block, small_cnn


def _same_to_the_bit(calibrated: Calibrated, wide: frozenset[str], switch: WidthSwitch) -> None:
    model = switch.graph(wide)
    onnx.checker.check_model(model)
    samples = noise(BLOCK_INPUT, 4, 9)
    got, wanted = run_reference(model, samples), run_reference(build_qdq(calibrated, wide), samples)
    for name, array in wanted.items():
        assert np.array_equal(got[name], array), (sorted(wide), name)


@pytest.mark.slow
@pytest.mark.parametrize("gamma", [False, True])
def test_every_mix_of_a_block_answers_as_if_written_from_scratch(tmp_path: Path, gamma: bool) -> None:
    options = QuantizeOptions(layernorm_gamma_uint8=gamma)
    calibrated = calibrate(outlier_block(tmp_path / "f.onnx"), noise(BLOCK_INPUT, 16, 0), options)
    switch = WidthSwitch(calibrated)
    units = sorted(calibrated.plan.widest)
    for count in range(len(units) + 1):
        for wide in itertools.combinations(units, count):
            _same_to_the_bit(calibrated, frozenset(wide), switch)


def test_a_relu_stays_folded_into_its_convolution_in_every_mix(tmp_path: Path) -> None:
    path, samples = small_cnn(tmp_path / "f.onnx"), noise(CNN_INPUT, 8, 9)
    calibrated = calibrate(path, noise(CNN_INPUT, 16, 0), QuantizeOptions(softmax_output_fixed=True))
    wanted = run_reference(path, samples)["y"]
    switch = WidthSwitch(calibrated)
    units = sorted(calibrated.plan.widest)
    for count in range(len(units) + 1):
        for wide in itertools.combinations(units, count):
            model = switch.graph(frozenset(wide))
            onnx.checker.check_model(model)
            assert "Relu" not in {node.op_type for node in model.graph.node}
            assert (cosine(run_reference(model, samples)["y"], wanted) or 0) > 0.99


@pytest.mark.parametrize("opset", [13, 21])
def test_below_opset_21_the_16_bit_operators_are_those_of_onnx_runtime(tmp_path: Path, opset: int) -> None:
    original = onnx.load(small_cnn(tmp_path / "f.onnx"))
    path = tmp_path / f"{opset}.onnx"
    original.opset_import[0].version = opset  # its operators mean the same in both
    original.ir_version = 7 if opset == 13 else 10
    onnx.save(original, path)
    calibrated = calibrate(path, noise(CNN_INPUT, 16, 0), QuantizeOptions())
    samples, wide = noise(CNN_INPUT, 4, 9), frozenset({"Conv:c2"})
    for model in (WidthSwitch(calibrated).graph(wide), build_qdq(calibrated, wide)):
        run_reference(model, samples)
        domains = {node.domain for node in model.graph.node if node.op_type == "QuantizeLinear"}
        assert domains == {"com.microsoft" if opset < 21 else ""}
    narrow = WidthSwitch(calibrated).graph(frozenset())
    assert {node.domain for node in narrow.graph.node} == {""}
