"""Operators that move data without computing: reshapes, transposes, slices, concatenation, padding, resizing."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np

from npuops.targets.qdq_graph import Activation, NodeRefusedError, QuantizedOp
from npuops.targets.tflite_conv import crop, pad_tensor
from npuops.targets.tflite_layout import Axes, Lowering, Value
from npuops.targets.tflite_writer import Array


def reshape(low: Lowering, op: QuantizedOp) -> None:
    """Reshape, Flatten, Squeeze, Unsqueeze. A flattened image stays a view until somebody needs ONNX order."""
    value, made = low.value(op.inputs[0]), op.outputs[0]
    plain = tuple(range(len(value.shape)))
    flattens = len(made.shape) == 2 and len(value.shape) > 2 and made.shape[0] == value.shape[0]
    if value.flat_of is None and flattens and value.axes != plain and value.axes[0] == 0:
        low.set(made, value.tensor, flat_of=value)
        return
    low.set(made, low.reshaped(low.stored(value, plain), made.shape, op.name))


def transpose(low: Lowering, op: QuantizedOp) -> None:
    """Transpose: only the meaning of the stored axes changes."""
    value = low.value(op.inputs[0])
    if value.flat_of is not None:
        value = Value(tensor=low.plain(op.inputs[0]), shape=value.shape, axes=tuple(range(len(value.shape))))
    rank = len(value.shape)
    order = list(op.attributes.get("perm", range(rank - 1, -1, -1)))
    low.set(op.outputs[0], value.tensor, tuple(order.index(axis) for axis in value.axes))


def requantize(low: Lowering, op: QuantizedOp) -> None:
    """A change of scale."""
    made = op.outputs[0]
    value = low.rescaled(low.value(op.inputs[0]), made.scale, made.zero_point)
    low.values[made.name] = value


def concat(low: Lowering, op: QuantizedOp) -> None:
    """Concat: TFLite's int8 kernel wants every input at the scale of the output."""
    made = op.outputs[0]
    values = [low.rescaled(low.value(operand), made.scale, made.zero_point) for operand in op.inputs]
    axes = _common_axes(values, len(made.shape))
    axis = axes.index(int(op.attributes["axis"]) % len(made.shape))
    tensors = [low.stored(value, axes) for value in values]
    low.builder.op("CONCATENATION", tensors, [low.output(op, axes)], "ConcatenationOptions", axis=axis)


def _common_axes(values: Sequence[Value], rank: int) -> Axes:
    """The order that most of the stored bytes already have."""
    weight: dict[Axes, int] = {}
    for value in values:
        if value.flat_of is None:
            weight[value.axes] = weight.get(value.axes, 0) + math.prod(value.shape)
    return max(weight, key=lambda axes: weight[axes], default=tuple(range(rank)))


def common_axes(values: Sequence[Value], rank: int) -> Axes:
    """The axis order for an operator over several values: theirs if all have the rank of the output, else ONNX's."""
    if any(len(value.shape) != rank for value in values):
        return tuple(range(rank))
    return _common_axes(values, rank)


def split(low: Lowering, op: QuantizedOp) -> None:
    """Split: one STRIDED_SLICE for each output, so that equal and unequal parts are one case."""
    value = low.value(op.inputs[0])
    axis, start = int(op.attributes.get("axis", 0)) % len(value.shape), 0
    axes = _plain_or_stored(value)
    tensor = low.stored(value, axes)
    for index, made in enumerate(op.outputs):
        out = low.output_as(op, low.builder.params(tensor), axes, index)
        begin = [0] * len(value.shape)
        begin[axes.index(axis)] = start
        crop(low, tensor, out, tuple(begin))
        start += made.shape[axis]


def _plain_or_stored(value: Value) -> Axes:
    return tuple(range(len(value.shape))) if value.flat_of is not None else value.axes


