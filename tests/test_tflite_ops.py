"""Every operator of the writer: LiteRT within one level of ONNX Runtime, TOSA equal to LiteRT bit for bit."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from npuops.errors import UnsupportedModelError
from npuops.targets.tflite_ops import convert
from qdq_nets import Array, Net, quantize, reference_artifact, run_qdq, run_reference

pytest.importorskip("ai_edge_litert", reason="extra ethos-u is not installed")

IMAGE = (1, 4, 9, 7)
Build = Callable[[Net], tuple[str, ...]]


def one(op: str, shape: tuple[int, ...], *weights: tuple[int, ...], **attributes: object) -> Build:
    """One operator with constant operands, its bias included."""

    def build(net: Net) -> tuple[str, ...]:
        x = net.input("x", *shape)
        return (net.add(op, x, *(net.weight(*size) for size in weights), **attributes),)

    return build


def relu_chain(net: Net) -> tuple[str, ...]:
    x = net.input("x", 1, 3, 8, 8)
    y = net.add("Relu", net.add("Conv", x, net.weight(4, 3, 3, 3), net.weight(4)))
    return (net.add("Conv", y, net.weight(5, 4, 1, 1), net.weight(5)),)


def relu_alone(net: Net) -> tuple[str, ...]:
    """Its input is read twice, so that it stays an operator between two scales."""
    y = net.add("Conv", net.input("x", *IMAGE), net.weight(4, 4, 1, 1), net.weight(4))
    return (net.add("Relu", y), net.add("MaxPool", y, kernel_shape=[2, 2]))


def hard_swish(net: Net) -> tuple[str, ...]:
    """As PyTorch exports it, and as ONNX Runtime writes it out before quantization."""
    x = net.input("x", *IMAGE)
    return (net.add("Mul", x, net.add("HardSigmoid", x, alpha=1 / 6, beta=0.5)),)


def relu6_after_add(net: Net) -> tuple[str, ...]:
    x, y = net.input("x", 1, 3, 8, 8), net.input("y", 1, 3, 8, 8)
    low, high = net.constant(np.float32(-0.5)), net.constant(np.float32(1.25))
    return (net.add("Clip", net.add("Add", x, y), low, high),)


def two_outputs(net: Net) -> tuple[str, ...]:
    x = net.input("image", 1, 3, 8, 8)
    y = net.input("state", 1, 6)
    a = net.add("Conv", x, net.weight(6, 3, 3, 3), net.weight(6), strides=[2, 2], pads=[1, 1, 1, 1])
    b = net.add("Add", net.add("Flatten", net.add("GlobalAveragePool", a)), y)
    return (a, b)


def flatten_gemm(net: Net) -> tuple[str, ...]:
    x = net.input("x", 1, 3, 6, 6)
    y = net.add("Conv", x, net.weight(4, 3, 3, 3), net.weight(4))
    return (net.add("Gemm", net.add("Flatten", y), net.weight(10, 64), net.weight(10), transB=1),)


def flatten_twice_read(net: Net) -> tuple[str, ...]:
    """The flattened image feeds a Gemm and leaves the graph: the output must be in ONNX order."""
    x = net.input("x", 1, 3, 4, 4)
    y = net.add("Flatten", net.add("Conv", x, net.weight(4, 3, 3, 3), net.weight(4)))
    return (net.add("Gemm", y, net.weight(16, 10), net.weight(10)), net.add("Add", y, net.weight(1, 16)))


def squeeze_excite(net: Net) -> tuple[str, ...]:
    x = net.input("x", 1, 8, 6, 6)
    s = net.add("GlobalAveragePool", x)
    s = net.add("Conv", s, net.weight(4, 8, 1, 1), net.weight(4))
    s = net.add("Sigmoid", net.add("Conv", net.add("Relu", s), net.weight(8, 4, 1, 1), net.weight(8)))
    return (net.add("Mul", x, s),)


def detection_head(net: Net) -> tuple[str, ...]:
    x = net.input("x", 1, 4, 6, 6)
    parts = []
    for stride in (1, 2):
        y = net.add("Conv", x, net.weight(4, 4, 3, 3), net.weight(4), pads=[1, 1, 1, 1], strides=[stride, stride])
        y = net.add("Transpose", y, perm=[0, 2, 3, 1])
        parts.append(net.add("Reshape", y, net.constant(np.array([1, -1, 2], np.int64))))
    return (net.add("Softmax", net.add("Concat", *parts, axis=1), axis=2),)


def channel_concat(net: Net) -> tuple[str, ...]:
    x = net.input("x", 1, 4, 6, 6)
    a = net.add("Conv", x, net.weight(3, 4, 1, 1), net.weight(3))
    b = net.add("MaxPool", x, kernel_shape=[3, 3], pads=[1, 1, 1, 1], strides=[1, 1])
    return (net.add("Concat", a, b, axis=1),)


def split_parts(net: Net) -> tuple[str, ...]:
    x = net.input("x", 1, 6, 4, 4)
    a, b = net.add("Split", x, net.constant(np.array([2, 4], np.int64)), outputs=2, axis=1)
    return (net.add("Conv", a, net.weight(3, 2, 1, 1), net.weight(3)), net.add("MaxPool", b, kernel_shape=[2, 2]))


def with_ints(op: str, shape: tuple[int, ...], *integers: list[int], **attributes: object) -> Build:
    def build(net: Net) -> tuple[str, ...]:
        x = net.input("x", *shape)
        x = net.add("Conv", x, net.weight(shape[1], shape[1], 1, 1), net.weight(shape[1])) if len(shape) == 4 else x
        return (net.add(op, x, *(net.constant(np.array(row, np.int64)) for row in integers), **attributes),)

    return build


def resized(height: int, width: int, **attributes: object) -> Build:
    def build(net: Net) -> tuple[str, ...]:
        x = net.input("x", 1, 3, 5, 5)
        return (net.add("Resize", x, "", "", net.constant(np.array([1, 3, height, width], np.int64)), **attributes),)

    return build


def pair(op: str, *shapes: tuple[int, ...]) -> Build:
    def build(net: Net) -> tuple[str, ...]:
        return (net.add(op, *(net.input(f"x{index}", *shape) for index, shape in enumerate(shapes))),)

    return build


CASES: Mapping[str, Build] = {
    "conv": one("Conv", IMAGE, (5, 4, 3, 3), (5,)),
    "conv without bias": one("Conv", IMAGE, (5, 4, 3, 3)),
    "conv same": one("Conv", IMAGE, (5, 4, 3, 3), (5,), pads=[1, 1, 1, 1]),
    "conv torch stride 2": one("Conv", (1, 4, 8, 8), (5, 4, 3, 3), (5,), pads=[1, 1, 1, 1], strides=[2, 2]),
    "conv same upper": one("Conv", (1, 4, 8, 8), (5, 4, 3, 3), (5,), auto_pad="SAME_UPPER", strides=[2, 2]),
    "conv same lower": one("Conv", (1, 4, 8, 8), (5, 4, 3, 3), (5,), auto_pad="SAME_LOWER", strides=[2, 2]),
    "conv lopsided": one("Conv", IMAGE, (5, 4, 3, 2), (5,), pads=[2, 0, 1, 3]),
    "conv dilated": one("Conv", IMAGE, (5, 4, 3, 3), (5,), dilations=[2, 2], pads=[2, 2, 2, 2]),
    "conv long stride": one("Conv", (1, 4, 16, 16), (5, 4, 5, 5), (5,), strides=[4, 4], pads=[1, 1, 1, 1]),
    "conv long stride unpadded": one("Conv", (1, 4, 17, 17), (5, 4, 5, 5), (5,), strides=[4, 4]),
    "conv sequence": one("Conv", (1, 4, 20), (6, 4, 5), (6,), pads=[2, 2], strides=[2]),
    "conv one channel": one("Conv", (1, 1, 9, 9), (5, 1, 3, 3), (5,)),
    "conv batch 2": one("Conv", (2, 4, 6, 6), (5, 4, 3, 3), (5,)),
    "depthwise": one("Conv", IMAGE, (4, 1, 3, 3), (4,), group=4, pads=[1, 1, 1, 1]),
    "depthwise multiplier": one("Conv", IMAGE, (8, 1, 3, 3), (8,), group=4),
    "grouped": one("Conv", IMAGE, (6, 2, 3, 3), (6,), group=2, pads=[1, 1, 1, 1]),
    "transposed": one("ConvTranspose", IMAGE, (4, 3, 2, 2), (3,), strides=[2, 2]),
    "transposed same": one("ConvTranspose", IMAGE, (4, 3, 4, 4), (3,), strides=[2, 2], pads=[1, 1, 1, 1]),
    "transposed longer stride": one("ConvTranspose", (1, 4, 5, 5), (4, 3, 1, 1), (3,), strides=[2, 2]),
    "transposed output padding": one(
        "ConvTranspose", IMAGE, (4, 3, 3, 3), (3,), strides=[2, 2], pads=[1, 1, 1, 1], output_padding=[1, 1]
    ),
    "transposed cropped": one("ConvTranspose", IMAGE, (4, 3, 3, 3), (3,), strides=[2, 2], pads=[1, 1, 1, 1]),
    "gemm": one("Gemm", (1, 12), (12, 7), (7,)),
    "gemm transposed": one("Gemm", (3, 12), (7, 12), (7,), transB=1),
    "matmul": one("MatMul", (1, 5, 12), (12, 7)),
    "add constant": one("Add", IMAGE, (1, 4, 1, 1)),
    "mul vector": one("Mul", IMAGE, (7,)),
    "prelu": one("PRelu", IMAGE, (4, 1, 1)),
    "leaky": one("LeakyRelu", IMAGE, alpha=0.2),
    "relu": relu_alone,
    "hard swish": hard_swish,
    "hard sigmoid": one("HardSigmoid", IMAGE, alpha=0.2, beta=0.4),
    "hard sigmoid through zero": one("HardSigmoid", IMAGE, alpha=0.25, beta=0.0),
    "sigmoid": one("Sigmoid", IMAGE),
    "tanh": one("Tanh", IMAGE),
    "softmax": one("Softmax", (1, 10)),
    "softmax over channels": one("Softmax", IMAGE, axis=1),
    "softmax over height": one("Softmax", IMAGE, axis=2),
    "max pool": one("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 2]),
    "max pool padded": one("MaxPool", (1, 4, 8, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
    "max pool ceil": one("MaxPool", IMAGE, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "max pool long stride": one("MaxPool", (1, 4, 14, 14), kernel_shape=[6, 6], strides=[4, 4], pads=[2, 2, 2, 2]),
    "max pool sequence": one("MaxPool", (1, 4, 12), kernel_shape=[3], strides=[3]),
    "average pool": one("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[2, 2]),
    "average pool same": one("AveragePool", IMAGE, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1]),
    "average pool counted": one(
        "AveragePool", IMAGE, kernel_shape=[3, 3], strides=[1, 1], pads=[1, 1, 1, 1], count_include_pad=1
    ),
    "average pool ceil": one("AveragePool", IMAGE, kernel_shape=[2, 2], strides=[2, 2], ceil_mode=1),
    "global average": one("GlobalAveragePool", IMAGE),
    "mean over height and width": one("ReduceMean", IMAGE, axes=[2, 3], keepdims=0),
    "mean over channels": one("ReduceMean", IMAGE, axes=[1], keepdims=1),
    "mean over height and width of many channels": one("ReduceMean", (1, 5000, 2, 2), axes=[2, 3], keepdims=0),
    "mean of five dimensions": one("ReduceMean", (1, 2, 3, 4, 5), axes=[2, 3]),
    "mean of a sequence": one("ReduceMean", (1, 6, 10), axes=[2], keepdims=1),
    "depth to space": one("DepthToSpace", (1, 12, 3, 5), blocksize=2),
    "pixel shuffle": one("DepthToSpace", (1, 12, 3, 5), blocksize=2, mode="CRD"),
    "transpose": with_ints("Transpose", IMAGE, perm=[0, 3, 1, 2]),
    "reshape": with_ints("Reshape", IMAGE, [1, 7, 36]),
    "squeeze": with_ints("Squeeze", (1, 4, 1, 7), [2]),
    "unsqueeze": with_ints("Unsqueeze", (1, 4, 7), [2]),
    "flatten": with_ints("Flatten", IMAGE),
    "slice": with_ints("Slice", IMAGE, [1, 1], [-1, 7], [2, 3], [2, 1]),
    "pad": with_ints("Pad", IMAGE, [0, 1, 2, 0, 0, 0, 1, 3]),
    "pad reflect": with_ints("Pad", IMAGE, [0, 0, 2, 1, 0, 0, 1, 3], mode="reflect"),
    "resize nearest": resized(
        10, 10, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    "resize nearest torch": resized(15, 15, mode="nearest", coordinate_transformation_mode="half_pixel"),
    "resize unequal": resized(
        10, 20, mode="nearest", coordinate_transformation_mode="asymmetric", nearest_mode="floor"
    ),
    "resize linear": resized(10, 10, mode="linear", coordinate_transformation_mode="half_pixel"),
    "resize linear corners": resized(9, 9, mode="linear", coordinate_transformation_mode="align_corners"),
    "add": pair("Add", IMAGE, IMAGE),
    "add ranks": pair("Add", IMAGE, (9, 7)),
    "sub": pair("Sub", IMAGE, (1, 4, 1, 1)),
    "mul": pair("Mul", IMAGE, IMAGE),
    "max": pair("Max", IMAGE, IMAGE),
    "min": pair("Min", IMAGE, IMAGE),
    "matmul of activations": pair("MatMul", (1, 5, 6), (1, 6, 4)),
    "relu between": relu_chain,
    "clip after add": relu6_after_add,
    "two outputs": two_outputs,
    "flatten then gemm": flatten_gemm,
    "flatten read twice": flatten_twice_read,
    "squeeze and excite": squeeze_excite,
    "detection head": detection_head,
    "channel concat": channel_concat,
    "split": split_parts,
}
ROUNDED_BY_TOSA = {"resize linear", "resize linear corners"}
"""TFLite weighs pixels with 10-bit fractions, TOSA exactly: a level apart where a value lies on the border."""

LEVELS: Mapping[str, float] = {
    "squeeze and excite": 2.01,  # four operators in a row; each may round the other way
    "two outputs": 2.01,
    "flatten then gemm": 2.01,
    "flatten read twice": 2.01,
    "detection head": 6.01,  # a level of these logits is up to five levels of a probability
}


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_operator_is_within_a_level_of_onnx_runtime_and_tosa_equals_litert(case: str, tmp_path: Path) -> None:
    net = Net(seed=len(case))
    proto = net.model(*CASES[case](net))
    qdq = quantize(proto, net.samples(8), tmp_path)
    feeds = net.samples(1, seed=99)[0]
    artifact, converted = reference_artifact(qdq, feeds, tmp_path)
    wanted = run_qdq(qdq, feeds)
    got, raw = run_reference("litert", artifact, feeds)
    _, tosa_raw = run_reference("tosa", artifact, feeds)
    for port in converted.outputs:
        assert got[port.name].shape == wanted[port.name].shape
        level = np.abs(got[port.name] - wanted[port.name]).max() / port.scale
        assert level <= LEVELS.get(case, 1.01), f"{port.name}: {level} levels"
        assert np.ptp(raw[port.name].astype(int)) > 20, "an output that hardly varies proves nothing"
        apart = np.abs(raw[port.name].astype(int) - tosa_raw[port.name].astype(int)).max()
        assert apart <= (1 if case in ROUNDED_BY_TOSA else 0)


def pair_at(net: Net, tensor: str, scale: float, zero: int) -> str:
    """The tensor behind a QuantizeLinear and a DequantizeLinear."""
    params = net.constant(np.asarray(np.float32(scale))), net.constant(np.asarray(np.uint8(zero)))
    return str(net.add("DequantizeLinear", net.add("QuantizeLinear", tensor, *params), *params))


def compared(net: Net, outputs: tuple[str, ...], folder: Path) -> list[float]:
    """Levels between LiteRT and ONNX Runtime on a graph that is quantized by hand; the file stays there."""
    proto = net.model(*outputs)
    onnx.save(proto, folder / "hand.onnx")
    feeds = net.samples(1, seed=99)[0]
    artifact, converted = reference_artifact(folder / "hand.onnx", feeds, folder)
    got, _ = run_reference("litert", artifact, feeds)
    wanted = run_qdq(folder / "hand.onnx", feeds)
    return [float(np.abs(got[port.name] - wanted[port.name]).max() / port.scale) for port in converted.outputs]


def test_relu_behind_a_flattened_image_keeps_onnx_order(tmp_path: Path) -> None:
    net = Net(seed=1)
    x = pair_at(net, net.input("x", 1, 3, 4, 5), 0.016, 128)
    y = pair_at(net, net.add("Relu", net.add("Flatten", x)), 0.016, 128)
    assert max(compared(net, (y,), tmp_path)) <= 1.01


def test_fill_beyond_the_range_of_the_data_takes_the_scale_of_the_output(tmp_path: Path) -> None:
    net = Net(seed=1)
    x = pair_at(net, net.input("x", 1, 3, 4, 5), 0.016, 128)
    pads, fill = net.constant(np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)), net.constant(np.asarray(np.float32(-6)))
    y = pair_at(net, net.add("Pad", x, pads, fill), 0.04, 170)
    assert max(compared(net, (y,), tmp_path)) <= 1.01


def test_tensor_with_two_quantizers_has_both_scales(tmp_path: Path) -> None:
    net = Net(seed=1)
    x = net.input("x", 1, 3, 4, 5)
    wide, narrow = pair_at(net, x, 0.016, 128), pair_at(net, x, 0.008, 100)
    total = net.add("Add", wide, narrow)
    y, z = pair_at(net, total, 0.04, 128), pair_at(net, total, 0.02, 128)
    assert max(compared(net, (y, z), tmp_path)) <= 2.01


def test_float_output_that_is_also_quantized_further_on(tmp_path: Path) -> None:
    net = Net(seed=1)
    y = net.add("Sigmoid", pair_at(net, net.input("x", 1, 3, 4, 5), 0.016, 128))
    z = pair_at(net, net.add("Tanh", pair_at(net, y, 1 / 256, 0)), 1 / 256, 0)
    assert max(compared(net, (y, z), tmp_path)) <= 1.01


def test_nearest_resizing_by_a_factor_that_leaves_a_rest_picks_its_pixels(tmp_path: Path) -> None:
    net = Net(seed=1)
    x = pair_at(net, net.input("x", 1, 3, 5, 5), 0.016, 128)
    y = net.add("Resize", x, "", net.constant(np.array([1, 1, 2.5, 2.5], np.float32)), mode="nearest")
    assert max(compared(net, (pair_at(net, y, 0.016, 128),), tmp_path)) == 0


def refused(op: str, shape: tuple[int, ...], *operands: Array, opset: int = 17, **attributes: object) -> Build:
    """The node by itself, between pairs; opset by keyword."""

    def build(net: Net) -> tuple[str, ...]:
        net.opset = opset
        x = pair_at(net, net.input("x", *shape), 0.016, 128)
        y = net.add(op, x, *(net.constant(operand) if operand.size else "" for operand in operands), **attributes)
        return (pair_at(net, y, 0.016, 128),)

    return build


def gemm_with_bias_of_rows(net: Net) -> tuple[str, ...]:
    weights = pair_at(net, net.weight(12, 3), 0.01, 128)
    x = pair_at(net, net.input("x", 3, 12), 0.016, 128)
    return (pair_at(net, net.add("Gemm", x, weights, net.weight(3, 1)), 0.05, 128),)


def transposed_to_a_size(net: Net) -> tuple[str, ...]:
    weights = pair_at(net, net.weight(4, 3, 3, 3), 0.01, 128)
    x = pair_at(net, net.input("x", 1, 4, 5, 5), 0.016, 128)
    return (pair_at(net, net.add("ConvTranspose", x, weights, strides=[2, 2], output_shape=[10, 10]), 0.05, 128),)


NOTHING = np.zeros(0, np.float32)
FLOOR = {"nearest_mode": "floor", "coordinate_transformation_mode": "asymmetric"}
SQUARE = {"kernel_shape": [2, 2], "strides": [2, 2]}
REFUSALS: Mapping[str, tuple[Build, str]] = {
    "counted average that ceil_mode takes beyond its pads": (
        refused("AveragePool", IMAGE, **SQUARE, ceil_mode=1, count_include_pad=1),
        "end within its pads",
    ),
    "average with lopsided pads": (
        refused("AveragePool", (1, 4, 8, 8), kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1]),
        "SAME, or counted",
    ),
    "transposed convolution to a size": (transposed_to_a_size, "output_shape"),
    "linear resizing that leaves a rest": (
        refused("Resize", (1, 3, 5, 5), NOTHING, np.array([1, 1, 1.5, 1.5], np.float32), mode="linear"),
        "way of resizing",
    ),
    "nearest resizing that leaves a rest": (
        refused("Resize", (1, 3, 10, 10), NOTHING, np.array([1, 1, 1.25, 1.25], np.float32), **FLOOR),
        "way of resizing",
    ),
    "resizing with antialias": (
        refused("Resize", (1, 3, 8, 8), NOTHING, np.array([1, 1, 0.5, 0.5], np.float32), opset=18, antialias=1),
        "antialias",
    ),
    "mean over no axes": (refused("ReduceMean", IMAGE, opset=18, noop_with_empty_axes=1), "noop_with_empty_axes"),
    "bias with a value for each row": (gemm_with_bias_of_rows, "one for each channel"),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_what_tflite_would_compute_otherwise_is_refused(case: str, tmp_path: Path) -> None:
    build, words = REFUSALS[case]
    net = Net(seed=1)
    outputs = build(net)
    onnx.save(net.model(*outputs), tmp_path / "hand.onnx")
    with pytest.raises(UnsupportedModelError, match=words):
        convert(tmp_path / "hand.onnx")


def test_signed_integers_without_a_zero_point_stay_signed(tmp_path: Path) -> None:
    net = Net(seed=1, opset=21)
    scale = net.constant(np.asarray(np.float32(0.016)))
    x = net.add("QuantizeLinear", net.input("x", 1, 12), scale, output_dtype=TensorProto.INT8)
    y = net.add("LeakyRelu", net.add("DequantizeLinear", x, scale), alpha=0.5)
    y = net.add("QuantizeLinear", y, scale, output_dtype=TensorProto.INT8)
    assert max(compared(net, (net.add("DequantizeLinear", y, scale),), tmp_path)) <= 1.01
