"""Activations that were exported as a cluster of small operators become one operator again.

An activation is what it computes, not how it is spelt: a cluster of elementwise operators with scalar
constants and one input is evaluated on a grid and compared with the functions that NPUs have (Gelu with
erf, Gelu with tanh, HardSwish). So every order of factors and every exporter's habit is recognized alike.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import onnx
from numpy.typing import NDArray

from npuops.rewrite.rewrite_graph import Graph, Nodes, Site, advice_only, attribute, replacing

Curve = NDArray[np.float64]

_FAR: Curve = np.geomspace(10.0, 1e5, 9)
GRID: Curve = np.concatenate([-_FAR[::-1], np.linspace(-8.0, 8.0, 129), _FAR])
"""Dense where the functions bend; far out too, or a clamp at 10 behind them would count as nothing."""
CLOSE = 2e-5
"""Exporters round constants such as sqrt(2) and 0.044715 to float32 or to four digits."""

MAX_DEPTH = 9


def _erf(x: Curve) -> Curve:
    return np.array([math.erf(value) for value in np.ravel(x)]).reshape(np.shape(x))


def _pow(base: Curve, exponent: Curve) -> Curve:
    return np.asarray(np.power(base, exponent), dtype=np.float64)


ELEMENTWISE: Mapping[str, Callable[..., Curve]] = {
    "Abs": np.abs,
    "Add": np.add,
    "Div": np.divide,
    "Erf": _erf,
    "Max": np.maximum,
    "Min": np.minimum,
    "Mul": np.multiply,
    "Neg": np.negative,
    "Pow": _pow,
    "Relu": lambda x: np.maximum(x, 0.0),
    "Sub": np.subtract,
    "Tanh": np.tanh,
}
UNARY = frozenset({"Abs", "Erf", "Neg", "Relu", "Tanh"})


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """A function that has an operator of its own."""

    op: str
    opset: int
    anchors: tuple[str, ...]
    """Operators, one of which every spelling of it contains."""
    curve: Curve
    attributes: Mapping[str, str] = field(default_factory=dict)


_ERF_GELU = 0.5 * GRID * (1 + _erf(GRID / math.sqrt(2)))
_TANH_GELU = 0.5 * GRID * (1 + np.tanh(math.sqrt(2 / math.pi) * (GRID + 0.044715 * GRID**3)))

GELUS = (
    Activation(op="Gelu", opset=20, anchors=("Erf",), curve=_ERF_GELU),
    Activation(op="Gelu", opset=20, anchors=("Tanh",), curve=_TANH_GELU, attributes={"approximate": "tanh"}),
)
HARD_SWISH = (
    Activation(
        op="HardSwish",
        opset=14,
        anchors=("Clip", "HardSigmoid", "Min"),
        curve=GRID * np.clip(GRID / 6 + 0.5, 0, 1),
    ),
)


def gelus(graph: Graph) -> Iterator[Site]:
    """Gelu spelt out with Erf or Tanh."""
    return _activations(graph, GELUS)


def hard_swishes(graph: Graph) -> Iterator[Site]:
    """HardSwish spelt out with Clip, HardSigmoid or Min and Max."""
    return _activations(graph, HARD_SWISH)


def lone_erfs(graph: Graph) -> Iterator[Site]:
    """Erf outside of a Gelu: no NPU here has it, and there is no cure."""
    inside = {id(node) for site in gelus(graph) for node in site.nodes}
    return (advice_only(node) for node in graph.of("Erf") if id(node) not in inside)


def _activations(graph: Graph, known: tuple[Activation, ...]) -> Iterator[Site]:
    for activation in known:
        for anchor in graph.of(*activation.anchors):
            site = _match(graph, anchor, activation)
            if site is not None:
                yield site


def _match(graph: Graph, anchor: onnx.NodeProto, activation: Activation) -> Site | None:
    sources = _sources(graph, anchor)
    for root in _roots(graph, anchor):
        for source in sources:
            cluster: dict[str, onnx.NodeProto] = {}
            curve = _evaluate(graph, root.output[0], source, cluster, MAX_DEPTH)
            if curve is None or curve.shape != GRID.shape or anchor.output[0] not in cluster:
                continue
            if np.allclose(curve, activation.curve, rtol=CLOSE, atol=CLOSE * 8):
                inner = [node for node in cluster.values() if node is not root]
                return replacing(graph, root, partial(_operator, graph, activation, source, root), found=inner)
    return None


def _operator(graph: Graph, activation: Activation, source: str, root: onnx.NodeProto) -> Nodes:
    return [graph.node(activation.op, [source], [root.output[0]], **activation.attributes)]


def _roots(graph: Graph, anchor: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The anchor and what follows it elementwise, farthest first."""
    chain, frontier = {anchor.output[0]: anchor}, [anchor]
    for _ in range(5):
        readers = [reader for node in frontier for reader in graph.readers(node.output[0], *ELEMENTWISE)]
        frontier = [reader for reader in readers if reader.output[0] not in chain][:4]
        chain |= {reader.output[0]: reader for reader in frontier}
    return list(chain.values())[::-1]


