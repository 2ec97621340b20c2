from __future__ import annotations

import os
from contextlib import suppress

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npuops.errors import DeviceLostError, DeviceMemoryError
from npuops.vnpu import wire
from virtual_devices import X, Y, program

LOAD = wire.Load(id=3, program=program(), inputs=X, outputs=Y, slots=2, compiler="2.1.0", model="/m.onnx")
REQUESTS = [
    wire.Hello(id=1, version=wire.VERSION, priority="focus"),
    LOAD,
    wire.Submit(id=4, handle=1, slot=0, canary=True),
    wire.Inject(id=5, fault={"kind": "hang"}),
    wire.UpdateFirmware(id=6, image=b"\x00\xff"),
]


def cut(data: bytes, sizes: list[int]) -> list[bytes]:
    pieces, start = [], 0
    for size in sizes:
        pieces.append(data[start : start + size])
        start += size
    return [*pieces, data[start:]]


@given(sizes=st.lists(st.integers(1, 400), max_size=30))
def test_messages_arrive_whole_however_the_stream_is_cut(sizes: list[int]) -> None:
    reader = wire.requests()
    pieces = cut(b"".join(map(wire.frame, REQUESTS)), sizes)
    assert [message for piece in pieces for message in reader.feed(piece)] == REQUESTS


@settings(max_examples=300)
@given(garbage=st.binary(min_size=1, max_size=300))
def test_garbage_is_a_protocol_error_or_waits_for_more_and_nothing_else(garbage: bytes) -> None:
    for reader in (wire.requests(), wire.replies()):
        with suppress(wire.ProtocolError):
            assert all(isinstance(message, wire.Message) for message in reader.feed(garbage))


@settings(max_examples=300)
@given(at=st.integers(0, 10_000), byte=st.integers(0, 255))
def test_one_wrong_byte_in_a_message_never_escapes_as_another_error(at: int, byte: int) -> None:
    data = bytearray(wire.frame(LOAD))
    data[at % len(data)] = byte
    with suppress(wire.ProtocolError):
        assert all(isinstance(message, wire.Message) for message in wire.requests().feed(bytes(data)))


@pytest.mark.parametrize("length", [wire.FRAME_LIMIT_BYTES + 1, 0xFFFFFFFF])
def test_a_length_beyond_the_limit_is_refused_before_anything_is_kept(length: int) -> None:
    with pytest.raises(wire.ProtocolError, match=str(length)):
        wire.requests().feed(length.to_bytes(4, "little"))


@pytest.mark.parametrize(
    "message",
    [
        {"type": "Hallo", "id": 1},
        {"type": "Hello", "id": 1},
        {"type": "Hello", "id": -1, "version": 1},
        {"type": "Hello", "id": 1, "version": 1, "colour": "red"},
        {"type": "Welcome", "id": 1, "device": "d", "profile": "p", "pacing": "fast", "context": 1},
        {"type": "Load", "id": 1, "program": {"steps": []}, "inputs": [], "outputs": [], "slots": 1},
        [],
    ],
)
def test_what_no_client_of_ours_says_is_refused(message: object) -> None:
    body = msgspec.msgpack.encode(message)
    with pytest.raises(wire.ProtocolError, match="not a message"):
        wire.requests().feed(len(body).to_bytes(4, "little") + body)


def test_a_program_that_contradicts_itself_is_refused_by_the_wire() -> None:
    body = bytearray(wire.frame(LOAD)[4:])
    found = msgspec.msgpack.decode(bytes(body))
    found["program"]["steps"] = []
    body = bytearray(msgspec.msgpack.encode(found))
    with pytest.raises(wire.ProtocolError, match="at least one step"):
        wire.requests().feed(len(body).to_bytes(4, "little") + body)


def test_a_message_too_long_for_a_frame_is_not_sent() -> None:
    with pytest.raises(wire.ProtocolError, match="longer than"):
        wire.frame(wire.UpdateFirmware(id=1, image=os.urandom(wire.FRAME_LIMIT_BYTES)))


def test_a_number_beyond_64_bits_is_not_sent_and_is_no_crash() -> None:
    with pytest.raises(wire.ProtocolError, match="64 bits"):
        wire.frame(wire.Advance(id=1, us=1 << 70))


def test_an_error_crosses_the_wire_by_its_class_and_an_unknown_one_as_a_lost_device() -> None:
    assert type(wire.error_of("DeviceMemoryError", "m", "a")) is DeviceMemoryError
    for word in ("NoSuchError", "nearest", "annotations"):
        assert type(wire.error_of(word, "m", "a")) is DeviceLostError
