"""Constants that were left as computations, and batch normalization that belongs into its convolution."""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper
from onnx.reference import ReferenceEvaluator

from npuops.rewrite.rewrite_graph import Array, Graph, Site, attribute

FOLDABLE = (
    *("Add", "Cast", "Concat", "ConstantOfShape", "Div", "Gather", "Identity", "Mul", "Neg", "Reciprocal"),
    *("Reshape", "Slice", "Sqrt", "Squeeze", "Sub", "Transpose", "Unsqueeze"),
)

MAX_FOLDED_BYTES = 256 * 2**20
"""A larger constant is left alone: a hostile ConstantOfShape must not fill the memory."""

MAX_MODEL_BYTES = 2**30
"""Nothing is folded beyond this size of all constants together."""


def computed_constants(graph: Graph) -> Iterator[Site]:
    """Operators whose inputs are all constant, and Shape of a tensor with fixed dimensions."""
    room = MAX_MODEL_BYTES - sum(_bytes(np.asarray(tensor.dims)) for tensor in graph.initializers.values())
    for node in graph.of("Shape", *FOLDABLE):
        need = 0.0 if node.op_type == "Shape" else _folded_bytes(graph, node)
        shaped = node.op_type != "Shape" or graph.static_shape(node.input[0]) is not None
        plain = len(node.output) == 1 and node.output[0] not in graph.outputs | graph.captured
        if plain and shaped and need <= min(room, MAX_FOLDED_BYTES):
            room -= need
            yield Site(nodes=(node,), edit=partial(_fold, graph, node))


def _folded_bytes(graph: Graph, node: onnx.NodeProto) -> float:
    """Bytes of the result; infinite where it is not constant or its size is unknown."""
    known = all(not name or name in graph.initializers or graph.made_by(name, "Constant") for name in node.input)
    if not known or not node.input:
        return math.inf
    if node.op_type == "ConstantOfShape":
        shape = graph.constant(node.input[0])
        return math.inf if shape is None or (shape < 0).any() else _bytes(shape)
    size = graph.static_shape(node.output[0])
    return math.inf if size is None else _bytes(np.asarray(size))


def _bytes(shape: Array) -> float:
    return 8.0 * float(np.prod(shape.astype(np.float64))) if shape.size else 8.0


def _fold(graph: Graph, node: onnx.NodeProto) -> None:
    result = node.output[0]
    if node.op_type == "Shape":
        shape = graph.static_shape(node.input[0]) or ()
        value: Array = np.array(shape[slice(attribute(node, "start"), attribute(node, "end"))], dtype=np.int64)
    else:
        feeds = {name: graph.constant(name) for name in node.input if name}
        value = _evaluate(node, {name: array for name, array in feeds.items() if array is not None}, graph.opset)
    graph.nodes = [other for other in graph.nodes if other is not node]
    graph.initializers[result] = numpy_helper.from_array(np.asarray(value, order="C"), result)


def _evaluate(node: onnx.NodeProto, feeds: dict[str, Array], opset: int) -> Array:
    inputs = [
        helper.make_tensor_value_info(name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape)
        for name, value in feeds.items()
    ]
    outputs = [onnx.ValueInfoProto(name=node.output[0])]
    graph = helper.make_graph([node], "fold", inputs, outputs)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    results: Any = ReferenceEvaluator(model).run(None, feeds)
    return np.asarray(results[0])


def batch_norms(graph: Graph) -> Iterator[Site]:
    """BatchNormalization behind a convolution with constant weights: scaled into the weights and bias."""
    for node in graph.of("BatchNormalization"):
        conv = graph.made_by(node.input[0], "Conv")
        if conv is None or not graph.is_private(conv.output[0]) or attribute(node, "training_mode", 0):
            continue
        if any(graph.readers(name) or name in graph.outputs for name in list(node.output)[1:] if name):
            continue
        values = [graph.constant(name) for name in (*conv.input[1:], *node.input[1:5]) if name]
        if all(value is not None and value.dtype == np.float32 for value in values):
            yield Site(nodes=(conv, node), edit=partial(_fold_norm, graph, conv, node))


def _fold_norm(graph: Graph, conv: onnx.NodeProto, norm: onnx.NodeProto) -> None:
    weights: Any = graph.constant(conv.input[1])
    old = graph.constant(conv.input[2]) if len(conv.input) > 2 and conv.input[2] else None
    gain, shift, mean, variance = (np.asarray(graph.constant(name), dtype=np.float64) for name in list(norm.input)[1:5])
    factor = gain / np.sqrt(variance + attribute(norm, "epsilon", 1e-5))
    bias = ((0.0 if old is None else old.astype(np.float64)) - mean) * factor + shift
    scaled = weights.astype(np.float64) * factor.reshape(-1, *[1] * (weights.ndim - 1))
    inputs = [
        conv.input[0],
        graph.add_constant(scaled.astype(np.float32), conv.input[1]),
        graph.add_constant(bias.astype(np.float32), f"{conv.input[1]}_bias"),
    ]
    fused = graph.node("Conv", inputs, [norm.output[0]])
    fused.attribute.extend(conv.attribute)
    graph.replace(norm, [fused])
