"""Operators and variants of them that an NPU lacks, in terms of those that it has."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import onnx

from npuops.rewrite.rewrite_graph import Array, Graph, Nodes, Site, attribute, replacing

WINDOWED = ("Conv", "MaxPool", "AveragePool")

MAX_RESIZED = 2**16
"""Pixels along one axis; a hostile Resize must not fill the memory."""


def narrow_convolutions(graph: Graph) -> Iterator[Site]:
    """1-D convolution and pooling: the 2-D operator on an image of height 1."""
    if graph.opset < 13:  # Unsqueeze with axes as input
        return
    for node in graph.of(*WINDOWED):
        shape = graph.shape(node.input[0])
        weights = graph.constant(node.input[1]) if node.op_type == "Conv" else None
        fits = node.op_type != "Conv" or (weights is not None and weights.ndim == 3)
        if shape is not None and len(shape) == 3 and fits and len(node.output) == 1:
            yield replacing(graph, node, partial(_in_2d, graph, node, weights))


def _in_2d(graph: Graph, node: onnx.NodeProto, weights: Array | None) -> Nodes:
    result = node.output[0]
    axis = graph.add_constant(np.array([2], dtype=np.int64), "axis")
    wide = graph.node("Unsqueeze", [node.input[0], axis], [graph.fresh(result)])
    inputs = [wide.output[0], *node.input[1:]]
    if weights is not None:
        inputs[1] = graph.add_constant(weights[:, :, np.newaxis, :], node.input[1])
    options: dict[str, Any] = {}
    for name, front in (("kernel_shape", 1), ("strides", 1), ("dilations", 1)):
        value = attribute(node, name)
        if value is not None:
            options[name] = [front, *value]
    pads = attribute(node, "pads")
    if pads is not None:
        options["pads"] = [0, pads[0], 0, pads[1]]
    for name in ("auto_pad", "group", "ceil_mode", "count_include_pad", "storage_order"):
        value = attribute(node, name)
        if value is not None:
            options[name] = value
    work = graph.node(node.op_type, inputs, [graph.fresh(result)], **options)
    return [wide, work, graph.node("Squeeze", [work.output[0], axis], [result])]


def odd_gemms(graph: Graph) -> Iterator[Site]:
    """Gemm with a transposed A, or with alpha or beta other than 1: a plain Gemm."""
    for node in graph.of("Gemm"):
        turned = bool(attribute(node, "transA", 0))
        alpha, beta = attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)
        has_bias = len(node.input) > 2 and bool(node.input[2])
        scaled = alpha != 1.0 or (has_bias and beta != 1.0)
        constants = [graph.constant(name) for name in node.input[1:] if name]
        known = not scaled or all(value is not None and value.dtype == np.float32 for value in constants)
        if (turned or scaled) and known:
            yield replacing(graph, node, partial(_plain_gemm, graph, node, scaled=scaled))


def _plain_gemm(graph: Graph, node: onnx.NodeProto, *, scaled: bool) -> Nodes:
    made: list[onnx.NodeProto] = []
    inputs = list(node.input)
    if attribute(node, "transA", 0):
        made.append(graph.node("Transpose", [inputs[0]], [graph.fresh(node.output[0])], perm=[1, 0]))
        inputs[0] = made[0].output[0]
    if scaled:
        for index, factor in enumerate((attribute(node, "alpha", 1.0), attribute(node, "beta", 1.0)), start=1):
            value = graph.constant(inputs[index]) if index < len(inputs) and inputs[index] else None
            if value is not None and factor != 1.0:
                inputs[index] = graph.add_constant(value * np.float32(factor), inputs[index])
    made.append(graph.node("Gemm", inputs, node.output, transB=attribute(node, "transB", 0)))
    return made


def einsums(graph: Graph) -> Iterator[Site]:
    """Einsum of two tensors with one free axis each, one summed axis and shared batch axes: MatMul."""
    for node in graph.of("Einsum"):
        plan = _einsum_plan(str(attribute(node, "equation", "")))
        if plan is not None and len(node.input) == 2:
            yield replacing(graph, node, partial(_matmul, graph, node, plan))


Plan = tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]


def _einsum_plan(equation: str) -> Plan | None:
    """Orders of A, of B, and of their MatMul that give the result; None where it is no plain MatMul."""
    terms, arrow, result = equation.replace(" ", "").partition("->")
    a, comma, b = terms.partition(",")
    words = (a, b, result)
    if not arrow or not comma or any(not word.isalpha() or len(set(word)) != len(word) for word in words):
        return None
    batch = [axis for axis in result if axis in a and axis in b]
    summed = [axis for axis in a if axis in b and axis not in result]
    left = [axis for axis in result if axis in a and axis not in b]
    right = [axis for axis in result if axis in b and axis not in a]
    whole = len(a) == len(batch) + 2 == len(b) == len(result)
    if not whole or not len(summed) == len(left) == len(right) == 1:
        return None
    product = [*batch, *left, *right]
    return (
        tuple(a.index(axis) for axis in (*batch, *left, *summed)),
        tuple(b.index(axis) for axis in (*batch, *summed, *right)),
        tuple(product.index(axis) for axis in result),
    )


def _matmul(graph: Graph, node: onnx.NodeProto, plan: Plan) -> Nodes:
    made: list[onnx.NodeProto] = []
    names: list[str] = []
    for name, order in zip(node.input, plan[:2], strict=True):
        if list(order) != sorted(order):
            made.append(graph.node("Transpose", [name], [graph.fresh(name)], perm=list(order)))
            name = made[-1].output[0]  # noqa: PLW2901 - the transposed tensor takes its place
        names.append(name)
    turned = list(plan[2]) != sorted(plan[2])
    result = graph.fresh(node.output[0]) if turned else node.output[0]
    made.append(graph.node("MatMul", names, [result]))
    if turned:
        made.append(graph.node("Transpose", [result], node.output, perm=list(plan[2])))
    return made


def nearest_resizes(graph: Graph) -> Iterator[Site]:
    """Nearest Resize by whole factors: the coordinate mode `asymmetric` with `floor`, which all NPUs have."""
    if graph.opset < 11:
        return
    wanted = ("asymmetric", "floor")
    for node in graph.of("Resize"):
        modes = (
            attribute(node, "coordinate_transformation_mode", "half_pixel"),
            attribute(node, "nearest_mode", "round_prefer_floor"),
        )
        before, after = graph.static_shape(node.input[0]), graph.static_shape(node.output[0])
        if attribute(node, "mode", "nearest") != "nearest" or modes == wanted or before is None or after is None:
            continue
        if all(_repeats(small, big, *modes) for small, big in zip(before, after, strict=True)):
            yield Site(nodes=(node,), edit=partial(_set_modes, node, wanted))


def _repeats(before: int, after: int, coordinates: str, rounding: str) -> bool:
    """The axis grows by a whole factor and every pixel comes that often in a row (formulas of ONNX Resize)."""
    if before < 1 or after % before or after > MAX_RESIZED:
        return False
    factor = after // before
    place = np.arange(after)
    sources = {
        "asymmetric": place / factor,
        "align_corners": place * (before - 1) / max(after - 1, 1),
        "tf_half_pixel_for_nn": (place + 0.5) / factor,
        **dict.fromkeys(("half_pixel", "pytorch_half_pixel", "half_pixel_symmetric"), (place + 0.5) / factor - 0.5),
    }
    if coordinates not in sources:
        return False
    x = sources[coordinates]
    nearest = {
        "floor": np.floor(x),
        "ceil": np.ceil(x),
        "round_prefer_floor": np.ceil(x - 0.5),
        "round_prefer_ceil": np.floor(x + 0.5),
    }.get(rounding, x)
    return bool((np.clip(nearest, 0, before - 1) == place // factor).all())


def _set_modes(node: onnx.NodeProto, wanted: tuple[str, str]) -> None:
    names = ("coordinate_transformation_mode", "nearest_mode")
    kept = [item for item in node.attribute if item.name not in names]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.extend(onnx.helper.make_attribute(n, v) for n, v in zip(names, wanted, strict=True))


def wide_indices(graph: Graph) -> Iterator[Site]:
    """Constant int64 indices of a Gather that fit int32."""
    for node in graph.of("Gather", "GatherElements"):
        value = graph.constant(node.input[1])
        if value is None or value.dtype != np.int64 or not value.size or np.abs(value).max() >= 2**31:
            continue
        if graph.is_float32(node.input[0]):  # shape arithmetic stays in int64
            yield Site(nodes=(node,), edit=partial(_narrow, graph, node, value))


def _narrow(graph: Graph, node: onnx.NodeProto, indices: Array) -> None:
    node.input[1] = graph.add_constant(indices.astype(np.int32), node.input[1])
