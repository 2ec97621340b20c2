"""The batch axis of an ONNX graph: left free, so that a server may run as many rows at once as are waiting.

A graph at batch 1 whose rows do not know of each other is the same graph at any batch, if nothing in it holds the 1.
What holds it is nearly always the constant of a Reshape, which an exporter (or constant folding) wrote for one row;
its first size can be left open: `-1` is whatever is left, and at one row that is what stood there. Where the batch is
not the outermost factor of that axis, the result is wrong: so a freed graph is believed only after its rows were
compared with the rows alone (`npuops.build.rows`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

import numpy as np
import onnx
from onnx import numpy_helper

from npuops.errors import MalformedModelError, OptionError, UnsupportedModelError
from npuops.models.model import Dim, TensorInfo
from npuops.models.onnx_layers import graph_inputs, value_info
from npuops.models.shapes import fix_shapes, infer_shapes

BATCH: Final = "batch"
"""The symbol of a free first axis in every artifact."""

TRIAL_ROWS: Final = 3
"""Neither 1, nor a size that a graph is likely to have elsewhere."""

_WHOLE_BATCH: Final = {
    "DynamicQuantizeLinear": "takes its scale from all rows together",
    "DynamicQuantizeMatMul": "takes its scale from all rows together",
    "DynamicQuantizeLSTM": "takes its scale from all rows together",
}
"""Operators whose rows know of each other, by so little that a comparison may not show it."""
_FIX_IT: Final = "leave the batch fixed: without --dynamic-batch, and with --shape where the model leaves it open"


def has_free_batch(inputs: Iterable[TensorInfo], outputs: Iterable[TensorInfo]) -> bool:
    """Whether the first axis is open in every input and output, and nothing else is in any input."""
    given = tuple(inputs)
    return (
        bool(given)
        and all(is_open(tensor) and _is_static(tensor.shape or ()) for tensor in given)
        and all(is_open(tensor) for tensor in outputs)
    )


def is_open(tensor: TensorInfo) -> bool:
    """Whether the first axis has no fixed size."""
    return bool(tensor.shape) and not isinstance((tensor.shape or (1,))[0], int)


def with_rows(tensors: Iterable[TensorInfo], rows: int = 1) -> tuple[TensorInfo, ...]:
    """The same tensors for so many rows: an open first axis becomes a size, everything else stays."""
    return tuple(
        replace(tensor, shape=(rows, *(tensor.shape or ())[1:])) if is_open(tensor) else tensor for tensor in tensors
    )


def one_row(inputs: Iterable[TensorInfo], given: Mapping[str, tuple[int, ...]]) -> dict[str, tuple[int, ...]]:
    """`given` shapes, and those of the inputs whose first axis alone is open, at one row; as `--shape` would say it."""
    found = dict(given)
    for tensor in inputs:
        if tensor.name not in found and is_open(tensor) and _is_static(tensor.shape or ()):
            found[tensor.name] = (1, *(dim for dim in (tensor.shape or ())[1:] if isinstance(dim, int)))
    return found


def free_batch(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy whose inputs and outputs have the free first axis `batch`, all shapes inferred again.

    Args:
        proto: a graph at batch 1 with all its shapes inferred, or one whose first axes are open already.

    Raises:
        UnsupportedModelError: something in it holds the batch; the message says what.
    """
    freed = onnx.ModelProto()
    freed.CopyFrom(proto)
    _refuse_whole_batch(freed.graph)
    given = graph_inputs(freed)
    for tensor in given:
        _refuse_other_axis(tensor)
    if any(not is_open(tensor) for tensor in given):
        _open_reshapes(freed.graph)
    names = {tensor.name for tensor in given}
    for value in freed.graph.input:
        if value.name in names:
            _set_first(value, BATCH)
    for value in freed.graph.output:
        # What an exporter noted for one row would contradict what follows from the inputs.
        for dim in value.type.tensor_type.shape.dim[:1]:
            dim.Clear()
    del freed.graph.value_info[:]
    _refuse_held(freed, given)
    infer_shapes(freed)
    for value in freed.graph.output:
        _set_first(value, BATCH)
    return freed


def _refuse_whole_batch(graph: onnx.GraphProto) -> None:
    for node in graph.node:
        why = _WHOLE_BATCH.get(node.op_type, "")
        if node.op_type == "BatchNormalization" and any(
            one.name == "training_mode" and one.i for one in node.attribute
        ):
            why = "is in training mode, and normalizes by all rows together"
        if why:
            raise UnsupportedModelError(
                f"the batch cannot be free: {node.op_type} {_name(node)!r} {why}, so that a row's answer would depend"
                " on its neighbours",
                advice=_FIX_IT,
            )


def _refuse_other_axis(tensor: TensorInfo) -> None:
    shape = tensor.shape
    if not shape:
        raise UnsupportedModelError(f"the batch cannot be free: input {tensor.name!r} has no axis", advice=_FIX_IT)
    if shape[0] != 1 and not is_open(tensor):
        raise UnsupportedModelError(
            f"the batch cannot be free: the first axis of input {tensor.name!r} {list(shape)} is no batch of one",
            advice=_FIX_IT,
        )


