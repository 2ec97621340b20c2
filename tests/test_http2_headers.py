from __future__ import annotations

from contextlib import suppress

import hpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from http2_peer import REQUEST
from npuops.server.http2_frames import ErrorCode, Http2Error, StreamError
from npuops.server.http2_headers import HeaderBlock, HeaderReader, literal, request_head

NAMES = st.sampled_from([b"x-npuops-tenant", b"traceparent", b"grpc-timeout", b"user-agent", b"a" * 300])
VALUES = st.sampled_from([b"", b"a", b"camera", b"b" * 200, b"c" * 2000])
FIELD = st.tuples(NAMES, VALUES, st.booleans())


@pytest.mark.slow
@given(st.lists(st.lists(FIELD, max_size=6), min_size=1, max_size=20), st.lists(st.integers(0, 4096), max_size=3))
@settings(max_examples=200, deadline=None)
def test_a_block_means_what_it_means_without_the_cache(
    requests: list[list[tuple[bytes, bytes, bool]]], sizes: list[int]
) -> None:
    encoder, plain, reader = hpack.Encoder(), hpack.Decoder(), HeaderReader(1 << 16)
    for turn, fields in enumerate([*requests, *requests]):
        if turn < len(sizes):
            encoder.header_table_size = sizes[turn]
        block = encoder.encode([*REQUEST, *fields])
        wanted = tuple(tuple(field) for field in plain.decode(block, raw=True))
        head = reader.request(block, 1)
        assert (head.method, head.path, head.fields) == (b"POST", b"/t.Service/Method", wanted[4:])


def test_a_client_that_asks_again_costs_a_look_up() -> None:
    encoder, reader = hpack.Encoder(), HeaderReader(1 << 14)
    reader.request(encoder.encode(REQUEST), 1)
    again = encoder.encode(REQUEST)
    head = reader.request(again, 3)
    assert reader.request(again, 5) is head


def test_fields_that_are_never_indexed_do_not_spoil_the_cache() -> None:
    encoder, reader = hpack.Encoder(), HeaderReader(1 << 14)
    secret = [*REQUEST, (b"authorization", b"Bearer k", True)]
    reader.request(encoder.encode(secret), 1)
    again = encoder.encode(secret)
    head = reader.request(again, 3)
    assert reader.request(again, 5) is head
    assert head.fields[-1] == (b"authorization", b"Bearer k")


def test_the_cache_is_bounded() -> None:
    reader = HeaderReader(1 << 14)
    base = hpack.Encoder().encode(REQUEST[:1]) + b"\x86" + b"\x84"
    for number in range(2000):
        reader.request(base + literal(b"x", str(number).encode()), 1)
    assert len(reader._heads) <= 256


MALFORMED = {
    "no method": REQUEST[1:],
    "no scheme": (REQUEST[0], *REQUEST[2:]),
    "no path": (*REQUEST[:2], *REQUEST[3:]),
    "an empty path": (*REQUEST[:2], (b":path", b""), *REQUEST[3:]),
    "a doubled method": (REQUEST[0], *REQUEST),
    "a response's pseudo field": ((b":status", b"200"), *REQUEST),
    "an unknown pseudo field": ((b":protocol", b"websocket"), *REQUEST),
    "a pseudo field after others": (*REQUEST[:2], (b"a", b"b"), *REQUEST[2:]),
    "an upper-case name": (*REQUEST, (b"Content-Type", b"x")),
    "an empty name": (*REQUEST, (b"", b"x")),
    "a name with a space": (*REQUEST, (b"a b", b"x")),
    "a line break in a value": (*REQUEST, (b"a", b"b\r\nc: d")),
    "a zero in a value": (*REQUEST, (b"a", b"b\0")),
    "a zero in the path": (*REQUEST[:2], (b":path", b"/a\0"), *REQUEST[3:]),
    "a value that ends in a space": (*REQUEST, (b"a", b"b ")),
    "a field of HTTP/1": (*REQUEST, (b"connection", b"close")),
    "chunks": (*REQUEST, (b"transfer-encoding", b"chunked")),
    "te that is not trailers": (*REQUEST, (b"te", b"gzip")),
    "a length that is no number": (*REQUEST, (b"content-length", b"-1")),
    "two lengths": (*REQUEST, (b"content-length", b"1"), (b"content-length", b"2")),
    "CONNECT with a path": ((b":method", b"CONNECT"), *REQUEST[1:]),
}


