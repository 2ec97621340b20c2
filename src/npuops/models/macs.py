"""Multiply-accumulate counts of ONNX operators, and the peak of live activations. Pure.

A MAC is one multiplication with its addition in the operator's textbook form: no credit for Winograd,
none for zeros from padding. Normalizations, activations and pooling count 0, as in the published model tables.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from npuops.models.model import AttributeValue, Layer, TensorInfo

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Operands:
    """All operands of one operator in order, constants included; None for an optional one left out."""

    inputs: tuple[TensorInfo | None, ...]
    outputs: tuple[TensorInfo, ...]
    attributes: Mapping[str, AttributeValue]

    def shape(self, index: int) -> Shape:
        """Sizes of operand `index`; raises LookupError where they are not known."""
        tensor = self.inputs[index] if index < len(self.inputs) else None
        return _static(tensor)

    @property
    def result(self) -> Shape:
        """Sizes of the first output; raises LookupError where they are not known."""
        return _static(self.outputs[0] if self.outputs else None)


def has_rule(op: str) -> bool:
    """The MACs of `op` are computed; 0 for any other only says that nobody here knows of some."""
    return op in _RULES


def count_macs(op: str, operands: Operands) -> int | None:
    """MACs of one inference; 0 for operators without any, None where a shape is unknown."""
    if op not in _RULES:
        return 0
    try:
        return _RULES[op](operands)
    except (LookupError, ValueError):
        return None


def peak_activation_bytes(
    layers: Sequence[Layer],
    inputs: Iterable[TensorInfo],
    outputs: Iterable[str],
    size: Callable[[TensorInfo], int | None],
) -> int | None:
    """Most bytes alive at once when `layers` run in order; None if a size is unknown.

    A tensor lives from the layer that computes it to the last that reads it; outputs live to the end.
    What a layer without activation bytes puts out is a constant and not counted.
    """
    last = {tensor.name: index for index, layer in enumerate(layers) for tensor in layer.inputs}
    last |= dict.fromkeys(outputs, len(layers))
    alive: dict[str, int] = {}
    total = peak = 0
    ends: dict[int, list[str]] = {}

    def start(tensor: TensorInfo, now: int) -> bool:
        nonlocal total
        count = size(tensor)
        if count is None:
            return False
        if tensor.name not in alive:
            alive[tensor.name] = count
            total += count
            ends.setdefault(last.get(tensor.name, now), []).append(tensor.name)
        return True

    if not all(start(tensor, 0) for tensor in inputs):
        return None
    peak = total
    for index, layer in enumerate(layers):
        if layer.activation_bytes is None or (
            layer.activation_bytes and not all(start(tensor, index) for tensor in layer.outputs)
        ):
            return None
        peak = max(peak, total)
        for name in ends.pop(index, []):
            total -= alive[name]
    return peak


def _static(tensor: TensorInfo | None) -> Shape:
    if tensor is None or tensor.shape is None:
        raise LookupError("unknown shape")
    sizes = tuple(dim for dim in tensor.shape if isinstance(dim, int))
    if len(sizes) != len(tensor.shape):
        raise LookupError(tensor.name)
    return sizes


def _conv(operands: Operands) -> int:
    return math.prod(operands.result) * math.prod(operands.shape(1)[1:])


def _quantized_conv(operands: Operands) -> int:
    return math.prod(operands.result) * math.prod(operands.shape(3)[1:])


def _transposed_conv(operands: Operands) -> int:
    return math.prod(operands.shape(0)) * math.prod(operands.shape(1)[1:])


def _gemm(operands: Operands) -> int:
    first = operands.shape(0)
    return math.prod(operands.result) * first[0 if operands.attributes.get("transA") else -1]


def _matmul(operands: Operands) -> int:
    return math.prod(operands.result) * operands.shape(0)[-1]


def _fused_matmul(operands: Operands) -> int:
    return math.prod(operands.result) * operands.shape(0)[-2 if operands.attributes.get("transA") else -1]


def _recurrent(operands: Operands) -> int:
    steps = math.prod(operands.shape(0)[:2])
    return steps * (math.prod(operands.shape(1)) + math.prod(operands.shape(2)))


def _attention(operands: Operands) -> int:
    """Q·Kᵀ and the product with V, for [batch, heads, length, size] or [batch, length, heads*size].

    The keys and values of a cache, [batch, heads, past, size], are attended to as well.
    """
    query, key, value = operands.shape(0), operands.shape(1), operands.shape(2)
    past = operands.shape(4)[2] if len(operands.inputs) > 4 and operands.inputs[4] is not None else 0
    if len(query) == 4:
        batch, heads, length, width = query
        return batch * heads * length * (past + key[2]) * (width + value[3])
    batch, length, width = query
    groups = _number(operands.attributes, "q_num_heads", 1) // max(_number(operands.attributes, "kv_num_heads", 1), 1)
    return batch * length * (past + key[1]) * (width + value[2] * max(groups, 1))


def _einsum(operands: Operands) -> int:
    equation = str(operands.attributes.get("equation", "")).replace(" ", "")
    terms = equation.split("->")[0].split(",")
    if "." in equation or len(terms) != len(operands.inputs):
        raise LookupError(equation)
    if len(terms) < 2:
        return 0
    sizes: dict[str, int] = {}
    for index, term in enumerate(terms):
        sizes |= dict(zip(term, operands.shape(index), strict=True))
    return math.prod(sizes.values()) * (len(terms) - 1)


def _unknown(operands: Operands) -> int:
    """Control flow: how often a body runs is known at run time only."""
    del operands
    raise LookupError("data-dependent")


def _number(attributes: Mapping[str, AttributeValue], name: str, default: int) -> int:
    value = attributes.get(name, default)
    return value if isinstance(value, int) else default


_RULES: Final[dict[str, Callable[[Operands], int]]] = {
    "Conv": _conv,
    "FusedConv": _conv,
    "ConvInteger": _conv,
    "QLinearConv": _quantized_conv,
    "DeformConv": _conv,
    "ConvTranspose": _transposed_conv,
    "Gemm": _gemm,
    "FusedGemm": _gemm,
    "QGemm": _gemm,
    "MatMul": _matmul,
    "FusedMatMul": _fused_matmul,
    "MatMulInteger": _matmul,
    "QLinearMatMul": _matmul,
    "MatMulNBits": _matmul,
    "MatMulIntegerToFloat": _matmul,
    "DynamicQuantizeMatMul": _matmul,
    "LSTM": _recurrent,
    "GRU": _recurrent,
    "RNN": _recurrent,
    "Attention": _attention,
    "Einsum": _einsum,
    "If": _unknown,
    "Loop": _unknown,
    "Scan": _unknown,
    "SequenceMap": _unknown,
}
"""Operator → its count. Sources: the operator definitions of ONNX; com.microsoft's fused forms alike."""
