"""What a gRPC call says before its first message: method, deadline, encoding and metadata."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from npuops.server.grpc_status import GrpcCallError
from npuops.server.http2_headers import RequestHead
from npuops.server.status import GrpcStatus

ENCODINGS: Final = (b"identity", b"deflate", b"gzip")
_ACCEPTED: Final = (b"grpc-accept-encoding", b",".join(ENCODINGS))

_TIMEOUT: Final = re.compile(rb"(\d{1,8})([HMSmun])")
_UNIT_NS: Final = {
    b"H": 3600 * 10**9,
    b"M": 60 * 10**9,
    b"S": 10**9,
    b"m": 10**6,
    b"u": 10**3,
    b"n": 1,
}


class GrpcHead:
    """Of all calls whose header block is the same: made once, so what follows from it can be kept in `memo`.

    Attributes:
        path: `/package.Service/Method`.
        timeout_us: None where the client waits for ever.
        encoding: of the request's compressed messages.
        metadata: the client's fields, by name in lower case; a repeated one has its values joined by commas. Binary
            ones (`…-bin`) are left in base64.
        memo: whatever a service derives from the above.
    """

    __slots__ = ("encoding", "memo", "metadata", "path", "timeout_us")

    def __init__(
        self, path: str, timeout_us: int | None = None, encoding: bytes = b"", metadata: Mapping[str, str] | None = None
    ) -> None:
        self.path = path
        self.timeout_us = timeout_us
        self.encoding = encoding
        self.metadata = metadata or {}
        self.memo: Any = None


def http_status(head: RequestHead) -> int:
    """200 where the request is gRPC's, else what HTTP says to it."""
    if head.method != b"POST":
        return 405
    kind = dict(head.fields).get(b"content-type", b"").lower()
    is_grpc = kind == b"application/grpc" or kind.startswith((b"application/grpc+", b"application/grpc;"))
    return 200 if is_grpc else 415


def read_grpc_head(head: RequestHead) -> GrpcHead:
    """Read it.

    Raises:
        GrpcCallError: the timeout is none, or the encoding is one that is not spoken here.
    """
    metadata: dict[str, str] = {}
    for name, value in head.fields:
        key, text = name.decode("latin-1"), value.decode("latin-1")
        metadata[key] = f"{metadata[key]},{text}" if key in metadata else text
    encoding = metadata.get("grpc-encoding", "identity").encode("latin-1")
    if encoding not in ENCODINGS:
        raise GrpcCallError(
            f"grpc-encoding {encoding.decode('latin-1')!r} is not spoken here",
            advice="use gzip, deflate or identity",
            status=GrpcStatus.UNIMPLEMENTED,
            fields=(_ACCEPTED,),
        )
    timeout = metadata.get("grpc-timeout")
    return GrpcHead(
        head.path.decode("latin-1"),
        None if timeout is None else read_timeout_us(timeout.encode("latin-1")),
        encoding,
        metadata,
    )


def read_timeout_us(text: bytes) -> int:
    """A `grpc-timeout` in whole microseconds, rounded up; at least 1, so that no time is not taken for no limit.

    Raises:
        GrpcCallError: it is none.
    """
    match = _TIMEOUT.fullmatch(text)
    if match is None:
        raise GrpcCallError(f"grpc-timeout {text[:20]!r} is no time", advice="for example 250m for 250 milliseconds")
    return max(1, -(-int(match[1]) * _UNIT_NS[match[2]] // 1000))
