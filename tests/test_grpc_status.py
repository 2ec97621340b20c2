from __future__ import annotations

from urllib.parse import unquote

import hpack
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import DataError, OverloadedError
from npuops.server.grpc_status import (
    OK_BLOCK,
    RESPONSE_BLOCK,
    GrpcCallError,
    fields_of,
    http_block,
    percent_encoded,
    status_of,
    trailers_only_block,
)
from npuops.server.status import GrpcStatus


@given(st.text(max_size=600))
def test_a_message_is_printable_short_and_comes_back(message: str) -> None:
    encoded = percent_encoded(message)
    assert all(0x20 <= byte <= 0x7E for byte in encoded)
    assert len(encoded) <= 2048
    assert message.encode("utf-8", "replace").decode().startswith(unquote(encoded.decode()))
    if len(message) < 150:
        assert unquote(encoded.decode()) == message.encode("utf-8", "replace").decode()


def test_blocks_are_read_by_another_library() -> None:
    decoder = hpack.Decoder()
    assert decoder.decode(RESPONSE_BLOCK) == [(":status", "200"), ("content-type", "application/grpc")]
    assert decoder.decode(OK_BLOCK) == [("grpc-status", "0")]
    assert decoder.decode(http_block(415)) == [(":status", "415")]
    block = trailers_only_block(GrpcStatus.UNAVAILABLE, "100 %", ((b"grpc-retry-pushback-ms", b"5"),))
    assert dict(decoder.decode(block)) == {
        ":status": "200",
        "content-type": "application/grpc",
        "grpc-status": "14",
        "grpc-message": "100 %25",
        "grpc-retry-pushback-ms": "5",
    }


def test_an_error_has_its_code_and_says_when_to_ask_again() -> None:
    assert status_of(DataError("no")) == GrpcStatus.INVALID_ARGUMENT
    assert status_of(GrpcCallError("no", status=GrpcStatus.ABORTED)) == GrpcStatus.ABORTED
    assert fields_of(OverloadedError("no", retry_after_s=0.5)) == ((b"grpc-retry-pushback-ms", b"500"),)
    assert fields_of(DataError("no")) == ()
