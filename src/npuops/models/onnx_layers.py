"""The layer view of an ONNX graph: what flows, what is constant, what it costs."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import onnx

from npuops.models.macs import Operands, count_macs, has_rule
from npuops.models.model import AttributeValue, Dim, Layer, TensorInfo
from npuops.models.onnx_file import opset_of
from npuops.models.onnx_guard import subgraphs
from npuops.models.onnx_tensors import bytes_of, dtype_name

_RANDOM: Final = frozenset(
    {"RandomNormal", "RandomNormalLike", "RandomUniform", "RandomUniformLike", "Bernoulli", "Multinomial"}
)
_MULTIPLIERS: Final = ("Attention", "Conv", "Gemm", "GRU", "LSTM", "MatMul", "MoE")
"""A foreign operator with such a word in its name multiplies; without a rule of its own the count is unknown."""
_KNOWN_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})
_MOVES: Final = frozenset({"Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Identity"})
_SOFTMAXES: Final = frozenset({"Softmax", "LogSoftmax", "Hardmax"})
_LAST_AXIS_OPSET: Final = 13
"""Since then a softmax works on the last axis where none is named."""
_CONTROL_FLOW: Final = frozenset({"If", "Loop", "Scan", "SequenceMap"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Constants:
    """What is fixed before the first inference."""

    folded: frozenset[int]
    """Indices of nodes whose result is a constant, so that they are no layers (`Constant`, `ConstantOfShape` of
    a constant, arithmetic on them); DequantizeLinear of a weight stays a layer."""
    stored: Mapping[str, str]
    """Constant tensor → the tensor that the file really stores for it: the integers behind a DequantizeLinear."""


def onnx_layers(proto: onnx.ModelProto) -> tuple[Layer, ...]:
    """The layers of a model whose shapes were inferred (`npuops.models.shapes`), in its order."""
    tensors = tensor_infos(proto)
    constants = find_constants(proto)
    wanted = {value.name for value in proto.graph.output}
    wanted |= {name for node in proto.graph.node for name in _reads(node)}
    seen: set[str] = set()
    layers = tuple(
        _layer(node, index, tensors, constants, wanted, seen)
        for index, node in enumerate(proto.graph.node)
        if index not in constants.folded
    )
    return layers if (opset_of(proto) or 0) >= _LAST_AXIS_OPSET else tuple(_with_axis(layer) for layer in layers)


def _with_axis(layer: Layer) -> Layer:
    """A softmax that names no axis works on axis 1, as it did before `_LAST_AXIS_OPSET`."""
    if layer.op not in _SOFTMAXES or "axis" in layer.attributes:
        return layer
    return dataclasses.replace(layer, attributes={**layer.attributes, "axis": 1})


def as_integers(layers: Sequence[Layer]) -> tuple[Layer, ...]:
    """The layers with each Q/DQ pair taken for what a device holds: the integers between, nothing in float.

    Only for counting memory: what a DequantizeLinear puts out is the tensor that it read, and what only a
    QuantizeLinear reads is the tensor that this puts out.
    """
    readers = Counter(tensor.name for layer in layers for tensor in layer.inputs)
    held: dict[str, TensorInfo] = {}
    for layer in layers:
        if layer.op == "DequantizeLinear" and layer.inputs and layer.outputs:
            held[layer.outputs[0].name] = layer.inputs[0]
        if layer.op == "QuantizeLinear" and layer.inputs and layer.outputs and readers[layer.inputs[0].name] == 1:
            held[layer.inputs[0].name] = layer.outputs[0]

    def integer(tensors: tuple[TensorInfo, ...]) -> tuple[TensorInfo, ...]:
        return tuple(held.get(tensor.name, tensor) for tensor in tensors)

    return tuple(
        dataclasses.replace(layer, inputs=integer(layer.inputs), outputs=integer(layer.outputs)) for layer in layers
    )


def tensor_infos(proto: onnx.ModelProto) -> dict[str, TensorInfo]:
    """Every tensor of the main graph that has a name and a type."""
    graph = proto.graph
    found = {value.name: value_info(value) for value in (*graph.value_info, *graph.input, *graph.output)}
    for tensor in graph.initializer:
        found[tensor.name] = TensorInfo(name=tensor.name, dtype=dtype_name(tensor.data_type), shape=tuple(tensor.dims))
    return found


def value_info(value: onnx.ValueInfoProto) -> TensorInfo:
    """A graph's input, output or inner value in our words."""
    kind = value.type.tensor_type
    shape = tuple(_dim(dim) for dim in kind.shape.dim) if kind.HasField("shape") else None
    return TensorInfo(name=value.name, dtype=dtype_name(kind.elem_type), shape=shape)


def graph_inputs(proto: onnx.ModelProto) -> tuple[TensorInfo, ...]:
    """Inputs without the weights that old IR versions list among them."""
    stored = {tensor.name for tensor in proto.graph.initializer}
    return tuple(value_info(value) for value in proto.graph.input if value.name not in stored)


