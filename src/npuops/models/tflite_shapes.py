"""Shapes of a TFLite graph where the file has none, or where the user fixes dynamic inputs.

Some writers leave every inner shape empty (MobileNetEdgeTPU of MLPerf Mobile does). Operators that are not in
the table keep what the file says, or stay unknown.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Final

import numpy as np

from npuops.errors import MalformedModelError, OptionError, nearest
from npuops.models.onnx_tensors import check_dims
from npuops.models.tflite_graph import TfliteGraph, TfliteOp, TfliteTensor

Shape = tuple[int, ...]


def with_shapes(graph: TfliteGraph, shapes: Mapping[str, Shape]) -> TfliteGraph:
    """The graph with inputs fixed as given and every shape that follows from them.

    Raises:
        OptionError: no such input, another rank, a contradiction to the file.
        MalformedModelError: the operators cannot work with the shapes.
        UnsafeModelError: a tensor of absurd size.
    """
    tensors = list(graph.tensors)
    names = {tensors[index].name: index for index in graph.inputs}
    for name, sizes in shapes.items():
        if name not in names:
            raise OptionError(f"the model has no input {name!r}", advice=nearest(name, names))
        index = names[name]
        tensors[index] = dataclasses.replace(tensors[index], shape=_fixed(tensors[index], sizes))
    # A file that notes any shape notes them all: there, an empty one may be a scalar.
    noted = any(tensors[index].shape for op in graph.operators for index in op.outputs if index >= 0)
    for op in graph.operators:
        _infer_outputs(op, tensors, again=bool(shapes), scalars=noted)
    return dataclasses.replace(graph, tensors=tuple(tensors))


def _fixed(tensor: TfliteTensor, sizes: Shape) -> Shape:
    known = tensor.sizes
    loose = [size < 0 for size in tensor.signature] if len(tensor.signature) == len(known) else [False] * len(known)
    if len(known) != len(sizes) or any(size < 1 for size in sizes):
        raise OptionError(f"input {tensor.name!r} has {len(known)} dimensions; the given shape is {sizes}")
    for have, want, free in zip(known, sizes, loose, strict=True):
        if not free and have != want:
            raise OptionError(
                f"input {tensor.name!r}: the model fixes a dimension to {have}, the given shape says {want}",
                advice="a TFLite file is converted for one shape; convert it again for another",
            )
    check_dims(list(sizes), tensor.dtype, tensor.name)
    return sizes


def _infer_outputs(op: TfliteOp, tensors: list[TfliteTensor], *, again: bool, scalars: bool) -> None:
    missing = [index for index in op.outputs if index >= 0 and not _is_known(tensors[index])]
    if not missing and not again:
        return
    try:
        found = _RULES[op.op](op, tensors) if op.op in _RULES else None
    except (ValueError, IndexError, ZeroDivisionError) as error:
        named = [tensors[index] for index in op.inputs if index >= 0]
        if any(tensor.shape is None or None in tensor.shape for tensor in named):
            found = None
        else:
            words = ", ".join(str(tensor.shape) for tensor in named)
            raise MalformedModelError(
                f"{op.op} cannot take the shapes {words}", advice="convert the model again"
            ) from error
    for position, index in enumerate(op.outputs):
        if index < 0 or (not again and _is_known(tensors[index])):
            continue
        shape = found[position] if found is not None and position < len(found) else None
        if shape is None and scalars and not again and op.op in _TO_SCALARS and tensors[index].shape == ():
            continue
        if shape is not None:
            check_dims(list(shape), tensors[index].dtype, tensors[index].name)
        tensors[index] = dataclasses.replace(tensors[index], shape=shape)


def _is_known(tensor: TfliteTensor) -> bool:
    """Empty means scalar or "not written": an operator's rule decides which."""
    return bool(tensor.shape) and None not in (tensor.shape or ())


