"""The few gRPC messages of the Open Inference Protocol that a client needs, on protobuf's wire.

Written by hand because grpcio carries bytes and does not bring protobuf with it; the field numbers are the protocol's.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5

METHOD = "/inference.GRPCInferenceService/"


def varint(value: int) -> bytes:
    """Seven bits in each byte, the lowest first; a negative int64 takes ten bytes."""
    value &= (1 << 64) - 1
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def field(number: int, data: bytes | str) -> bytes:
    """A string, bytes, or message field."""
    content = data.encode() if isinstance(data, str) else data
    return varint(number << 3 | BYTES) + varint(len(content)) + content


def fields(message: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Number and value of each field, in order; fixed-width numbers as their bytes.

    Raises:
        ValueError: not protobuf.
    """
    at, end = 0, len(message)
    while at < end:
        key, at = _read_varint(message, at)
        kind = key & 7
        if kind == VARINT:
            value, at = _read_varint(message, at)
            yield key >> 3, value
            continue
        size = {FIXED64: 8, FIXED32: 4}.get(kind, 0)
        if kind == BYTES:
            size, at = _read_varint(message, at)
        elif not size:
            raise ValueError(f"wire type {kind}")
        if at + size > end:
            raise ValueError("a field ends beyond its message")
        yield key >> 3, message[at : at + size]
        at += size


def numbers(value: int | bytes) -> list[int]:
    """A repeated int64, packed or not."""
    if isinstance(value, int):
        return [_signed(value)]
    found, at = [], 0
    while at < len(value):
        number, at = _read_varint(value, at)
        found.append(_signed(number))
    return found


def named(name: str, version: str) -> bytes:
    """`ModelMetadataRequest`: name 1, version 2."""
    return field(1, name) + (field(2, version) if version else b"")


def infer_request(name: str, version: str, inputs: Sequence[tuple[str, str, Sequence[int], bytes]]) -> bytes:
    """`ModelInferRequest` with raw contents.

    Args:
        name: of the model.
        version: empty for the server's own choice.
        inputs: name, datatype, shape and bytes of each.
    """
    message = named(name, version)
    for tensor, datatype, shape, _ in inputs:
        sizes = b"".join(varint(size) for size in shape)
        message += field(5, field(1, tensor) + field(2, datatype) + field(3, sizes))
    return message + b"".join(field(7, raw) for *_, raw in inputs)


def text(value: int | bytes) -> str:
    """A string field; broken UTF-8 becomes U+FFFD.

    Raises:
        ValueError: it is a number.
    """
    if isinstance(value, int):
        raise ValueError("a number stands where a string should")  # noqa: TRY004 - what a peer sent, not a wrong call
    return value.decode("utf-8", "replace")


def raw(value: int | bytes) -> bytes:
    """A bytes or message field.

    Raises:
        ValueError: it is a number.
    """
    if isinstance(value, int):
        raise ValueError("a number stands where bytes should")  # noqa: TRY004 - what a peer sent, not a wrong call
    return value


def _signed(value: int) -> int:
    return value - (1 << 64) if value >> 63 else value


def _read_varint(message: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        if at >= len(message) or shift > 63:
            raise ValueError("a number is cut off")
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value & ((1 << 64) - 1), at
        shift += 7