def _open_reshapes(graph: onnx.GraphProto) -> None:
    """Leave the first size of each constant Reshape open, in place; at one row this changes nothing."""
    constants = _constants(graph)
    shapes = {value.name: _sizes(value) for value in (*graph.value_info, *graph.output)}
    replaced: set[str] = set()
    for node in graph.node:
        if node.op_type != "Reshape" or len(node.input) < 2 or node.input[1] not in constants:
            continue
        if node.input[0] in constants:
            continue  # a weight has no rows
        wanted = [int(size) for size in numpy_helper.to_array(constants[node.input[1]]).reshape(-1)]
        opened = _opened(wanted, shapes.get(node.output[0]))
        if opened is not None and opened != wanted:
            name = f"{node.input[1]}@{node.output[0]}"
            graph.initializer.append(numpy_helper.from_array(np.array(opened, dtype=np.int64), name))
            replaced.add(node.input[1])
            node.input[1] = name
    _drop_unused(graph, replaced)


def _drop_unused(graph: onnx.GraphProto, names: set[str]) -> None:
    unused = names - {name for node in graph.node for name in node.input} - {value.name for value in graph.output}
    if any(one.HasField("g") or one.graphs for node in graph.node for one in node.attribute):
        return  # a branch may read them
    for listed in (graph.initializer, graph.input):  # old IR versions list weights among the inputs, too
        for index, one in reversed(list(enumerate(listed))):
            if one.name in unused:
                del listed[index]


def _opened(wanted: Sequence[int], made: Sequence[int] | None) -> list[int] | None:
    """The constant with its first size open; None where it is already, or where the others are not known.

    A `-1` elsewhere moves only if what stands first is the one row: `[T, -1, D]` has the batch in the middle.
    """
    if not wanted or wanted[0] in {0, -1} or (-1 in wanted and wanted[0] != 1):
        return None
    if made is None or len(made) != len(wanted) or 0 in made:
        return None
    return [-1, *made[1:]]


def _refuse_held(proto: onnx.ModelProto, given: Sequence[TensorInfo]) -> None:
    """Shape inference at a few rows names the node that contradicts them, and the output that does not follow."""
    shapes = {
        tensor.name: (TRIAL_ROWS, *(dim for dim in (tensor.shape or ())[1:] if isinstance(dim, int)))
        for tensor in given
        if _is_static(tensor.shape or ())
    }
    try:
        tried = fix_shapes(proto, shapes)
    except (OptionError, MalformedModelError) as error:
        raise UnsupportedModelError(
            f"the batch cannot be free, {TRIAL_ROWS} rows do not go through: {error.message}", advice=_FIX_IT
        ) from error
    for value in tried.graph.output:
        tensor = value_info(value)
        if tensor.shape is None:
            continue
        if not tensor.shape or (not is_open(tensor) and tensor.shape[0] != TRIAL_ROWS):
            raise UnsupportedModelError(
                f"the batch cannot be free: output {tensor.name!r} has the shape {list(tensor.shape)} for"
                f" {TRIAL_ROWS} rows; {_holder(tried.graph, value.name)}",
                advice=_FIX_IT,
            )


def _holder(graph: onnx.GraphProto, output: str) -> str:
    """The nearest Reshape before an output, which likely holds the batch; else what makes the output."""
    makers = {name: node for node in graph.node for name in node.output}
    node = makers.get(output)
    seen: list[str] = []
    while node is not None and node.op_type != "Reshape":
        seen.append(node.op_type)
        node = next((makers[name] for name in node.input if name in makers), None)
    if node is not None:
        return f"Reshape {_name(node)!r} before it fixes its sizes"
    return f"{seen[0]} makes it from nothing that has rows" if seen else "no node makes it"


def _constants(graph: onnx.GraphProto) -> dict[str, onnx.TensorProto]:
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        for one in node.attribute if node.op_type == "Constant" else ():
            if one.name == "value":
                found[node.output[0]] = one.t
            elif one.name == "value_ints":
                found[node.output[0]] = numpy_helper.from_array(np.array(one.ints, dtype=np.int64))
    return found


def _sizes(value: onnx.ValueInfoProto) -> tuple[int, ...] | None:
    shape = value_info(value).shape
    return tuple(int(dim or 0) for dim in shape) if shape is not None and _all_sizes(shape) else None


def _set_first(value: onnx.ValueInfoProto, symbol: str) -> None:
    dims = value.type.tensor_type.shape.dim
    if dims:
        dims[0].dim_param = symbol  # one of the two: the size goes


def _is_static(shape: Sequence[Dim]) -> bool:
    """Every axis but the first."""
    return _all_sizes(shape[1:])


def _all_sizes(shape: Sequence[Dim]) -> bool:
    return all(isinstance(dim, int) for dim in shape)


def _name(node: onnx.NodeProto) -> str:
    return str(node.name or (node.output[0] if node.output else ""))
