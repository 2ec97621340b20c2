from __future__ import annotations

import gzip
import zlib
from struct import pack
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.server.grpc_messages import MessageAssembly, Room
from npuops.server.grpc_status import GrpcCallError
from npuops.server.status import GrpcStatus


def framed(message: bytes, flag: int = 0) -> bytes:
    return pack(">BI", flag, len(message)) + message


def taken(assembly: MessageAssembly) -> list[bytes]:
    """All that is whole."""
    return [assembly.opened(*message) for message in iter(assembly.take, None)]


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(map(framed, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    room = Room(1 << 20)
    assembly = MessageAssembly(b"identity", 100, room)
    found = []
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        assembly.add(wire[start:end])
        if data.draw(st.booleans()):
            found += taken(assembly)
    assert found + taken(assembly) == messages
    assert (assembly.size, room.used) == (0, 0)


@pytest.mark.parametrize(("encoding", "pack_it"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_a_compressed_message_is_opened_up_to_a_limit(encoding: bytes, pack_it: Any) -> None:
    assembly = MessageAssembly(encoding, 1000, Room(1 << 20))
    assembly.add(framed(pack_it(b"a" * 1000), 1) + framed(b"plain"))
    assert taken(assembly) == [b"a" * 1000, b"plain"]
    assembly.add(framed(pack_it(b"a" * 1001), 1))
    with pytest.raises(GrpcCallError) as error:
        taken(assembly)
    assert error.value.status == GrpcStatus.RESOURCE_EXHAUSTED


@pytest.mark.parametrize(("encoding", "pack_it"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_bytes_behind_the_end_of_the_compression_are_not_dropped_silently(encoding: bytes, pack_it: Any) -> None:
    assembly = MessageAssembly(encoding, 1000, Room(1 << 20))
    assembly.add(framed(pack_it(b"one") + pack_it(b"two"), 1))
    with pytest.raises(GrpcCallError, match="goes on after the end"):
        taken(assembly)


def test_messages_before_a_bad_one_come_out_before_its_error() -> None:
    assembly = MessageAssembly(b"identity", 10, Room(1 << 20))
    assembly.add(framed(b"good") + framed(b"x" * 11))
    assert assembly.take() == (0, b"good")
    with pytest.raises(GrpcCallError, match="of at most 10"):
        assembly.take()


def test_many_small_messages_in_one_piece_are_not_moved_about_for_each() -> None:
    assembly = MessageAssembly(b"identity", 10, Room(1 << 30))
    assembly.add(framed(b"") * 1_000_000)
    assert sum(1 for _ in iter(assembly.take, None)) == 1_000_000  # quadratic copying would take an hour


@given(st.binary(max_size=60))
def test_no_compressed_bytes_raise_anything_but_our_error(junk: bytes) -> None:
    for encoding in (b"gzip", b"deflate", b"identity"):
        assembly = MessageAssembly(encoding, 1000, Room(1 << 20))
        assembly.add(framed(junk, 1))
        with pytest.raises(GrpcCallError):
            taken(assembly)


def test_a_room_that_is_full_refuses_and_is_given_back() -> None:
    room = Room(100)
    first, second = (MessageAssembly(b"", 1000, room) for _ in range(2))
    first.add(framed(b"x" * 90)[:80])
    with pytest.raises(GrpcCallError, match="no room"):
        second.add(framed(b"x" * 90)[:80])
    second.drop()
    first.keep(b"y" * 10)
    assert room.used == 90
    first.lend(5)
    assert room.used == 95
    with pytest.raises(GrpcCallError):
        first.lend(50)
    first.drop()
    first.drop()
    assert room.used == 0
