"""Nodes of an ONNX graph in topological order, which the standard demands and rewriting loses."""

from __future__ import annotations

from collections.abc import Iterable

import onnx

from npuops.models.onnx_layers import captured


def in_order(nodes: Iterable[onnx.NodeProto]) -> list[onnx.NodeProto]:
    """Each node after the makers of what it reads, otherwise in the given order.

    What the bodies of an If, Loop or Scan take from outside is read by their node. Of a cycle, which no order fits,
    every node is still there once.
    """
    given = list(nodes)
    makers = {name: index for index, node in enumerate(given) for name in node.output if name}
    reads = [[makers[name] for name in (*node.input, *captured(node)) if name in makers] for node in given]
    order: list[onnx.NodeProto] = []
    entered, left = [False] * len(given), [False] * len(given)
    for first in range(len(given)):
        stack = [first]
        while stack:
            index = stack[-1]
            waits = [] if entered[index] else [maker for maker in reads[index] if not entered[maker]]
            entered[index] = True
            if waits:
                stack.extend(reversed(waits))
                continue
            stack.pop()
            if not left[index]:
                left[index] = True
                order.append(given[index])
    return order


def sort_graph(graph: onnx.GraphProto) -> None:
    """The same in place."""
    order = in_order(graph.node)
    del graph.node[:]
    graph.node.extend(order)
