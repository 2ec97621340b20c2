"""Triton's classification extension: the best classes of an output instead of the whole tensor.

Each class is the text `score:index`, or `score:index:label` where the artifact has labels; the scores have six
decimals, as Triton's have. For a batched output the classes are those of each row, else of the whole tensor.
"""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.runtime.bytes_tensor import join_elements
from npuops.runtime.job import Bytes
from npuops.runtime.signature import Shape
from npuops.server.datatypes import Datatype, from_bytes


def class_shape(shape: Shape, classes: int, *, batched: bool) -> Shape:
    """Shape of the classes of an output with `shape`."""
    if batched and shape:
        return (shape[0], min(classes, prod(shape[1:])))
    return (min(classes, prod(shape)),)


def classify(
    part: Bytes, datatype: Datatype, shape: Shape, classes: int, *, batched: bool, labels: Sequence[str] = ()
) -> bytes:
    """The classes as a BYTES tensor of `class_shape`, best first; equal scores by index, NaN last.

    Args:
        part: the output's bytes.
        datatype: of the output, a number.
        shape: of the output.
        classes: at most so many for each row.
        batched: axis 0 counts rows.
        labels: by index; may be shorter than the row.

    Raises:
        DataError: the bytes are not those of the shape.
    """
    scores = numbers_of(from_bytes(part, datatype, shape), datatype)
    rows = scores.reshape(shape[0], prod(shape[1:])) if batched and shape else scores.reshape(1, -1)
    return join_elements(
        _word(row[index], int(index), labels).encode() for row in rows for index in _best(row, classes)
    )


def numbers_of(array: NDArray[Any], datatype: Datatype) -> NDArray[Any]:
    """Numbers that numpy can compare: BF16's bits as float32, anything else as it is."""
    if datatype.word != "BF16":
        return array
    return (array.astype(np.uint32) << 16).view(np.float32)


def _best(row: NDArray[Any], classes: int) -> NDArray[Any]:
    # Negating would wrap integers around: sort upwards from behind instead, so that equal ones keep their order.
    order = np.argsort(row[::-1], kind="stable")[::-1]
    indexes = row.size - 1 - order
    if row.dtype.kind == "f":  # numpy sorts NaN last, so from behind it comes first
        absent = np.isnan(row[indexes])
        indexes = np.concatenate([indexes[~absent], indexes[absent]])
    return indexes[:classes]


def _word(score: Any, index: int, labels: Sequence[str]) -> str:
    text = f"{score:f}" if isinstance(score, np.floating) else str(score)
    return f"{text}:{index}:{labels[index]}" if index < len(labels) else f"{text}:{index}"
