"""TFLite → ONNX (opset 17): the importer that puts TFLite models on the line all targets share.

The ONNX graph keeps the names of inputs and outputs and their NHWC order; inside it is NCHW as ONNX wants, with
transposes only where the two meet. Quantized graphs become float graphs with the file's own scales in Q/DQ pairs
around every operator, inputs and outputs included: a graph that took `uint8` takes `float32` of the real values,
`(stored - zero_point) * scale`, and gives such values back. Integers that are no quantized reals (indices, counts)
stay integers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from typing import Final

import onnx
from onnx import helper

from npuops.errors import MalformedModelError, UnsupportedModelError
from npuops.models.tflite_builder import ONNX_TYPES, Importer, OnnxBuilder
from npuops.models.tflite_graph import TfliteGraph
from npuops.models.tflite_ops_math import MATH
from npuops.models.tflite_ops_nn import NN
from npuops.models.tflite_ops_shape import MOVES

OPSET: Final = 17
IR_VERSION: Final = 8
IMPORTERS: Final[Mapping[str, Importer]] = {**NN, **MATH, **MOVES}
"""Every TFLite operator that can be imported."""


def import_tflite(graph: TfliteGraph) -> onnx.ModelProto:
    """An ONNX model that computes what `graph` computes.

    Args:
        graph: with every shape fixed (`npuops.models.tflite_shapes.with_shapes`).

    Raises:
        UnsupportedModelError: names all operators that cannot be imported, at once.
        MalformedModelError: an operator contradicts its tensors.
    """
    _refuse_unknown(graph)
    builder = OnnxBuilder(graph)
    names = {index: graph.tensors[index].name for index in (*graph.inputs, *graph.outputs)}
    inputs = []
    for index in graph.inputs:
        inputs.append(_io(builder, index, names[index]))
        builder.layer = "input"
        builder.put(index, names[index])
    for position, op in enumerate(graph.operators):
        builder.layer = f"{op.op.lower()}_{position}"
        try:
            IMPORTERS[op.op](builder, op)
        except (ValueError, IndexError, KeyError, ZeroDivisionError) as error:
            raise MalformedModelError(
                f"operator {position} ({op.op}) contradicts its tensors: {error}", advice="convert the model again"
            ) from error
    try:
        outputs = [_finish(builder, graph, index, names) for index in dict.fromkeys(graph.outputs)]
    except ValueError as error:
        raise MalformedModelError(
            f"an output contradicts the operator that computes it: {error}", advice="convert the model again"
        ) from error
    body = helper.make_graph(builder.nodes, "tflite", inputs, outputs, builder.initializers)
    model = helper.make_model(body, opset_imports=[helper.make_opsetid("", OPSET)], producer_name="npuops")
    model.ir_version = IR_VERSION
    return model


def _refuse_unknown(graph: TfliteGraph) -> None:
    unknown = Counter(op.op for op in graph.operators if op.op not in IMPORTERS)
    if unknown:
        words = ", ".join(f"{name} (×{count})" for name, count in sorted(unknown.items()))
        raise UnsupportedModelError(
            f"these TFLite operators cannot be imported: {words}",
            advice="cut them off and run them after the model, or export the original model to ONNX",
        )
    wide = [tensor.name for tensor in graph.tensors if tensor.dtype == "int16" and tensor.scales is not None]
    if wide:
        raise UnsupportedModelError(
            f"{len(wide)} tensors are quantized to int16, such as {wide[0]!r}; the importer takes 8 bits",
            advice="import the float model and quantize it with --precision a16w8",
        )
    loose = [tensor.name for tensor in graph.tensors if tensor.shape is None]
    if loose:
        raise UnsupportedModelError(f"{loose[0]!r} has no shape that can be inferred", advice="give --shape")


def _io(builder: OnnxBuilder, index: int, name: str) -> onnx.ValueInfoProto:
    dtype = "float32" if builder.is_quantized(index) else builder.tensor(index).dtype
    if dtype not in ONNX_TYPES:
        raise UnsupportedModelError(f"{name!r} has the dtype {dtype}, which the importer does not take")
    return helper.make_tensor_value_info(name, ONNX_TYPES[dtype], builder.sizes(index))


def _finish(builder: OnnxBuilder, graph: TfliteGraph, index: int, names: dict[int, str]) -> onnx.ValueInfoProto:
    """Give the value of output `index` its TFLite name."""
    builder.layer = "output"
    value = builder.value(index)
    name = names[index] if index not in graph.inputs else f"{names[index]}_output"
    made = [node for node in builder.nodes if value in node.output]
    if not made or value in names.values():
        builder.nodes.append(helper.make_node("Identity", [value], [name], name=f"output/{name}"))
        return _io(builder, index, name)
    for node in builder.nodes:
        for names_of in (node.input, node.output):
            for at, used in enumerate(names_of):
                if used == value:
                    names_of[at] = name
    return _io(builder, index, name)