def slice_(low: Lowering, op: QuantizedOp) -> None:
    """Slice with positive steps: STRIDED_SLICE."""
    value = low.value(op.inputs[0])
    rank = len(value.shape)
    starts = _integers(op, 1, "starts")
    axes = _integers(op, 3, "axes") or list(range(len(starts)))
    steps = _integers(op, 4, "steps") or [1] * len(starts)
    if any(step < 1 for step in steps):
        raise NodeRefusedError("steps must be positive", str(steps))
    begin, stride = [0] * rank, [1] * rank
    for start, axis, step in zip(starts, axes, steps, strict=True):
        size = value.shape[axis]
        begin[axis % rank] = min(max(start + size if start < 0 else start, 0), size)
        stride[axis % rank] = step
    order = _plain_or_stored(value)
    tensor = low.stored(value, order)
    out = low.output_as(op, low.builder.params(tensor), order)
    crop(low, tensor, out, tuple(begin[axis] for axis in order), tuple(stride[axis] for axis in order))


def _integers(op: QuantizedOp, index: int, name: str) -> list[int]:
    """Integers from an input (newer opsets) or an attribute (older ones)."""
    operand = op.inputs[index] if len(op.inputs) > index else None
    if isinstance(operand, Activation):
        raise NodeRefusedError(f"{name} must be constant", operand.name)
    values = operand.data.reshape(-1) if operand is not None else op.attributes.get(name, ())
    return [int(value) for value in values]


def pad(low: Lowering, op: QuantizedOp) -> None:
    """Pad: PAD with the zero point, PADV2 with another constant, MIRROR_PAD for reflect."""
    value = low.value(op.inputs[0])
    rank, mode = len(value.shape), bytes(op.attributes.get("mode", b"constant")).decode()
    amounts = _integers(op, 1, "pads")
    axes = [axis % rank for axis in _integers(op, 3, "axes")] or list(range(rank))
    pairs = [[0, 0] for _ in range(rank)]
    for index, axis in enumerate(axes):
        pairs[axis] = [amounts[index], amounts[index + len(axes)]]
    if min(min(pair) for pair in pairs) < 0 or mode not in {"constant", "reflect"}:
        raise NodeRefusedError("pads must be positive, constant or reflect", f"mode {mode}, {amounts}")
    if mode == "constant":
        value = _holding(low, value, _fill(op), op.outputs[0])
    order = _plain_or_stored(value)
    tensor, pads = low.stored(value, order), [pairs[axis] for axis in order]
    if mode == "reflect":
        out = low.output_as(op, low.builder.params(tensor), order)
        table = low.builder.constant(f"{op.name}/amounts", np.array(pads, np.int32))
        low.builder.op("MIRROR_PAD", [tensor, table], [out], "MirrorPadOptions", mode=0)
        return
    scale, zero = low.builder.params(tensor)
    level = int(np.clip(np.rint(_fill(op) / scale) + zero, -128, 127))
    low.set(op.outputs[0], pad_tensor(low, tensor, pads, op.name, None if level == zero else level), order)


def _holding(low: Lowering, value: Value, fill: float, made: Activation) -> Value:
    """The value at a scale that has a level for `fill`: its own, else that of the output."""
    scale, zero = low.builder.params(value.tensor)
    fits = -128 <= np.rint(fill / scale) + zero <= 127
    return value if fits else low.rescaled(value, made.scale, made.zero_point)


def _fill(op: QuantizedOp) -> float:
    operand = op.inputs[2] if len(op.inputs) > 2 else None
    if isinstance(operand, Activation):
        raise NodeRefusedError("the fill must be constant", operand.name)
    return float(op.attributes.get("value", 0.0)) if operand is None else float(operand.real.reshape(-1)[0])


