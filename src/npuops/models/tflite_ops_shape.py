"""TFLite → ONNX: operators that move elements and compute nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np

from npuops.errors import UnsupportedModelError
from npuops.models.tflite_builder import Importer, Layout, OnnxBuilder, axis_in
from npuops.models.tflite_graph import TfliteOp


def _reshape(builder: OnnxBuilder, op: TfliteOp) -> None:
    source, result = op.inputs[0], op.outputs[0]
    sizes = builder.sizes(source)
    # One pixel has the same order of elements in both layouts.
    pixel = len(sizes) == 4 and sizes[1] == sizes[2] == 1
    value = builder.value(source, builder.layout(source) if pixel else Layout.TF)
    builder.put(result, builder.reshape(value, builder.sizes(result)))


def _transpose(builder: OnnxBuilder, op: TfliteOp) -> None:
    order = builder.numbers(op.inputs[1], "the order")
    builder.put(op.outputs[0], builder.node("Transpose", [builder.value(op.inputs[0])], perm=order))


def _concatenate(builder: OnnxBuilder, op: TfliteOp) -> None:
    layout = builder.layout(*op.inputs)
    values = [builder.value(index, layout) for index in op.inputs]
    axis = axis_in(layout, op.number("axis"), len(builder.sizes(op.outputs[0])))
    result = builder.node("Concat", values, axis=axis)
    builder.put(op.outputs[0], result, layout, op.word("fused_activation_function", "NONE"))


def _pad(builder: OnnxBuilder, op: TfliteOp) -> None:
    source = op.inputs[0]
    layout = builder.layout(source)
    flat = builder.numbers(op.inputs[1], "the padding")
    rank = len(builder.sizes(source))
    before, after = [0] * rank, [0] * rank
    for axis in range(rank):
        place = axis_in(layout, axis, rank)
        before[place], after[place] = flat[2 * axis], flat[2 * axis + 1]
    inputs = [builder.value(source, layout), builder.ints(before + after)]
    mode = "constant"
    if op.op == "PADV2":
        inputs.append(builder.reshape(builder.value(op.inputs[2]), ()))
    if op.op == "MIRROR_PAD":
        if op.number("mode") != 0:
            raise UnsupportedModelError(f"{builder.layer}: symmetric mirror padding", advice="use reflect padding")
        mode = "reflect"
    builder.put(op.outputs[0], builder.node("Pad", inputs, mode=mode), layout)


def _split(builder: OnnxBuilder, op: TfliteOp) -> None:
    """SPLIT has (axis, data), SPLIT_V (data, sizes, axis)."""
    source, where = (op.inputs[1], op.inputs[0]) if op.op == "SPLIT" else (op.inputs[0], op.inputs[2])
    (axis,) = builder.numbers(where, "the axis")
    layout = builder.layout(source)
    rank = len(builder.sizes(source))
    parts = [builder.sizes(index)[axis % rank] for index in op.outputs]
    values = builder.nodes_out(
        "Split", [builder.value(source, layout), builder.ints(parts)], len(parts), axis=axis_in(layout, axis, rank)
    )
    for index, value in zip(op.outputs, values, strict=True):
        builder.put(index, value, layout)


def _strided_slice(builder: OnnxBuilder, op: TfliteOp) -> None:
    source, result = op.inputs[0], op.outputs[0]
    if op.number("ellipsis_mask") or op.number("new_axis_mask") or op.number("offset"):
        raise UnsupportedModelError(f"{builder.layer}: a slice with ellipsis, new axis or offset")
    begin, end, step = (builder.numbers(index, "the slice") for index in op.inputs[1:4])
    starts, ends, steps = [], [], []
    for axis, (first, last, stride) in enumerate(zip(begin, end, step, strict=True)):
        shrink = op.number("shrink_axis_mask") >> axis & 1
        # Past either end is how ONNX writes "from the edge".
        edge = 2**31 - 1
        starts.append((0 if stride > 0 else edge) if op.number("begin_mask") >> axis & 1 and not shrink else first)
        open_end = (op.number("end_mask") >> axis & 1) or (shrink and first == -1)
        stop = first + 1 if shrink else last
        ends.append((edge if stride > 0 else -edge) if open_end else stop)
        steps.append(1 if shrink else stride)
    lists = [builder.ints(values) for values in (starts, ends, range(len(starts)), steps)]
    value = builder.node("Slice", [builder.value(source), *lists])
    if op.number("shrink_axis_mask"):
        value = builder.reshape(builder.rounded(result, value), builder.sizes(result))
    builder.put(result, value)


def _slice(builder: OnnxBuilder, op: TfliteOp) -> None:
    source, result = op.inputs[0], op.outputs[0]
    begin = builder.numbers(op.inputs[1], "the slice")
    ends = [first + size for first, size in zip(begin, builder.sizes(result), strict=True)]
    lists = [builder.ints(values) for values in (begin, ends, range(len(begin)))]
    builder.put(result, builder.node("Slice", [builder.value(source), *lists]))


def _gather(builder: OnnxBuilder, op: TfliteOp) -> None:
    if op.number("batch_dims"):
        raise UnsupportedModelError(f"{builder.layer}: gather with batch dimensions")
    axis = op.number("axis") % len(builder.sizes(op.inputs[0]))
    values = [builder.value(index) for index in op.inputs]
    builder.put(op.outputs[0], builder.node("Gather", values, axis=axis))


def _pack(builder: OnnxBuilder, op: TfliteOp) -> None:
    result = op.outputs[0]
    shape = builder.sizes(result)
    axis = op.number("axis") % len(shape)
    single = (*shape[:axis], 1, *shape[axis + 1 :])
    values = [builder.rounded(index, builder.reshape(builder.value(index), single)) for index in op.inputs]
    builder.put(result, builder.node("Concat", values, axis=axis))


def _unpack(builder: OnnxBuilder, op: TfliteOp) -> None:
    source = op.inputs[0]
    axis = op.number("axis") % len(builder.sizes(source))
    ones = builder.ints([1] * len(op.outputs))
    values = builder.nodes_out("Split", [builder.value(source), ones], len(op.outputs), axis=axis)
    for index, value in zip(op.outputs, values, strict=True):
        builder.put(index, builder.reshape(builder.rounded(index, value), builder.sizes(index)))


def _tile(builder: OnnxBuilder, op: TfliteOp) -> None:
    repeats = builder.ints(builder.numbers(op.inputs[1], "the number of repeats"))
    builder.put(op.outputs[0], builder.node("Tile", [builder.value(op.inputs[0]), repeats]))


def _shape(builder: OnnxBuilder, op: TfliteOp) -> None:
    kind = np.int64 if builder.tensor(op.outputs[0]).dtype == "int64" else np.int32
    builder.fold(op.outputs[0], np.asarray(builder.sizes(op.inputs[0]), kind))


MOVES: Final[Mapping[str, Importer]] = {
    "RESHAPE": _reshape,
    "SQUEEZE": _reshape,
    "EXPAND_DIMS": _reshape,
    "TRANSPOSE": _transpose,
    "CONCATENATION": _concatenate,
    "PAD": _pad,
    "PADV2": _pad,
    "MIRROR_PAD": _pad,
    "SPLIT": _split,
    "SPLIT_V": _split,
    "STRIDED_SLICE": _strided_slice,
    "SLICE": _slice,
    "GATHER": _gather,
    "PACK": _pack,
    "UNPACK": _unpack,
    "TILE": _tile,
    "SHAPE": _shape,
}
"""TFLite operator → what adds it."""
