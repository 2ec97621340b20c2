"""What a model takes and gives while it is served: its tensors, and which axis carries the rows of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from typing import Final

from npuops.errors import DataError
from npuops.models.model import TensorInfo

ITEM_BYTES: Final[dict[str, int]] = {
    "bool": 1,
    **{f"{sign}int{bits}": bits // 8 for sign in ("", "u") for bits in (8, 16, 32, 64)},
    "float16": 2,
    "bfloat16": 2,
    "float32": 4,
    "float64": 8,
    "string": 0,
}
"""Bytes of one element; 0 for text, whose elements carry their own length."""

Shape = tuple[int, ...]

_LARGEST_SIZE: Final = 1 << 40
"""No memory holds more; but a tensor without elements could claim it, and numpy and our messages count in 64 bits."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Port:
    """One input or output.

    Attributes:
        dtype: numpy's word for it, besides `bfloat16` and `string`.
        shape: of a whole request; -1 where the size is free. None where not even the rank is known.
    """

    name: str
    dtype: str
    shape: Shape | None

    @property
    def item_bytes(self) -> int:
        """Bytes of one element; 0 for text."""
        return ITEM_BYTES[self.dtype]


@dataclass(frozen=True, slots=True, kw_only=True)
class Signature:
    """Of one model version, over all its artifacts.

    Attributes:
        batched: axis 0 of every input and output counts rows that do not know of each other, so requests may share
            a run.
        max_rows: most rows of one run; 1 where not batched.
    """

    inputs: tuple[Port, ...]
    outputs: tuple[Port, ...]
    batched: bool
    max_rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Form:
    """The form of a request: made once for each distinct set of shapes, shared by all requests that have it.

    Attributes:
        rows: along the batch axis; 1 where the model has none.
        shapes: of each input, in the model's order.
        sizes: bytes of each input; -1 for text.
        total_bytes: their sum; text counts as 0.
        key: equal for requests that can share a run.
    """

    rows: int
    shapes: tuple[Shape, ...]
    sizes: tuple[int, ...]
    total_bytes: int
    key: tuple[Shape, ...]


def form_of(signature: Signature, shapes: Sequence[Shape]) -> Form:
    """The form of a request with inputs of these shapes, in the model's order.

    Raises:
        DataError: a rank, a size, or the number of rows is not the model's; rows differ between inputs.
    """
    for port, shape in zip(signature.inputs, shapes, strict=True):
        _check_shape(port, shape)
    rows = 1
    if signature.batched:
        rows = _rows_of(signature, shapes)
    sizes = tuple(
        prod(shape) * port.item_bytes if port.item_bytes else -1
        for port, shape in zip(signature.inputs, shapes, strict=True)
    )
    key = tuple(shape[1:] for shape in shapes) if signature.batched else tuple(shapes)
    return Form(
        rows=rows,
        shapes=tuple(tuple(shape) for shape in shapes),
        sizes=sizes,
        total_bytes=sum(max(size, 0) for size in sizes),
        key=key,
    )


def port_of(tensor: TensorInfo, *, batched: bool) -> Port:
    """A tensor of a manifest as a port; a batched one has a free first axis.

    Raises:
        DataError: a dtype that no server can carry.
    """
    if tensor.dtype not in ITEM_BYTES:
        raise DataError(f"{tensor.name!r} is {tensor.dtype}, which no protocol carries", advice="cast it in the model")
    if tensor.shape is None:
        return Port(name=tensor.name, dtype=tensor.dtype, shape=None)
    sizes = tuple(dim if isinstance(dim, int) else -1 for dim in tensor.shape)
    return Port(name=tensor.name, dtype=tensor.dtype, shape=(-1, *sizes[1:]) if batched else sizes)


def _check_shape(port: Port, shape: Shape) -> None:
    if any(not 0 <= dim < _LARGEST_SIZE for dim in shape):
        raise DataError(f"input {port.name!r} has shape {list(shape)}: no tensor has such a size")
    wanted = port.shape
    if wanted is not None and (
        len(shape) != len(wanted) or any(want not in (-1, dim) for want, dim in zip(wanted, shape, strict=True))
    ):
        raise DataError(
            f"input {port.name!r} has shape {list(shape)}, the model takes {list(wanted)}",
            advice="-1 stands for any size" if -1 in wanted else "",
        )


def _rows_of(signature: Signature, shapes: Sequence[Shape]) -> int:
    rows = -1
    for port, shape in zip(signature.inputs, shapes, strict=True):
        if not shape:
            raise DataError(f"input {port.name!r} has no axis; the first one counts the rows")
        if rows not in {-1, shape[0]}:
            raise DataError(f"input {port.name!r} has {shape[0]} rows, {signature.inputs[0].name!r} has {rows}")
        rows = shape[0]
    if not shapes:
        return 1
    if not 1 <= rows <= signature.max_rows:
        raise DataError(f"{rows} rows; one request may have 1 to {signature.max_rows}", advice="send it in parts")
    return rows
