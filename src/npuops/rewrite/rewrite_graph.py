"""A graph that rewrites can edit: its edges indexed both ways, constants read, shapes inferred.

A rewrite names the sites where it applies; a site replaces the node that makes the final tensor, and
whatever that leaves unused is dropped. So a tensor that something else still reads always survives.
Only the main graph is edited; tensors that a subgraph (If, Loop, Scan) reads count as used.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import helper, numpy_helper

from npuops.models.onnx_guard import ONNX_DOMAINS
from npuops.models.onnx_layers import captured
from npuops.models.onnx_order import in_order
from npuops.models.onnx_tensors import is_external
from npuops.models.shapes import skeleton_of

Array = NDArray[Any]
Nodes = Sequence[onnx.NodeProto]

MAX_ROUNDS = 64

MIN_IR_VERSION = 4
"""Before it, every initializer had to be listed among the inputs too."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Site:
    """A place in a graph where a rewrite applies."""

    nodes: tuple[onnx.NodeProto, ...]
    """What is there now, for the report."""
    edit: Callable[[], None]
    """Replaces it."""

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the nodes."""
        return tuple(node.name for node in self.nodes)


class Graph:
    """The main graph of a model, for matching and editing. It works on its own copy of the nodes.

    The index is that of the graph as it was read: edits do not show in it. `apply_sites` therefore leaves
    sites that touch each other to the next round, which begins with a new Graph.
    """

    def __init__(self, proto: onnx.ModelProto) -> None:
        self.proto = proto
        self.nodes: list[onnx.NodeProto] = [_copied(node) for node in proto.graph.node]
        self.initializers = {tensor.name: tensor for tensor in proto.graph.initializer}
        self.inputs = {value.name for value in proto.graph.input} - set(self.initializers)
        self.outputs = {value.name for value in proto.graph.output}
        self._named = 0
        self._types: dict[str, onnx.TypeProto.Tensor] | None = None
        self._index()

    def _index(self) -> None:
        self.producers: dict[str, onnx.NodeProto] = {}
        self.consumers: dict[str, list[onnx.NodeProto]] = {}
        self.captured: set[str] = set()
        for position, node in enumerate(self.nodes):
            node.name = node.name or f"{node.op_type}_{position}"
            for name in node.output:
                self.producers[name] = node
            for name in node.input:
                self.consumers.setdefault(name, []).append(node)
            self.captured.update(captured(node))
        self._taken = {node.name for node in self.nodes} | set(self.producers) | set(self.initializers) | self.inputs

    # -- reading --------------------------------------------------------------------------------

    @property
    def opset(self) -> int:
        """Version of the default domain."""
        return max((entry.version for entry in self.proto.opset_import if entry.domain in ONNX_DOMAINS), default=1)

    def of(self, *ops: str) -> Iterator[onnx.NodeProto]:
        """Nodes of the standard domain with one of these operators, in order."""
        return (node for node in list(self.nodes) if node.op_type in ops and node.domain in ONNX_DOMAINS)

    def made_by(self, tensor: str, *ops: str) -> onnx.NodeProto | None:
        """The node that makes `tensor`, if it is one of `ops` of the standard domain."""
        node = self.producers.get(tensor)
        fits = node is not None and node.op_type in ops and node.domain in ONNX_DOMAINS
        return node if fits else None

    def readers(self, tensor: str, *ops: str) -> list[onnx.NodeProto]:
        """Nodes that read `tensor`, restricted to `ops` of the standard domain if any are given."""
        found = self.consumers.get(tensor, [])
        return [node for node in found if not ops or (node.op_type in ops and node.domain in ONNX_DOMAINS)]

    def is_private(self, tensor: str) -> bool:
        """Exactly one node reads it, and nothing outside the main graph does."""
        return len(self.consumers.get(tensor, [])) == 1 and tensor not in self.outputs and tensor not in self.captured

    def constant(self, tensor: str) -> Array | None:
        """Value of an initializer or of a Constant node; else None."""
        if tensor in self.initializers:
            return tensor_value(self.initializers[tensor])
        node = self.made_by(tensor, "Constant")
        if node is None:
            return None
        value = next((item for item in node.attribute if item.name == "value"), None)
        if value is not None:
            return tensor_value(value.t)
        for item in node.attribute:
            if item.name in {"value_float", "value_floats"}:
                return np.asarray(helper.get_attribute_value(item), dtype=np.float32)
            if item.name in {"value_int", "value_ints"}:
                return np.asarray(helper.get_attribute_value(item), dtype=np.int64)
        return None

    def scalar(self, tensor: str) -> float | None:
        """Value of a numeric constant with one element; else None."""
        if tensor in self.initializers and int(np.prod(self.initializers[tensor].dims)) != 1:
            return None  # weights are not read for nothing
        value = self.constant(tensor)
        if value is None or value.size != 1 or value.dtype.kind not in "fiu":
            return None
        return float(value.reshape(-1)[0])

    def shape(self, tensor: str) -> tuple[int | None, ...] | None:
        """Inferred shape; None per unknown dimension, or as a whole when the rank is unknown."""
        if tensor in self.initializers:
            return tuple(self.initializers[tensor].dims)
        found = self._inferred().get(tensor)
        if found is None or not found.HasField("shape"):
            return None
        # Older exporters write -1 for "unknown".
        return tuple(
            dim.dim_value if dim.HasField("dim_value") and dim.dim_value >= 0 else None for dim in found.shape.dim
        )

    def static_shape(self, tensor: str) -> tuple[int, ...] | None:
        """The shape where every dimension is known; else None."""
        shape = self.shape(tensor)
        if shape is None or any(dim is None for dim in shape):
            return None
        return tuple(dim for dim in shape if dim is not None)

    def dtype(self, tensor: str) -> int:
        """`onnx.TensorProto` type number; UNDEFINED where unknown."""
        if tensor in self.initializers:
            return int(self.initializers[tensor].data_type)
        found = self._inferred().get(tensor)
        return found.elem_type if found is not None else onnx.TensorProto.UNDEFINED

    def is_float32(self, tensor: str) -> bool:
        """The tensor is known to hold float32."""
        return self.dtype(tensor) == onnx.TensorProto.FLOAT

    def _inferred(self) -> dict[str, onnx.TypeProto.Tensor]:
        if self._types is None:
            self._types = _infer(self.proto)
        return self._types

    # -- editing --------------------------------------------------------------------------------

    def fresh(self, hint: str) -> str:
        """A name that no tensor and no node has."""
        while True:
            name = f"{hint}__npuops_{self._named}"
            self._named += 1
            if name not in self._taken:
                return name

    def add_constant(self, value: Array, hint: str) -> str:
        """A new initializer; returns its name."""
        name = self.fresh(hint)
        # Not ascontiguousarray: that would make a vector of a scalar.
        self.initializers[name] = numpy_helper.from_array(np.asarray(value, order="C"), name)
        return name

    def node(self, op: str, inputs: Sequence[str], outputs: Sequence[str], **attributes: Any) -> onnx.NodeProto:
        """A new node (not yet in the graph) of the standard domain."""
        return helper.make_node(op, list(inputs), list(outputs), name=self.fresh(outputs[0]), **attributes)

    def replace(self, old: onnx.NodeProto, new: Sequence[onnx.NodeProto]) -> None:
        """Put `new` where `old` is; the new ones make what the old one made."""
        position = next(index for index, node in enumerate(self.nodes) if node is old)
        self.nodes[position : position + 1] = new

    def bypass(self, node: onnx.NodeProto) -> None:
        """Remove a node whose first output equals its first input. Names of graph outputs stay."""
        source, result = node.input[0], node.output[0]
        self.nodes = [other for other in self.nodes if other is not node]
        if result in self.outputs:
            self._rename_output(source, result)
        else:
            self._reread(result, source)

    def can_bypass(self, node: onnx.NodeProto) -> bool:
        """`bypass` keeps every graph input and output, and every capture, under its name."""
        source, result = node.input[0], node.output[0]
        if result in self.captured:
            return False
        inner = source in self.producers and source not in self.outputs and source not in self.captured
        return result not in self.outputs or inner

    def _rename_output(self, source: str, result: str) -> None:
        maker = self.producers[source]
        maker.output[list(maker.output).index(source)] = result
        self._reread(source, result)

    def _reread(self, old: str, new: str) -> None:
        for node in self.nodes:
            for index, name in enumerate(node.input):
                if name == old:
                    node.input[index] = new

    def model(self) -> onnx.ModelProto:
        """The edited model: unused nodes and constants dropped, nodes in topological order."""
        result = onnx.ModelProto()
        result.CopyFrom(self.proto)
        result.ir_version = max(result.ir_version, MIN_IR_VERSION)
        graph = result.graph
        alive = _alive(self.nodes, self.outputs)
        read = self.outputs | {name for node in alive for name in (*node.input, *captured(node))}
        del graph.node[:], graph.initializer[:], graph.value_info[:]
        graph.node.extend(in_order(alive))
        graph.initializer.extend(tensor for name, tensor in self.initializers.items() if name in read)
        kept = [value for value in graph.input if value.name not in self.initializers or value.name in read]
        del graph.input[:]
        graph.input.extend(kept)
        return result


def apply_sites(
    proto: onnx.ModelProto,
    find: Callable[[Graph], Iterator[Site]],
    *,
    wanted: frozenset[tuple[str, ...]] | None = None,
) -> tuple[onnx.ModelProto, tuple[tuple[str, ...], ...]]:
    """Edit every site that `find` gives (or only those whose node names are `wanted`).

    Sites that touch each other wait for the next round, where they are found again on the edited graph.

    Returns:
        The edited copy, and the names of the nodes of every edited site.
    """
    done: list[tuple[str, ...]] = []
    for _ in range(MAX_ROUNDS):
        graph = Graph(proto)
        made: set[str] = set()
        used: set[str] = set()
        for site in list(find(graph)):
            outputs = {name for node in site.nodes for name in node.output}
            inputs = {name for node in site.nodes for name in node.input}
            if (wanted is not None and site.names not in wanted) or inputs & made or outputs & (used | made):
                continue
            site.edit()
            done.append(site.names)
            made |= outputs
            used |= inputs
        if not made:
            break
        proto = graph.model()
    return proto, tuple(done)


def replacing(
    graph: Graph, node: onnx.NodeProto, make: Callable[[], Nodes], *, found: Sequence[onnx.NodeProto] = ()
) -> Site:
    """A site whose final node is `node`; `make` builds what takes its place, when the site is edited."""
    return Site(nodes=(*found, node), edit=lambda: graph.replace(node, make()))


def advice_only(node: onnx.NodeProto) -> Site:
    """A site that nothing can be done about here."""
    return Site(nodes=(node,), edit=lambda: None)


def attribute(node: onnx.NodeProto, name: str, default: Any = None) -> Any:
    """Value of an attribute, or `default`; text comes as `str`."""
    for item in node.attribute:
        if item.name == name:
            value = helper.get_attribute_value(item)
            return value.decode(errors="replace") if isinstance(value, bytes) else value
    return default


def axes_of(graph: Graph, node: onnx.NodeProto, rank: int | None = None) -> tuple[int, ...] | None:
    """Axes of a Reduce, Squeeze or Unsqueeze, from the attribute or the constant input; counted from 0 given a rank."""
    axes = attribute(node, "axes")
    if axes is None and len(node.input) > 1 and node.input[1]:
        value = graph.constant(node.input[1])
        axes = None if value is None else value.reshape(-1).tolist()
    if axes is None:
        return None
    return tuple(int(axis) + rank if rank is not None and axis < 0 else int(axis) for axis in axes)


def tensor_value(tensor: onnx.TensorProto) -> Array | None:
    """The values that the file itself holds; else None."""
    if is_external(tensor):  # not loaded, an unknown constant; onnx would look for its file in the current folder
        return None
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError):  # stripped of its values
        return None


def _copied(node: onnx.NodeProto) -> onnx.NodeProto:
    copy = onnx.NodeProto()
    copy.CopyFrom(node)
    return copy


def _alive(nodes: list[onnx.NodeProto], outputs: set[str]) -> list[onnx.NodeProto]:
    makers = {name: node for node in nodes for name in node.output if name}
    keep: set[int] = set()
    queue = [makers[name] for name in outputs if name in makers]
    while queue:
        node = queue.pop()
        if id(node) not in keep:
            keep.add(id(node))
            queue.extend(makers[name] for name in (*node.input, *captured(node)) if name in makers)
    return [node for node in nodes if id(node) in keep]


def _infer(proto: onnx.ModelProto) -> dict[str, onnx.TypeProto.Tensor]:
    graph = proto.graph
    # Where inference gives up, what the file itself declares is still good.
    with contextlib.suppress(onnx.shape_inference.InferenceError, RuntimeError, ValueError):
        graph = onnx.shape_inference.infer_shapes(skeleton_of(proto), data_prop=True).graph
    return {value.name: value.type.tensor_type for value in (*graph.input, *graph.output, *graph.value_info)}
