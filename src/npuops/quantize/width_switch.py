"""Any mix of 8- and 16-bit units, assembled in milliseconds from the two graphs at the ends.

Writing a QDQ graph quantizes every weight again, seconds for each mix that a search tries. Yet between two mixes only
numbers change: scales, zero points, biases and constants, each taken from the graph at 8 or from the one at 16 bits,
and the Q/DQ pairs that convert where two widths meet. A test holds the result against the graph written from scratch.
It is better in two places: before a conversion, ONNX Runtime no longer folds a Relu into its convolution, and it gives
an output of the model that is read inside in the width of the reader.
"""

from __future__ import annotations

from collections.abc import Mapping, Set
from dataclasses import dataclass

import onnx
from onnx import TensorProto, helper

from npuops.quantize.bit_units import BitPlan
from npuops.quantize.quantize import Calibrated, build_qdq

CONVERT = "_convert"
"""What ONNX Runtime appends to the names of a conversion."""
PRODUCER_RENAMED = "_QuantizeLinear_Input"
"""What it appends to a graph output that is quantized, to keep the name for the result."""


@dataclass(frozen=True, slots=True)
class _Stored:
    """An activation between its QuantizeLinear and its DequantizeLinear."""

    scale: str
    zero_point: str
    deciders: frozenset[str]
    """It is stored at 16 bits when one of these units computes at 16."""


class WidthSwitch:
    """Holds the QDQ graphs with all units at 8 and at 16 bits, and gives any mix of them."""

    def __init__(self, calibrated: Calibrated) -> None:
        """Write both ends.

        Raises:
            UnsupportedModelError: as `build_qdq`.
        """
        widest = build_qdq(calibrated, calibrated.plan.widest)
        self._narrow = build_qdq(calibrated, frozenset())
        for end in (self._narrow, widest):
            _own_scales(end.graph, calibrated.plan)
        self._narrow_values = {tensor.name: tensor for tensor in self._narrow.graph.initializer}
        self._wide_values = {tensor.name: tensor for tensor in widest.graph.initializer}
        self._frame = _frame(self._narrow, widest)
        # Below opset 21 the 16-bit operators are ONNX Runtime's own, and it takes them for 8 bits too.
        self._domain = next((node.domain for node in widest.graph.node if node.op_type == "QuantizeLinear"), "")
        self._units = {node: unit.name for unit in calibrated.plan.units for node in unit.nodes}
        self._stored = _stored(self._narrow.graph, calibrated.plan)
        self._deciders = _deciders(self._narrow.graph, self._stored, self._units)

    def graph(self, wide: Set[str]) -> onnx.ModelProto:
        """The QDQ graph in which the units `wide` compute at 16 bits."""
        model = onnx.ModelProto()
        if not wide:
            model.CopyFrom(self._narrow)
            return model
        values = dict(self._narrow_values)
        nodes: list[onnx.NodeProto] = []
        pairs: set[str] = set()
        for original in self._narrow.graph.node:
            node = onnx.NodeProto()
            node.CopyFrom(original)
            deciders = self._deciders.get(node.name)
            if deciders is None:
                nodes.extend(self._convert_inputs(node, wide, pairs, values))
            else:
                node.domain = self._domain
                if deciders & wide:
                    values |= {name: self._wide_values[name] for name in node.input if name in self._wide_values}
            nodes.append(node)
        model.CopyFrom(self._frame)
        model.graph.node.extend(nodes)
        model.graph.initializer.extend(values.values())
        return model

    def _convert_inputs(
        self, node: onnx.NodeProto, wide: Set[str], pairs: set[str], values: dict[str, TensorProto]
    ) -> list[onnx.NodeProto]:
        """The Q/DQ pairs before `node` where it computes at another width than an input was stored at."""
        unit = self._units.get(node.name, node.name)
        added: list[onnx.NodeProto] = []
        for place, name in enumerate(node.input):
            stored = self._stored.get(name)
            if stored is None or bool(stored.deciders & wide) == (unit in wide):
                continue
            node.input[place] = f"{name}{CONVERT}"
            if name not in pairs:
                pairs.add(name)
                source = self._wide_values if unit in wide else self._narrow_values
                added.extend(self._pair(name, stored, source, values))
        return added

    def _pair(
        self, name: str, stored: _Stored, source: Mapping[str, TensorProto], values: dict[str, TensorProto]
    ) -> list[onnx.NodeProto]:
        inputs = []
        for key in (stored.scale, stored.zero_point):
            # What never widens (an embedding) is converted in the 16-bit graph already: its numbers are there.
            tensor = TensorProto()
            tensor.CopyFrom(source.get(f"{key}{CONVERT}", source[key]))
            tensor.name = f"{name}{CONVERT}.{key}"
            values[tensor.name] = tensor
            inputs.append(tensor.name)
        middle, end = f"{name}{CONVERT}.q", f"{name}{CONVERT}"
        return [
            helper.make_node("QuantizeLinear", [name, *inputs], [middle], name=middle, domain=self._domain),
            helper.make_node("DequantizeLinear", [middle, *inputs], [end], name=end, domain=self._domain),
        ]


