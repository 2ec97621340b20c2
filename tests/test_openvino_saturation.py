"""Judged by ONNX Runtime (the meaning must not change) and by OpenVINO itself (its answer must become that meaning)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from npuops.errors import UnsupportedModelError
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples
from npuops.targets.openvino_saturation import with_saturation

Array = NDArray[Any]
X = np.random.default_rng(0).uniform(-3, 3, size=(1, 2, 8, 8)).astype(np.float32)


def quantized_twice(kind: type[Any], *, opset: int = 21, scales: int = 1, constant: bool = True) -> onnx.ModelProto:
    """x → Q → DQ → Add of itself → Q → DQ → y, each quantizer with room for half of what comes."""
    level = np.iinfo(kind)
    scale = np.full(scales if scales > 1 else (), 4 / (level.max - level.min), np.float32)
    zero = np.full_like(scale, 0 if level.min < 0 else (level.max + 1) // 2).astype(kind)
    axis = {"axis": 1} if scales > 1 else {}
    nodes = [
        helper.make_node("QuantizeLinear", ["x", "s", "z"], ["q"], name="first", **axis),
        helper.make_node("DequantizeLinear", ["q", "s", "z"], ["d"], name="back", **axis),
        helper.make_node("Add", ["d", "d"], ["sum"], name="add"),
        helper.make_node("QuantizeLinear", ["sum", "s", "z"], ["q2"], name="second", **axis),
        helper.make_node("DequantizeLinear", ["q2", "s", "z"], ["y"], name="out", **axis),
    ]
    inputs = [helper.make_tensor_value_info("x", TensorProto.FLOAT, list(X.shape))]
    constants = {"s": scale, "z": zero}
    if not constant:
        inputs.append(helper.make_tensor_value_info("s", TensorProto.FLOAT, []))
        del constants["s"]
    graph = helper.make_graph(
        nodes,
        "twice",
        inputs,
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, list(X.shape))],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=10)


def answer(proto: onnx.ModelProto, path: Path) -> Array:
    onnx.save(proto, path)
    return run_reference(path, Samples(inputs=({"x": X},), source="random", digest=""))["y"]


@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_the_clips_change_nothing_in_the_meaning_of_the_graph(kind: type[Any], tmp_path: Path) -> None:
    proto = quantized_twice(kind)
    before = answer(proto, tmp_path / "before.onnx")
    assert with_saturation(proto) == 2
    np.testing.assert_array_equal(answer(proto, tmp_path / "after.onnx"), before)
    assert np.abs(before).max() < 2.001, "the quantizers saturate, or this test would show nothing"
    onnx.checker.check_model(proto, full_check=True)


@pytest.mark.parametrize("kind", [np.uint8, np.int8])
def test_8_bit_quantizers_are_left_alone(kind: type[Any]) -> None:
    proto = quantized_twice(kind)
    before = proto.SerializeToString(deterministic=True)
    assert with_saturation(proto) == 0
    assert proto.SerializeToString(deterministic=True) == before


def test_the_width_is_known_without_a_zero_point_too() -> None:
    proto = quantized_twice(np.int16)
    for node in proto.graph.node:
        if node.op_type != "Add":
            del node.input[2:]
        if node.op_type == "QuantizeLinear":
            node.attribute.append(helper.make_attribute("output_dtype", TensorProto.INT16))
    assert with_saturation(proto) == 2


@pytest.mark.parametrize(("scales", "constant"), [(2, True), (1, False)])
def test_limits_that_are_not_one_constant_are_refused(scales: int, constant: bool) -> None:
    with pytest.raises(UnsupportedModelError, match="not one constant"):
        with_saturation(quantized_twice(np.uint16, scales=scales, constant=constant))


def test_an_opset_whose_clip_takes_no_inputs_is_refused() -> None:
    with pytest.raises(UnsupportedModelError, match="opset 10"):
        with_saturation(quantized_twice(np.uint16, opset=10))


def test_a_16_bit_quantizer_inside_of_a_branch_is_refused_and_an_8_bit_one_is_not() -> None:
    for kind, refused in ((np.uint16, True), (np.uint8, False)):
        proto = quantized_twice(kind)
        branch = onnx.GraphProto()
        branch.CopyFrom(proto.graph)
        del branch.input[:]
        condition = numpy_helper.from_array(np.asarray(True), "condition")
        del proto.graph.node[:]
        proto.graph.initializer.append(condition)
        proto.graph.node.append(
            helper.make_node("If", ["condition"], ["y"], name="if", then_branch=branch, else_branch=branch)
        )
        if refused:
            with pytest.raises(UnsupportedModelError, match="'first'"):
                with_saturation(proto)
        else:
            assert with_saturation(proto) == 0