def _sources(graph: Graph, anchor: onnx.NodeProto) -> list[str]:
    """Tensors before the anchor that could be the input of the cluster, nearest first."""
    found: list[str] = []
    frontier = [name for name in anchor.input[:1] if name]
    for _ in range(MAX_DEPTH):
        found += [name for name in frontier if name not in found]
        makers = [graph.made_by(name, *ELEMENTWISE) for name in frontier]
        frontier = [name for node in makers if node is not None for name in node.input if graph.scalar(name) is None][
            :4
        ]
    if anchor.op_type in {"Min", "Clip"}:
        found += [name for node in _roots(graph, anchor) for name in node.input if graph.scalar(name) is None]
    return found


def _evaluate(graph: Graph, tensor: str, source: str, cluster: dict[str, onnx.NodeProto], depth: int) -> Curve | None:
    """The tensor as a function of `source` on the grid; None if it depends on anything else."""
    if tensor == source:
        return GRID
    value = graph.scalar(tensor)
    if value is not None:
        return np.asarray(value)
    node = graph.made_by(tensor, *ELEMENTWISE, "Clip", "HardSigmoid")
    if node is None or depth == 0:
        return None
    inputs = [_evaluate(graph, name, source, cluster, depth - 1) for name in node.input if name]
    if any(part is None for part in inputs):
        return None
    cluster[tensor] = node
    with np.errstate(all="ignore"):
        return _apply(graph, node, [part for part in inputs if part is not None])


def _apply(graph: Graph, node: onnx.NodeProto, inputs: list[Curve]) -> Curve | None:
    if node.op_type == "HardSigmoid":
        alpha, beta = attribute(node, "alpha", 0.2), attribute(node, "beta", 0.5)
        return np.asarray(np.clip(alpha * inputs[0] + beta, 0.0, 1.0))
    if node.op_type == "Clip":
        bounds = clip_bounds(graph, node)
        return None if bounds is None else np.asarray(np.clip(inputs[0], *bounds))
    if len(inputs) != (1 if node.op_type in UNARY else 2):  # Min and Max take any number
        return None
    return np.asarray(ELEMENTWISE[node.op_type](*inputs), dtype=np.float64)


def clip_bounds(graph: Graph, node: onnx.NodeProto) -> tuple[float, float] | None:
    """Constant bounds of a Clip, from attributes or inputs; infinite where open, None where computed."""
    low, high = attribute(node, "min", -math.inf), attribute(node, "max", math.inf)
    names = [*node.input[1:], "", ""][:2]
    values = [graph.scalar(name) if name else default for name, default in zip(names, (low, high), strict=True)]
    return None if values[0] is None or values[1] is None else (float(values[0]), float(values[1]))


def min_max_clips(graph: Graph) -> Iterator[Site]:
    """`Min(Max(x, low), high)` or `Min(Relu(x), high)` with scalar bounds: `Clip(x, low, high)`."""
    for node in graph.of("Min"):
        high, inner = _bound(graph, node)
        below = graph.made_by(inner, "Relu", "Max") if high is not None else None
        if below is None or not graph.is_float32(node.output[0]) or graph.opset < 11:
            continue
        low, x = (0.0, below.input[0]) if below.op_type == "Relu" else _bound(graph, below)
        if low is not None and high is not None and low <= high:
            yield replacing(graph, node, partial(_clip, graph, node, x, (low, high)), found=(below,))


def _clip(graph: Graph, node: onnx.NodeProto, x: str, bounds: tuple[float, float]) -> Nodes:
    names = [graph.add_constant(np.array(bound, dtype=np.float32), "bound") for bound in bounds]
    return [graph.node("Clip", [x, *names], [node.output[0]])]


def _bound(graph: Graph, node: onnx.NodeProto) -> tuple[float | None, str]:
    """The scalar operand of a Min or Max of two, and the other operand."""
    if len(node.input) == 2:
        for index in (0, 1):
            value = graph.scalar(node.input[index])
            if value is not None:
                return value, node.input[1 - index]
    return None, ""
