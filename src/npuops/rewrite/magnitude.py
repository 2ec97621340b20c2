"""Sets the smallest weights to zero, one by one; every shape stays as it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import onnx
from numpy.typing import NDArray

from npuops.models.onnx_guard import ONNX_DOMAINS
from npuops.rewrite.rewrite_graph import Graph

_OPERANDS: Final[dict[str, tuple[int, ...]]] = {"Conv": (1,), "ConvTranspose": (1,), "Gemm": (0, 1), "MatMul": (0, 1)}
"""Operators whose multiplications a zero saves, and where their weights may be."""

_FLOATS: Final = (onnx.TensorProto.FLOAT, onnx.TensorProto.FLOAT16, onnx.TensorProto.DOUBLE)


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Weights:
    """One constant of weights, and the first layer that reads it."""

    tensor: str
    node: onnx.NodeProto
    values: NDArray[Any]


class Magnitudes:
    """The weights of one model: ranks them by absolute value, zeroes them."""

    def __init__(self, model: onnx.ModelProto) -> None:
        self._model = model
        self.weights = tuple(find_weights(model))

    def smallest(self, sparsity: float, *, together: bool) -> tuple[NDArray[np.bool_], ...]:
        """For each of `weights`: which values become zero.

        Exactly floor(sparsity * size) values of each constant, or of all of them `together`.
        """
        if not together:
            return tuple(_smallest(weights.values, sparsity) for weights in self.weights)
        everything = np.concatenate([weights.values.reshape(-1) for weights in self.weights])
        ends = np.cumsum([weights.values.size for weights in self.weights])[:-1]
        parts = np.split(_smallest(everything, sparsity), ends)
        return tuple(part.reshape(weights.values.shape) for part, weights in zip(parts, self.weights, strict=True))

    def without(self, chosen: tuple[NDArray[np.bool_], ...]) -> onnx.ModelProto:
        """A copy of the model with the chosen values at zero."""
        graph = Graph(self._model)
        for weights, zeros in zip(self.weights, chosen, strict=True):
            values = np.where(zeros, weights.values.dtype.type(0), weights.values)
            if weights.tensor in graph.initializers:
                graph.initializers[weights.tensor] = onnx.numpy_helper.from_array(values, weights.tensor)
                continue
            # The values of a Constant node: its readers read an initializer from now on.
            name = graph.add_constant(values, weights.tensor)
            for node in graph.nodes:
                for operand, tensor in enumerate(node.input):
                    if tensor == weights.tensor:
                        node.input[operand] = name
        pruned = graph.model()
        # `model` drops what was inferred about inner shapes; here none of it changed.
        pruned.graph.value_info.extend(self._model.graph.value_info)
        pruned.ir_version = max(pruned.ir_version, 4)
        return pruned


def find_weights(model: onnx.ModelProto) -> list[Weights]:
    """Every float constant of at least two axes that a convolution or matrix product multiplies with, once."""
    graph = Graph(model)
    found: dict[str, Weights] = {}
    for node in graph.nodes:
        operands = _OPERANDS.get(node.op_type, ()) if node.domain in ONNX_DOMAINS else ()
        for tensor in (node.input[operand] for operand in operands):
            values = graph.constant(tensor) if tensor not in found else None
            if values is not None and values.ndim >= 2 and graph.dtype(tensor) in _FLOATS:
                found[tensor] = Weights(tensor=tensor, node=node, values=values)
    return list(found.values())


def _smallest(values: NDArray[Any], sparsity: float) -> NDArray[np.bool_]:
    chosen = np.zeros(values.size, dtype=np.bool_)
    count = int(np.floor(sparsity * values.size + 1e-9))
    if count:
        chosen[np.argpartition(np.abs(values.reshape(-1)), count - 1)[:count]] = True
    return chosen.reshape(values.shape)
