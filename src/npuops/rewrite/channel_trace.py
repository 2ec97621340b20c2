"""Follows channels through a graph: which slices of which weights must go together when a channel goes.

Every output channel of a convolution or matrix product gets a number of its own. Operators hand the numbers on
(`channel_rules` says how), an addition declares two numbers to be one channel, and an operator that cannot be
followed freezes the numbers that reach it. What remains can be cut without changing what any operator means.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray

from npuops.rewrite.rewrite_graph import Graph

Ids = NDArray[np.int64]


class UntraceableError(Exception):
    """A rule's word that it cannot follow the channels through this node; the tracer turns it into a reason."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Layout:
    """The channels along one axis of an activation: `ids[i]` is the number of the channel at index i."""

    axis: int
    ids: Ids


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Slice:
    """The constant operand `operand` of `node` has the channels `ids` along `axis`."""

    node: onnx.NodeProto
    operand: int
    axis: int
    ids: Ids


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Source:
    """A layer that makes channels, and the L1 norm of the weights that make each."""

    node: onnx.NodeProto
    ids: Ids
    norms: NDArray[np.float64]


class Trace:
    """What is known about the channels so far; the rules write into it."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.layouts: dict[str, Layout] = {}
        self.slices: list[Slice] = []
        self.sources: list[Source] = []
        self.groups: list[tuple[onnx.NodeProto, Ids]] = []
        """Depthwise convolutions, whose attribute `group` counts their channels."""
        self.targets: list[tuple[onnx.NodeProto, tuple[int, ...]]] = []
        """Reshapes, and the target (with 0 for "keep" and -1) that stays right when channels go."""
        self._same: list[int] = []
        self._frozen: dict[int, str] = {}

    # -- what a rule reads ------------------------------------------------------------------

    def layout(self, tensor: str) -> Layout | None:
        """None for a tensor whose channels never change."""
        return self.layouts.get(tensor)

    def rank(self, tensor: str) -> int:
        """How many axes; without it nothing can be cut safely."""
        shape = self.graph.shape(tensor)
        if shape is None:
            raise UntraceableError(f"nothing is known about the shape of {tensor!r}")
        return len(shape)

    def width(self, tensor: str, axis: int) -> int:
        """The size of one axis."""
        width = (self.graph.shape(tensor) or (None,) * (axis + 1))[axis]
        if width is None:
            raise UntraceableError(f"axis {axis} of {tensor!r} has no fixed size")
        return width

    def shape(self, tensor: str) -> tuple[int, ...]:
        """All sizes, for an operator that names them."""
        return tuple(self.width(tensor, axis) for axis in range(self.rank(tensor)))

    def constant(self, node: onnx.NodeProto, operand: int) -> NDArray[Any] | None:
        """The value of an operand that is stored in the file; None where it is absent or computed."""
        if operand >= len(node.input) or not node.input[operand]:
            return None
        return self.graph.constant(node.input[operand])

    # -- what a rule writes -----------------------------------------------------------------

    def fresh(self, node: onnx.NodeProto, weights: NDArray[Any], axis: int) -> Ids:
        """Numbers for the channels that `node` makes, one for each index of `axis` of its weights."""
        ids = np.arange(len(self._same), len(self._same) + weights.shape[axis], dtype=np.int64)
        self._same.extend(ids.tolist())
        others = tuple(index for index in range(weights.ndim) if index != axis)
        norms = np.abs(weights.astype(np.float64)).sum(axis=others)
        self.sources.append(Source(node=node, ids=ids, norms=norms))
        return ids

    def foreign(self, count: int) -> Ids:
        """Numbers for channels that come from outside of every layer: frozen at once."""
        ids = np.arange(len(self._same), len(self._same) + count, dtype=np.int64)
        self._same.extend(ids.tolist())
        self.freeze(ids, "joined with a tensor whose channels are fixed")
        return ids

    def put(self, tensor: str, axis: int, ids: Ids) -> None:
        """`tensor` has these channels along `axis`."""
        if self.width(tensor, axis) != len(ids):
            raise UntraceableError(f"{tensor!r} has another number of channels than its operands tell")
        self.layouts[tensor] = Layout(axis=axis, ids=ids)

    def cut(self, node: onnx.NodeProto, operand: int, axis: int, ids: Ids) -> None:
        """The constant operand follows these channels."""
        self.slices.append(Slice(node=node, operand=operand, axis=axis, ids=ids))

    def unite(self, one: Ids, other: Ids) -> None:
        """The two rows of channels are the same ones, index by index: they stay or go together."""
        for first, second in zip(one.tolist(), other.tolist(), strict=True):
            low, high = sorted((self.root(first), self.root(second)))
            self._same[high] = low
            if high in self._frozen:
                self._frozen.setdefault(low, self._frozen[high])

    def freeze(self, ids: Iterable[int] | Ids, reason: str) -> None:
        """These channels stay, and why; the first reason is kept."""
        for channel in np.asarray(ids, dtype=np.int64).tolist():
            self._frozen.setdefault(self.root(channel), reason)

    # -- what a caller asks afterwards -------------------------------------------------------

    @property
    def count(self) -> int:
        """How many numbers were given out."""
        return len(self._same)

    def root(self, channel: int) -> int:
        """The number that stands for all channels united with this one."""
        while self._same[channel] != channel:
            self._same[channel] = self._same[self._same[channel]]
            channel = self._same[channel]
        return channel

    def roots(self, ids: Ids) -> Ids:
        """`root` of each."""
        return np.array([self.root(channel) for channel in ids.tolist()], dtype=np.int64)

    def frozen(self, root: int) -> str | None:
        """Why the channel must stay; None if it may go."""
        return self._frozen.get(root)
