"""The structure of an ONNX graph, judged before any library walks it: names, order, loops, depth.

`onnx.checker` and shape inference are C++ that trusts its input (a recursive function overflows their stack),
so everything here comes first.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Final

import onnx

from npuops.errors import MalformedModelError, UnsafeModelError
from npuops.models.onnx_tensors import check_dims, check_tensor, dtype_name, tensors_of

ONNX_DOMAINS: Final = frozenset({"", "ai.onnx"})
MAX_DEPTH: Final = 12
"""Nested If/Loop/Scan; real models have two or three levels."""
MAX_NODES: Final = 500_000
"""Nodes of all graphs, functions expanded; the largest language models stay under 50,000."""


def guard(proto: onnx.ModelProto) -> None:
    """Check the whole structure; put nodes in an order in which inputs come before their use.

    Raises:
        MalformedModelError: an undefined or doubly defined name, a loop, a tensor that contradicts itself, an
            operator without an operand that it needs.
        UnsafeModelError: nested or expanded beyond reason.
    """
    if len(proto.graph.node) > MAX_NODES:
        raise UnsafeModelError(f"the graph has {len(proto.graph.node)} nodes; at most {MAX_NODES} are read")
    for function in proto.functions:
        _check_names(iter((function.name, function.domain, *function.input, *function.output)))
    _check_functions(proto)
    _check_names(_names(proto.graph, 0))
    for tensor in tensors_of(proto):
        _check_names(iter((tensor.name, *(text for pair in tensor.external_data for text in (pair.key, pair.value)))))
        check_tensor(tensor)
    _check_operands(proto)
    _check_value_shapes(proto.graph)
    missing = _free_names(proto.graph)
    if missing:
        raise MalformedModelError(
            f"nothing computes {min(missing)!r}, which a node uses or the graph returns",
            advice="the file is damaged, or was cut out of a larger graph; export it again",
        )


def subgraphs(node: onnx.NodeProto) -> Iterator[onnx.GraphProto]:
    """The graphs that a node holds: branches of If, bodies of Loop and Scan."""
    for attribute in node.attribute:
        if attribute.HasField("g"):
            yield attribute.g
        yield from attribute.graphs


def _check_names(names: Iterator[str | bytes]) -> None:
    """Protobuf hands out bytes where a string field is not UTF-8."""
    for name in names:
        if not isinstance(name, str):
            raise MalformedModelError(f"the name {name[:40]!r} is not UTF-8 text", advice="the file is damaged")


def _names(graph: onnx.GraphProto, depth: int) -> Iterator[str]:
    if depth > MAX_DEPTH:
        raise UnsafeModelError(f"graphs are nested more than {MAX_DEPTH} deep", advice="the file is damaged or hostile")
    for value in (*graph.input, *graph.output, *graph.value_info):
        yield value.name
        yield from (dim.dim_param for dim in value.type.tensor_type.shape.dim)
    for node in graph.node:
        yield from (node.name, node.op_type, node.domain, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
        for inner in subgraphs(node):
            yield from _names(inner, depth + 1)


def _check_operands(proto: onnx.ModelProto) -> None:
    """No required operand is left out: onnx.checker lets that pass, and ONNX Runtime dies of it."""
    opset = max((entry.version for entry in proto.opset_import if entry.domain in ONNX_DOMAINS), default=1)
    for nodes in (proto.graph.node, *(function.node for function in proto.functions)):
        for node in _all_nodes(nodes, 0):
            if "" in node.input and node.domain in ONNX_DOMAINS and _lacks_operand(node, opset):
                raise MalformedModelError(
                    f"the {node.op_type} {node.name!r} leaves out an operand that it needs",
                    advice="the file is damaged; export it again",
                )


def _lacks_operand(node: onnx.NodeProto, opset: int) -> bool:
    try:
        formal = onnx.defs.get_schema(node.op_type, opset).inputs
    except onnx.defs.SchemaError:  # onnx.checker words it
        return False
    optional = onnx.defs.OpSchema.FormalParameterOption.Optional
    # The last formal operand of a variadic operator stands for all that follow.
    places = [formal[min(index, len(formal) - 1)] for index, name in enumerate(node.input) if formal and not name]
    return any(place.option != optional for place in places)


def _check_value_shapes(graph: onnx.GraphProto) -> None:
    for value in (*graph.input, *graph.output, *graph.value_info):
        if value.type.HasField("tensor_type"):
            kind = value.type.tensor_type
            # Older exporters write -1 for "unknown".
            dims = [dim.dim_value for dim in kind.shape.dim if dim.HasField("dim_value") and dim.dim_value != -1]
            check_dims(dims, dtype_name(kind.elem_type), value.name)


def _free_names(graph: onnx.GraphProto) -> set[str]:
    """Names that the graph uses and does not define; sorts its nodes."""
    producer = _producers(graph)
    needs = [_needs(node) for node in graph.node]
    order = _order(needs, producer, graph)
    given = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    given |= {sparse.values.name for sparse in graph.sparse_initializer}
    twice = given & producer.keys()
    if twice:
        raise MalformedModelError(f"{min(twice)!r} is defined twice: as an input and by a node")
    if order != list(range(len(order))):
        nodes = [onnx.NodeProto() for _ in order]
        for copy, index in zip(nodes, order, strict=True):
            copy.CopyFrom(graph.node[index])
        del graph.node[:]
        graph.node.extend(nodes)
    used = set().union(*needs) | {value.name for value in graph.output if value.name}
    return used - given - producer.keys()


def _producers(graph: onnx.GraphProto) -> dict[str, int]:
    producer: dict[str, int] = {}
    for index, node in enumerate(graph.node):
        for name in node.output:
            if name and name in producer:
                raise MalformedModelError(
                    f"{name!r} is defined twice: by nodes {producer[name]} and {index}",
                    advice="the file is damaged; export it again",
                )
            if name:
                producer[name] = index
    return producer


def _needs(node: onnx.NodeProto) -> set[str]:
    names = {name for name in node.input if name}
    for graph in subgraphs(node):
        names |= _free_names(graph)
    return names


def _order(needs: Sequence[set[str]], producer: dict[str, int], graph: onnx.GraphProto) -> list[int]:
    """Kahn's algorithm, smallest index first, so that a graph in order keeps its order."""
    before = [{producer[name] for name in names if name in producer} for names in needs]
    after: list[list[int]] = [[] for _ in needs]
    for index, earlier in enumerate(before):
        for other in earlier:
            after[other].append(index)
    left = [len(earlier) for earlier in before]
    ready = [index for index, count in enumerate(left) if count == 0]
    order: list[int] = []
    while ready:
        index = heapq.heappop(ready)
        order.append(index)
        for other in after[index]:
            left[other] -= 1
            if left[other] == 0:
                heapq.heappush(ready, other)
    if len(order) < len(needs):
        stuck = graph.node[next(index for index, count in enumerate(left) if count)]
        raise MalformedModelError(
            f"the graph runs in a circle through {stuck.name or stuck.op_type!r}",
            advice="ONNX graphs have no cycles; a loop is written with Loop or Scan",
        )
    return order


