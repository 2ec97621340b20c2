"""The datatypes of the Open Inference Protocol: their words, and tensors as the protocol's bytes.

Bytes are little-endian and row-major. BOOL is one byte, 0 or 1. BYTES is for each element its length in 4 bytes, then
the element. BF16 has no numpy dtype: an array of it holds the bits, as uint16.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError, nearest
from npuops.runtime.bytes_tensor import join_elements
from npuops.runtime.job import Bytes
from npuops.runtime.text_tensor import read_text


@dataclass(frozen=True, slots=True)
class Datatype:
    """One datatype.

    Attributes:
        word: the protocol's.
        dtype: the manifest's word for it: numpy's, besides `bfloat16` and `string`.
        item_bytes: of one element; 0 for BYTES.
        wire: the numpy dtype of its bytes; the bits' for BF16, `object` for BYTES.
        has_json: its values can be written in JSON.
    """

    word: str
    dtype: str
    item_bytes: int
    wire: np.dtype[Any]
    has_json: bool = True


DATATYPES: Final[Mapping[str, Datatype]] = {
    each.word: each
    for each in (
        Datatype("BOOL", "bool", 1, np.dtype("?")),
        *(
            Datatype(f"{kind.upper()}{bits}", f"{kind}{bits}", bits // 8, np.dtype(f"<{kind[0]}{bits // 8}"))
            for kind in ("uint", "int")
            for bits in (8, 16, 32, 64)
        ),
        Datatype("FP16", "float16", 2, np.dtype("<f2"), has_json=False),
        Datatype("BF16", "bfloat16", 2, np.dtype("<u2"), has_json=False),
        Datatype("FP32", "float32", 4, np.dtype("<f4")),
        Datatype("FP64", "float64", 8, np.dtype("<f8")),
        Datatype("BYTES", "string", 0, np.dtype(object)),
    )
}
"""By the protocol's word."""

_BY_DTYPE: Final[Mapping[str, Datatype]] = {each.dtype: each for each in DATATYPES.values()}


def datatype_named(word: str, tensor: str) -> Datatype:
    """The datatype that a request names for `tensor`.

    Raises:
        DataError: there is none of that name.
    """
    found = DATATYPES.get(word)
    if found is None:
        raise DataError(
            f"tensor {tensor!r} has the unknown datatype {word[:40]!r}", advice=nearest(word[:40], DATATYPES)
        )
    return found


def datatype_of(dtype: str) -> Datatype:
    """The datatype of a port's dtype.

    Raises:
        DataError: no protocol carries it (`int4`).
    """
    found = _BY_DTYPE.get(dtype)
    if found is None:
        raise DataError(f"{dtype} is not a datatype of the protocol", advice=nearest(dtype, _BY_DTYPE))
    return found


def check_json(datatype: Datatype, tensor: str, advice: str) -> None:
    """Refuse a datatype without a JSON form.

    Raises:
        DataError: FP16 or BF16.
    """
    if not datatype.has_json:
        raise DataError(f"{tensor} is {datatype.word}, which has no form in JSON", advice=advice)


def check_bool(part: Bytes, tensor: str) -> None:
    """Each byte of a BOOL tensor is 0 or 1: models treat others in ways that nobody defined.

    Raises:
        DataError: one is not.
    """
    values = np.frombuffer(part, np.uint8)
    if values.size and values.max() > 1:
        at = int(np.argmax(values > 1))
        raise DataError(f"element {at} of the BOOL tensor {tensor!r} is {values[at]}: it must be 0 or 1")


def to_bytes(array: NDArray[Any], datatype: Datatype) -> bytes:
    """The protocol's bytes of an array of the datatype's wire dtype, in either byte order.

    Raises:
        DataError: an element of BYTES is neither `bytes` nor `str`.
    """
    if datatype.word != "BYTES":
        return np.ascontiguousarray(array, datatype.wire).tobytes()
    return join_elements([_element(each) for each in array.reshape(-1).tolist()])


def from_bytes(part: Bytes, datatype: Datatype, shape: Sequence[int], tensor: str = "") -> NDArray[Any]:
    """The array of a tensor's bytes; it shares their memory, besides BYTES.

    Raises:
        DataError: too few or too many bytes for the shape, or a BOOL that is neither 0 nor 1.
    """
    if datatype.word == "BYTES":
        return read_text(part, tuple(shape), tensor)
    count = prod(shape)
    size = memoryview(part).nbytes
    if size != count * datatype.item_bytes:
        raise DataError(
            f"tensor {tensor!r} has {size} bytes; {datatype.word} of shape {list(shape)} has "
            f"{count * datatype.item_bytes}"
        )
    if datatype.word == "BOOL":
        check_bool(part, tensor)
    return np.frombuffer(part, datatype.wire).reshape(shape)


def _element(value: object) -> bytes:
    if isinstance(value, str):
        return value.encode()
    if isinstance(value, bytes):
        return value
    raise DataError(f"a BYTES tensor holds bytes or text, not {type(value).__name__}")
