"""TFLite → ONNX: operators that work element by element, and reductions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx

from npuops.models.tflite_builder import ONNX_TYPES, Importer, Layout, OnnxBuilder, axis_in
from npuops.models.tflite_graph import TfliteOp


def _unary(*names: str) -> Importer:
    """A chain of ONNX operators with one input each."""

    def add(builder: OnnxBuilder, op: TfliteOp) -> None:
        layout = builder.layout(op.inputs[0])
        value = builder.value(op.inputs[0], layout)
        for name in names:
            value = builder.node(name, [value])
        builder.put(op.outputs[0], value, layout)

    return add


def _binary(name: str) -> Importer:
    def add(builder: OnnxBuilder, op: TfliteOp) -> None:
        layout = builder.layout(*op.inputs)
        values = [builder.value(index, layout) for index in op.inputs]
        result = builder.node(name, values)
        builder.put(op.outputs[0], result, layout, op.word("fused_activation_function", "NONE"))

    return add


def _clip(low: float, high: float) -> Importer:
    def add(builder: OnnxBuilder, op: TfliteOp) -> None:
        layout = builder.layout(op.inputs[0])
        bounds = [builder.initializer(np.asarray(bound, np.float32)) for bound in (low, high)]
        builder.put(op.outputs[0], builder.node("Clip", [builder.value(op.inputs[0], layout), *bounds]), layout)

    return add


def _squared_difference(builder: OnnxBuilder, op: TfliteOp) -> None:
    layout = builder.layout(*op.inputs)
    difference = builder.node("Sub", [builder.value(index, layout) for index in op.inputs])
    builder.put(op.outputs[0], builder.node("Mul", [difference, difference]), layout)


def _square(builder: OnnxBuilder, op: TfliteOp) -> None:
    layout = builder.layout(op.inputs[0])
    value = builder.value(op.inputs[0], layout)
    builder.put(op.outputs[0], builder.node("Mul", [value, value]), layout)


def _leaky_relu(builder: OnnxBuilder, op: TfliteOp) -> None:
    layout = builder.layout(op.inputs[0])
    alpha = op.options.get("alpha", 0.0)
    slope = float(alpha) if isinstance(alpha, int | float) else 0.0
    builder.put(op.outputs[0], builder.node("LeakyRelu", [builder.value(op.inputs[0], layout)], alpha=slope), layout)


def _prelu(builder: OnnxBuilder, op: TfliteOp) -> None:
    layout = builder.layout(op.inputs[0])
    values = [builder.value(index, layout) for index in op.inputs]
    builder.put(op.outputs[0], builder.node("PRelu", values), layout)


def _cast(builder: OnnxBuilder, op: TfliteOp) -> None:
    layout = builder.layout(op.inputs[0])
    kind = ONNX_TYPES[builder.tensor(op.outputs[0]).dtype]
    if builder.is_quantized(op.outputs[0]):
        kind = onnx.TensorProto.FLOAT
    builder.put(op.outputs[0], builder.node("Cast", [builder.value(op.inputs[0], layout)], to=kind), layout)


def _quantize(builder: OnnxBuilder, op: TfliteOp) -> None:
    """Float to integers, or from one scale to another: the Q/DQ of the output does it."""
    layout = builder.layout(op.inputs[0])
    builder.put(op.outputs[0], builder.value(op.inputs[0], layout), layout)


def _dequantize(builder: OnnxBuilder, op: TfliteOp) -> None:
    """Constants (half-precision weights are stored so) become float at once."""
    values = builder.array(op.inputs[0])
    if values is not None and not builder.is_quantized(op.inputs[0]):
        builder.fold(op.outputs[0], values)
        return
    _quantize(builder, op)


def _reduce(name: str) -> Importer:
    def add(builder: OnnxBuilder, op: TfliteOp) -> None:
        source, result = op.inputs[0], op.outputs[0]
        rank = len(builder.sizes(source))
        axes = sorted(axis % rank for axis in builder.numbers(op.inputs[1], "the list of axes"))
        layout = builder.layout(source)
        if name == "ReduceMean" and rank == 4 and axes == [1, 2]:
            _global_average(builder, op)
            return
        keep = bool(op.number("keep_dims"))
        if not keep:
            layout = Layout.TF
        places = sorted(axis_in(layout, axis, rank) for axis in axes)
        value = builder.value(source, layout)
        if name == "ReduceSum":
            reduced = builder.node(name, [value, builder.ints(places)], keepdims=int(keep))
        else:
            reduced = builder.node(name, [value], axes=places, keepdims=int(keep))
        builder.put(result, reduced, layout)

    return add


def _global_average(builder: OnnxBuilder, op: TfliteOp) -> None:
    result = op.outputs[0]
    pooled = builder.node("GlobalAveragePool", [builder.value(op.inputs[0], Layout.NCHW)])
    if op.number("keep_dims"):
        builder.put(result, pooled, Layout.NCHW)
        return
    builder.put(result, builder.reshape(builder.rounded(result, pooled), builder.sizes(result)))


def _arg(name: str) -> Importer:
    def add(builder: OnnxBuilder, op: TfliteOp) -> None:
        source, result = op.inputs[0], op.outputs[0]
        (axis,) = builder.numbers(op.inputs[1], "the axis")
        layout = builder.layout(source)
        place = axis_in(layout, axis, len(builder.sizes(source)))
        # Without the reduced axis, channels last or first leave the same order only when it is the channels.
        if layout is Layout.NCHW and place != 1:
            layout, place = Layout.TF, axis % len(builder.sizes(source))
        found = builder.node(name, [builder.value(source, layout)], axis=place, keepdims=0)
        kind = ONNX_TYPES[builder.tensor(result).dtype]
        builder.put(result, found if kind == onnx.TensorProto.INT64 else builder.node("Cast", [found], to=kind))

    return add


MATH: Final[Mapping[str, Importer]] = {
    "ADD": _binary("Add"),
    "SUB": _binary("Sub"),
    "MUL": _binary("Mul"),
    "DIV": _binary("Div"),
    "MINIMUM": _binary("Min"),
    "MAXIMUM": _binary("Max"),
    "POW": _binary("Pow"),
    "SQUARED_DIFFERENCE": _squared_difference,
    "RELU": _unary("Relu"),
    "RELU6": _clip(0.0, 6.0),
    "RELU_N1_TO_1": _clip(-1.0, 1.0),
    "LEAKY_RELU": _leaky_relu,
    "PRELU": _prelu,
    "LOGISTIC": _unary("Sigmoid"),
    "TANH": _unary("Tanh"),
    "HARD_SWISH": _unary("HardSwish"),
    "SQUARE": _square,
    "SQRT": _unary("Sqrt"),
    "RSQRT": _unary("Sqrt", "Reciprocal"),
    "EXP": _unary("Exp"),
    "LOG": _unary("Log"),
    "ABS": _unary("Abs"),
    "NEG": _unary("Neg"),
    "FLOOR": _unary("Floor"),
    "SIN": _unary("Sin"),
    "COS": _unary("Cos"),
    "CAST": _cast,
    "QUANTIZE": _quantize,
    "DEQUANTIZE": _dequantize,
    "MEAN": _reduce("ReduceMean"),
    "SUM": _reduce("ReduceSum"),
    "REDUCE_MAX": _reduce("ReduceMax"),
    "REDUCE_MIN": _reduce("ReduceMin"),
    "ARG_MAX": _arg("ArgMax"),
    "ARG_MIN": _arg("ArgMin"),
}
"""TFLite operator → what adds it."""
