"""A TFLite graph in plain frozen nouns: what `tflite_file` read and everything after it works on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.models.model import AttributeValue, Dim, TensorInfo

NUMPY_DTYPES: Mapping[str, type[np.generic]] = {
    "float32": np.float32,
    "float16": np.float16,
    "float64": np.float64,
    "int8": np.int8,
    "uint8": np.uint8,
    "int16": np.int16,
    "uint16": np.uint16,
    "int32": np.int32,
    "uint32": np.uint32,
    "int64": np.int64,
    "uint64": np.uint64,
    "bool": np.bool_,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Scales:
    """Affine quantization: real = (stored - zero_point) * scale, per tensor or along `axis`."""

    scale: tuple[float, ...]
    zero_point: tuple[int, ...]
    axis: int

    @property
    def per_channel(self) -> bool:
        """One scale for each slice along `axis`."""
        return len(self.scale) > 1


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteTensor:
    """One tensor, by a name that no other tensor of its graph has; `data` holds a constant's bytes."""

    name: str
    dtype: str
    shape: tuple[Dim, ...] | None
    scales: Scales | None = None
    data: memoryview | None = field(default=None, repr=False)
    is_variable: bool = False
    signature: tuple[int, ...] = ()
    """Sizes with -1 where the converter left one open; `shape` then holds what runs when nobody resizes."""

    @property
    def info(self) -> TensorInfo:
        """In the words that all formats share."""
        return TensorInfo(name=self.name, dtype=self.dtype, shape=self.shape)

    @property
    def sizes(self) -> tuple[int, ...]:
        """The shape when it is fixed; raises ValueError otherwise."""
        if self.shape is None or not all(isinstance(dim, int) for dim in self.shape):
            raise ValueError(f"{self.name} has no fixed shape")
        return tuple(dim for dim in self.shape if isinstance(dim, int))

    def values(self) -> NDArray[Any] | None:
        """A constant's stored values (integers stay integers), or None for an activation."""
        if self.data is None or self.dtype not in NUMPY_DTYPES:
            return None
        return np.frombuffer(self.data, dtype=NUMPY_DTYPES[self.dtype]).reshape(self.sizes)


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteOp:
    """One operator; inputs and outputs are tensor indices, -1 for an optional one left out."""

    op: str
    """`CONV_2D`, …; `CUSTOM:name` for custom operators."""
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    options: Mapping[str, AttributeValue]

    def number(self, name: str, default: int = 0) -> int:
        """An integer option."""
        value = self.options.get(name, default)
        return int(value) if isinstance(value, int | float) else default

    def word(self, name: str, default: str = "") -> str:
        """An enumeration's name, such as `SAME`."""
        return str(self.options.get(name, default))


@dataclass(frozen=True, slots=True, kw_only=True)
class TfliteGraph:
    """The first subgraph, and how many there are."""

    tensors: tuple[TfliteTensor, ...]
    operators: tuple[TfliteOp, ...]
    inputs: tuple[int, ...]
    outputs: tuple[int, ...]
    description: str
    version: int
    subgraph_count: int

    def constant(self, index: int) -> NDArray[Any] | None:
        """Stored values of tensor `index`; None where it is not a constant or left out."""
        return self.tensors[index].values() if index >= 0 else None