def depth_to_space(low: Lowering, op: QuantizedOp) -> None:
    """DepthToSpace as two reshapes and one TRANSPOSE, since Vela places DEPTH_TO_SPACE on the CPU."""
    tensor, block = low.spatial(op.inputs[0]), int(op.attributes["blocksize"])
    count, height, width, channels = low.builder.specs[tensor].shape
    if count != 1:
        raise NodeRefusedError("batch must be 1", f"batch {count}")
    column_first = bytes(op.attributes.get("mode", b"DCR")) == b"DCR"
    inner = (block, block, channels // block**2) if column_first else (channels // block**2, block, block)
    order = (0, 2, 1, 3, 4) if column_first else (0, 3, 1, 4, 2)
    apart = low.reshaped(tensor, (height, width, *inner), f"{op.name}/apart")
    shape = [(height, width, *inner)[axis] for axis in order]
    moved = low.builder.like(tensor, f"{op.name}/moved", shape)
    table = low.builder.constant(f"{op.name}/order", np.array(order, np.int32))
    low.builder.op("TRANSPOSE", [apart, table], [moved], "TransposeOptions")
    out = low.spatial_output(op, low.builder.params(tensor))
    low.reshape_into(moved, out)


def resize(low: Lowering, op: QuantizedOp) -> None:
    """Resize over height and width, nearest or linear, where TFLite picks the same pixels as ONNX."""
    value, made = low.value(op.inputs[0]), op.outputs[0]
    if len(made.shape) != 4 or value.shape[:2] != made.shape[:2]:
        raise NodeRefusedError("only height and width of an image can be resized", f"{value.shape} to {made.shape}")
    if op.attributes.get("antialias", 0) or op.attributes.get("keep_aspect_ratio_policy", b"stretch") != b"stretch":
        raise NodeRefusedError("resizing must stretch, without antialias", str(dict(op.attributes)))
    words = {name: word.decode() for name, word in op.attributes.items() if isinstance(word, bytes)}
    old = op.op == "Upsample" or op.opset < 11
    mode, flags = resize_flags(_resized_lines(op, value.shape, made.shape), words, old=old)
    tensor = low.spatial(op.inputs[0])
    out = low.spatial_output(op, low.builder.params(tensor))
    size = low.builder.constant(f"{op.name}/size", np.array(made.shape[2:], np.int32))
    code, table = {
        "nearest": ("RESIZE_NEAREST_NEIGHBOR", "ResizeNearestNeighborOptions"),
        "linear": ("RESIZE_BILINEAR", "ResizeBilinearOptions"),
    }[mode]
    low.builder.op(code, [tensor, size], [out], table, alignCorners=flags[0], halfPixelCenters=flags[1])


HALF_WAY: Final = 1e-6
"""What ONNX Runtime takes for a half (measured: no other pixel in 1500 pairs of sizes up to 600)."""

Line = tuple[int, int, float]
"""Pixels before and after, and the factor by which ONNX spaces them."""


def _resized_lines(op: QuantizedOp, size: Axes, made: Axes) -> list[Line]:
    """Height and width. A factor that the node names holds, also where the size is cut off below `size * factor`."""
    index = 1 if op.op == "Upsample" or op.opset < 11 else 2
    operand = op.inputs[index] if len(op.inputs) > index else None
    if isinstance(operand, Activation):
        raise NodeRefusedError("scales must be constant", operand.name)
    given = op.attributes.get("scales", ()) if operand is None else operand.real.reshape(-1)
    axes = [axis % 4 for axis in op.attributes.get("axes", range(4))]
    named = dict(zip(axes, given, strict=False))  # none where the node names sizes instead
    return [(size[axis], made[axis], float(named.get(axis, made[axis] / size[axis]))) for axis in (2, 3)]


def resize_flags(lines: Sequence[Line], words: Mapping[str, str], *, old: bool) -> tuple[str, tuple[bool, bool]]:
    """The mode, and `(align_corners, half_pixel_centers)` that give exactly the pixels of ONNX.

    Args:
        lines: height and width.
        words: the node's attributes.
        old: Upsample, or a Resize before opset 11.

    Raises:
        NodeRefusedError: TFLite has no such pixels.
    """
    mode = words.get("mode", "nearest")
    grid = words.get("coordinate_transformation_mode", "asymmetric" if old else "half_pixel")
    if grid == "pytorch_half_pixel" and min(made for _, made, _ in lines) > 1:
        grid = "half_pixel"
    rounding = "floor" if old else words.get("nearest_mode", "round_prefer_floor")
    whole = grid == "align_corners" or all(abs(size * factor - made) < 1e-4 * made for size, made, factor in lines)
    if mode == "linear" and whole:
        flags = {"asymmetric": (False, False), "align_corners": (True, False), "half_pixel": (False, True)}
        if grid in flags:
            return mode, flags[grid]
    elif mode == "nearest":
        # Half-pixel centres first: without them, the TOSA converter rounds the index where TFLite cuts it off.
        for flags_tried in ((False, True), (False, False), (True, False)):
            if all(
                np.array_equal(_onnx_pixels(line, grid, rounding), _tflite_pixels(*line[:2], *flags_tried))
                for line in lines
            ):
                return mode, flags_tried
    raise NodeRefusedError("TFLite must have this way of resizing", f"{mode}, {grid}, {rounding}, {lines}")


def _onnx_pixels(line: Line, grid: str, rounding: str) -> Array:
    """Source index of each output index as ONNX Runtime computes it: in single precision, which moves some borders."""
    size, made = line[:2]
    index, factor, half = np.arange(made, dtype=np.float32), np.float32(line[2]), np.float32(0.5)
    place = {
        "asymmetric": index / factor,
        "half_pixel": (index + half) / factor - half,
        "align_corners": index * np.float32(size - 1) / np.float32(max(made - 1, 1)),
    }.get(grid)
    if place is None:
        raise NodeRefusedError("TFLite must have this way of resizing", grid)
    place = place.astype(np.float64)
    rounded = {
        "floor": np.floor(place),
        "ceil": np.ceil(place),
        "round_prefer_floor": np.ceil(place - 0.5 - HALF_WAY),
        "round_prefer_ceil": np.floor(place + 0.5 + HALF_WAY),
    }.get(rounding)
    if rounded is None:
        raise NodeRefusedError("TFLite must have this way of resizing", rounding)
    return np.asarray(np.clip(rounded, 0, size - 1))


def _tflite_pixels(size: int, made: int, align_corners: bool, half_pixel: bool) -> Array:
    """Source index of each output index in TFLite's reference kernel, in its single precision."""
    index = np.arange(made, dtype=np.float32)
    scale = np.float32((size - 1) / (made - 1) if align_corners and made > 1 else size / made)
    place = (index + np.float32(0.5 if half_pixel else 0.0)) * scale
    return np.asarray(np.clip(np.floor(place + 0.5) if align_corners else np.floor(place), 0, size - 1))


def mean(low: Lowering, op: QuantizedOp) -> None:
    """GlobalAveragePool and ReduceMean: MEAN."""
    value = low.value(op.inputs[0])
    rank = len(value.shape)
    if op.op == "GlobalAveragePool":
        reduced, keep = set(range(2, rank)), True
    else:
        named = {axis % rank for axis in _integers(op, 1, "axes")}
        if not named and op.attributes.get("noop_with_empty_axes", 0):
            raise NodeRefusedError("axes must be named", "noop_with_empty_axes")
        reduced = named or set(range(rank))
        keep = bool(op.attributes.get("keepdims", 1))
    order = _plain_or_stored(value)
    tensor = low.stored(value, order)
    kept = [axis for axis in order if axis not in reduced]
    axes = order if keep else tuple(sorted(kept).index(axis) for axis in kept)
    out = low.output(op, axes)
    table = low.builder.constant(f"{op.name}/axes", np.array(sorted(order.index(axis) for axis in reduced), np.int32))
    low.builder.op("MEAN", [tensor, table], [out], "ReducerOptions", keepDims=keep)
