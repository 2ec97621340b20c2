"""Quantized graphs (QDQ) in the form that Qualcomm's HTP takes, and the forms on which it computes garbage."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import numpy as np
import onnx

from npuops.rewrite.rewrite_graph import Array, Graph, Site, advice_only, attribute

WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def signed_gammas(graph: Graph) -> Iterator[Site]:
    """LayerNormalization whose gamma is int8 or per-channel: the same values as per-tensor uint8.

    HTP refuses other gammas (QNN error 3110). A per-tensor int8 gamma moves without any change in value
    (zero point + 128); a per-channel one is rounded to one common scale.
    """
    for node in graph.of("LayerNormalization"):
        scale = graph.made_by(node.input[1], "DequantizeLinear") if len(node.input) > 1 else None
        if scale is None:
            continue
        levels = graph.constant(scale.input[0])
        steps = graph.constant(scale.input[1])
        if levels is None or steps is None or (levels.dtype == np.uint8 and steps.size == 1):
            continue
        if levels.dtype in {np.dtype(np.int8), np.dtype(np.uint8)}:
            yield Site(nodes=(node,), edit=partial(_unsigned, graph, node, scale))


def _unsigned(graph: Graph, node: onnx.NodeProto, dequantize: onnx.NodeProto) -> None:
    levels = np.asarray(graph.constant(dequantize.input[0]))
    steps = np.asarray(graph.constant(dequantize.input[1]), dtype=np.float32)
    has_zero = len(dequantize.input) > 2 and bool(dequantize.input[2])
    zeros = np.asarray(graph.constant(dequantize.input[2])) if has_zero else np.zeros_like(levels, shape=steps.shape)
    moved, step, zero = _as_uint8(levels, steps, zeros, attribute(dequantize, "axis", 1))
    inputs = [
        graph.add_constant(moved, "gamma"),
        graph.add_constant(np.array(step, dtype=np.float32), "gamma_scale"),
        graph.add_constant(np.array(zero, dtype=np.uint8), "gamma_zero"),
    ]
    result = graph.fresh(dequantize.output[0])
    graph.nodes.insert(0, graph.node("DequantizeLinear", inputs, [result]))
    node.input[1] = result


def _as_uint8(levels: Array, steps: Array, zeros: Array, axis: int) -> tuple[Array, float, int]:
    if steps.size == 1:
        offset = 128 if levels.dtype == np.int8 else 0
        return (
            (levels.astype(np.int16) + offset).astype(np.uint8),
            float(steps.reshape(-1)[0]),
            int(zeros.reshape(-1)[0]) + offset,
        )
    shape = [1] * levels.ndim
    shape[axis % levels.ndim] = -1
    values = (levels.astype(np.float32) - zeros.astype(np.float32).reshape(shape)) * steps.reshape(shape)
    low, high = min(0.0, float(values.min())), max(0.0, float(values.max()))
    step = (high - low) / 255 or 1.0
    zero = round(-low / step)
    return np.clip(np.rint(values / step) + zero, 0, 255).astype(np.uint8), step, zero


def channelled_activations(graph: Graph) -> Iterator[Site]:
    """QuantizeLinear of an activation with one scale per channel."""
    for node in graph.of("QuantizeLinear"):
        scale = graph.shape(node.input[1])
        constant = node.input[0] in graph.initializers or graph.made_by(node.input[0], "Constant")
        if not constant and scale is not None and int(np.prod([dim or 0 for dim in scale])) > 1:
            yield advice_only(node)


def float_biases(graph: Graph) -> Iterator[Site]:
    """A layer between dequantizers whose bias stayed float and whose output is not quantized."""
    for node in graph.of("Conv", "ConvTranspose", "Gemm"):
        quantized = all(graph.made_by(name, "DequantizeLinear") for name in node.input[:2])
        bias = node.input[2] if len(node.input) > 2 else ""
        floating = bool(bias) and not graph.made_by(bias, "DequantizeLinear")
        if quantized and floating and not _is_requantized(graph, node.output[0]):
            yield advice_only(node)


def _is_requantized(graph: Graph, tensor: str) -> bool:
    """QuantizeLinear follows, directly or behind an activation that the compiler fuses."""
    for _ in range(2):
        if graph.readers(tensor, "QuantizeLinear"):
            return True
        fused = graph.readers(tensor, "Relu", "Clip")
        if not fused:
            return False
        tensor = fused[0].output[0]
    return False


def float_islands(graph: Graph) -> Iterator[Site]:
    """Heavy operators of a quantized graph that stayed in float."""
    if not any(graph.of("QuantizeLinear")):
        return
    for node in graph.of(*WEIGHTED):
        if not graph.made_by(node.input[0], "DequantizeLinear"):
            yield advice_only(node)
