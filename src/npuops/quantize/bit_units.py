"""Which nodes of a graph can change their activation width on their own, and the overrides that make it so.

A node computes at one width: its float inputs and outputs are all 8 or all 16 bits, as the vendors' kernels want it.
Nodes that only move data (Reshape, Transpose, …), that ONNX Runtime folds away (Relu, Clip), or that write no float
(ArgMax, Shape), follow whoever made their input: together they are a *unit*, the atom of the mixed-precision search.
A tensor has the width of its maker; where a reader computes at the other width, ONNX Runtime inserts a Q/DQ pair that
converts.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Set
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import QuantType

from npuops.quantize.ranges import Range, float_activations

FOLLOWERS = frozenset(
    {
        *("Clip", "DepthToSpace", "Expand", "Flatten", "Identity", "MaxPool", "Relu", "Reshape", "Resize", "Slice"),
        *("SpaceToDepth", "Split", "Squeeze", "Tile", "Transpose", "Unsqueeze", "AveragePool", "GlobalMaxPool"),
        *("Gather", "GatherElements", "Pad", "TopK"),
    }
)
"""Operators whose output keeps the quantization of their first input."""

WEIGHT_OPS = frozenset(
    {
        *("Conv", "ConvTranspose", "Gemm", "MatMul"),
        *("BatchNormalization", "InstanceNormalization", "LayerNormalization"),
    }
)
"""Operators whose constants, from the second input on, are weights or biases, with a number format of their own."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Unit:
    """Nodes that change width together."""

    name: str
    """The first node's name."""
    op: str
    nodes: tuple[str, ...]
    tensors: tuple[str, ...]
    """Float activations that they write."""
    elements: int
    """Values written for one inference; each costs one byte more at 16 bits."""
    can_widen: bool
    """False for a Gather from a constant table: an embedding is a weight, and weights stay at 8 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class BitPlan:
    """The graph as units, and who makes and reads each tensor."""

    units: tuple[Unit, ...]
    makers: Mapping[str, str]
    """Float activation → name of the unit that writes it; absent for graph inputs."""
    readers: Mapping[str, tuple[tuple[str, str], ...]]
    """Float activation → (node, its unit) of every reader that computes in a width."""
    constants: Mapping[str, tuple[str, ...]]
    """Unit → its float constants that are quantized like activations (an Add's second operand)."""

    @property
    def widest(self) -> frozenset[str]:
        """Units that compute at 16 bits in A16W8."""
        return frozenset(unit.name for unit in self.units if unit.can_widen)

    @property
    def elements(self) -> int:
        """Values written by all units for one inference."""
        return sum(unit.elements for unit in self.units)


def own_constants(model: onnx.ModelProto) -> None:
    """Give every reader its own copy of a shared float constant, so that formats can differ. In place.

    Readers that use it as the same weight (operator, place, layout) share one: ONNX Runtime quantizes it once.
    """
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    owners: dict[str, tuple[object, ...]] = {}
    copies: dict[tuple[str, tuple[object, ...]], str] = {}
    for node in model.graph.node:
        for place, name in enumerate(node.input):
            tensor = tensors.get(name)
            if tensor is None or tensor.data_type != onnx.TensorProto.FLOAT:
                continue
            use = _use(node, place)
            if owners.setdefault(name, use) == use:
                continue
            if (name, use) not in copies:
                copy = model.graph.initializer.add()
                copy.CopyFrom(tensor)
                copy.name = copies[name, use] = f"{name}@{node.name}.{place}"
            node.input[place] = copies[name, use]


def _use(node: onnx.NodeProto, place: int) -> tuple[object, ...]:
    """Equal for two readers that want a constant in the same format."""
    if not _is_weight(node, place):
        return (node.name,)
    transposed = any(attribute.name == "transB" and attribute.i for attribute in node.attribute)
    return node.op_type, place, transposed


def _is_weight(node: onnx.NodeProto, place: int) -> bool:
    return node.op_type in WEIGHT_OPS and (place > 0 or node.op_type == "MatMul")


def bit_plan(model: onnx.ModelProto) -> BitPlan:
    """Cut a prepared graph (inferred shapes, every node named) into units."""
    floats = set(float_activations(model))
    sizes = _elements(model)
    constants = {t.name for t in model.graph.initializer if t.data_type == onnx.TensorProto.FLOAT}
    makers: dict[str, str] = {}
    members: dict[str, list[onnx.NodeProto]] = {}
    for node in model.graph.node:
        unit = _followed(node, makers, floats) or node.name
        members.setdefault(unit, []).append(node)
        makers.update({name: unit for name in node.output if name in floats})
    units = [_unit(unit, nodes, floats, sizes, constants) for unit, nodes in members.items()]
    units = [unit for unit in units if unit.tensors]
    unit_of = {node: unit.name for unit in units for node in unit.nodes}
    readers: dict[str, list[tuple[str, str]]] = {}
    for node in model.graph.node:
        for name in dict.fromkeys(node.input):
            if name in floats and node.name in unit_of:
                readers.setdefault(name, []).append((node.name, unit_of[node.name]))
    return BitPlan(
        units=tuple(units),
        makers=makers,
        readers={name: tuple(found) for name, found in readers.items()},
        constants={unit: _like_activations(nodes, constants) for unit, nodes in members.items()},
    )


def _followed(node: onnx.NodeProto, makers: Mapping[str, str], floats: Set[str]) -> str | None:
    """The unit that a node belongs to by what it reads, if any."""
    if not floats & {*node.output}:  # ArgMax, Shape: no width of its own, and no reason to convert its input
        return next((makers[name] for name in node.input if name in makers), None)
    return makers.get(node.input[0]) if node.op_type in FOLLOWERS else None


def _unit(
    name: str, nodes: list[onnx.NodeProto], floats: Set[str], sizes: Mapping[str, int], constants: Set[str]
) -> Unit:
    tensors = tuple(out for node in nodes for out in node.output if out in floats)
    return Unit(
        name=name,
        op=nodes[0].op_type,
        nodes=tuple(node.name for node in nodes),
        tensors=tensors,
        elements=sum(sizes.get(tensor, 0) for tensor in tensors),
        can_widen=not (nodes[0].op_type == "Gather" and nodes[0].input[0] in constants),
    )


def _like_activations(nodes: Iterable[onnx.NodeProto], constants: Set[str]) -> tuple[str, ...]:
    return tuple(
        name
        for node in nodes
        for place, name in enumerate(node.input)
        if name in constants and not _is_weight(node, place)
    )


def _elements(model: onnx.ModelProto) -> dict[str, int]:
    values = [*model.graph.input, *model.graph.value_info, *model.graph.output]
    return {v.name: int(np.prod([dim.dim_value for dim in v.type.tensor_type.shape.dim])) for v in values}


def tensors_at_16(plan: BitPlan, wide: Set[str]) -> tuple[str, ...]:
    """Activations that are stored at 16 bits when the units `wide` compute at 16 bits, in graph order."""
    return tuple(tensor for unit in plan.units if unit.name in wide for tensor in unit.tensors)


def share_at_16(plan: BitPlan, wide: Set[str]) -> float:
    """Part of all activation values that is stored at 16 bits, 0 to 1: the cost of a mix."""
    return sum(unit.elements for unit in plan.units if unit.name in wide) / max(1, plan.elements)


@dataclass(frozen=True, slots=True, kw_only=True)
class WidthRanges:
    """Quantization of each activation at both widths."""

    narrow: Mapping[str, Range]
    """Clip range at 8 bits."""
    wide: Mapping[str, Range]
    """Clip range at 16 bits."""
    fixed: Mapping[tuple[str, int], tuple[float, int]]
    """(Tensor, bits) → scale and zero point that a kernel demands, instead of a range."""


def width_overrides(plan: BitPlan, wide: Set[str], ranges: WidthRanges) -> dict[str, list[dict[str, Any]]]:
    """`TensorQuantOverrides` for ONNX Runtime that make exactly the units in `wide` compute at 16 bits."""
    overrides: dict[str, list[dict[str, Any]]] = {}
    for name in dict.fromkeys((*plan.makers, *plan.readers)):
        readers = plan.readers.get(name, ())
        maker = plan.makers.get(name)
        made_wide = maker in wide if maker is not None else any(unit in wide for _, unit in readers)
        entry = _entry(name, 16 if made_wide else 8, ranges)
        others = {node for node, unit in readers if (unit in wide) != made_wide}
        if others:
            entry["convert"] = {**_entry(name, 8 if made_wide else 16, ranges), "recv_nodes": others}
        overrides[name] = [entry]
    for unit in sorted(wide):
        for name in plan.constants.get(unit, ()):
            overrides[name] = [{"quant_type": QuantType.QUInt16}]
    return overrides


def _entry(name: str, bits: int, ranges: WidthRanges) -> dict[str, Any]:
    entry: dict[str, Any] = {"quant_type": QuantType.QUInt16 if bits == 16 else QuantType.QUInt8}
    fixed = ranges.fixed.get((name, bits))
    found = (ranges.wide if bits == 16 else ranges.narrow).get(name)
    if fixed is not None:
        entry["scale"] = np.array(fixed[0], np.float32)
        entry["zero_point"] = np.array(fixed[1], np.uint16 if bits == 16 else np.uint8)
    elif found is not None:
        entry["rmin"], entry["rmax"] = np.float32(found[0]), np.float32(found[1])
    return entry
