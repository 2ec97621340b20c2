"""The TFLite file of a quantized graph: element-wise operators, the table of all operators, and the I/O description."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from npuops.errors import UnsupportedModelError
from npuops.targets import tflite_conv, tflite_moves
from npuops.targets.qdq_graph import (
    SELF_SCALED,
    Activation,
    Constant,
    GraphPort,
    NodeRefusedError,
    Operand,
    QuantizedGraph,
    QuantizedOp,
    read_bounds,
)
from npuops.targets.qdq_reader import read_qdq
from npuops.targets.tflite_layout import CHANNELS_LAST, Axes, Lowering, Value


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteIo:
    """How a tensor of the source model lies in the TFLite file.

    Stored axis `i` is axis `axes[i]` of the source tensor; real = (integer - zero_point) * scale.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    axes: tuple[int, ...]
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteFile:
    """The bytes, and what a session must do at both ends."""

    data: bytes
    inputs: tuple[TfliteIo, ...]
    outputs: tuple[TfliteIo, ...]


def convert(path: Path) -> TfliteFile:
    """A QDQ ONNX file as int8 TFLite.

    Raises:
        UnsupportedModelError: every node that cannot be expressed, with the rule and what was found.
        MalformedModelError: not a valid ONNX file.
        MissingToolchainError: ai-edge-litert is absent.
    """
    return write(read_qdq(path))


def write(graph: QuantizedGraph) -> TfliteFile:
    """Lower every operator; see `convert`."""
    low = Lowering()
    inputs = [_open_input(low, port) for port in graph.inputs]
    refused: list[str] = []
    for op in graph.ops:
        try:
            _lower(low, op)
        except NodeRefusedError as error:
            refused.append(f"{op.name} ({op.op}): {error.message}")
            for index in range(len(op.outputs)):  # stands in, so that nodes behind it are judged too
                low.output(op, index=index)
    if refused:
        raise UnsupportedModelError(
            "these nodes have no int8 TFLite form:\n  " + "\n  ".join(refused),
            advice="`npuops check` names the rules; rewrite the nodes, or leave them to a CPU model",
        )
    outputs = [_close_output(low, port) for port in graph.outputs]
    data = low.builder.build([tensor for tensor, _ in inputs], [tensor for tensor, _ in outputs])
    return TfliteFile(data=data, inputs=tuple(io for _, io in inputs), outputs=tuple(io for _, io in outputs))


def _lower(low: Lowering, op: QuantizedOp) -> None:
    if op.op not in LOWERINGS:
        raise NodeRefusedError("the operator must be in the supported list")
    LOWERINGS[op.op](low, op)
    low.apply_clamp(op)


def _open_input(low: Lowering, port: GraphPort) -> tuple[int, TfliteIo]:
    made = port.activation
    axes = CHANNELS_LAST[4] if len(port.shape) == 4 else _plain(port)
    tensor = low.builder.activation(port.name, [port.shape[axis] for axis in axes], made.scale, made.zero_point)
    low.set(made, tensor, axes)
    return tensor, _io(port, axes, (made.scale, made.zero_point))


def _close_output(low: Lowering, port: GraphPort) -> tuple[int, TfliteIo]:
    """Outputs keep the order and scale in which they were computed: a session converts for free."""
    declared = port.activation
    value = low.values[declared.name]
    if port.dtype != "float32":  # an integer output has the scale that the model says
        value = low.rescaled(value, declared.scale, declared.zero_point)
    axes = _plain(port)
    if value.flat_of is None:
        tensor, axes = value.tensor, value.axes
    else:
        tensor = low.stored(value, axes)
    return tensor, _io(port, axes, low.builder.params(tensor))


def _plain(port: GraphPort) -> Axes:
    return tuple(range(len(port.shape)))


def _io(port: GraphPort, axes: Axes, params: tuple[float, int]) -> TfliteIo:
    return TfliteIo(
        name=port.name, dtype=port.dtype, shape=port.shape, axes=axes, scale=params[0], zero_point=params[1]
    )