def _check_functions(proto: onnx.ModelProto) -> None:
    """No model-local function calls itself, and expanding all of them stays small."""
    bodies = {(function.domain, function.name): function.node for function in proto.functions}
    sizes: dict[tuple[str, str], int] = {}
    for start in bodies:
        _expanded_size(start, bodies, sizes, ())
    total = sum(sizes.get((node.domain, node.op_type), 1) for node in proto.graph.node)
    if total > MAX_NODES:
        raise UnsafeModelError(f"expanding the model's functions gives {total} nodes; at most {MAX_NODES} are read")


def _expanded_size(
    key: tuple[str, str],
    bodies: dict[tuple[str, str], Sequence[onnx.NodeProto]],
    sizes: dict[tuple[str, str], int],
    path: tuple[tuple[str, str], ...],
) -> int:
    if key in sizes:
        return sizes[key]
    if key in path:
        raise MalformedModelError(f"the function {key[1]!r} calls itself", advice="ONNX functions cannot recurse")
    if len(path) > MAX_DEPTH:
        raise UnsafeModelError(f"functions call each other more than {MAX_DEPTH} deep")
    total = 0
    for node in _all_nodes(bodies[key], 0):
        _check_names(iter((node.name, node.op_type, node.domain, *node.input, *node.output)))
        inner = (node.domain, node.op_type)
        total += _expanded_size(inner, bodies, sizes, (*path, key)) if inner in bodies else 1
    sizes[key] = total
    return total


def _all_nodes(nodes: Sequence[onnx.NodeProto], depth: int) -> Iterator[onnx.NodeProto]:
    if depth > MAX_DEPTH:
        raise UnsafeModelError(f"graphs are nested more than {MAX_DEPTH} deep", advice="the file is damaged or hostile")
    for node in nodes:
        yield node
        for graph in subgraphs(node):
            yield from _all_nodes(graph.node, depth + 1)