@pytest.mark.parametrize("why", MALFORMED)
def test_a_malformed_request_is_refused(why: str) -> None:
    with pytest.raises(StreamError) as error:
        request_head(MALFORMED[why], 7)
    assert (error.value.stream_id, error.value.code) == (7, ErrorCode.PROTOCOL_ERROR)


def test_what_a_request_says_is_found() -> None:
    head = request_head((*REQUEST, (b"content-length", b"12")))
    assert (head.scheme, head.authority, head.content_length) == (b"http", b"localhost", 12)
    assert request_head(((b":method", b"CONNECT"), (b":authority", b"x:1"))).path == b""


def test_a_list_that_is_too_large_is_refused_however_small_its_block_is() -> None:
    encoder, reader = hpack.Encoder(), HeaderReader(8192)
    reader.request(encoder.encode([*REQUEST, (b"x", b"y" * 3000)]), 1)
    bomb = encoder.encode([*REQUEST, *[(b"x", b"y" * 3000)] * 100])
    assert len(bomb) < 200
    with pytest.raises(Http2Error) as error:
        reader.request(bomb, 3)
    assert error.value.code == ErrorCode.ENHANCE_YOUR_CALM


@given(st.binary(max_size=60))
@settings(max_examples=300, deadline=None)
def test_no_block_raises_anything_else(block: bytes) -> None:
    reader = HeaderReader(8192)
    for read in (reader.request, reader.trailers):
        with suppress(Http2Error):
            read(block, 1)


@pytest.mark.parametrize("size", [0, 1, 126, 127, 128, 254, 255, 300, 20_000])
def test_a_literal_is_read_by_others(size: int) -> None:
    decoder = hpack.Decoder(max_header_list_size=1 << 20)
    block = literal(b"grpc-message", b"x" * size)
    assert decoder.decode(block, raw=True) == [(b"grpc-message", b"x" * size)]


def test_a_block_in_pieces_is_bounded() -> None:
    block = HeaderBlock(continuations=3, most_bytes=10)
    block.begin(1, 0, b"123456789")
    block.add(b"0")
    with pytest.raises(Http2Error, match="does not end"):
        block.add(b"1")


@pytest.mark.parametrize(
    ("block", "code"),
    [
        (b"\x20" * 9 + b"\x83", ErrorCode.COMPRESSION_ERROR),
        (b"\x3f\xe1\x1f" * 9 + b"\x83", ErrorCode.COMPRESSION_ERROR),
        (b"\x3f" + b"\x80" * 300 + b"\x83", ErrorCode.COMPRESSION_ERROR),
        (b"\x20" * 100_000, ErrorCode.ENHANCE_YOUR_CALM),
        (b"\x00\x01a\xff" + b"\0" * 100_000, ErrorCode.ENHANCE_YOUR_CALM),
    ],
)
def test_a_block_that_is_all_work_and_no_fields_is_refused_before_it_is_unpacked(block: bytes, code: ErrorCode) -> None:
    with pytest.raises(Http2Error) as error:
        HeaderReader(1 << 14).request(block, 1)
    assert error.value.code == code


def test_a_table_may_be_emptied_and_opened_again_at_the_start_of_a_block() -> None:
    block = b"\x20\x3f\xe1\x1f" + hpack.Encoder().encode(REQUEST)
    assert HeaderReader(1 << 14).request(block, 1).path == b"/t.Service/Method"


def test_fields_that_differ_each_time_do_not_keep_out_what_repeats() -> None:
    encoder, reader = hpack.Encoder(), HeaderReader(1 << 14)
    reader.request(encoder.encode(REQUEST), 1)
    for number in range(500):
        reader.request(encoder.encode([*REQUEST, (b"traceparent", b"%060d" % number, True)]), 1)
    again = encoder.encode(REQUEST)
    head = reader.request(again, 3)
    assert reader.request(again, 5) is head


def test_what_a_connection_has_cached_is_bounded_by_its_size() -> None:
    """One field of 4 KB in the table, named four times by a byte each, is 16 KB of fields: it must count as that."""
    encoder, reader = hpack.Encoder(), HeaderReader(1 << 15)
    for number in range(2000):
        fields = [*REQUEST, (b"x", b"y" * 3500), *[(b"x", b"y" * 3500)] * 3, (b"n", b"%d" % number, True)]
        reader.request(encoder.encode(fields), 1)
    kept = sum(len(name) + len(value) for head in reader._heads.values() for name, value in head.fields)
    assert kept <= 1 << 16