def _binary(code: str, options: str) -> Callable[[Lowering, QuantizedOp], None]:
    def lower(low: Lowering, op: QuantizedOp) -> None:
        tensors, axes = _operands(low, op, [low.value(operand) for operand in op.inputs])
        out = low.output(op, axes)
        low.builder.op(code, tensors, [out], options, fusedActivationFunction=low.fused(op))

    return lower


def _extreme(code: str) -> Callable[[Lowering, QuantizedOp], None]:
    def lower(low: Lowering, op: QuantizedOp) -> None:
        made = op.outputs[0]
        values = [low.rescaled(low.value(operand), made.scale, made.zero_point) for operand in op.inputs]
        tensors, axes = _operands(low, op, values)
        low.builder.op(code, tensors, [low.output(op, axes)], "MaximumMinimumOptions")

    return lower


def _operands(low: Lowering, op: QuantizedOp, values: list[Value]) -> tuple[list[int], Axes]:
    """Two operands in one axis order, broadcast by leading ones."""
    rank = len(op.outputs[0].shape)
    if len(values) != 2:
        raise NodeRefusedError("there must be two operands", f"{len(values)}")
    if rank > 4:
        raise NodeRefusedError("rank must be at most 4", f"rank {rank}")
    computed = [value for operand, value in zip(op.inputs, values, strict=True) if isinstance(operand, Activation)]
    axes = tflite_moves.common_axes(computed, rank)
    return [_broadcast(low, value, axes) for value in values], axes


def _broadcast(low: Lowering, value: Value, axes: Axes) -> int:
    if len(value.shape) == len(axes):
        return low.stored(value, axes)
    tensor = low.stored(value, tuple(range(len(value.shape))))
    shape = (1,) * (len(axes) - len(value.shape)) + value.shape
    wide = Value(tensor=low.reshaped(tensor, shape), shape=shape, axes=tuple(range(len(shape))))
    return low.stored(wide, axes)


def _stored(low: Lowering, operand: Operand) -> tuple[int, Axes]:
    value = low.value(operand)
    axes = value.axes if value.flat_of is None else tuple(range(len(value.shape)))
    return low.stored(value, axes), axes


def _unary(code: str, options: str = "") -> Callable[[Lowering, QuantizedOp], None]:
    def lower(low: Lowering, op: QuantizedOp) -> None:
        tensor, axes = _stored(low, op.inputs[0])
        out = low.output_as(op, SELF_SCALED[op.op], axes) if op.op in SELF_SCALED else low.output(op, axes)
        low.builder.op(code, [tensor], [out], options)

    return lower


def _leaky_relu(low: Lowering, op: QuantizedOp) -> None:
    tensor, axes = _stored(low, op.inputs[0])
    alpha = float(op.attributes.get("alpha", 0.01))
    low.builder.op("LEAKY_RELU", [tensor], [low.output(op, axes)], "LeakyReluOptions", alpha=alpha)


def _prelu(low: Lowering, op: QuantizedOp) -> None:
    if not isinstance(op.inputs[1], Constant):
        raise NodeRefusedError("slopes must be constant")
    value, slopes = (low.value(operand) for operand in op.inputs)
    (tensor, wide), axes = _operands(low, op, [value, slopes])
    size = low.builder.specs[wide].shape
    if size[0] == 1 and len(size) == len(axes):  # the converter to TOSA wants one dimension less
        wide = low.reshaped(wide, size[1:])
    low.builder.op("PRELU", [tensor, wide], [low.output(op, axes)])


def _clip(low: Lowering, op: QuantizedOp) -> None:
    """Relu and Clip between two scales: a change of scale, then a clamp of integers."""
    made = op.outputs[0]
    bounds = (0.0, float(np.inf)) if op.op == "Relu" else read_bounds(list(op.inputs[1:]), op.attributes)
    value = low.value(op.inputs[0])
    same = low.builder.params(value.tensor) == (made.scale, made.zero_point)
    if op.op == "Relu" and not same:
        tensor, axes = _stored(low, op.inputs[0])
        low.builder.op("RELU", [tensor], [low.output(op, axes)])
        return
    low.values[made.name] = low.clamped(low.rescaled(value, made.scale, made.zero_point), bounds, op.name)


