from __future__ import annotations

import hpack
from hypothesis import given, settings
from hypothesis import strategies as st

from http2_peer import Peer
from npuops.server.http2_frames import DATA, END_STREAM, HEADERS, WINDOW_UPDATE, ErrorCode, Setting
from npuops.server.http2_headers import literal

RESPONSE = b"\x88"
END = literal(b"grpc-status", b"0")


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


def body(peer: Peer, number: int) -> bytes:
    return b"".join(data for kind, _, stream, data in peer.taken() if kind == DATA and stream == number)


def asked(window: int, *numbers: int) -> Peer:
    """A peer with so small a window that has asked on these streams."""
    peer = Peer()
    peer.settings({Setting.INITIAL_WINDOW_SIZE: window})
    for number in numbers:
        peer.request(number, b"x")
    peer.taken()
    return peer


def test_a_response_waits_for_its_streams_window_and_goes_on_when_it_opens() -> None:
    peer = asked(10, 1)
    message = bytes(range(40))
    peer.connection.sender.respond(peer.streams[1], RESPONSE, (message[:7], message[7:]), 40, END)
    assert body(peer, 1) == message[:10]
    peer.send(WINDOW_UPDATE, 0, 1, u32(29))
    assert body(peer, 1) == message[10:39]
    peer.send(WINDOW_UPDATE, 0, 1, u32(5))
    assert [(kind, flags & END_STREAM, data) for kind, flags, _, data in peer.taken()] == [
        (DATA, 0, message[39:]),
        (HEADERS, END_STREAM, END),
    ]


def test_what_has_to_wait_is_copied() -> None:
    peer = asked(10, 1)
    memory = bytearray(b"a" * 30)
    peer.connection.sender.respond(peer.streams[1], RESPONSE, (memoryview(memory),), 30, END)
    memory[:] = b"b" * 30
    peer.send(WINDOW_UPDATE, 0, 1, u32(100))
    assert body(peer, 1) == b"a" * 30


def test_a_response_is_cut_into_frames_that_the_peer_takes() -> None:
    peer = Peer()
    peer.request(1, b"x")
    peer.connection.sender.respond(peer.streams[1], RESPONSE, (b"y" * 40_000,), 40_000, END)
    assert [len(data) for kind, _, _, data in peer.taken() if kind == DATA] == [16384, 16384, 7232]
    peer.settings({Setting.MAX_FRAME_SIZE: 65_536, Setting.INITIAL_WINDOW_SIZE: 1 << 20})
    peer.send(WINDOW_UPDATE, 0, 0, u32(1 << 20))
    peer.request(3, b"x")
    peer.connection.sender.respond(peer.streams[3], RESPONSE, (b"y" * 40_000,), 40_000, END)
    assert [len(data) for kind, _, _, data in peer.taken() if kind == DATA] == [40_000]


def test_the_connections_window_is_shared_in_turns() -> None:
    peer = asked(1 << 20, 1, 3)
    for number in (1, 3):
        peer.connection.sender.respond(peer.streams[number], RESPONSE, (b"y" * 65_535,), 65_535, END)
    peer.taken()
    peer.send(WINDOW_UPDATE, 0, 0, u32(40_000))
    peer.request(5, b"x")
    peer.connection.sender.respond(peer.streams[5], RESPONSE, (b"z" * 65_535,), 65_535, END)
    peer.taken()
    peer.send(WINDOW_UPDATE, 0, 0, u32(32_768))
    sent = [(number, len(data)) for kind, _, number, data in peer.taken() if kind == DATA]
    assert sent == [(3, 16384), (5, 16384)]


def test_a_lowered_initial_window_makes_a_streams_window_negative_and_all_arrives_in_the_end() -> None:
    peer = asked(100, 1)
    peer.connection.sender.respond(peer.streams[1], RESPONSE, (b"y" * 150,), 150, END)
    assert len(body(peer, 1)) == 100
    peer.settings({Setting.INITIAL_WINDOW_SIZE: 10})
    assert peer.streams[1].send_window == -90
    peer.send(WINDOW_UPDATE, 0, 1, u32(100))
    assert len(body(peer, 1)) == 10
    peer.settings({Setting.INITIAL_WINDOW_SIZE: 100})
    assert len(body(peer, 1)) == 40


def test_an_initial_window_that_lifts_a_stream_above_2_31_ends_the_connection() -> None:
    peer = asked(100, 1)
    peer.send(WINDOW_UPDATE, 0, 1, u32((1 << 31) - 1 - 100))
    peer.settings({Setting.INITIAL_WINDOW_SIZE: 101})
    assert peer.goaway() == ErrorCode.FLOW_CONTROL_ERROR


def test_a_full_socket_stops_data_until_it_takes_more() -> None:
    peer = Peer()
    peer.request(1, b"x")
    peer.connection.sender.is_paused = True
    peer.connection.sender.respond(peer.streams[1], RESPONSE, (b"y" * 50,), 50, END)
    assert [kind for kind, *_ in peer.taken()] == [HEADERS]
    peer.connection.sender.is_paused = False
    peer.connection.sender.pump()
    assert [kind for kind, *_ in peer.taken()] == [DATA, HEADERS]