def _same(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> list[Shape]:
    return [tensors[op.inputs[0]].sizes]


def _broadcast(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> list[Shape]:
    return [np.broadcast_shapes(*(tensors[index].sizes for index in op.inputs))]


def _window(op: TfliteOp, size: Sequence[int], kernel: Sequence[int]) -> Shape:
    strides = (op.number("stride_h", 1), op.number("stride_w", 1))
    dilations = (op.number("dilation_h_factor", 1), op.number("dilation_w_factor", 1))
    if op.word("padding") == "SAME":
        return tuple(math.ceil(length / stride) for length, stride in zip(size, strides, strict=True))
    return tuple(
        math.ceil((length - (width - 1) * dilation) / stride)
        for length, width, dilation, stride in zip(size, kernel, dilations, strides, strict=True)
    )


def _conv(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> list[Shape]:
    batch, high, wide, _ = tensors[op.inputs[0]].sizes
    weight = tensors[op.inputs[1]].sizes
    channels = weight[0] if op.op == "CONV_2D" else weight[3]
    return [(batch, *_window(op, (high, wide), weight[1:3]), channels)]


def _pool(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> list[Shape]:
    batch, high, wide, channels = tensors[op.inputs[0]].sizes
    kernel = (op.number("filter_height", 1), op.number("filter_width", 1))
    return [(batch, *_window(op, (high, wide), kernel), channels)]


def _fully_connected(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> list[Shape]:
    given, weight = tensors[op.inputs[0]].sizes, tensors[op.inputs[1]].sizes
    if op.number("keep_num_dims"):
        return [(*given[:-1], weight[0])]
    return [(math.prod(given) // weight[1], weight[0])]


def _reshape(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> list[Shape]:
    wanted = op.options.get("new_shape", ())
    sizes = [int(size) for size in wanted] if isinstance(wanted, tuple) else []
    if len(op.inputs) > 1:
        values = tensors[op.inputs[1]].values()
        if values is None:
            raise ValueError("the shape is computed at run time")
        sizes = [int(size) for size in values.ravel()]
    total = math.prod(tensors[op.inputs[0]].sizes)
    rest = math.prod(size for size in sizes if size != -1)
    shape = tuple(total // rest if size == -1 else size for size in sizes)
    if math.prod(shape) != total:
        raise ValueError("another number of elements")
    return [shape]


def _squeeze(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> list[Shape]:
    given = tensors[op.inputs[0]].sizes
    listed = op.options.get("squeeze_dims", ())
    dims = {int(dim) % len(given) for dim in listed} if isinstance(listed, tuple) and listed else None
    return [tuple(size for at, size in enumerate(given) if not (size == 1 and (dims is None or at in dims)))]


def _concatenate(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> list[Shape]:
    parts = [tensors[index].sizes for index in op.inputs]
    axis = op.number("axis") % len(parts[0])
    return [(*parts[0][:axis], sum(part[axis] for part in parts), *parts[0][axis + 1 :])]


def _reduce(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> list[Shape]:
    given, axes = tensors[op.inputs[0]].sizes, tensors[op.inputs[1]].values()
    if axes is None:
        raise ValueError("the axes are computed at run time")
    gone = {int(axis) % len(given) for axis in axes.ravel()}
    if op.number("keep_dims"):
        return [tuple(1 if at in gone else size for at, size in enumerate(given))]
    return [tuple(size for at, size in enumerate(given) if at not in gone)]


def _pad(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> list[Shape]:
    given, pads = tensors[op.inputs[0]].sizes, tensors[op.inputs[1]].values()
    if pads is None:
        raise ValueError("the padding is computed at run time")
    return [tuple(size + int(a) + int(b) for size, (a, b) in zip(given, pads, strict=True))]


def _transpose(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> list[Shape]:
    given, order = tensors[op.inputs[0]].sizes, tensors[op.inputs[1]].values()
    if order is None:
        raise ValueError("the order is computed at run time")
    return [tuple(given[int(axis)] for axis in order)]


def _resize(op: TfliteOp, tensors: Sequence[TfliteTensor]) -> list[Shape]:
    batch, _, _, channels = tensors[op.inputs[0]].sizes
    size = tensors[op.inputs[1]].values()
    if size is None:
        raise ValueError("the size is computed at run time")
    return [(batch, int(size[0]), int(size[1]), channels)]


Rule = Callable[[TfliteOp, Sequence[TfliteTensor]], "list[Shape]"]
_SAME_SHAPE = (
    "RELU RELU6 RELU_N1_TO_1 LEAKY_RELU LOGISTIC TANH HARD_SWISH GELU ELU SOFTMAX LOG_SOFTMAX QUANTIZE DEQUANTIZE "
    "SQUARE SQRT RSQRT EXP LOG ABS NEG CAST FLOOR SIN COS PRELU"
)
_TO_SCALARS: Final = frozenset({"ARG_MAX", "ARG_MIN", "GATHER", "REDUCE_PROD", "STRIDED_SLICE", "UNPACK"})
"""Operators without a rule that put out scalars; of others an empty shape is one that depends on the data."""
_RULES: Final[Mapping[str, Rule]] = {
    **dict.fromkeys(_SAME_SHAPE.split(), _same),
    **dict.fromkeys(["ADD", "SUB", "MUL", "DIV", "MINIMUM", "MAXIMUM", "POW", "SQUARED_DIFFERENCE"], _broadcast),
    **dict.fromkeys(("MEAN", "SUM", "REDUCE_MAX", "REDUCE_MIN"), _reduce),
    **dict.fromkeys(("CONV_2D", "DEPTHWISE_CONV_2D"), _conv),
    **dict.fromkeys(("AVERAGE_POOL_2D", "MAX_POOL_2D"), _pool),
    **dict.fromkeys(("RESIZE_BILINEAR", "RESIZE_NEAREST_NEIGHBOR"), _resize),
    "FULLY_CONNECTED": _fully_connected,
    "RESHAPE": _reshape,
    "SQUEEZE": _squeeze,
    "CONCATENATION": _concatenate,
    "PAD": _pad,
    "TRANSPOSE": _transpose,
}
