"""Attention masks with huge negative constants become additive masks of -100.

exp(-100) is 0 for a softmax in float32, so -100 hides a position as well as -FLT_MAX does, and it leaves an
8- or 16-bit activation range usable. The two differ only in rows in which every position is hidden (there the
scores decide instead of a uniform row), and on scores that are more than about 80 apart.
"""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import onnx

from npuops.rewrite.rewrite_graph import Array, Graph, Nodes, Site, replacing, tensor_value

HUGE = -1000.0
"""A mask constant below this is not a score: it only has to win against scores."""

HIDDEN = -100.0

CARRIERS = (
    *("Add", "Cast", "Concat", "Expand", "Flatten", "Gather", "Identity", "Mul", "Reshape", "Slice"),
    *("Squeeze", "Tile", "Transpose", "Unsqueeze", "Where", "Max"),
)
"""Operators that a mask passes through on its way to the softmax."""

MAX_STEPS = 24


def where_masks(graph: Graph) -> Iterator[Site]:
    """`Where(hide, huge, scores)`, either way round, on its way to a Softmax: `scores + hide · -100`."""
    for node in graph.of("Where"):
        huge = [index for index in (1, 2) if _is_huge(graph, node.input[index])]
        if len(huge) == 1 and graph.is_float32(node.output[0]) and reaches_softmax(graph, node.output[0]):
            yield replacing(graph, node, partial(_additive, graph, node, huge_index=huge[0]))


def _additive(graph: Graph, node: onnx.NodeProto, *, huge_index: int) -> Nodes:
    result, kept = node.output[0], node.input[3 - huge_index]
    made = [graph.node("Cast", [node.input[0]], [graph.fresh(result)], to=onnx.TensorProto.FLOAT)]
    factor = HIDDEN
    if huge_index == 2:  # Where(keep, scores, huge): (keep - 1) · 100, for NPUs subtract but have no Not
        one = graph.add_constant(np.array(1.0, dtype=np.float32), "one")
        made.append(graph.node("Sub", [made[0].output[0], one], [graph.fresh(result)]))
        factor = -HIDDEN
    hidden = graph.add_constant(np.array(factor, dtype=np.float32), "hidden")
    made.append(graph.node("Mul", [made[-1].output[0], hidden], [graph.fresh(result)]))
    return [*made, graph.node("Add", [kept, made[-1].output[0]], [result])]


def scaled_masks(graph: Graph) -> Iterator[Site]:
    """`(1 - mask) · huge` on its way to a Softmax: the constant becomes -100."""
    for node in graph.of("Mul"):
        huge = [index for index, name in enumerate(node.input) if _is_huge(graph, name)]
        if len(huge) == 1 and graph.is_float32(node.output[0]) and reaches_softmax(graph, node.output[0]):
            yield Site(nodes=(node,), edit=partial(_raise, graph, node, huge[0]))


def constant_masks(graph: Graph) -> Iterator[Site]:
    """A constant mask tensor with huge negative values, added to scores: its values are raised to -100."""
    for node in graph.of("Add"):
        for index, name in enumerate(node.input):
            value = graph.constant(name)
            if value is None or value.dtype != np.float32 or value.size < 2 or not (value < HUGE).any():
                continue
            if reaches_softmax(graph, node.output[0]):
                yield Site(nodes=(node,), edit=partial(_raise, graph, node, index))
            break


def _raise(graph: Graph, node: onnx.NodeProto, index: int) -> None:
    value = graph.constant(node.input[index])
    if value is not None:
        node.input[index] = graph.add_constant(np.maximum(value, np.float32(HIDDEN)), "mask")


def reaches_softmax(graph: Graph, tensor: str) -> bool:
    """Some path from `tensor` ends in a Softmax, through operators that carry a mask."""
    queue, seen = [(tensor, 0)], {tensor}
    while queue:
        name, steps = queue.pop()
        if graph.readers(name, "Softmax", "LogSoftmax"):
            return True
        for reader in graph.readers(name, *CARRIERS) if steps < MAX_STEPS else ():
            for output in reader.output:
                if output not in seen:
                    seen.add(output)
                    queue.append((output, steps + 1))
    return False


def _is_huge(graph: Graph, tensor: str) -> bool:
    value = graph.scalar(tensor)
    if value is None:
        value = _expanded_scalar(graph, tensor)
    return value is not None and value < HUGE


def _expanded_scalar(graph: Graph, tensor: str) -> float | None:
    """The one value of a constant, a ConstantOfShape, or an Expand or Cast of such."""
    for _ in range(4):
        node = graph.made_by(tensor, "Expand", "Cast", "Identity", "Unsqueeze", "Reshape", "ConstantOfShape")
        if node is None:
            break
        if node.op_type == "ConstantOfShape":
            item = next((item for item in node.attribute if item.name == "value"), None)
            return None if item is None else _one_value(tensor_value(item.t))
        tensor = node.input[0]
    return _one_value(graph.constant(tensor))


def _one_value(value: Array | None) -> float | None:
    if value is None or not value.size or value.dtype.kind != "f" or (value != value.flat[0]).any():
        return None
    return float(value.flat[0])
