"""gRPC's status codes, and how a response's head and trailers are written."""

from __future__ import annotations

from typing import Final

from npuops import errors
from npuops.server import status
from npuops.server.http2_headers import literal
from npuops.server.status import GrpcStatus


class GrpcCallError(errors.ServingError):
    """A call breaks a rule of gRPC itself.

    Attributes:
        status: the answer.
        fields: for the trailers besides.
    """

    def __init__(
        self,
        message: str,
        *,
        advice: str = "",
        status: GrpcStatus = GrpcStatus.INTERNAL,
        fields: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(message, advice=advice)
        self.status = status
        self.fields = fields


_MESSAGE_BYTES: Final = 2048
"""Of a status message, encoded: clients refuse header lists above 8 KiB or so."""
_PRINTABLE: Final = [
    bytes((byte,)) if 0x20 <= byte <= 0x7E and byte != 0x25 else b"%%%02X" % byte for byte in range(256)
]

_OK_HEAD: Final = b"\x88" + literal(b"content-type", b"application/grpc")
"""`:status: 200` from the static table, and the content type; needs no table of the connection."""
RESPONSE_BLOCK: Final = _OK_HEAD
OK_BLOCK: Final = literal(b"grpc-status", b"0")


def percent_encoded(message: str) -> bytes:
    """A message as the field `grpc-message` carries it; cut, between characters, where it is too long."""
    encoded: list[bytes] = []
    size = 0
    for character in message:
        text = b"".join(_PRINTABLE[byte] for byte in character.encode("utf-8", "replace"))
        size += len(text)
        if size > _MESSAGE_BYTES:
            break
        encoded.append(text)
    return b"".join(encoded)


def trailer_block(code: GrpcStatus, message: str = "", fields: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """The end of a response."""
    block = literal(b"grpc-status", str(int(code)).encode())
    if message:
        block += literal(b"grpc-message", percent_encoded(message))
    return block + b"".join(literal(name, value) for name, value in fields)


def trailers_only_block(code: GrpcStatus, message: str, fields: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """A response that is nothing but its end."""
    return _OK_HEAD + trailer_block(code, message, fields)


def http_block(code: int, fields: tuple[tuple[bytes, bytes], ...] = ()) -> bytes:
    """The answer to a request that is no gRPC."""
    return b"\x08" + literal(b"", str(code).encode())[2:] + b"".join(literal(name, value) for name, value in fields)


def status_of(error: errors.NpuopsError) -> GrpcStatus:
    """The code for an error of our tree."""
    return error.status if isinstance(error, GrpcCallError) else status.status_of(error).grpc


def fields_of(error: errors.NpuopsError) -> tuple[tuple[bytes, bytes], ...]:
    """Trailers besides the status: when to ask again, in the words of gRPC's retry design."""
    if isinstance(error, errors.BusyError):
        return ((b"grpc-retry-pushback-ms", str(max(1, round(error.retry_after_s * 1000))).encode()),)
    return error.fields if isinstance(error, GrpcCallError) else ()
