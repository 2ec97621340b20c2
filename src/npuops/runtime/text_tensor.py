"""Text and bytes as tensors: each element is its length in four bytes, little-endian, then its bytes."""

from __future__ import annotations

import struct
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError
from npuops.runtime.bytes_tensor import join_elements
from npuops.runtime.job import Bytes
from npuops.runtime.signature import Shape

_LENGTH: Final = struct.Struct("<I")
EMPTY_BYTES: Final = _LENGTH.size
"""Of an element without text: so many zeros."""


def read_text(data: Bytes, shape: Shape) -> NDArray[Any]:
    """An array of `bytes` objects.

    Raises:
        DataError: the elements are not as many as the shape says, or one is cut off.
    """
    count = int(np.prod(shape, dtype=np.int64))
    elements: list[bytes] = []
    view, at = memoryview(data), 0
    while at < len(view) and len(elements) <= count:
        end = at + _LENGTH.size
        if end > len(view):
            break
        end += _LENGTH.unpack_from(view, at)[0]
        if end > len(view):
            raise DataError(f"text element {len(elements)} is cut off", advice="each has its length before it")
        elements.append(bytes(view[at + _LENGTH.size : end]))
        at = end
    if at != len(view) or len(elements) != count:
        raise DataError(f"{len(elements)} text elements in {len(view)} bytes; shape {list(shape)} holds {count}")
    array = np.empty(count, dtype=object)
    array[:] = elements
    return array.reshape(shape)


def read_words(data: Bytes, shape: Shape) -> NDArray[Any]:
    """An array of `str` objects: runtimes take these, and make of `bytes` what Python prints for them.

    Raises:
        DataError: as `read_text`, or an element is not UTF-8.
    """
    array = read_text(data, shape)
    flat = array.reshape(-1)
    for index, element in enumerate(flat):
        try:
            flat[index] = element.decode()
        except UnicodeDecodeError as error:
            raise DataError(f"text element {index} is not UTF-8", advice="models on this target take text") from error
    return array


def write_text(array: NDArray[Any]) -> bytes:
    """The binary form of an array of `bytes` or `str` objects."""
    return join_elements(
        element if isinstance(element, bytes) else str(element).encode() for element in array.reshape(-1)
    )


def first_bytes(data: Bytes, count: int) -> int:
    """Bytes of the first `count` elements.

    Raises:
        DataError: there are fewer.
    """
    at = 0
    for _ in range(count):
        if at + _LENGTH.size > len(data):
            raise DataError(f"fewer than {count} text elements in {len(data)} bytes")
        at += _LENGTH.size + _LENGTH.unpack_from(data, at)[0]
    if at > len(data):
        raise DataError(f"fewer than {count} text elements in {len(data)} bytes")
    return at