def _hard_sigmoid(low: Lowering, op: QuantizedOp) -> None:
    """clip(alpha * x + beta, 0, 1) = alpha * clip(x + beta / alpha, 0, 1 / alpha): an ADD and a MUL by constants."""
    alpha, beta = float(op.attributes.get("alpha", 0.2)), float(op.attributes.get("beta", 0.5))
    if alpha <= 0 or beta < 0:
        raise NodeRefusedError("alpha must be positive and beta not negative", f"{alpha}, {beta}")
    tensor, axes = _stored(low, op.inputs[0])
    shape = low.builder.specs[tensor].shape
    inner = low.builder.activation(f"{op.name}/shifted", shape, 1 / alpha / 255, -128)
    if beta:
        low.builder.op("ADD", [tensor, _scalar(low, f"{op.name}/shift", beta / alpha)], [inner], "AddOptions")
    else:  # a constant 0 has no scale; saturation is the clip
        low.builder.op("QUANTIZE", [tensor], [inner], "QuantizeOptions")
    factor = _scalar(low, f"{op.name}/factor", alpha)
    low.builder.op("MUL", [inner, factor], [low.output(op, axes)], "MulOptions")


def _scalar(low: Lowering, name: str, value: float) -> int:
    """A constant at the top of its scale."""
    return low.builder.constant(name, np.array([127], np.int8), np.array([value / 255]), np.array([-128]))


def _softmax(low: Lowering, op: QuantizedOp) -> None:
    """Softmax over one axis, which must be stored last; before opset 13 over all axes from `axis` on."""
    value = low.value(op.inputs[0])
    rank = len(value.shape)
    axis = int(op.attributes.get("axis", -1 if op.opset >= 13 else 1)) % rank
    rest = [size for size in value.shape[axis + 1 :] if size != 1]
    if op.opset < 13 and rest:
        raise NodeRefusedError("Softmax must be over one axis", f"axes {axis} to {rank - 1} (opset {op.opset})")
    order = value.axes if value.flat_of is None else tuple(range(rank))
    if order[-1] != axis:
        order = (*[other for other in range(rank) if other != axis], axis)
    tensor = low.stored(value, order)
    out = low.output_as(op, SELF_SCALED["Softmax"], order)
    low.builder.op("SOFTMAX", [tensor], [out], "SoftmaxOptions", beta=1.0)


LOWERINGS: Mapping[str, Callable[[Lowering, QuantizedOp], None]] = {
    "Add": _binary("ADD", "AddOptions"),
    "AveragePool": tflite_conv.pool,
    "Clip": _clip,
    "Concat": tflite_moves.concat,
    "Conv": tflite_conv.conv,
    "ConvTranspose": tflite_conv.conv_transpose,
    "DepthToSpace": tflite_moves.depth_to_space,
    "Flatten": tflite_moves.reshape,
    "Gemm": tflite_conv.gemm,
    "GlobalAveragePool": tflite_moves.mean,
    "HardSigmoid": _hard_sigmoid,
    "HardSwish": _unary("HARD_SWISH"),
    "LeakyRelu": _leaky_relu,
    "MatMul": tflite_conv.matmul,
    "Max": _extreme("MAXIMUM"),
    "MaxPool": tflite_conv.pool,
    "Min": _extreme("MINIMUM"),
    "Mul": _binary("MUL", "MulOptions"),
    "PRelu": _prelu,
    "Pad": tflite_moves.pad,
    "QuantizeLinear": tflite_moves.requantize,
    "ReduceMean": tflite_moves.mean,
    "Relu": _clip,
    "Reshape": tflite_moves.reshape,
    "Resize": tflite_moves.resize,
    "Sigmoid": _unary("LOGISTIC"),
    "Slice": tflite_moves.slice_,
    "Softmax": _softmax,
    "Split": tflite_moves.split,
    "Squeeze": tflite_moves.reshape,
    "Sub": _binary("SUB", "SubOptions"),
    "Sum": _binary("ADD", "AddOptions"),
    "Tanh": _unary("TANH"),
    "Transpose": tflite_moves.transpose,
    "Unsqueeze": tflite_moves.reshape,
    "Upsample": tflite_moves.resize,
}
"""Operators that the writer knows, in ONNX words."""
