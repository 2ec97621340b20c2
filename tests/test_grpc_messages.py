from __future__ import annotations

import gzip
import zlib
from struct import pack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.server.grpc_messages import MessageAssembly, Room
from npuops.server.grpc_status import GrpcCallError
from npuops.server.status import GrpcStatus


def framed(message: bytes, flag: int = 0) -> bytes:
    return pack(">BI", flag, len(message)) + message


@given(st.lists(st.binary(max_size=40), max_size=8), st.data())
def test_messages_come_out_as_they_went_in_however_they_are_cut(messages: list[bytes], data: st.DataObject) -> None:
    wire = b"".join(map(framed, messages))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=12)))
    room = Room(1 << 20)
    assembly = MessageAssembly(b"identity", 100, room)
    found = [
        message
        for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True)
        for message in assembly.add(wire[start:end])
    ]
    assert found == messages
    assert (assembly.size, room.used) == (0, 0)


@pytest.mark.parametrize(("encoding", "pack_it"), [(b"gzip", gzip.compress), (b"deflate", zlib.compress)])
def test_a_compressed_message_is_opened_up_to_a_limit(encoding: bytes, pack_it: object) -> None:
    assert callable(pack_it)
    assembly = MessageAssembly(encoding, 1000, Room(1 << 20))
    assert assembly.add(framed(pack_it(b"a" * 1000), 1) + framed(b"plain")) == [b"a" * 1000, b"plain"]
    with pytest.raises(GrpcCallError) as error:
        assembly.add(framed(pack_it(b"a" * 1001), 1))
    assert error.value.status == GrpcStatus.RESOURCE_EXHAUSTED


@given(st.binary(max_size=60))
def test_no_compressed_bytes_raise_anything_but_our_error(junk: bytes) -> None:
    for encoding in (b"gzip", b"deflate", b"identity"):
        assembly = MessageAssembly(encoding, 1000, Room(1 << 20))
        with pytest.raises(GrpcCallError):
            assembly.add(framed(junk, 1))


def test_a_room_that_is_full_refuses_and_is_given_back() -> None:
    room = Room(100)
    first, second = (MessageAssembly(b"", 1000, room) for _ in range(2))
    first.add(framed(b"x" * 90)[:80])
    with pytest.raises(GrpcCallError, match="no room"):
        second.add(framed(b"x" * 90)[:80])
    second.drop()
    first.keep(b"y" * 10)
    assert room.used == 90
    first.drop()
    first.drop()
    assert room.used == 0
