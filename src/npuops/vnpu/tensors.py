"""Where the tensors of a loaded program lie in its shared memory. Pure.

A segment has slots; a slot holds one inference: its inputs, then its outputs, each at the start of a cache line.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from npuops.errors import OptionError

DTYPES: Final = frozenset(
    {"bool", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32", "float64"}
)
SEGMENT_LIMIT_BYTES: Final = 1 << 30
SLOTS_LIMIT: Final = 64
_TENSORS_LIMIT: Final = 1024
_DIMENSIONS_LIMIT: Final = 32
"""numpy 1 has no more."""

_LINE_BYTES: Final = 64


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """One tensor: `dtype` in numpy's words, every dimension known."""

    name: str
    dtype: str
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        """Without padding."""
        return math.prod(self.shape) * np.dtype(self.dtype).itemsize


@dataclass(frozen=True, slots=True)
class Placed:
    """A tensor and its offset in its slot."""

    spec: TensorSpec
    offset: int


@dataclass(frozen=True, slots=True)
class Layout:
    """A segment: `slots` times `slot_bytes`."""

    slots: int
    slot_bytes: int
    inputs: tuple[Placed, ...]
    outputs: tuple[Placed, ...]

    @property
    def nbytes(self) -> int:
        """Of the whole segment, at least one byte."""
        return max(1, self.slots * self.slot_bytes)


def layout_of(inputs: Sequence[TensorSpec], outputs: Sequence[TensorSpec], slots: int) -> Layout:
    """Both sides compute it from the same words, so no offset crosses the wire.

    Raises:
        OptionError: a dtype that shared memory cannot hold, dimensions that numpy cannot, two tensors of one name, or
            more than the limits.
    """
    if not 1 <= slots <= SLOTS_LIMIT:
        raise OptionError(f"a segment has 1 to {SLOTS_LIMIT} slots, not {slots}")
    if len(inputs) + len(outputs) > _TENSORS_LIMIT:
        raise OptionError(f"a program has at most {_TENSORS_LIMIT} inputs and outputs")
    placed_inputs, used = _placed(inputs, 0, "input")
    placed_outputs, used = _placed(outputs, used, "output")
    layout = Layout(slots, used, placed_inputs, placed_outputs)
    if layout.nbytes > SEGMENT_LIMIT_BYTES:
        raise OptionError(
            f"{slots} slots of {used} bytes are more than {SEGMENT_LIMIT_BYTES} bytes of shared memory",
            advice="ask for fewer slots",
        )
    return layout


def _placed(specs: Sequence[TensorSpec], start: int, what: str) -> tuple[tuple[Placed, ...], int]:
    found: dict[str, Placed] = {}
    for spec in specs:
        if spec.dtype not in DTYPES:
            raise OptionError(f"{what} {spec.name!r} is {spec.dtype}; a device takes {', '.join(sorted(DTYPES))}")
        if any(dim < 0 for dim in spec.shape):
            raise OptionError(f"{what} {spec.name!r} has a negative dimension: {list(spec.shape)}")
        if len(spec.shape) > _DIMENSIONS_LIMIT:
            raise OptionError(f"{what} {spec.name!r} has {len(spec.shape)} dimensions, at most {_DIMENSIONS_LIMIT} go")
        # numpy multiplies without the zeros, so an empty tensor can be too big as well
        if math.prod(filter(None, spec.shape)) > SEGMENT_LIMIT_BYTES:
            raise OptionError(
                f"{what} {spec.name!r} has the dimensions {list(spec.shape)}, more than {SEGMENT_LIMIT_BYTES} bytes of"
                " shared memory",
                advice="fix the shape and build the model again",
            )
        if spec.name in found:
            raise OptionError(f"two {what}s are called {spec.name!r}")
        found[spec.name] = Placed(spec, start)
        start += -(-spec.nbytes // _LINE_BYTES) * _LINE_BYTES
    return tuple(found.values()), start