def find_constants(proto: onnx.ModelProto) -> Constants:
    """Which nodes compute only from constants."""
    known = {tensor.name for tensor in proto.graph.initializer}
    stored: dict[str, str] = {name: name for name in known}
    folded: set[int] = set()
    for index, node in enumerate(proto.graph.node):
        operands = list(_reads(node))
        if node.op_type in _RANDOM | _CONTROL_FLOW or not all(name in stored for name in operands):
            continue
        if not operands and node.op_type != "Constant":
            continue
        behind = node.op_type == "DequantizeLinear" and node.input
        if not behind:
            folded.add(index)
        # Moving dequantized values around does not turn the stored integers into floats.
        moved = node.op_type in _MOVES and node.input and stored[node.input[0]] != node.input[0]
        for name in node.output:
            stored[name] = stored[node.input[0]] if behind or moved else name
    return Constants(folded=frozenset(folded), stored=stored)


def _layer(
    node: onnx.NodeProto,
    index: int,
    tensors: Mapping[str, TensorInfo],
    constants: Constants,
    wanted: set[str],
    seen: set[str],
) -> Layer:
    attributes = dict(_attributes(node))
    operands = tuple(_operand(name, tensors) if name else None for name in node.input)
    outputs = tuple(_operand(name, tensors) for name in node.output if name in wanted)
    flows = tuple(_operand(name, tensors) for name in _reads(node) if name not in constants.stored)
    held = list(dict.fromkeys(constants.stored[name] for name in _reads(node) if name in constants.stored))
    is_weight = node.op_type == "DequantizeLinear" and not flows
    if is_weight:
        # The integers belong to the layer that multiplies with them; only the scales are of this node.
        held = [name for name in held if name != constants.stored[node.input[0]]]
    fresh = [tensors[name] for name in held if name not in seen and name in tensors]
    seen.update(held)
    return Layer(
        name=node.name or f"{node.op_type}_{index}",
        op=node.op_type,
        domain="" if node.domain == "ai.onnx" else node.domain,
        inputs=flows,
        weights=tuple(_operand(name, tensors) for name in held),
        outputs=outputs,
        attributes=attributes,
        macs=_macs(node, Operands(inputs=operands, outputs=outputs, attributes=attributes)),
        weight_bytes=sum(size_of(tensor) or 0 for tensor in fresh),
        activation_bytes=0 if is_weight else _sum(size_of(tensor) for tensor in outputs),
    )


def _macs(node: onnx.NodeProto, operands: Operands) -> int | None:
    if node.domain == "com.microsoft" and any(word in node.op_type for word in _MULTIPLIERS):
        # Its attention operators pack their operands in other ways than ONNX's of the same name.
        known = has_rule(node.op_type) and "Attention" not in node.op_type
        return count_macs(node.op_type, operands) if known else None
    return count_macs(node.op_type, operands) if node.domain in _KNOWN_DOMAINS else None


def size_of(tensor: TensorInfo) -> int | None:
    """Bytes of a tensor, or None where a dimension is unknown."""
    return None if tensor.elements is None else bytes_of(tensor.dtype, tensor.elements)


def _sum(sizes: Iterator[int | None]) -> int | None:
    total = 0
    for size in sizes:
        if size is None:
            return None
        total += size
    return total


def _operand(name: str, tensors: Mapping[str, TensorInfo]) -> TensorInfo:
    return tensors.get(name) or TensorInfo(name=name, dtype="unknown", shape=None)


def _reads(node: onnx.NodeProto) -> Iterator[str]:
    """Names that a node reads, those that its subgraphs take from outside included."""
    yield from (name for name in node.input if name)
    yield from captured(node)


def captured(node: onnx.NodeProto) -> Iterator[str]:
    """Names that the subgraphs of a node take from outside."""
    for graph in subgraphs(node):
        inner = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
        inner |= {name for step in graph.node for name in step.output}
        names = [name for step in graph.node for name in _reads(step)]
        yield from dict.fromkeys(
            name for name in (*names, *(value.name for value in graph.output)) if name not in inner
        )


def _dim(dim: onnx.TensorShapeProto.Dimension) -> Dim:
    if dim.HasField("dim_value"):
        return dim.dim_value if dim.dim_value >= 0 else None
    return dim.dim_param or None


def _attributes(node: onnx.NodeProto) -> Iterator[tuple[str, AttributeValue]]:
    """Numbers and words; tensors and graphs are not part of the view."""
    for attribute in node.attribute:
        match attribute.type:
            case onnx.AttributeProto.INT:
                yield attribute.name, attribute.i
            case onnx.AttributeProto.FLOAT:
                yield attribute.name, attribute.f
            case onnx.AttributeProto.STRING:
                yield attribute.name, attribute.s.decode(errors="replace")
            case onnx.AttributeProto.INTS:
                yield attribute.name, tuple(attribute.ints)
            case onnx.AttributeProto.FLOATS:
                yield attribute.name, tuple(attribute.floats)
            case onnx.AttributeProto.STRINGS:
                yield attribute.name, tuple(part.decode(errors="replace") for part in attribute.strings)
            case _:
                continue
