"""Removes output channels from a graph, consistently through everything that reads or carries them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from npuops.models.onnx_guard import ONNX_DOMAINS
from npuops.models.shapes import infer_shapes
from npuops.rewrite.channel_rules import RULES, refuse
from npuops.rewrite.channel_trace import Ids, Slice, Source, Trace, UntraceableError
from npuops.rewrite.rewrite_graph import Graph

Cut = tuple[tuple[int, NDArray[np.bool_]], ...]
"""(axis, which indices stay) for each axis of one constant."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Family:
    """Channels that are ranked against each other: those of one layer, or of layers joined by additions."""

    channels: Ids
    """The channels that may go, by the number that stands for each."""
    scores: NDArray[np.float64]
    """L1 norm of the weights that make the channel, over the mean of its layer; averaged over joined layers."""


class Channels:
    """The channels of one model: ranks them, cuts them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = infer_shapes(_copied(model))
        graph = Graph(self._model)
        self._trace = _follow(graph)
        self._position = {id(node): index for index, node in enumerate(graph.nodes)}
        self.families = tuple(_families(self._trace))

    @property
    def layers(self) -> tuple[Source, ...]:
        """The layers that make channels, in the graph's order."""
        return tuple(self._trace.sources)

    def why_left(self, layer: Source) -> str | None:
        """Why no channel of the layer may go; None when some may."""
        reasons = [self._trace.frozen(root) for root in self._trace.roots(layer.ids).tolist()]
        return None if None in reasons else reasons[0]

    def lowest(self, sparsity: float, *, together: bool) -> frozenset[int]:
        """The channels to remove: the lowest scores of each family, or of all families together.

        Each layer keeps at least one channel, whatever the sparsity.
        """
        left = {index: set(self._trace.roots(layer.ids).tolist()) for index, layer in enumerate(self.layers)}
        makers: dict[int, list[int]] = {}
        for index, roots in left.items():
            for root in roots:
                makers.setdefault(root, []).append(index)
        removed: set[int] = set()
        for channels, scores in self._rankings(together=together):
            wanted = int(np.floor(sparsity * len(channels) + 1e-9)) + len(removed)
            for root in channels[np.argsort(scores, kind="stable")].tolist():
                if len(removed) >= wanted:
                    break
                if all(len(left[index]) > 1 for index in makers[root]):
                    removed.add(root)
                    for index in makers[root]:
                        left[index].discard(root)
        return frozenset(removed)

    def _rankings(self, *, together: bool) -> list[tuple[Ids, NDArray[np.float64]]]:
        if not together or not self.families:
            return [(family.channels, family.scores) for family in self.families]
        channels = np.concatenate([family.channels for family in self.families])
        return [(channels, np.concatenate([family.scores for family in self.families]))]

    def kept(self, layer: Source, removed: frozenset[int]) -> int:
        """How many channels of the layer stay."""
        return int(self._stays(layer.ids, removed).sum())

    def without(self, removed: frozenset[int]) -> onnx.ModelProto:
        """A copy of the model without these channels, its shapes inferred again.

        Raises:
            MalformedModelError: the smaller graph contradicts itself, which would be our mistake.
        """
        graph = Graph(self._model)
        for tensor, uses in self._uses().items():
            self._cut_constant(graph, tensor, uses, removed)
        for node, ids in self._trace.groups:
            copy = graph.nodes[self._position[id(node)]]
            next(item for item in copy.attribute if item.name == "group").i = int(self._stays(ids, removed).sum())
        for node, target in self._trace.targets:
            copy = graph.nodes[self._position[id(node)]]
            copy.input[1] = graph.add_constant(np.array(target, dtype=np.int64), copy.input[1])
        smaller = graph.model()
        # Old files list their weights as inputs, with the shapes of before; since IR version 4 they need not.
        smaller.ir_version = max(smaller.ir_version, 4)
        inputs = [value for value in smaller.graph.input if value.name not in graph.initializers]
        del smaller.graph.input[:]
        smaller.graph.input.extend(inputs)
        return infer_shapes(smaller)

    def _stays(self, ids: Ids, removed: frozenset[int]) -> NDArray[np.bool_]:
        return ~np.isin(self._trace.roots(ids), np.fromiter(removed, dtype=np.int64, count=len(removed)))

    def _uses(self) -> dict[str, dict[tuple[int, int], list[Slice]]]:
        """Constant → (node position, operand) → what to cut there."""
        uses: dict[str, dict[tuple[int, int], list[Slice]]] = {}
        for part in self._trace.slices:
            place = (self._position[id(part.node)], part.operand)
            uses.setdefault(part.node.input[part.operand], {}).setdefault(place, []).append(part)
        return uses

    def _cut_constant(
        self, graph: Graph, tensor: str, uses: Mapping[tuple[int, int], list[Slice]], removed: frozenset[int]
    ) -> None:
        value = graph.constant(tensor)
        if value is None:
            raise AssertionError(f"a slice of {tensor!r} was traced, but it is no constant")
        cuts: dict[tuple[int, int], Cut] = {
            place: tuple((part.axis, self._stays(part.ids, removed)) for part in parts) for place, parts in uses.items()
        }
        if all(mask.all() for cut in cuts.values() for _, mask in cut):
            return
        readers = sum(list(node.input).count(tensor) for node in graph.nodes)
        same = len({_signature(cut) for cut in cuts.values()}) == 1
        if same and readers == len(cuts) and tensor in graph.initializers and tensor not in graph.captured:
            smaller = _compressed(value, next(iter(cuts.values())))
            graph.initializers[tensor] = onnx.numpy_helper.from_array(smaller, tensor)
            return
        # Somebody else reads the constant too, and may need all of it or another part: cut a copy for each.
        copies: dict[tuple[tuple[int, bytes], ...], str] = {}
        for (position, operand), cut in cuts.items():
            name = copies.get(_signature(cut)) or graph.add_constant(_compressed(value, cut), tensor)
            copies[_signature(cut)] = name
            graph.nodes[position].input[operand] = name


