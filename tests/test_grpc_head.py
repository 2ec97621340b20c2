from __future__ import annotations

import pytest

from http2_peer import REQUEST
from npuops.server.grpc_head import http_status, read_grpc_head, read_timeout_us
from npuops.server.grpc_status import GrpcCallError
from npuops.server.http2_headers import request_head
from npuops.server.status import GrpcStatus


@pytest.mark.parametrize(
    ("text", "microseconds"),
    [
        (b"1H", 3_600_000_000),
        (b"2M", 120_000_000),
        (b"3S", 3_000_000),
        (b"250m", 250_000),
        (b"99999999u", 99_999_999),
        (b"1n", 1),
        (b"1001n", 2),
        (b"0n", 1),
    ],
)
def test_a_timeout_is_whole_microseconds_and_never_shorter(text: bytes, microseconds: int) -> None:
    assert read_timeout_us(text) == microseconds


@pytest.mark.parametrize("text", [b"", b"1", b"S", b"-1S", b"1.5S", b"123456789S", b"1s", b"1S ", b"\xb2S"])
def test_a_timeout_that_is_none_is_refused(text: bytes) -> None:
    with pytest.raises(GrpcCallError):
        read_timeout_us(text)


@pytest.mark.parametrize(
    ("kind", "status"),
    [
        (b"application/grpc", 200),
        (b"application/grpc+proto", 200),
        (b"application/grpc;charset=utf-8", 200),
        (b"Application/gRPC", 200),
        (b"application/grpc-web", 415),
        (b"text/html", 415),
        (b"", 415),
    ],
)
def test_the_content_type_decides_whether_it_is_grpc(kind: bytes, status: int) -> None:
    assert http_status(request_head((*REQUEST[:4], (b"content-type", kind)))) == status


def test_what_a_call_says_is_found() -> None:
    more = ((b"grpc-timeout", b"1S"), (b"grpc-encoding", b"gzip"), (b"a", b"1"), (b"a", b"2"), (b"b-bin", b"\xff"))
    head = read_grpc_head(request_head((*REQUEST, *more)))
    assert (head.path, head.timeout_us, head.encoding) == ("/t.Service/Method", 1_000_000, b"gzip")
    assert (head.metadata["a"], head.metadata["b-bin"], head.metadata["te"]) == ("1,2", "\xff", "trailers")
    assert read_grpc_head(request_head(REQUEST)).timeout_us is None


def test_an_encoding_that_is_not_spoken_is_unimplemented() -> None:
    with pytest.raises(GrpcCallError, match="snappy") as error:
        read_grpc_head(request_head((*REQUEST, (b"grpc-encoding", b"snappy"))))
    assert error.value.status == GrpcStatus.UNIMPLEMENTED
