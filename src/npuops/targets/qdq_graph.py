"""Quantized operators: integers with scales in, integers with scales out. `qdq_reader` finds them in a QDQ ONNX graph.

A QDQ graph says everything in float operators between `DequantizeLinear` and `QuantizeLinear` pairs. Here the pairs
are gone: an `Activation` is the 8-bit tensor between a Q and its DQs, a `Constant` is a weight or bias behind a DQ.
Unsigned numbers became signed ones by subtracting 128 from value and zero point, which changes no real value.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.errors import UnsupportedModelError

Array = NDArray[Any]
SELF_SCALED: Mapping[str, tuple[float, int]] = {
    "Softmax": (1 / 256, -128),
    "Sigmoid": (1 / 256, -128),
    "Tanh": (1 / 128, 0),
}
"""Operators whose TFLite kernels demand one output scale and zero point (TFLite quantization specification)."""


class NodeRefusedError(UnsupportedModelError):
    """One node cannot be expressed; collected, so that a user sees all of them at once."""

    def __init__(self, rule: str, found: str = "") -> None:
        super().__init__(f"{rule} (found {found})" if found else rule)


@dataclass(frozen=True, slots=True, kw_only=True)
class Activation:
    """An int8 tensor: real value = (integer - zero_point) * scale."""

    name: str
    shape: tuple[int, ...]
    scale: float
    zero_point: int


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Constant:
    """Signed integers with one scale, or one per index of `axis`; `scale` None for a plain float or integer array."""

    name: str
    data: Array
    scale: Array | None = None
    zero_point: Array | None = None
    axis: int = 0

    @property
    def real(self) -> Array:
        """The real values."""
        if self.scale is None or self.zero_point is None:
            return self.data
        shape = [1] * self.data.ndim
        if self.scale.size > 1:
            shape[self.axis] = self.scale.size
        centred = self.data.astype(np.float64) - self.zero_point.reshape(shape)
        return np.asarray(centred * self.scale.reshape(shape).astype(np.float64))


Operand = Activation | Constant | None


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedOp:
    """One operator between integers. `clamp` is a Relu or Clip that stood between it and its QuantizeLinear."""

    name: str
    op: str
    inputs: tuple[Operand, ...]
    outputs: tuple[Activation, ...]
    attributes: Mapping[str, Any]
    opset: int
    clamp: tuple[float, float] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class GraphPort:
    """An input or output of the source model and the integers that stand for it."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    activation: Activation


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizedGraph:
    """All operators in topological order."""

    ops: tuple[QuantizedOp, ...]
    inputs: tuple[GraphPort, ...]
    outputs: tuple[GraphPort, ...]


def read_bounds(operands: list[Operand], attributes: Mapping[str, Any]) -> tuple[float, float]:
    """`(min, max)` of a Clip.

    Raises:
        NodeRefusedError: a bound is computed at run time.
    """
    bounds = [float(attributes.get("min", -np.inf)), float(attributes.get("max", np.inf))]
    for index, operand in enumerate(operands[:2]):
        if isinstance(operand, Activation):
            raise NodeRefusedError("bounds must be constant", operand.name)
        if operand is not None:
            bounds[index] = float(operand.real.reshape(-1)[0])
    return bounds[0], bounds[1]
