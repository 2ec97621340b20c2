"""Spell out how 16-bit quantizers saturate, because OpenVINO drops those quantizers and computes in float.

Its low-precision passes strip every activation quantizer of 65,536 levels. What is lost in rounding does no harm,
but the saturation goes as well, and a quantizer's saturation is often a Relu that the quantization tool folded into
its range: the network then computes something else. `Clip(DQ(Q(x)), low, high)` with the quantizer's own limits
changes nothing in ONNX's meaning, and keeps them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import onnx
from onnx import TensorProto, helper, numpy_helper

from npuops.errors import UnsupportedModelError

_WIDE: Final[Mapping[int, tuple[int, int]]] = {
    TensorProto.UINT16: (0, 2**16 - 1),
    TensorProto.INT16: (-(2**15), 2**15 - 1),
}
"""Type of a 16-bit zero point → smallest and largest level."""

_CLIP_SINCE: Final = 11
"""The opset from which Clip takes its limits as inputs."""


def with_saturation(proto: onnx.ModelProto) -> int:
    """Put a Clip behind every 16-bit quantizer of an activation, in place.

    Returns:
        How many there are.

    Raises:
        UnsupportedModelError: a 16-bit quantizer without one constant scale and zero point, or inside of a branch or
            loop, or in an opset before 11.
    """
    graph = proto.graph
    constants = _constants(graph)
    wide = {node.output[0]: found for node in graph.node if (found := _levels(node, constants)) is not None}
    _refuse_nested(graph, constants)
    nodes: list[onnx.NodeProto] = []
    count = 0
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "DequantizeLinear" and node.input[0] in wide:
            nodes.append(_clip(graph, node, constants, wide[node.input[0]], count))
            count += 1
    if count and _opset(proto) < _CLIP_SINCE:
        raise UnsupportedModelError(
            f"16-bit quantizers in opset {_opset(proto)}", advice="export the model with opset 13 or later"
        )
    del graph.node[:]
    graph.node.extend(nodes)
    return count


def _refuse_nested(graph: onnx.GraphProto, constants: Mapping[str, TensorProto]) -> None:
    """Branches and loops are not rewritten: a 16-bit quantizer in one must not be lost in silence."""
    for node in graph.node:
        for item in node.attribute:
            for inner in (item.g, *item.graphs):
                known = {**constants, **_constants(inner)}
                for quantizer in inner.node:
                    if _levels(quantizer, known) is not None:
                        raise _unclear(quantizer)
                _refuse_nested(inner, known)


def _levels(node: onnx.NodeProto, constants: Mapping[str, TensorProto]) -> tuple[int, int] | None:
    """The smallest and the largest level, if `node` quantizes to 16 bits."""
    if node.op_type != "QuantizeLinear":
        return None
    if len(node.input) < 3 or not node.input[2]:
        kind = next((item.i for item in node.attribute if item.name == "output_dtype"), TensorProto.UINT8)
        return _WIDE.get(kind)
    if node.input[2] not in constants:
        raise _unclear(node)
    return _WIDE.get(constants[node.input[2]].data_type)


def _clip(
    graph: onnx.GraphProto,
    node: onnx.NodeProto,
    constants: Mapping[str, TensorProto],
    levels: tuple[int, int],
    index: int,
) -> onnx.NodeProto:
    """A Clip that takes over the name of what `node` wrote."""
    operands = [constants.get(name) for name in node.input[1:] if name]
    arrays = [numpy_helper.to_array(tensor) for tensor in operands if tensor is not None]
    if len(arrays) != len(operands) or any(array.size != 1 for array in arrays):
        raise _unclear(node)
    scale, zero = arrays[0].reshape(()), int(arrays[1].reshape(())) if len(arrays) > 1 else 0
    names = [f"npuops/saturation/{index}/{word}" for word in ("low", "high")]
    for name, level in zip(names, levels, strict=True):
        limit = np.asarray(scale * scale.dtype.type(level - zero), scale.dtype)
        graph.initializer.append(numpy_helper.from_array(limit, name))
    result, node.output[0] = node.output[0], f"npuops/saturation/{index}/input"
    return helper.make_node("Clip", [node.output[0], *names], [result], name=f"npuops/saturation/{index}")


def _constants(graph: onnx.GraphProto) -> dict[str, TensorProto]:
    found = {tensor.name: tensor for tensor in graph.initializer}
    for node in graph.node:
        if node.op_type == "Constant":
            found.update((node.output[0], item.t) for item in node.attribute if item.name == "value")
    return found


def _opset(proto: onnx.ModelProto) -> int:
    return next((item.version for item in proto.opset_import if item.domain in {"", "ai.onnx"}), 0)


def _unclear(node: onnx.NodeProto) -> UnsupportedModelError:
    return UnsupportedModelError(
        f"OpenVINO may drop the quantizer at {node.name or node.output[0]!r}, whose limits are not one constant",
        advice="quantize activations per tensor, with constant scales",
    )
