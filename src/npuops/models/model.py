"""What a model is: its inputs and outputs, and a view of its layers with shapes and costs.

The noun `Model` is the first on the line that data follows. It holds no weights: whoever needs
them reads the file again through `npuops.models.onnx_file`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path

Dim = int | str | None
"""A known size, a symbolic name such as `batch`, or nothing known."""

AttributeValue = int | float | str | tuple[int, ...] | tuple[float, ...] | tuple[str, ...]

QDQ_OPS = frozenset({"QuantizeLinear", "DequantizeLinear", "QUANTIZE", "DEQUANTIZE"})
"""Operators that only change the number format; they never count as layers of their own in a ratio."""


class ModelFormat(StrEnum):
    """The file formats that npuops reads."""

    ONNX = "onnx"
    TFLITE = "tflite"


@dataclass(frozen=True, slots=True, kw_only=True)
class TensorInfo:
    """One tensor: `dtype` in numpy's words (`float32`, `int8`, … plus `bfloat16`, `int4`, `string`)."""

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None
    """`None` where not even the rank is known."""

    @property
    def is_static(self) -> bool:
        """Every dimension is a known size."""
        return self.shape is not None and all(isinstance(dim, int) for dim in self.shape)

    @property
    def elements(self) -> int | None:
        """Number of elements, or None where a dimension is unknown."""
        if self.shape is None:
            return None
        count = 1
        for dim in self.shape:
            if not isinstance(dim, int):
                return None
            count *= dim
        return count


@dataclass(frozen=True, slots=True, kw_only=True)
class Layer:
    """One node of the graph, in the words of its format (`Conv`, or `CONV_2D` in TFLite)."""

    name: str
    op: str
    domain: str = ""
    inputs: tuple[TensorInfo, ...]
    """Activations that flow in; constants are in `weights`."""
    weights: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    attributes: Mapping[str, AttributeValue]
    macs: int | None
    """Multiply-accumulate operations for one inference; 0 where the operator has none, None if unknown."""
    weight_bytes: int
    activation_bytes: int | None
    """Bytes of the outputs; None where a shape is unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fact:
    """Something about the model that a user should know (`dynamic-shape`, `unsupported-domain`, …)."""

    kind: str
    message: str
    advice: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """A model file that was read and understood; see `npuops.models.open.open_model`."""

    path: Path
    format: ModelFormat
    digest: str
    """`sha256:…` over the file and, in order of name, its external data files."""
    opset: int | None
    """Version of the default ONNX domain; None for TFLite."""
    producer: str
    file_bytes: int
    inputs: tuple[TensorInfo, ...]
    outputs: tuple[TensorInfo, ...]
    layers: tuple[Layer, ...]
    """In an order in which each layer's inputs come before it."""
    peak_activation_bytes: int | None
    """Most bytes of activations alive at once when the layers run in order; None if a shape is unknown."""
    facts: tuple[Fact, ...] = ()

    @property
    def macs(self) -> int | None:
        """Sum over the layers; None where one is unknown."""
        counts = [layer.macs for layer in self.layers]
        return None if any(count is None for count in counts) else sum(count or 0 for count in counts)

    @property
    def weight_bytes(self) -> int:
        """Bytes of all constants that layers use."""
        return sum(layer.weight_bytes for layer in self.layers)

    @property
    def op_histogram(self) -> dict[str, int]:
        """Operator name → number of layers, most frequent first."""
        return dict(Counter(layer.op for layer in self.layers).most_common())

    @property
    def is_quantized(self) -> bool:
        """The graph carries its own scales (QDQ operators, or integer activations)."""
        return any(layer.op in QDQ_OPS for layer in self.layers) or any(
            tensor.dtype in {"int8", "uint8"} for layer in self.layers for tensor in layer.outputs
        )

    @property
    def is_static(self) -> bool:
        """All inputs have fixed shapes."""
        return all(tensor.is_static for tensor in self.inputs)