def _signature(cut: Cut) -> tuple[tuple[int, bytes], ...]:
    return tuple((axis, mask.tobytes()) for axis, mask in cut)


def _compressed(value: NDArray[Any], cut: Cut) -> NDArray[Any]:
    for axis, mask in cut:
        value = np.compress(mask, value, axis=axis)
    return np.ascontiguousarray(value)


def _copied(model: onnx.ModelProto) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    return copy


def _follow(graph: Graph) -> Trace:
    trace = Trace(graph)
    for node in graph.nodes:
        before = trace.count
        rule = RULES.get(node.op_type, refuse) if node.domain in ONNX_DOMAINS else refuse
        try:
            rule(trace, node)
        except UntraceableError as error:
            reason = f"{node.op_type} {node.name}: {error}"
            trace.freeze(range(before, trace.count), reason)
            for name in node.input:
                layout = trace.layout(name)
                if layout is not None:
                    trace.freeze(layout.ids, reason)
    for name in graph.outputs | graph.captured:
        layout = trace.layout(name)
        if layout is not None:
            trace.freeze(layout.ids, f"{name} is an output of the model, or read by a subgraph")
    return trace


def _families(trace: Trace) -> list[Family]:
    groups: list[tuple[set[int], list[Source]]] = []
    for layer in trace.sources:
        roots = set(trace.roots(layer.ids).tolist())
        joined = [group for group in groups if group[0] & roots]
        groups = [group for group in groups if not group[0] & roots]
        roots.update(*(group[0] for group in joined))
        groups.append((roots, [*(member for group in joined for member in group[1]), layer]))
    return [_ranked(trace, layers) for _, layers in groups]


def _ranked(trace: Trace, layers: list[Source]) -> Family:
    scores: dict[int, list[float]] = {}
    for layer in layers:
        mean = float(layer.norms.mean()) or 1.0
        for root, norm in zip(trace.roots(layer.ids).tolist(), layer.norms.tolist(), strict=True):
            if trace.frozen(root) is None:
                scores.setdefault(root, []).append(norm / mean)
    return Family(
        channels=np.array(list(scores), dtype=np.int64),
        scores=np.array([float(np.mean(values)) for values in scores.values()]),
    )
