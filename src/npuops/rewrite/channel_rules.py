"""How each ONNX operator hands channels on. A rule either follows them completely or raises `UntraceableError`.

An operator without a rule, or of a foreign domain, freezes the channels that reach it.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, Final

import numpy as np
import onnx

from npuops.rewrite.channel_trace import Ids, Layout, Trace, UntraceableError
from npuops.rewrite.rewrite_graph import attribute, axes_of

Rule = Callable[[Trace, onnx.NodeProto], None]


def refuse(trace: Trace, node: onnx.NodeProto) -> None:
    """The rule of every operator that has none."""
    del trace, node
    raise UntraceableError("channels cannot be followed through it")


def _on_axis_1(trace: Trace, node: onnx.NodeProto) -> Layout | None:
    layout = trace.layout(node.input[0])
    if layout is not None and layout.axis != 1:
        raise UntraceableError("its input's channels are not on axis 1")
    return layout


def _only_first_output(node: onnx.NodeProto) -> None:
    if any(node.output[1:]):
        raise UntraceableError("it has more than one output")


def _cut_bias(trace: Trace, node: onnx.NodeProto, ids: Ids) -> None:
    if len(node.input) < 3 or not node.input[2]:
        return
    bias = trace.constant(node, 2)
    if bias is None:
        raise UntraceableError("its bias is computed")
    if bias.ndim and bias.shape[-1] == len(ids) and bias.size == len(ids):
        trace.cut(node, 2, bias.ndim - 1, ids)
    elif bias.size != 1:
        raise UntraceableError(f"its bias has the shape {bias.shape}")


def _conv(trace: Trace, node: onnx.NodeProto) -> None:
    weights, layout = trace.constant(node, 1), _on_axis_1(trace, node)
    if weights is None or weights.ndim < 3:
        raise UntraceableError("its weights are computed")
    groups = attribute(node, "group", 1)
    if groups > 1 and groups == weights.shape[0] and weights.shape[1] == 1:
        if layout is not None:
            trace.cut(node, 1, 0, layout.ids)
            _cut_bias(trace, node, layout.ids)
            trace.groups.append((node, layout.ids))
            trace.put(node.output[0], 1, layout.ids)
        return
    if groups > 1:
        raise UntraceableError("its groups have more than one channel each")
    _product(trace, node, layout, weights, (1, 0), 1)


def _conv_transpose(trace: Trace, node: onnx.NodeProto) -> None:
    weights, layout = trace.constant(node, 1), _on_axis_1(trace, node)
    if weights is None or attribute(node, "group", 1) != 1:
        raise UntraceableError("its weights are computed, or it has groups")
    _product(trace, node, layout, weights, (0, 1), 1)


def _gemm(trace: Trace, node: onnx.NodeProto) -> None:
    weights, layout = trace.constant(node, 1), _on_axis_1(trace, node)
    if weights is None or attribute(node, "transA", 0):
        raise UntraceableError("its weights are computed, or its input is transposed")
    _product(trace, node, layout, weights, (1, 0) if attribute(node, "transB", 0) else (0, 1), 1)


def _matmul(trace: Trace, node: onnx.NodeProto) -> None:
    weights, layout = trace.constant(node, 1), trace.layout(node.input[0])
    if weights is None or weights.ndim != 2:
        raise UntraceableError("it has no constant matrix on its right side")
    last = trace.rank(node.input[0]) - 1
    if layout is not None and layout.axis != last:
        raise UntraceableError("its input's channels are not on the last axis")
    if last == 0:
        raise UntraceableError("its input is a vector")
    _product(trace, node, layout, weights, (0, 1), last)


def _product(
    trace: Trace, node: onnx.NodeProto, layout: Layout | None, weights: Any, axes: tuple[int, int], axis: int
) -> None:
    """Consumes channels along `axes[0]` of the weights, makes new ones along `axes[1]`."""
    if weights.ndim < 2 or not weights.shape[axes[1]]:
        raise UntraceableError(f"its weights have the shape {weights.shape}")
    if layout is not None:
        if weights.shape[axes[0]] != len(layout.ids):
            raise UntraceableError("its weights have another number of channels than its input")
        trace.cut(node, 1, axes[0], layout.ids)
    ids = trace.fresh(node, weights, axes[1])
    _cut_bias(trace, node, ids)
    trace.cut(node, 1, axes[1], ids)
    trace.put(node.output[0], axis, ids)


def _per_channel(trace: Trace, node: onnx.NodeProto) -> None:
    layout = _on_axis_1(trace, node)
    _only_first_output(node)
    if layout is None:
        return
    for operand in range(1, len(node.input)):
        values = trace.constant(node, operand)
        if values is None or values.shape != layout.ids.shape:
            raise UntraceableError("its scales are computed")
        trace.cut(node, operand, 0, layout.ids)
    trace.put(node.output[0], 1, layout.ids)


def _unary(trace: Trace, node: onnx.NodeProto) -> None:
    layout = trace.layout(node.input[0])
    _only_first_output(node)
    if layout is not None:
        trace.put(node.output[0], layout.axis, layout.ids)


def _spatial(trace: Trace, node: onnx.NodeProto) -> None:
    _on_axis_1(trace, node)
    _unary(trace, node)


def _resize(trace: Trace, node: onnx.NodeProto) -> None:
    if len(node.input) > 3 and node.input[3]:
        raise UntraceableError("it names its output sizes, channels among them")
    if trace.width(node.input[0], 1) != trace.width(node.output[0], 1):
        raise UntraceableError("it resizes the channels")
    _spatial(trace, node)


def _elementwise(trace: Trace, node: onnx.NodeProto) -> None:
    rank = trace.rank(node.output[0])
    layouts = [trace.layout(name) for name in node.input]
    shifts = [rank - trace.rank(name) for name in node.input]
    axes = {layout.axis + shift for layout, shift in zip(layouts, shifts, strict=True) if layout is not None}
    if not axes:
        return
    if len(axes) > 1:
        raise UntraceableError("its operands have their channels on different axes")
    axis = axes.pop()
    width = trace.width(node.output[0], axis)
    wide = [layout.ids for layout in layouts if layout is not None and len(layout.ids) == width]
    if not wide:
        raise UntraceableError("one channel is spread over many")
    for operand, (layout, shift) in enumerate(zip(layouts, shifts, strict=True)):
        if layout is not None:
            if len(layout.ids) == width:
                trace.unite(wide[0], layout.ids)
            else:
                trace.freeze(layout.ids, f"spread over all channels by {node.name}")
        elif axis >= shift and trace.width(node.input[operand], axis - shift) == width > 1:
            if trace.constant(node, operand) is None:
                raise UntraceableError("it joins a tensor whose channels are fixed")
            trace.cut(node, operand, axis - shift, wide[0])
    trace.put(node.output[0], axis, wide[0])


def _concat(trace: Trace, node: onnx.NodeProto) -> None:
    layouts = [trace.layout(name) for name in node.input]
    axes = {layout.axis for layout in layouts if layout is not None}
    if not axes:
        return
    axis = attribute(node, "axis", 1) % trace.rank(node.output[0])
    if axes != {axis}:
        raise UntraceableError("it does not join along the channels")
    widths = [trace.width(name, axis) for name in node.input]
    rows = [
        layout.ids if layout is not None else trace.foreign(width)
        for layout, width in zip(layouts, widths, strict=True)
    ]
    trace.put(node.output[0], axis, np.concatenate(rows))


def _flatten(trace: Trace, node: onnx.NodeProto) -> None:
    layout = _on_axis_1(trace, node)
    if layout is None:
        return
    rank = trace.rank(node.input[0])
    if attribute(node, "axis", 1) % rank != 1:
        raise UntraceableError("it does not flatten from axis 1 on")
    trace.put(
        node.output[0], 1, np.repeat(layout.ids, math.prod(trace.width(node.input[0], axis) for axis in range(2, rank)))
    )


def _reshape(trace: Trace, node: onnx.NodeProto) -> None:
    layout = trace.layout(node.input[0])
    if layout is None:
        return
    before, after = trace.shape(node.input[0]), trace.shape(node.output[0])
    if layout.axis != 1 or attribute(node, "allowzero", 0) or trace.constant(node, 1) is None:
        raise UntraceableError("its channels are not on axis 1, or its target is computed")
    if len(after) < 2 or before[0] != after[0]:
        raise UntraceableError("it changes the batch axis")
    if before[1] == after[1]:
        trace.put(node.output[0], 1, layout.ids)
        trace.targets.append((node, (0, 0, *after[2:])))
    elif len(after) == 2:
        trace.put(node.output[0], 1, np.repeat(layout.ids, math.prod(before[2:])))
        trace.targets.append((node, (0, -1)))
    else:
        raise UntraceableError("it splits or mixes the channels")


def _transpose(trace: Trace, node: onnx.NodeProto) -> None:
    layout = trace.layout(node.input[0])
    if layout is not None:
        rank = trace.rank(node.input[0])
        order = list(attribute(node, "perm", list(reversed(range(rank)))))
        trace.put(node.output[0], order.index(layout.axis), layout.ids)


def _squeeze(trace: Trace, node: onnx.NodeProto) -> None:
    layout = trace.layout(node.input[0])
    if layout is None:
        return
    axes = axes_of(trace.graph, node, trace.rank(node.input[0]))
    if axes is None:
        # Without axes it drops every axis of size 1, and a channel axis may come down to that.
        raise UntraceableError("it names no axes")
    if layout.axis in axes:
        raise UntraceableError("it drops the channels' axis")
    trace.put(node.output[0], layout.axis - sum(axis < layout.axis for axis in axes), layout.ids)


def _unsqueeze(trace: Trace, node: onnx.NodeProto) -> None:
    layout = trace.layout(node.input[0])
    if layout is None:
        return
    rank = trace.rank(node.output[0])
    axes = axes_of(trace.graph, node, rank)
    if axes is None:
        raise UntraceableError("its axes are computed")
    kept = [axis for axis in range(rank) if axis not in axes]
    trace.put(node.output[0], kept[layout.axis], layout.ids)


def _reduce(trace: Trace, node: onnx.NodeProto) -> None:
    layout = trace.layout(node.input[0])
    if layout is None:
        return
    axes = axes_of(trace.graph, node, trace.rank(node.input[0]))
    if axes is None or layout.axis in axes:
        raise UntraceableError("it reduces over the channels")
    lost = 0 if attribute(node, "keepdims", 1) else sum(axis < layout.axis for axis in axes)
    trace.put(node.output[0], layout.axis - lost, layout.ids)


_UNARY = (
    "Relu LeakyRelu Elu Selu Celu ThresholdedRelu Clip Sigmoid HardSigmoid HardSwish Tanh Gelu Mish Softplus Softsign "
    "Erf Identity Dropout Abs Neg Exp Log Sqrt Floor Ceil Round Reciprocal Sign Swish Cast"
)
_SPATIAL = "MaxPool AveragePool LpPool GlobalAveragePool GlobalMaxPool"
_ELEMENTWISE = "Add Sub Mul Div Min Max Sum Mean Pow PRelu"
_REDUCE = "ReduceMean ReduceSum ReduceMax ReduceMin ReduceL1 ReduceL2"

RULES: Final[dict[str, Rule]] = {
    **dict.fromkeys(_UNARY.split(), _unary),
    **dict.fromkeys(_SPATIAL.split(), _spatial),
    **dict.fromkeys(_ELEMENTWISE.split(), _elementwise),
    **dict.fromkeys(_REDUCE.split(), _reduce),
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "BatchNormalization": _per_channel,
    "InstanceNormalization": _per_channel,
    "Resize": _resize,
    "Upsample": _resize,
    "Concat": _concat,
    "Flatten": _flatten,
    "Reshape": _reshape,
    "Transpose": _transpose,
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
}
"""Operator of the standard domain → its rule."""
