"""A BYTES tensor: its elements in row-major order, each as its length in 4 bytes (little-endian) and then itself."""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

from npuops.errors import DataError
from npuops.runtime.job import Bytes

LENGTH_BYTES: Final = 4
"""In front of each element."""

ELEMENT_LIMIT_BYTES: Final = 2**32 - 1
"""Most bytes of one element: its length has 32 bits."""

_LENGTH: Final = Struct("<I")


def check_elements(part: Bytes, count: int, tensor: str = "") -> None:
    """A BYTES tensor from outside has exactly `count` elements, and nothing besides.

    Raises:
        DataError: an element ends behind the tensor, or there are more or fewer.
    """
    if end_of(part, count, tensor) != memoryview(part).nbytes:
        raise _wrong_count("more", count, tensor)


def end_of(part: Bytes, count: int, tensor: str = "") -> int:
    """Bytes of the first `count` elements.

    Raises:
        DataError: an element ends behind the tensor, or there are fewer.
    """
    end = memoryview(part).nbytes
    length_at = _LENGTH.unpack_from
    at = found = 0
    while at < end and found < count:
        if at + LENGTH_BYTES > end:
            raise DataError(f"{_called(tensor)}: {end - at} bytes are left after {found} elements, no length")
        at += LENGTH_BYTES + length_at(part, at)[0]
        found += 1
    if at > end:
        raise DataError(f"{_called(tensor)}: element {found - 1} ends {at - end} bytes behind the tensor")
    if found != count:
        raise _wrong_count(str(found), count, tensor)
    return at


def split_elements(part: Bytes) -> list[bytes]:
    """The elements of a tensor whose structure is sound (ours, or checked).

    Raises:
        DataError: it is not.
    """
    return list(map(bytes, element_views(part)))


def element_views(part: Bytes) -> list[memoryview]:
    """As `split_elements`, without copying: they are the tensor's own bytes.

    Raises:
        DataError: the tensor's structure is not sound.
    """
    view = memoryview(part)
    end = view.nbytes
    found: list[memoryview] = []
    at = 0
    while at < end:
        start = at + LENGTH_BYTES
        at = start + _LENGTH.unpack_from(view, at)[0] if start <= end else end + 1
        if at > end:
            raise DataError(f"a BYTES tensor ends within its element {len(found)}")
        found.append(view[start:at])
    return found


def join_elements(elements: Iterable[bytes]) -> bytes:
    """The tensor of these elements.

    Raises:
        DataError: an element is longer than 4 bytes can say.
    """
    pieces: list[bytes] = []
    for element in elements:
        if len(element) > ELEMENT_LIMIT_BYTES:
            raise DataError(f"an element of {len(element)} bytes does not fit into a BYTES tensor")
        pieces.append(_LENGTH.pack(len(element)))
        pieces.append(element)
    return b"".join(pieces)


def _called(tensor: str) -> str:
    return f"BYTES tensor {tensor!r}" if tensor else "a BYTES tensor"


def _wrong_count(found: str, count: int, tensor: str) -> DataError:
    return DataError(
        f"{_called(tensor)} has {found} elements, its shape has {count}",
        advice="each element is its length in 4 bytes, little-endian, and then itself",
    )
