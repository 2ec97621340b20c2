"""Convolutions, pools and fully connected layers: ONNX words → TFLite operators, with exact padding."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from npuops.targets.qdq_graph import Activation, Constant, NodeRefusedError, QuantizedOp
from npuops.targets.tflite_layout import Lowering, Value, nhwc
from npuops.targets.tflite_writer import SAME, VALID, Array


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """A sliding window over height and width; a sequence has height 1."""

    kernel: tuple[int, int]
    strides: tuple[int, int]
    dilations: tuple[int, int]
    begin: tuple[int, int]
    end: tuple[int, int]
    """Padding that output positions really reach; ONNX may declare more or, with ceil_mode, less."""
    mode: int | None
    """SAME or VALID where TFLite's own padding is this one, else None."""
    overhangs: bool
    """With ceil_mode, the last position reaches beyond the declared padding."""


def window(
    before: tuple[int, ...], after: tuple[int, ...], kernel: tuple[int, ...], attributes: Mapping[str, Any]
) -> Window:
    """The window of a Conv or pool node that makes the spatial sizes `after` from `before`."""
    rank = len(kernel)
    pads = tuple(attributes.get("pads", (0,) * 2 * rank))
    strides = tuple(attributes.get("strides", (1,) * rank))
    dilations = tuple(attributes.get("dilations", (1,) * rank))
    auto = attributes.get("auto_pad", "NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    begins, ends, same, overhangs = [], [], True, False
    for axis, (size, made) in enumerate(zip(before, after, strict=True)):
        reach = (made - 1) * strides[axis] + (kernel[axis] - 1) * dilations[axis] + 1
        total = max(reach - size, 0)
        begin = {"SAME_UPPER": total // 2, "SAME_LOWER": total - total // 2, "VALID": 0}.get(auto, pads[axis])
        end = max(reach - size - begin, 0)
        begins.append(begin)
        ends.append(end)
        same = same and begin == total // 2 and made == -(-size // strides[axis])
        overhangs = overhangs or end > {"NOTSET": pads[rank + axis], "VALID": 0}.get(auto, end)
    mode = VALID if not any(begins) and not any(ends) else SAME if same else None
    return Window(
        kernel=_pair(kernel, 1),
        strides=_pair(strides, 1),
        dilations=_pair(dilations, 1),
        begin=_pair(begins, 0),
        end=_pair(ends, 0),
        mode=mode,
        overhangs=overhangs,
    )


def _pair(values: tuple[int, ...] | list[int], fill: int) -> tuple[int, int]:
    if len(values) == 1:
        return fill, int(values[0])
    if len(values) == 2:
        return int(values[0]), int(values[1])
    raise NodeRefusedError("windows must have 1 or 2 dimensions", f"{len(values)}")


def padded(low: Lowering, tensor: int, view: Window, name: str, level: int | None = None) -> tuple[int, int]:
    """The tensor and TFLite's padding mode; explicit PAD with the zero point (or PADV2 with `level`) where needed."""
    if view.mode is not None:
        return tensor, view.mode
    pads = [[0, 0], [view.begin[0], view.end[0]], [view.begin[1], view.end[1]], [0, 0]]
    return pad_tensor(low, tensor, pads, f"{name}/pad", level), VALID


def pad_tensor(low: Lowering, tensor: int, pads: list[list[int]], name: str, level: int | None = None) -> int:
    """A padded copy. TFLite's PAD fills with the zero point; `level` is another integer to fill with."""
    spec = low.builder.specs[tensor]
    shape = [size + sum(pair) for size, pair in zip(spec.shape, pads, strict=True)]
    out = low.builder.like(tensor, name, shape)
    table = low.builder.constant(f"{name}/amounts", np.array(pads, np.int32))
    if level is None:
        low.builder.op("PAD", [tensor, table], [out], "PadOptions")
        return out
    scale, zero = low.builder.params(tensor)
    fill = low.builder.constant(f"{name}/fill", np.array(level, np.int8), np.array([scale]), np.array([zero]))
    low.builder.op("PADV2", [tensor, table, fill], [out], "PadV2Options")
    return out


def _weights(op: QuantizedOp, axis: int) -> Constant:
    operand = op.inputs[1]
    if not isinstance(operand, Constant) or operand.scale is None or operand.zero_point is None:
        raise NodeRefusedError("weights must be constant and quantized", getattr(operand, "name", "none"))
    if operand.data.dtype != np.int8:
        raise NodeRefusedError("weights must have 8 bits", str(operand.data.dtype))
    if operand.zero_point.any():
        raise NodeRefusedError("weights must be symmetric", f"zero point {int(operand.zero_point.max())}")
    if operand.scale.size > 1 and operand.axis != axis:
        raise NodeRefusedError("weight scales must follow the output channel", f"axis {operand.axis}")
    return operand


def _bias(op: QuantizedOp, scale: Array, channels: int) -> Array:
    """int32 at input scale times weight scale; a bias at another scale (or in float) is rounded to it."""
    operand = op.inputs[2] if len(op.inputs) > 2 else None
    if operand is None:
        return np.zeros(channels, np.int32)
    if not isinstance(operand, Constant):
        raise NodeRefusedError("bias must be constant", operand.name)
    shape = operand.data.shape
    if math.prod(shape[:-1]) != 1 or shape[-1:] not in {(), (1,), (channels,)}:
        raise NodeRefusedError("bias must have one value, or one for each channel", f"shape {shape}")
    wanted = np.broadcast_to(scale, (channels,))
    exact = operand.data.dtype == np.int32 and operand.scale is not None and operand.data.size == channels
    if exact and np.allclose(np.broadcast_to(np.asarray(operand.scale), (channels,)), wanted, rtol=1e-5, atol=0):
        return np.asarray(operand.data.reshape(channels))
    levels = np.rint(np.broadcast_to(operand.real.reshape(-1), (channels,)) / wanted)
    return np.asarray(np.clip(levels, -(2**31), 2**31 - 1).astype(np.int32))


def _data(op: QuantizedOp) -> Activation:
    data = op.inputs[0]
    if not isinstance(data, Activation):
        raise NodeRefusedError("the data must be computed", "a constant")
    return data


def _window(op: QuantizedOp, kernel: tuple[int, ...]) -> Window:
    return window(_data(op).shape[2:], op.outputs[0].shape[2:], kernel, op.attributes)


def conv(low: Lowering, op: QuantizedOp) -> None:
    """Conv: CONV_2D, DEPTHWISE_CONV_2D, or a split into groups."""
    weights = _weights(op, 0)
    data = weights.data if weights.data.ndim == 4 else weights.data[:, :, None]
    if data.ndim != 4:
        raise NodeRefusedError("convolutions must have 1 or 2 spatial dimensions", f"{weights.data.ndim - 2}")
    scale = np.asarray(weights.scale)
    group = int(op.attributes.get("group", 1))
    view = _window(op, tuple(weights.data.shape[2:]))
    bias = _bias(op, _data(op).scale * scale.astype(np.float64), len(data))
    tensor, mode = padded(low, low.spatial(op.inputs[0]), view, op.name)
    out = low.spatial_output(op)
    fused = low.fused(op)
    if group == 1:
        _conv_2d(low, op.name, (tensor, data, scale, bias, out), view, mode, fused)
    elif data.shape[1] == 1 and group == low.builder.specs[tensor].shape[3]:
        _depthwise(low, op.name, (tensor, data, scale, bias, out), view, mode, fused)
    else:
        _grouped(low, op.name, (tensor, data, scale, bias, out), view, mode, fused, group)
    low.close_spatial(op, out)


Parts = tuple[int, Array, Array, Array, int]
"""Input tensor, ONNX weights [O, I, H, W], weight scales, bias, output tensor."""


def _conv_2d(low: Lowering, name: str, parts: Parts, view: Window, mode: int, fused: int) -> None:
    tensor, data, scale, bias, out = parts
    kernel = low.builder.constant(f"{name}/weights", data.transpose(0, 2, 3, 1), scale, axis=0)
    handle = _bias_tensor(low, name, bias, scale, tensor)
    low.builder.op("CONV_2D", [tensor, kernel, handle], [out], "Conv2DOptions", **_conv_options(view, mode, fused))


def _conv_options(view: Window, mode: int, fused: int) -> dict[str, int]:
    """What both kinds of convolution have."""
    return {
        "padding": mode,
        "strideH": view.strides[0],
        "strideW": view.strides[1],
        "dilationHFactor": view.dilations[0],
        "dilationWFactor": view.dilations[1],
        "fusedActivationFunction": fused,
    }


def _depthwise(low: Lowering, name: str, parts: Parts, view: Window, mode: int, fused: int) -> None:
    tensor, data, scale, bias, out = parts
    kernel = low.builder.constant(f"{name}/weights", data.transpose(1, 2, 3, 0), scale, axis=3)
    handle = _bias_tensor(low, name, bias, scale, tensor)
    low.builder.op(
        "DEPTHWISE_CONV_2D",
        [tensor, kernel, handle],
        [out],
        "DepthwiseConv2DOptions",
        depthMultiplier=len(data) // low.builder.specs[tensor].shape[3],
        **_conv_options(view, mode, fused),
    )


def _grouped(low: Lowering, name: str, parts: Parts, view: Window, mode: int, fused: int, group: int) -> None:
    """One CONV_2D for each group between a SPLIT and a CONCATENATION over the channels."""
    tensor, data, scale, bias, out = parts
    size, made = low.builder.specs[tensor].shape, low.builder.specs[out].shape
    pieces = [
        low.builder.like(tensor, f"{name}/split:{index}", (*size[:3], size[3] // group)) for index in range(group)
    ]
    axis = low.builder.constant(f"{name}/axis", np.array(3, np.int32))
    low.builder.op("SPLIT", [axis, tensor], pieces, "SplitOptions", numSplits=group)
    results = []
    for index, piece in enumerate(pieces):
        rows = slice(index * len(data) // group, (index + 1) * len(data) // group)
        part = low.builder.like(out, f"{name}/group:{index}", (*made[:3], made[3] // group))
        own = scale if scale.size == 1 else scale[rows]
        _conv_2d(low, f"{name}/{index}", (piece, data[rows], own, bias[rows], part), view, mode, fused)
        results.append(part)
    low.builder.op("CONCATENATION", results, [out], "ConcatenationOptions", axis=3)


def _bias_tensor(low: Lowering, name: str, bias: Array, scale: Array, tensor: int) -> int:
    scales = (low.builder.params(tensor)[0] * scale.astype(np.float64)).astype(np.float32)
    return low.builder.constant(f"{name}/bias", bias, scales)


def conv_transpose(low: Lowering, op: QuantizedOp) -> None:
    """ConvTranspose: TRANSPOSE_CONV, cropped where ONNX pads are not TFLite's SAME."""
    weights = _weights(op, 1)
    if weights.data.ndim != 4 or int(op.attributes.get("group", 1)) != 1:
        raise NodeRefusedError("ConvTranspose must have 2 spatial dimensions and one group")
    if any(value != 1 for value in op.attributes.get("dilations", (1, 1))):
        raise NodeRefusedError("dilations must be 1", str(list(op.attributes["dilations"])))
    if bytes(op.attributes.get("auto_pad", b"NOTSET")) not in {b"NOTSET", b"VALID"} or "output_shape" in op.attributes:
        raise NodeRefusedError("pads must be explicit", "auto_pad or output_shape")
    strides, pads = tuple(op.attributes.get("strides", (1, 1))), tuple(op.attributes.get("pads", (0, 0, 0, 0)))
    tensor, made = low.spatial(op.inputs[0]), nhwc(op.outputs[0].shape)
    size, kernel = low.builder.specs[tensor].shape, weights.data.shape[2:]
    full = [(size[1 + axis] - 1) * strides[axis] + kernel[axis] for axis in range(2)]
    if any(pads[axis] + made[1 + axis] > full[axis] for axis in range(2)):
        raise NodeRefusedError("the output must lie within the full transposed convolution", "output_padding")
    total = [kernel[axis] - strides[axis] for axis in range(2)]
    same = all(
        total[axis] >= 0 and pads[axis] == total[axis] // 2 and made[1 + axis] == size[1 + axis] * strides[axis]
        for axis in range(2)
    )
    scale = np.asarray(weights.scale)
    bias = _bias(op, _data(op).scale * scale.astype(np.float64), made[3])
    out = low.spatial_output(op)
    whole = out
    if not same and list(made[1:3]) != full:
        whole = low.builder.like(out, f"{op.name}/full", (made[0], *full, made[3]))
    low.builder.op(
        "TRANSPOSE_CONV",
        [
            low.builder.constant(f"{op.name}/shape", np.array(low.builder.specs[whole].shape, np.int32)),
            low.builder.constant(f"{op.name}/weights", weights.data.transpose(1, 2, 3, 0), scale, axis=0),
            tensor,
            _bias_tensor(low, op.name, bias, scale, tensor),
        ],
        [whole],
        "TransposeConvOptions",
        padding=SAME if same else VALID,
        strideH=strides[0],
        strideW=strides[1],
    )
    if whole != out:
        crop(low, whole, out, (0, pads[0], pads[1], 0))


def crop(low: Lowering, tensor: int, out: int, begin: tuple[int, ...], steps: tuple[int, ...] = ()) -> None:
    """STRIDED_SLICE from `begin` to the shape of `out`."""
    name, shape = low.builder.specs[out].name, low.builder.specs[out].shape
    steps = steps or (1,) * len(shape)
    end = [first + (size - 1) * step + 1 for first, size, step in zip(begin, shape, steps, strict=True)]
    tables = [
        low.builder.constant(f"{name}/{word}", np.array(values, np.int32))
        for word, values in (("begin", begin), ("end", end), ("steps", steps))
    ]
    low.builder.op("STRIDED_SLICE", [tensor, *tables], [out], "StridedSliceOptions")


def pool(low: Lowering, op: QuantizedOp) -> None:
    """MaxPool and AveragePool. Padding never counts in a maximum; in an average only with count_include_pad."""
    if op.op == "MaxPool" and len(op.outputs) > 1:
        raise NodeRefusedError("MaxPool must have one output", "indices")
    view = _window(op, tuple(op.attributes["kernel_shape"]))
    if view.dilations != (1, 1):
        raise NodeRefusedError("dilations must be 1", str(list(view.dilations)))
    tensor = low.spatial(op.inputs[0])
    average = op.op == "AveragePool"
    if average and view.mode != VALID:
        if op.attributes.get("count_include_pad", 0):
            if view.overhangs:
                raise NodeRefusedError("a counted average must end within its pads", f"ceil_mode, pads {view.end}")
            view = replace(view, mode=None)
        elif view.mode is None:
            raise NodeRefusedError("pads of an average must be SAME, or counted", f"{view.begin}, {view.end}")
    tensor, mode = padded(low, tensor, view, op.name, None if average else -128)
    out = low.spatial_output(op, low.builder.params(tensor))
    low.builder.op(
        "AVERAGE_POOL_2D" if average else "MAX_POOL_2D",
        [tensor],
        [out],
        "Pool2DOptions",
        padding=mode,
        strideH=view.strides[0],
        strideW=view.strides[1],
        filterHeight=view.kernel[0],
        filterWidth=view.kernel[1],
    )
    low.close_spatial(op, out)


def gemm(low: Lowering, op: QuantizedOp) -> None:
    """Gemm: a 1x1 CONV_2D."""
    factors = (op.attributes.get("alpha", 1.0), op.attributes.get("beta", 1.0))
    if op.attributes.get("transA", 0) or factors != (1.0, 1.0):
        raise NodeRefusedError("Gemm must have transA 0, alpha 1 and beta 1")
    transposed = bool(op.attributes.get("transB", 0))
    weights = _weights(op, 0 if transposed else 1)
    _fully_connected(low, op, weights.data if transposed else weights.data.T, weights)


def matmul(low: Lowering, op: QuantizedOp) -> None:
    """MatMul: a 1x1 CONV_2D by a constant matrix, BATCH_MATMUL of two activations."""
    if isinstance(op.inputs[1], Activation):
        tensors = [low.plain(operand) for operand in op.inputs]
        if len({len(low.builder.specs[tensor].shape) for tensor in tensors}) != 1:
            raise NodeRefusedError("both operands must have the same rank")
        low.builder.op("BATCH_MATMUL", tensors, [low.output(op)], "BatchMatMulOptions")
        return
    weights = _weights(op, 1)
    if weights.data.ndim != 2:
        raise NodeRefusedError("the constant must be a matrix", f"rank {weights.data.ndim}")
    _fully_connected(low, op, weights.data.T, weights)


def _fully_connected(low: Lowering, op: QuantizedOp, rows: Array, weights: Constant) -> None:
    """A CONV_2D with a 1x1 kernel over a line of vectors; `rows` are [out, in].

    Not FULLY_CONNECTED: there LiteRT rounds once and the TOSA model twice, so that one value in a thousand is a level
    apart. A flattened image keeps its stored order, and the columns move instead.
    """
    tensor, rows = _flat(low, low.value(op.inputs[0]), rows)
    made = op.outputs[0]
    count = math.prod(made.shape[:-1])
    scale = np.asarray(weights.scale)
    bias = _bias(op, _data(op).scale * scale.astype(np.float64), len(rows))
    line = low.reshaped(tensor, (1, 1, count, rows.shape[1]))
    out = low.builder.activation(f"{op.name}/line", (1, 1, count, len(rows)), made.scale, made.zero_point)
    view = window((1, count), (1, count), (1, 1), {})
    _conv_2d(low, op.name, (line, rows[:, :, None, None], scale, bias, out), view, VALID, low.fused(op))
    low.set(made, low.reshaped(out, made.shape, op.name))  # Vela reports the last name


def _flat(low: Lowering, value: Value, rows: Array) -> tuple[int, Array]:
    whole = value.flat_of
    if whole is None:
        return low.stored(value, tuple(range(len(value.shape)))), rows
    columns = np.arange(rows.shape[1]).reshape(whole.shape[1:]).transpose([axis - 1 for axis in whole.axes[1:]])
    return whole.tensor, rows[:, columns.reshape(-1)]