def test_a_stream_that_is_over_leaves_nothing_behind() -> None:
    peer = asked(10, 1)
    peer.connection.sender.respond(peer.streams[1], RESPONSE, (b"y" * 50,), 50, END)
    peer.connection.reset(peer.streams[1], ErrorCode.CANCEL)
    peer.taken()
    peer.send(WINDOW_UPDATE, 0, 0, u32(1000))
    peer.send(WINDOW_UPDATE, 0, 1, u32(1000))
    assert peer.taken() == []
    assert peer.connection.sender.stalled(0) == []


def test_an_empty_queue_is_told() -> None:
    peer = asked(10, 1)
    peer.connection.sender.headers(peer.streams[1], RESPONSE)
    peer.connection.sender.data(peer.streams[1], b"y" * 50)
    peer.connection.sender.data(peer.streams[1], b"")
    peer.send(WINDOW_UPDATE, 0, 1, u32(40))
    assert peer.happened[-1] == ("drained", 1)
    peer.connection.sender.finish(peer.streams[1], END)
    assert peer.taken()[-1][3] == END


@given(
    bodies=st.lists(st.binary(max_size=3000), min_size=1, max_size=5),
    window=st.integers(0, 500),
    steps=st.lists(st.tuples(st.integers(0, 5), st.integers(1, 400)), max_size=30),
)
@settings(max_examples=100, deadline=None)
def test_whatever_the_windows_do_every_byte_arrives_in_order_and_none_too_early(
    bodies: list[bytes], window: int, steps: list[tuple[int, int]]
) -> None:
    numbers = [2 * index + 1 for index in range(len(bodies))]
    peer = asked(window, *numbers)
    room = dict.fromkeys(numbers, window)
    got = dict.fromkeys(numbers, b"")
    ended: set[int] = set()

    def look() -> None:
        for kind, flags, number, data in peer.taken():
            if kind == DATA:
                got[number] += data
                room[number] -= len(data)
                assert room[number] >= 0
            if kind == HEADERS and flags & END_STREAM:
                ended.add(number)

    for number, message in zip(numbers, bodies, strict=True):
        peer.connection.sender.respond(peer.streams[number], RESPONSE, (message,), len(message), END)
    look()
    for index, size in steps:
        if index < len(numbers):
            room[numbers[index]] += size
            peer.send(WINDOW_UPDATE, 0, numbers[index], u32(size))
            look()
    for number in numbers:
        room[number] += 5000
        peer.send(WINDOW_UPDATE, 0, number, u32(5000))
        look()
    assert [got[number] for number in numbers] == bodies
    assert ended == set(numbers)


def test_a_decoder_whose_table_shrinks_is_told_that_this_is_known() -> None:
    for size in (0, 100, 4095):
        peer, decoder = Peer(), hpack.Decoder()
        decoder.max_allowed_table_size = size
        decoder.header_table_size = 4096
        peer.settings({Setting.HEADER_TABLE_SIZE: size})
        for number in (1, 3):
            peer.request(number, b"x")
            peer.connection.sender.respond(peer.streams[number], RESPONSE, (b"y",), 1, END)
        blocks = [data for kind, _, _, data in peer.taken() if kind == HEADERS]
        assert [tuple(decoder.decode(block)) for block in blocks] == [
            ((":status", "200"),),
            (("grpc-status", "0"),),
        ] * 2
        peer.settings({Setting.HEADER_TABLE_SIZE: 0})
        peer.request(5, b"x")
        peer.connection.sender.headers(peer.streams[5], RESPONSE, end=True)
        assert [data for kind, _, _, data in peer.taken() if kind == HEADERS] == [RESPONSE]


def test_a_stream_without_a_window_costs_the_others_nothing_and_has_its_turn_when_it_gets_one() -> None:
    peer = asked(0, *range(1, 401, 2))
    for stream in peer.streams.values():
        peer.connection.sender.respond(stream, RESPONSE, (b"y" * 30,), 30, END)
    peer.send(WINDOW_UPDATE, 0, 7, u32(10))
    peer.send(WINDOW_UPDATE, 0, 5, u32(30))
    sent = [(number, data) for kind, _, number, data in peer.taken() if kind == DATA]
    assert sent == [(7, b"y" * 10), (5, b"y" * 30)]
    assert not peer.connection.sender._ready
    peer.settings({Setting.INITIAL_WINDOW_SIZE: 20})
    sent = [number for kind, _, number, data in peer.taken() if kind == DATA]
    assert sorted(sent) == [number for number in range(1, 401, 2) if number != 5]


def test_the_backlog_is_what_waits_and_nothing_else() -> None:
    peer = asked(10, 1, 3, 5)
    for stream in peer.streams.values():
        peer.connection.sender.respond(stream, RESPONSE, (b"y" * 30,), 30, END)
    assert peer.backlog.size == peer.connection.sender.queued_bytes == 60
    peer.send(WINDOW_UPDATE, 0, 1, u32(15))
    assert peer.backlog.size == 45
    peer.connection.reset(peer.streams[3], ErrorCode.CANCEL)
    assert peer.backlog.size == peer.connection.sender.queued_bytes == 25
    peer.connection.lost()
    assert peer.backlog.size == peer.connection.sender.queued_bytes == 0
    assert not peer.connection.sender._ready
