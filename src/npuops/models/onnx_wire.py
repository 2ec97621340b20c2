"""Counts what a protobuf file would unfold to, before the parser allocates it.

An empty node takes two bytes in a file and more than a hundred in memory, so a hostile file of the permitted
2 GiB could ask for hundreds of gigabytes. The walk follows the schema, skips the weights, and stops at the limit.
"""

from __future__ import annotations

from typing import Any, Final

import onnx

from npuops.errors import MalformedModelError, UnsafeModelError

MAX_FIELDS: Final = 2_000_000
"""Fields that are not weights; a model of 50,000 nodes has less than a million."""
HARMLESS_BYTES: Final = 8 * 2**20
"""A file up to this size cannot unfold to more than about one gigabyte, so it is not walked."""


def check_wire(content: bytes, where: str) -> None:
    """Refuse a file with an absurd number of fields.

    Raises:
        UnsafeModelError: more than `MAX_FIELDS`.
        MalformedModelError: not protobuf.
    """
    if len(content) <= HARMLESS_BYTES:
        return
    try:
        count_fields(content)
    except (IndexError, ValueError) as error:
        raise MalformedModelError(
            f"{where} is not an ONNX file, or it is truncated", advice="export it again"
        ) from error


def count_fields(content: bytes, limit: int = MAX_FIELDS) -> int:
    """Number of protobuf fields in an ONNX model.

    Raises:
        UnsafeModelError: more than `limit`.
        IndexError, ValueError: not protobuf.
    """
    stack: list[tuple[int, int, Any]] = [(0, len(content), onnx.ModelProto.DESCRIPTOR)]
    count = 0
    while stack:
        start, end, message = stack.pop()
        at = start
        while at < end:
            count += 1
            if count > limit or len(stack) > limit:
                raise UnsafeModelError(
                    f"the file unfolds to more than {limit} fields", advice="it is damaged or hostile"
                )
            key, at = _varint(content, at)
            field = message.fields_by_number.get(key >> 3)
            match key & 7:
                case 0:
                    _, at = _varint(content, at)
                case 1:
                    at += 8
                case 5:
                    at += 4
                case 2:
                    length, at = _varint(content, at)
                    if field is not None and field.message_type is not None:
                        stack.append((at, at + length, field.message_type))
                    at += length
                case kind:
                    raise ValueError(f"wire type {kind}")
        if at != end:
            raise ValueError("a field ends beyond its message")
    return count


def _varint(content: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = content[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("a number of more than 64 bits")