def _own_scales(graph: onnx.GraphProto, plan: BitPlan) -> None:
    """A scale and a zero point for each activation alone, in place.

    ONNX Runtime lets what only moves data (Transpose, Gather, …) use the constants of its input, and each of the two
    must be able to change width without the other.
    """
    values = {tensor.name: tensor for tensor in graph.initializer}
    own: dict[str, list[str]] = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            tensor = node.input[0].removesuffix(PRODUCER_RENAMED)
            if tensor not in plan.makers and tensor not in plan.readers:
                continue
            for place, kind in ((1, "scale"), (2, "zero_point")):
                name = f"{tensor}_{kind}"
                if name not in values:
                    values[name] = graph.initializer.add()
                    values[name].CopyFrom(values[node.input[place]])
                    values[name].name = name
                node.input[place] = name
            own[node.output[0]] = list(node.input[1:])
        elif node.op_type == "DequantizeLinear" and node.input[0] in own:
            node.input[1:] = own[node.input[0]]


def _frame(narrow: onnx.ModelProto, widest: onnx.ModelProto) -> onnx.ModelProto:
    """Everything but nodes and constants."""
    frame = onnx.ModelProto()
    frame.CopyFrom(narrow)
    del frame.graph.node[:], frame.graph.initializer[:], frame.opset_import[:]
    frame.opset_import.extend(widest.opset_import)
    return frame


def _stored(graph: onnx.GraphProto, plan: BitPlan) -> dict[str, _Stored]:
    """Output of an activation's DequantizeLinear → how it is stored."""
    quantized: dict[str, _Stored] = {}
    found: dict[str, _Stored] = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear":
            tensor = node.input[0].removesuffix(PRODUCER_RENAMED)
            maker = plan.makers.get(tensor)
            readers = frozenset(unit for _, unit in plan.readers.get(tensor, ()))
            deciders = readers if maker is None else frozenset({maker})
            quantized[node.output[0]] = _Stored(node.input[1], node.input[2], deciders)
        elif node.op_type == "DequantizeLinear" and node.input[0] in quantized:
            found[node.output[0]] = quantized[node.input[0]]
    return found


def _deciders(
    graph: onnx.GraphProto, stored: Mapping[str, _Stored], units: Mapping[str, str]
) -> dict[str, frozenset[str]]:
    """Name of a Q or DQ node → the units of which one at 16 bits makes it 16 bits."""
    scales = {pair.scale: pair.deciders for pair in stored.values()}
    readers: dict[str, set[str]] = {}
    for node in graph.node:
        for name in node.input:
            readers.setdefault(name, set()).add(units.get(node.name, node.name))
    found: dict[str, frozenset[str]] = {}
    for node in graph.node:
        if node.op_type == "QuantizeLinear" or node.output[0] in stored:
            found[node.name] = scales.get(node.input[1], frozenset())
        elif node.op_type == "DequantizeLinear":
            found[node.name] = frozenset(readers.get(node.output[0], ()))  # a weight, bias or constant
    return found
