from __future__ import annotations

import gzip
import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import DataError, TooLargeError
from npuops.server.http_body import Chunks, Pieces, unpacked


def chunked(pieces: list[bytes]) -> bytes:
    return b"".join(b"%X\r\n%s\r\n" % (len(piece), piece) for piece in pieces if piece) + b"0\r\n\r\n"


@given(pieces=st.lists(st.binary(max_size=50), max_size=8), cuts=st.lists(st.integers(0, 600), max_size=8))
def test_chunks_cut_anywhere_are_the_body(pieces: list[bytes], cuts: list[int]) -> None:
    data, chunks = chunked(pieces), Chunks(1000)
    edges = sorted({0, len(data), *(cut for cut in cuts if cut < len(data))})
    got = [chunks.feed(data[start:stop]) for start, stop in pairwise(edges)]
    assert got[:-1] == [None] * (len(got) - 1)
    assert got[-1] == b"".join(pieces)
    assert not chunks.overran


@pytest.mark.parametrize("tail", [b"GET / HTTP/1.1\r\n\r\n", b"garbage", b"\r\n\0", b"POST /"])
def test_bytes_behind_the_end_are_told(tail: bytes) -> None:
    chunks = Chunks(1000)
    assert chunks.feed(chunked([b"a"]) + tail) == b"a"
    assert chunks.overran


@given(st.binary(max_size=200))
def test_no_bytes_do_more_than_give_an_error(data: bytes) -> None:
    try:
        found = Chunks(1000).feed(data)
    except DataError:
        return
    assert found is None or len(found) <= len(data)


def test_too_many_bytes_are_refused_in_the_body_and_around_it() -> None:
    with pytest.raises(TooLargeError, match="1000"):
        Chunks(1000).feed(chunked([b"x" * 1001]))
    chunks = Chunks(1 << 20)
    chunks.feed(b"0\r\n" + b"A: b\r\n" * 10_000)
    with pytest.raises(TooLargeError, match="trailer"):
        chunks.feed(b"A: b\r\n" * 1000)


@pytest.mark.parametrize(
    ("name", "pack"), [("gzip", gzip.compress), ("x-gzip", gzip.compress), ("deflate", zlib.compress)]
)
def test_what_was_compressed_comes_out(name: str, pack: object) -> None:
    assert unpacked(pack(b"body" * 99), name, 1000) == b"body" * 99  # type: ignore[operator]
    assert unpacked(b"body", "", 1) == b"body"


def test_a_bomb_costs_no_more_than_the_limit() -> None:
    bomb = gzip.compress(bytes(100 << 20))
    with pytest.raises(TooLargeError, match="1048576"):
        unpacked(bomb, "gzip", 1 << 20)


def test_just_the_limit_passes_and_one_byte_more_does_not() -> None:
    assert len(unpacked(gzip.compress(bytes(1000)), "gzip", 1000)) == 1000
    with pytest.raises(TooLargeError):
        unpacked(gzip.compress(bytes(1001)), "gzip", 1000)


@given(st.binary(max_size=100), st.sampled_from(["gzip", "deflate", "br", "gzip, gzip"]))
def test_damaged_or_unknown_is_an_error_of_the_client(data: bytes, encoding: str) -> None:
    with pytest.raises(DataError):
        unpacked(data, encoding, 1000)
    with pytest.raises(DataError):
        unpacked(gzip.compress(b"x" * 50)[: len(data) % 20], "gzip", 1000)
    with pytest.raises(DataError, match="follow"):
        unpacked(gzip.compress(b"x") + (data or b"."), "gzip", 1000)


@given(st.lists(st.binary(max_size=9000), min_size=1, max_size=20))
def test_a_body_is_the_same_whatever_pieces_it_comes_in(parts: list[bytes]) -> None:
    whole = b"".join(parts)
    pieces = Pieces(len(whole))
    for part in parts:
        pieces.add(memoryview(part))
    assert pieces.missing == 0
    assert bytes(pieces.whole()) == whole


def test_a_body_that_trickles_takes_no_object_for_each_byte() -> None:
    tracemalloc.start()
    try:
        pieces = Pieces(200_000)
        for _ in range(200_000):
            pieces.add(b"x")
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert pieces.whole() == b"x" * 200_000
    assert peak < 1_000_000
