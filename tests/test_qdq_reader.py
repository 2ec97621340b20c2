"""What the reader makes of QDQ graphs: the real quantizer's habits, hand-made oddities, and refusals that name all."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from onnxruntime.quantization import QuantType

from npuops.errors import MalformedModelError, ModelError, UnsupportedModelError
from npuops.targets.qdq_graph import Activation, Constant
from npuops.targets.qdq_reader import read_qdq
from qdq_nets import Array, Net, quantize


def write(folder: Path, nodes: list[onnx.NodeProto], constants: dict[str, Array], *, opset: int = 17) -> Path:
    """A graph x f32[1,4] → y with the given nodes."""
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, (1, 4))],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, (1, 4))],
        [numpy_helper.from_array(np.asarray(data), name) for name, data in constants.items()],
    )
    path = folder / "hand.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8), path)
    return path


def node(op: str, inputs: str, output: str, **attributes: object) -> onnx.NodeProto:
    return helper.make_node(op, inputs.split(), [output], name=f"n_{output}", **attributes)


SCALES = {"s": np.float32(0.5), "z": np.uint8(100), "s2": np.float32(0.25), "z2": np.uint8(3)}


def test_unsigned_activations_become_signed_at_the_same_real_values(tmp_path: Path) -> None:
    net = Net(seed=1)
    y = net.add("Conv", net.input("x", 1, 3, 6, 6), net.weight(4, 3, 3, 3), net.weight(4))
    kinds = (QuantType.QUInt8, QuantType.QInt8)
    graphs = [read_qdq(quantize(net.model(y), net.samples(4), tmp_path, activation_type=kind)) for kind in kinds]
    for unsigned, signed in zip(graphs[0].inputs, graphs[1].inputs, strict=True):
        assert unsigned.activation.scale == pytest.approx(signed.activation.scale)
        assert abs(unsigned.activation.zero_point - signed.activation.zero_point) <= 1
    op = graphs[0].ops[0]
    weights, bias = op.inputs[1:]
    assert isinstance(weights, Constant)
    assert isinstance(bias, Constant)
    assert (weights.data.dtype, bias.data.dtype) == (np.int8, np.int32)
    assert weights.scale is not None
    assert weights.scale.size == 4


def test_zero_point_of_an_unsigned_constant_is_shifted_without_wrapping(tmp_path: Path) -> None:
    constants = {**SCALES, "c": np.array([0, 3, 200, 255], np.uint8)}
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xf"),
        node("DequantizeLinear", "c s2 z2", "cf"),
        node("Add", "xf cf", "sum"),
        node("QuantizeLinear", "sum s z", "yq"),
        node("DequantizeLinear", "yq s z", "y"),
    ]
    constant = read_qdq(write(tmp_path, nodes, constants)).ops[0].inputs[1]
    assert isinstance(constant, Constant)
    assert constant.real.tolist() == [-0.75, 0.0, 49.25, 63.0]


def test_relu_and_clip_before_a_quantizer_become_a_clamp(tmp_path: Path) -> None:
    constants = {**SCALES, "six": np.float32(6), "low": np.float32(-1)}
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xf"),
        node("Add", "xf xf", "sum"),
        node("Identity", "sum", "same"),
        node("Relu", "same", "relu"),
        node("Clip", "relu low six", "clip"),
        node("QuantizeLinear", "clip s2 z2", "yq"),
        node("DequantizeLinear", "yq s2 z2", "y"),
    ]
    ops = read_qdq(write(tmp_path, nodes, constants)).ops
    assert [(op.op, op.clamp) for op in ops] == [("Add", (0.0, 6.0))]
    assert ops[0].outputs[0].scale == 0.25


def test_float_weights_behind_a_pair_are_quantized_as_onnx_does(tmp_path: Path) -> None:
    constants = {**SCALES, "w": np.array([0.6, -0.6, 0.25, 1000.0], np.float32), "zs": np.int8(0)}
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xf"),
        node("QuantizeLinear", "w s zs", "wq"),
        node("DequantizeLinear", "wq s zs", "wf"),
        node("Mul", "xf wf", "product"),
        node("QuantizeLinear", "product s z", "yq"),
        node("DequantizeLinear", "yq s z", "y"),
    ]
    weights = read_qdq(write(tmp_path, nodes, constants)).ops[0].inputs[1]
    assert isinstance(weights, Constant)
    assert weights.data.tolist() == [1, -1, 0, 127]


def test_quantizer_behind_a_dequantizer_is_a_change_of_scale(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xf"),
        node("QuantizeLinear", "xf s2 z2", "yq"),
        node("DequantizeLinear", "yq s2 z2", "y"),
    ]
    ops = read_qdq(write(tmp_path, nodes, SCALES)).ops
    assert [op.op for op in ops] == ["QuantizeLinear"]
    source = ops[0].inputs[0]
    assert isinstance(source, Activation)
    assert (source.zero_point, ops[0].outputs[0].zero_point) == (-28, -125)


def test_every_refusal_is_named_at_once(tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xf"),
        node("Erf", "xf", "a"),
        node("Neg", "a", "b"),
        node("Abs", "b", "y"),
    ]
    with pytest.raises(UnsupportedModelError) as refused:
        read_qdq(write(tmp_path, nodes, SCALES))
    for word in ("n_a (Erf)", "n_b (Neg)", "n_y (Abs)", "output y"):
        assert word in refused.value.message


@pytest.mark.parametrize("zero", [np.uint16(5), np.int16(0)])
def test_sixteen_bit_activations_are_refused_by_that_name(zero: np.generic, tmp_path: Path) -> None:
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xf"),
        node("Add", "xf xf", "sum"),
        node("QuantizeLinear", "sum s z", "yq"),
        node("DequantizeLinear", "yq s z", "y"),
    ]
    with pytest.raises(UnsupportedModelError, match="8 bits"):
        read_qdq(write(tmp_path, nodes, {**SCALES, "z": np.asarray(zero)}, opset=21))


def test_scale_of_zero_is_refused(tmp_path: Path) -> None:
    nodes = [node("QuantizeLinear", "x s z", "xq"), node("DequantizeLinear", "xq s z", "y")]
    with pytest.raises(UnsupportedModelError, match="positive and finite"):
        read_qdq(write(tmp_path, nodes, {**SCALES, "s": np.float32(0)}))


def test_scales_that_do_not_fit_their_tensor_are_refused(tmp_path: Path) -> None:
    constants = {**SCALES, "w": np.ones(4, np.int8), "s3": np.ones(3, np.float32), "z3": np.zeros(3, np.int8)}
    nodes = [
        node("QuantizeLinear", "x s z", "xq"),
        node("DequantizeLinear", "xq s z", "xf"),
        node("DequantizeLinear", "w s3 z3", "wf", axis=0),
        node("Mul", "xf wf", "product"),
        node("QuantizeLinear", "product s z", "yq"),
        node("DequantizeLinear", "yq s z", "y"),
    ]
    with pytest.raises(UnsupportedModelError, match="fit their tensor"):
        read_qdq(write(tmp_path, nodes, constants))


def test_truncated_and_absent_files_are_clear_errors(tmp_path: Path) -> None:
    net = Net(seed=1)
    y = net.add("Conv", net.input("x", 1, 3, 6, 6), net.weight(4, 3, 3, 3), net.weight(4))
    whole = quantize(net.model(y), net.samples(2), tmp_path).read_bytes()
    (tmp_path / "half.onnx").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(MalformedModelError):
        read_qdq(tmp_path / "half.onnx")
    with pytest.raises(ModelError):
        read_qdq(tmp_path / "absent.onnx")
