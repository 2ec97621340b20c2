"""Shapes of an ONNX graph: fix the dynamic ones, infer the rest, refuse the absurd."""

from __future__ import annotations

from collections.abc import Mapping

import onnx
import onnx.shape_inference

from npuops.errors import MalformedModelError, OptionError, nearest
from npuops.models.onnx_tensors import check_dims, dtype_name, has_data, is_external, tensor_bytes
from npuops.models.onnx_trial import TrialFailedError, prove

_SMALL_BYTES = 4096
"""Initializers up to this size may hold shapes, axes or scales that inference reads."""


def fix_shapes(proto: onnx.ModelProto, shapes: Mapping[str, tuple[int, ...]]) -> onnx.ModelProto:
    """A copy with the named inputs fixed, the same symbols fixed everywhere, and all shapes inferred again.

    Args:
        proto: a model from `read_onnx`.
        shapes: input name → sizes; each must be positive and agree with what the model fixes itself.

    Raises:
        OptionError: no such input, another rank, a contradiction.
        MalformedModelError: the graph cannot compute with these shapes.
    """
    fixed = onnx.ModelProto()
    fixed.CopyFrom(proto)
    if not shapes:
        return infer_shapes(fixed)
    stored = {tensor.name for tensor in fixed.graph.initializer}
    inputs = {value.name: value for value in fixed.graph.input if value.name not in stored}
    symbols: dict[str, int] = {}
    for name, sizes in shapes.items():
        if name not in inputs:
            raise OptionError(f"the model has no input {name!r}", advice=nearest(name, inputs))
        _fix_input(inputs[name], sizes, symbols)
    for value in (*inputs.values(), *fixed.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.dim_param in symbols:
                dim.dim_value = symbols[dim.dim_param]
    # What the exporter noted inside the graph belongs to the old shapes.
    del fixed.graph.value_info[:]
    try:
        return infer_shapes(fixed)
    except MalformedModelError as error:
        raise OptionError(
            f"the model cannot compute with these shapes: {error.message}", advice="give other sizes with --shape"
        ) from error


def infer_shapes(proto: onnx.ModelProto, *, trusted: bool = False) -> onnx.ModelProto:
    """Add every shape that can be inferred to `proto`, in place, and return it.

    Args:
        proto: a model from `read_onnx`, or one made from it.
        trusted: spare the child process (some ms) for a graph that npuops made from one that was inferred before.

    Raises:
        MalformedModelError: shapes contradict each other.
        UnsafeModelError: a tensor of absurd size.
    """
    skeleton = skeleton_of(proto)
    if not trusted:
        _prove(skeleton)
    inferred = _infer(skeleton)
    _check_sizes(inferred.graph)
    del proto.graph.value_info[:]
    stored = {tensor.name for tensor in proto.graph.initializer}
    proto.graph.value_info.extend(value for value in inferred.graph.value_info if value.name not in stored)
    for mine, found in zip(proto.graph.output, inferred.graph.output, strict=True):
        mine.CopyFrom(found)
    return proto


def skeleton_of(proto: onnx.ModelProto) -> onnx.ModelProto:
    """A copy without the large weights, which become inputs: C++ passes then cost little, whatever the model's size."""
    skeleton = onnx.ModelProto()
    for field, value in proto.ListFields():
        if field.name == "graph":
            _copy_graph(value, skeleton.graph)
        elif field.is_repeated:
            getattr(skeleton, field.name).extend(value)
        else:
            setattr(skeleton, field.name, value)
    return skeleton


def _copy_graph(graph: onnx.GraphProto, copy: onnx.GraphProto) -> None:
    for field, value in graph.ListFields():
        if field.name == "initializer":
            continue
        if field.is_repeated:
            getattr(copy, field.name).extend(value)
        else:
            setattr(copy, field.name, value)
    given = {value.name for value in graph.input}
    for tensor in graph.initializer:
        if not is_external(tensor) and has_data(tensor) and tensor_bytes(tensor) <= _SMALL_BYTES:
            copy.initializer.append(tensor)
        elif tensor.name not in given:
            copy.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))


def _prove(skeleton: onnx.ModelProto) -> None:
    try:
        prove(skeleton)
    except TrialFailedError as error:
        raise MalformedModelError(
            f"shape inference cannot survive this graph: {error}",
            advice="an operator's operands have impossible ranks or sizes; export the model again",
        ) from error


def _infer(skeleton: onnx.ModelProto) -> onnx.ModelProto:
    try:
        return onnx.shape_inference.infer_shapes(skeleton, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, TypeError):
        # Notes that an exporter left may be stale; the operators themselves decide.
        del skeleton.graph.value_info[:]
    try:
        return onnx.shape_inference.infer_shapes(skeleton, strict_mode=True, data_prop=True)
    except (onnx.shape_inference.InferenceError, RuntimeError, ValueError, TypeError) as error:
        words = " ".join(str(error).split())[:300]
        raise MalformedModelError(
            f"the shapes contradict each other: {words}", advice="export the model again"
        ) from error


def _check_sizes(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        kind = value.type.tensor_type
        dims = [dim.dim_value for dim in kind.shape.dim if dim.HasField("dim_value") and dim.dim_value != -1]
        check_dims(dims, dtype_name(kind.elem_type), value.name)


def _fix_input(value: onnx.ValueInfoProto, sizes: tuple[int, ...], symbols: dict[str, int]) -> None:
    if not value.type.HasField("tensor_type"):
        raise OptionError(f"the input {value.name!r} is no tensor: it has no shape to give")
    kind = value.type.tensor_type
    if any(size < 1 for size in sizes):
        raise OptionError(f"the shape {sizes} of {value.name!r} must have positive sizes only")
    if kind.HasField("shape") and len(kind.shape.dim) != len(sizes):
        raise OptionError(
            f"input {value.name!r} has {len(kind.shape.dim)} dimensions, the given shape {len(sizes)}",
            advice=f"the model says {_words(kind)}",
        )
    if not kind.HasField("shape"):
        kind.shape.dim.extend(onnx.TensorShapeProto.Dimension() for _ in sizes)
    for dim, size in zip(kind.shape.dim, sizes, strict=True):
        known = dim.dim_value if dim.HasField("dim_value") and dim.dim_value > 0 else symbols.get(dim.dim_param)
        if known not in {None, size}:
            raise OptionError(
                f"input {value.name!r}: the model fixes a dimension to {known}, the given shape says {size}",
                advice=f"the model says {_words(kind)}; a symbol has one value everywhere",
            )
        if dim.dim_param:
            symbols[dim.dim_param] = size
        dim.dim_value = size
    check_dims(list(sizes), dtype_name(kind.elem_type), value.name)


def _words(kind: onnx.TypeProto.Tensor) -> str:
    return "x".join(dim.dim_param or str(dim.dim_value if dim.HasField("dim_value") else "?") for dim in kind.shape.dim)
