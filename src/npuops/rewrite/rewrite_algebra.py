"""Small operators in the form that NPU compilers know best: same arithmetic, other spelling."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import partial

import numpy as np
import onnx

from npuops.rewrite.rewrite_graph import Array, Graph, Nodes, Site, attribute, axes_of, replacing

TINY = 1e-30
"""Below it the reciprocal comes near the end of float32."""


def wide_sums(graph: Graph) -> Iterator[Site]:
    """Sum of any number of tensors: a chain of Add."""
    return (replacing(graph, node, partial(_adds, graph, node)) for node in graph.of("Sum"))


def _adds(graph: Graph, node: onnx.NodeProto) -> Nodes:
    if len(node.input) == 1:
        return [graph.node("Identity", node.input, node.output)]
    made: list[onnx.NodeProto] = []
    total = node.input[0]
    for position, name in enumerate(node.input[1:], start=2):
        result = node.output[0] if position == len(node.input) else graph.fresh(node.output[0])
        made.append(graph.node("Add", [total, name], [result]))
        total = result
    return made


def squares(graph: Graph) -> Iterator[Site]:
    """`Pow(x, 2)`: `Mul(x, x)`."""
    for node in graph.of("Pow"):
        exponent = graph.constant(node.input[1])
        # An exponent of rank 1 could raise the rank of a scalar base.
        if exponent is not None and exponent.ndim == 0 and exponent == 2 and graph.is_float32(node.output[0]):
            yield replacing(graph, node, partial(_product, graph, node, [node.input[0], node.input[0]]))


def _product(graph: Graph, node: onnx.NodeProto, factors: Sequence[str]) -> Nodes:
    return [graph.node("Mul", factors, node.output)]


def constant_divisions(graph: Graph) -> Iterator[Site]:
    """`Div(x, constant)`: `Mul(x, 1 / constant)`."""
    for node in graph.of("Div"):
        divisor = graph.constant(node.input[1])
        if divisor is not None and divisor.dtype == np.float32 and (np.abs(divisor) > TINY).all():
            yield replacing(graph, node, partial(_quotient, graph, node, divisor))


def _quotient(graph: Graph, node: onnx.NodeProto, divisor: Array) -> Nodes:
    factor = graph.add_constant((1.0 / divisor.astype(np.float64)).astype(np.float32), "reciprocal")
    return _product(graph, node, [node.input[0], factor])


def leftovers(graph: Graph) -> Iterator[Site]:
    """Nodes that do nothing at inference: Identity, Dropout, a Cast to the same type, a Concat of one, …"""
    for node in graph.of("Identity", "Dropout", "Cast", "Transpose", "Concat", "Split", "Sum"):
        if _does_nothing(graph, node) and graph.can_bypass(node):
            yield Site(nodes=(node,), edit=partial(graph.bypass, node))


def _does_nothing(graph: Graph, node: onnx.NodeProto) -> bool:
    match node.op_type:
        case "Identity":
            return True
        case "Dropout":
            return _is_inert_dropout(graph, node)
        case "Cast":
            source = graph.dtype(node.input[0])
            return source != onnx.TensorProto.UNDEFINED and source == int(attribute(node, "to", 0))
        case "Transpose":
            order = attribute(node, "perm")
            return order is not None and list(order) == list(range(len(order)))
        case "Split":
            return len(node.output) == 1
        case _:
            return len(node.input) == 1


def _is_inert_dropout(graph: Graph, node: onnx.NodeProto) -> bool:
    mask = node.output[1] if len(node.output) > 1 else ""
    flag = graph.constant(node.input[2]) if len(node.input) > 2 and node.input[2] else np.array(False)
    training = flag is None or bool(flag.any())
    return not training and not (mask and (graph.readers(mask) or mask in graph.outputs))


def paired_transposes(graph: Graph) -> Iterator[Site]:
    """A Transpose of a Transpose: one, or none where they cancel."""
    for node in graph.of("Transpose"):
        first = graph.made_by(node.input[0], "Transpose")
        if first is None:
            continue
        inner, outer = attribute(first, "perm"), attribute(node, "perm")
        if inner is not None and outer is not None:
            order = [inner[axis] for axis in outer]
            yield replacing(graph, node, partial(_one_transpose, graph, first, node, order), found=(first,))


def _one_transpose(graph: Graph, first: onnx.NodeProto, node: onnx.NodeProto, order: list[int]) -> Nodes:
    if order == sorted(order):
        return [graph.node("Identity", [first.input[0]], node.output)]
    return [graph.node("Transpose", [first.input[0]], node.output, perm=order)]


def inner_softmaxes(graph: Graph) -> Iterator[Site]:
    """Softmax over an axis that is not the last: transposed there and back."""
    if graph.opset < 13:  # before 13 the operator flattens: another function
        return
    for node in graph.of("Softmax", "LogSoftmax"):
        shape = graph.shape(node.input[0])
        axis = attribute(node, "axis", -1)
        if shape and -len(shape) <= axis < len(shape) and axis % len(shape) != len(shape) - 1:
            order = list(range(len(shape)))
            order[axis], order[-1] = order[-1], order[axis]
            yield replacing(graph, node, partial(_turned_softmax, graph, node, order))


def _turned_softmax(graph: Graph, node: onnx.NodeProto, order: list[int]) -> Nodes:
    there = graph.node("Transpose", node.input, [graph.fresh(node.output[0])], perm=order)
    soft = graph.node(node.op_type, there.output, [graph.fresh(node.output[0])], axis=-1)
    return [there, soft, graph.node("Transpose", soft.output, node.output, perm=order)]


def spatial_means(graph: Graph) -> Iterator[Site]:
    """ReduceMean over height and width behind a convolution: GlobalAveragePool (flattened if axes are dropped)."""
    for node in graph.of("ReduceMean"):
        shape = graph.shape(node.input[0])
        axes = axes_of(graph, node, 4)
        is_image = shape is not None and len(shape) == 4 and _follows_convolution(graph, node.input[0])
        if is_image and axes is not None and sorted(axes) == [2, 3] and graph.is_float32(node.input[0]):
            yield replacing(graph, node, partial(_pool, graph, node))


def _pool(graph: Graph, node: onnx.NodeProto) -> Nodes:
    if attribute(node, "keepdims", 1):
        return [graph.node("GlobalAveragePool", [node.input[0]], node.output)]
    pool = graph.node("GlobalAveragePool", [node.input[0]], [graph.fresh(node.output[0])])
    return [pool, graph.node("Flatten", pool.output, node.output, axis=1)]


def _follows_convolution(graph: Graph, tensor: str) -> bool:
    """Elsewhere, axes 2 and 3 need not be an image."""
    for _ in range(4):
        if graph.made_by(tensor, "Conv", "MaxPool", "AveragePool"):
            return True
        node = graph.producers.get(tensor)
        if node is None or not node.input:
            return False
        tensor = node.input[0]
    return False
