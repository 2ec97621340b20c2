"""LayerNormalization that was exported as a dozen small operators becomes one operator again.

An NPU runs the fused operator in one pass with a wide accumulator; spelt out, the square and its mean go
through 8-bit tensors. Two spellings are known: PyTorch's `(x - mean) / sqrt(var + eps) · gamma + beta`
and TensorFlow's `x · g + (beta - mean · g)` with `g = rsqrt(var + eps) · gamma`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import numpy as np
import onnx

from npuops.rewrite.rewrite_graph import Array, Graph, Nodes, Site, attribute, axes_of, replacing

OPSET = 17
"""First opset with LayerNormalization."""


@dataclass(slots=True)
class _Match:
    """A LayerNormalization as it is being recognized."""

    x: str
    axes: tuple[int, ...]
    epsilon: float
    mean: str
    inner: list[onnx.NodeProto]
    gamma: str = ""
    beta: str = ""


def layernorms(graph: Graph) -> Iterator[Site]:
    """Every decomposed LayerNormalization over trailing axes; anchored at its square root."""
    for root in graph.of("Sqrt"):
        match = _statistics(graph, root)
        final = None if match is None else (_torch_tail(graph, root, match) or _tensorflow_tail(graph, root, match))
        if match is None or final is None:
            continue
        scale = _affine(graph, match, match.gamma, fill=1.0)
        if scale is None or (match.beta and _affine(graph, match, match.beta, fill=0.0) is None):
            continue
        yield replacing(graph, final, partial(_operator, graph, match, final), found=match.inner)


def _statistics(graph: Graph, root: onnx.NodeProto) -> _Match | None:
    """From sqrt(var + eps) back to x and its mean."""
    shifted = graph.made_by(root.input[0], "Add")
    if shifted is None:
        return None
    epsilon, variance = _scalar_and_other(graph, shifted)
    spread = graph.made_by(variance, "ReduceMean")
    square = graph.made_by(spread.input[0], "Pow", "Mul") if spread else None
    if epsilon is None or spread is None or square is None or not _is_square(graph, square):
        return None
    centred = graph.made_by(square.input[0], "Sub")
    mean = graph.made_by(centred.input[1], "ReduceMean") if centred else None
    if centred is None or mean is None or mean.input[0] != centred.input[0]:
        return None
    x = centred.input[0]
    axes = _trailing(graph, x, spread)
    if axes is None or axes != _trailing(graph, x, mean):
        return None
    inner = [mean, centred, square, spread, shifted, root]
    return _Match(x=x, axes=axes, epsilon=epsilon, mean=mean.output[0], inner=inner)


def _trailing(graph: Graph, x: str, reduce: onnx.NodeProto) -> tuple[int, ...] | None:
    """Axes of the mean, if they are the last ones and are kept."""
    shape = graph.shape(x)
    if shape is None or not attribute(reduce, "keepdims", 1):
        return None
    axes = axes_of(graph, reduce, len(shape))
    if axes is None or tuple(sorted(axes)) != tuple(range(len(shape) - len(axes), len(shape))):
        return None
    return tuple(sorted(axes))


def _torch_tail(graph: Graph, root: onnx.NodeProto, match: _Match) -> onnx.NodeProto | None:
    """`(x - mean) / s`, or times its reciprocal; then `· gamma` and `+ beta` where they follow."""
    normal = next((node for node in graph.readers(root.output[0], "Div") if _is_centred(graph, node, 0, match)), None)
    if normal is None:
        inverse = _inverse(graph, root)
        products = graph.readers(inverse.output[0], "Mul") if inverse else []
        normal = next((n for n in products if any(_is_centred(graph, n, index, match) for index in (0, 1))), None)
        if inverse is None or normal is None:
            return None
        match.inner.append(inverse)
    return _affine_tail(graph, normal, match)


def _affine_tail(graph: Graph, normal: onnx.NodeProto, match: _Match) -> onnx.NodeProto:
    scaled = _only_reader(graph, normal, "Mul")
    match.gamma = _constant_operand(graph, scaled, normal.output[0]) if scaled else ""
    if scaled is None or not _affine_fits(graph, match, match.gamma):
        match.gamma = ""
        return normal
    match.inner.append(normal)
    moved = _only_reader(graph, scaled, "Add")
    match.beta = _constant_operand(graph, moved, scaled.output[0]) if moved else ""
    if moved is None or not _affine_fits(graph, match, match.beta):
        match.beta = ""
        return scaled
    match.inner.append(scaled)
    return moved


def _tensorflow_tail(graph: Graph, root: onnx.NodeProto, match: _Match) -> onnx.NodeProto | None:
    """`x · g + (beta - mean · g)`, where g is the reciprocal root, times gamma if there is one."""
    inverse = _inverse(graph, root)
    if inverse is None:
        return None
    gain = inverse
    for product in graph.readers(inverse.output[0], "Mul"):
        gamma = _constant_operand(graph, product, inverse.output[0])
        if gamma:
            gain, match.gamma = product, gamma
    direct = _product(graph, match.x, gain.output[0])
    offset = _product(graph, match.mean, gain.output[0])
    if direct is None or offset is None:
        return None
    shift = next((node for node in graph.readers(offset.output[0], "Sub") if node.input[1] == offset.output[0]), None)
    if shift is None or graph.constant(shift.input[0]) is None:
        return None
    match.beta = shift.input[0]
    match.inner += [inverse, *([gain] if gain is not inverse else []), direct, offset, shift]
    sums = graph.readers(direct.output[0], "Add")
    return next((node for node in sums if shift.output[0] in node.input), None)


def _inverse(graph: Graph, root: onnx.NodeProto) -> onnx.NodeProto | None:
    for node in graph.readers(root.output[0], "Reciprocal", "Div"):
        if node.op_type == "Reciprocal" or graph.scalar(node.input[0]) == 1.0:
            return node
    return None


def _product(graph: Graph, one: str, other: str) -> onnx.NodeProto | None:
    return next((node for node in graph.readers(one, "Mul") if other in node.input), None)


def _only_reader(graph: Graph, node: onnx.NodeProto, op: str) -> onnx.NodeProto | None:
    readers = graph.readers(node.output[0])
    return readers[0] if graph.is_private(node.output[0]) and readers[0].op_type == op else None


def _constant_operand(graph: Graph, node: onnx.NodeProto, other: str) -> str:
    """The operand beside `other`, if it is a constant; else ""."""
    names = [name for name in node.input if name != other]
    return names[0] if len(names) == 1 and graph.constant(names[0]) is not None else ""


def _is_centred(graph: Graph, node: onnx.NodeProto, index: int, match: _Match) -> bool:
    centred = graph.made_by(node.input[index], "Sub")
    if centred is None or centred.input[0] != match.x:
        return False
    mean = graph.made_by(centred.input[1], "ReduceMean")
    return centred.input[1] == match.mean or (
        mean is not None and mean.input[0] == match.x and _trailing(graph, match.x, mean) == match.axes
    )


def _is_square(graph: Graph, node: onnx.NodeProto) -> bool:
    if node.op_type == "Pow":
        return graph.scalar(node.input[1]) == 2.0
    return bool(node.input[0] == node.input[1])


def _scalar_and_other(graph: Graph, node: onnx.NodeProto) -> tuple[float | None, str]:
    for index in (0, 1):
        value = graph.scalar(node.input[index])
        if value is not None:
            return value, node.input[1 - index]
    return None, ""


def _affine(graph: Graph, match: _Match, name: str, *, fill: float) -> Array | None:
    """Gamma or beta in the normalized shape; filled where it is absent; None where it does not fit."""
    shape = graph.shape(match.x)
    tail = None if shape is None else shape[len(shape) - len(match.axes) :]
    value = graph.constant(name) if name else None
    if tail is None or any(dim is None for dim in tail):
        if value is not None and len(match.axes) == 1 and value.size > 1 and value.shape[-1] == value.size:
            return value.reshape(-1).astype(np.float32)
        return None
    sizes = tuple(dim for dim in tail if dim is not None)
    if value is None:
        return np.full(sizes, fill, dtype=np.float32)
    if value.dtype != np.float32 or value.size not in {1, int(np.prod(sizes))}:
        return None
    if value.size == 1:
        return np.full(sizes, value.reshape(-1)[0], dtype=np.float32)
    return value.reshape(sizes) if value.shape[max(0, value.ndim - len(sizes)) :] == sizes else None


def _affine_fits(graph: Graph, match: _Match, name: str) -> bool:
    return bool(name) and _affine(graph, match, name, fill=0.0) is not None


def _operator(graph: Graph, match: _Match, final: onnx.NodeProto) -> Nodes:
    inputs = [match.x]
    for name, fill in ((match.gamma, 1.0), (match.beta, 0.0)):
        value = _affine(graph, match, name, fill=fill)
        if value is not None and (name or fill):
            inputs.append(graph.add_constant(value, "layernorm"))
    axis = -len(match.axes)
    return [graph.node("LayerNormalization", inputs, [final.output[0]], axis=axis, epsilon=match.epsilon)]
