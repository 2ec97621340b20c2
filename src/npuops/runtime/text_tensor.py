"""BYTES tensors (`bytes_tensor`) as numpy arrays of objects."""

from __future__ import annotations

from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError
from npuops.runtime.bytes_tensor import LENGTH_BYTES, check_elements, join_elements, split_elements
from npuops.runtime.job import Bytes
from npuops.runtime.signature import Shape

EMPTY_BYTES: Final = LENGTH_BYTES
"""Of an element without text: so many zeros."""


def read_text(data: Bytes, shape: Shape, tensor: str = "") -> NDArray[Any]:
    """An array of `bytes` objects.

    Raises:
        DataError: the elements are not as many as the shape says, or one is cut off.
    """
    count = prod(shape)
    check_elements(data, count, tensor)
    array = np.empty(count, dtype=object)
    array[:] = split_elements(data)
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
