from __future__ import annotations

from collections.abc import Callable

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import DataReceived, ResponseReceived, StreamEnded, TrailersReceived
from hypothesis import given, settings
from hypothesis import strategies as st

from http2_peer import REQUEST, Peer
from npuops.server.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    ID_MASK,
    PADDED,
    PING,
    PREFACE,
    PRIORITIZED,
    PRIORITY,
    PUSH_PROMISE,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    ErrorCode,
    Setting,
    frame,
    frame_header,
    settings_frame,
)
from npuops.server.http2_headers import literal
from npuops.server.http2_streams import Http2Limits

RESPONSE = b"\x88" + literal(b"content-type", b"application/grpc")
END = literal(b"grpc-status", b"0")


def u32(number: int) -> bytes:
    return number.to_bytes(4, "big")


# -- requests and responses --------------------------------------------------------------------------------------------


def test_another_librarys_client_is_answered() -> None:
    peer, client = Peer(greets=False), H2Connection(H2Configuration(client_side=True))
    client.initiate_connection()
    client.send_headers(1, REQUEST)
    client.send_data(1, b"hello", end_stream=True)
    peer.connection.receive(client.data_to_send())
    assert peer.happened == [("opened", 1, b"/t.Service/Method"), ("received", 1, b"hello", True)]
    peer.connection.sender.respond(peer.streams[1], RESPONSE, (b"wor", memoryview(b"ld")), 5, END)
    events = client.receive_data(peer.sent)
    kinds = [event for event in events if isinstance(event, ResponseReceived | DataReceived | TrailersReceived)]
    assert kinds[0].headers == [(b":status", b"200"), (b"content-type", b"application/grpc")]
    assert kinds[1].data == b"world"
    assert kinds[2].headers == [(b"grpc-status", b"0")]
    assert any(isinstance(event, StreamEnded) for event in events)


def test_a_response_is_one_write_where_the_windows_allow() -> None:
    peer = Peer()
    peer.request(1, b"x")
    writes: list[bytes] = []
    peer.connection.sender._write = writes.append
    peer.connection.sender.respond(peer.streams[1], RESPONSE, (b"y" * 1000,), 1000, END)
    assert len(writes) == 1
    assert peer.connection.streams == {}


def test_padding_and_priority_are_taken_off() -> None:
    peer = Peer()
    block = peer.block()
    peer.send(HEADERS, END_HEADERS | PADDED | PRIORITIZED, 1, b"\x03" + u32(0) + b"\x10" + block + b"\0\0\0")
    peer.send(DATA, END_STREAM | PADDED, 1, b"\x02data\0\0")
    assert peer.happened[1] == ("received", 1, b"data", True)


def test_a_header_block_may_come_in_pieces() -> None:
    peer = Peer()
    block = peer.block()
    peer.send(HEADERS, END_STREAM, 1, block[:3])
    peer.send(CONTINUATION, 0, 1, block[3:5])
    peer.send(CONTINUATION, END_HEADERS, 1, block[5:])
    assert peer.happened == [("opened", 1, b"/t.Service/Method"), ("received", 1, b"", True)]


def test_trailers_end_a_request() -> None:
    peer = Peer()
    peer.request(1)
    peer.send(HEADERS, END_HEADERS | END_STREAM, 1, literal(b"checksum", b"1"))
    assert peer.happened[-1] == ("received", 1, b"", True)


def test_an_answer_before_the_requests_end_asks_for_no_more_of_it() -> None:
    peer = Peer()
    peer.request(1)
    peer.connection.sender.headers(peer.streams[1], RESPONSE + END, end=True)
    assert peer.resets() == {1: ErrorCode.NO_ERROR}
    peer.sent = b""
    peer.send(DATA, END_STREAM, 1, b"was on its way")
    assert peer.taken() == []


@given(st.data())
@settings(max_examples=60, deadline=None)
def test_how_the_bytes_are_split_makes_no_difference(data: st.DataObject) -> None:
    whole = Peer(greets=False)
    block = whole.block()
    wire = (
        PREFACE
        + settings_frame({Setting.INITIAL_WINDOW_SIZE: 100})
        + frame(HEADERS, 0, 1, block[:4])
        + frame(CONTINUATION, END_HEADERS, 1, block[4:])
        + frame(DATA, PADDED, 1, b"\x01abc\0")
        + frame(PING, 0, 0, b"12345678")
        + frame(DATA, END_STREAM, 1, b"d" * 300)
        + frame(RST_STREAM, 0, 1, u32(8))
    )
    whole.connection.receive(wire)
    parts = Peer(greets=False)
    cuts = sorted(data.draw(st.lists(st.integers(0, len(wire)), max_size=20)))
    for start, end in zip([0, *cuts], [*cuts, len(wire)], strict=True):
        if start < end:
            parts.connection.receive(wire[start:end])
    assert parts.happened == whole.happened
    assert parts.sent == whole.sent


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 255), st.integers(0, 9), st.binary(max_size=40))))
@settings(max_examples=300, deadline=None)
def test_no_frames_make_it_raise(frames: list[tuple[int, int, int, bytes]]) -> None:
    peer = Peer(limits=Http2Limits(burst=10))
    peer.request(1)
    for kind, flags, number, payload in frames:
        peer.connection.receive(frame(kind, flags, number, payload))
        peer.connection.tick()
    assert peer.is_closed == peer.connection.is_over


@given(st.binary(max_size=400))
@settings(max_examples=200, deadline=None)
def test_no_bytes_make_it_raise(data: bytes) -> None:
    Peer(greets=False).connection.receive(data)
    peer = Peer()
    peer.connection.receive(data)
    assert peer.is_closed == peer.connection.is_over


# -- the rules, one by one ---------------------------------------------------------------------------------------------

CONNECTION_ERRORS: dict[str, tuple[Callable[[Peer], object], ErrorCode]] = {
    "DATA on stream 0": (lambda peer: peer.send(DATA, 0, 0, b"x"), ErrorCode.PROTOCOL_ERROR),
    "DATA on an idle stream": (lambda peer: peer.send(DATA, 0, 3, b"x"), ErrorCode.PROTOCOL_ERROR),
    "DATA with too much padding": (
        lambda peer: (peer.request(1), peer.send(DATA, PADDED, 1, b"\x05abc")),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "HEADERS on stream 0": (lambda peer: peer.send(HEADERS, END_HEADERS, 0, b""), ErrorCode.PROTOCOL_ERROR),
    "HEADERS on an even stream": (
        lambda peer: peer.send(HEADERS, END_HEADERS, 2, peer.block()),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "HEADERS on a lower stream": (lambda peer: (peer.request(5), peer.request(3)), ErrorCode.PROTOCOL_ERROR),
    "HEADERS with too much padding": (
        lambda peer: peer.send(HEADERS, END_HEADERS | PADDED, 1, b"\xff" + peer.block()),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "HEADERS too short for its priority": (
        lambda peer: peer.send(HEADERS, END_HEADERS | PRIORITIZED, 1, b"\0\0"),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "a header block that is no HPACK": (
        lambda peer: peer.send(HEADERS, END_HEADERS, 1, b"\xff\xff\xff\xff\xff\xff\xff"),
        ErrorCode.COMPRESSION_ERROR,
    ),
    "a header block that is too large": (
        lambda peer: peer.send(HEADERS, END_HEADERS, 1, peer.block((*REQUEST, (b"a", b"b" * 20_000)))),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "a frame between the pieces of a header block": (
        lambda peer: (peer.send(HEADERS, 0, 1, b"\x83"), peer.send(PING, 0, 0, bytes(8))),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "another stream's piece of a header block": (
        lambda peer: (peer.send(HEADERS, 0, 1, b"\x83"), peer.send(CONTINUATION, 0, 3, b"")),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "CONTINUATION of nothing": (
        lambda peer: (peer.request(1), peer.send(CONTINUATION, END_HEADERS, 1, b"")),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a flood of empty CONTINUATIONs": (
        lambda peer: (
            peer.send(HEADERS, 0, 1, b""),
            [peer.send(CONTINUATION, 0, 1, b"") for _ in range(17)],
        ),
        ErrorCode.ENHANCE_YOUR_CALM,
    ),
    "PRIORITY on stream 0": (lambda peer: peer.send(PRIORITY, 0, 0, bytes(5)), ErrorCode.PROTOCOL_ERROR),
    "a wrong PRIORITY on a stream that is not open, so there is nothing to reset": (
        lambda peer: peer.send(PRIORITY, 0, 9, bytes(4)),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "RST_STREAM on stream 0": (lambda peer: peer.send(RST_STREAM, 0, 0, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM on an idle stream": (lambda peer: peer.send(RST_STREAM, 0, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "RST_STREAM of a wrong size": (
        lambda peer: (peer.request(1), peer.send(RST_STREAM, 0, 1, bytes(3))),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "SETTINGS on a stream": (lambda peer: peer.send(SETTINGS, 0, 1), ErrorCode.PROTOCOL_ERROR),
    "SETTINGS of a wrong size": (lambda peer: peer.send(SETTINGS, 0, 0, bytes(5)), ErrorCode.FRAME_SIZE_ERROR),
    "SETTINGS ACK with values": (lambda peer: peer.send(SETTINGS, ACK, 0, bytes(6)), ErrorCode.FRAME_SIZE_ERROR),
    "a wrong ENABLE_PUSH": (lambda peer: peer.settings({Setting.ENABLE_PUSH: 2}), ErrorCode.PROTOCOL_ERROR),
    "a wrong INITIAL_WINDOW_SIZE": (
        lambda peer: peer.settings({Setting.INITIAL_WINDOW_SIZE: 1 << 31}),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "a low MAX_FRAME_SIZE": (lambda peer: peer.settings({Setting.MAX_FRAME_SIZE: 16383}), ErrorCode.PROTOCOL_ERROR),
    "a high MAX_FRAME_SIZE": (lambda peer: peer.settings({Setting.MAX_FRAME_SIZE: 1 << 24}), ErrorCode.PROTOCOL_ERROR),
    "PUSH_PROMISE": (lambda peer: peer.send(PUSH_PROMISE, END_HEADERS, 1, bytes(4)), ErrorCode.PROTOCOL_ERROR),
    "PING on a stream": (lambda peer: peer.send(PING, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "PING of a wrong size": (lambda peer: peer.send(PING, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "GOAWAY on a stream": (lambda peer: peer.send(GOAWAY, 0, 1, bytes(8)), ErrorCode.PROTOCOL_ERROR),
    "GOAWAY of a wrong size": (lambda peer: peer.send(GOAWAY, 0, 0, bytes(7)), ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE of 0": (lambda peer: peer.send(WINDOW_UPDATE, 0, 0, u32(0)), ErrorCode.PROTOCOL_ERROR),
    "WINDOW_UPDATE of a wrong size": (lambda peer: peer.send(WINDOW_UPDATE, 0, 0, b"\1"), ErrorCode.FRAME_SIZE_ERROR),
    "WINDOW_UPDATE on an idle stream": (lambda peer: peer.send(WINDOW_UPDATE, 0, 1, u32(1)), ErrorCode.PROTOCOL_ERROR),
    "a window above 2^31-1": (
        lambda peer: peer.send(WINDOW_UPDATE, 0, 0, u32(ID_MASK)),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "a frame that is too large": (
        lambda peer: peer.connection.receive(frame_header(300_000, DATA, 0, 1)),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
}


@pytest.mark.parametrize("rule", CONNECTION_ERRORS)
def test_a_broken_rule_of_the_connection_ends_it(rule: str) -> None:
    act, code = CONNECTION_ERRORS[rule]
    peer = Peer()
    act(peer)
    assert peer.goaway() == code
    assert peer.is_closed


STREAM_ERRORS: dict[str, tuple[Callable[[Peer], object], ErrorCode]] = {
    "DATA after the end": (
        lambda peer: (peer.request(1, b""), peer.send(DATA, 0, 1, b"x")),
        ErrorCode.STREAM_CLOSED,
    ),
    "HEADERS after the end": (
        lambda peer: (peer.request(1, b""), peer.send(HEADERS, END_HEADERS | END_STREAM, 1, b"")),
        ErrorCode.STREAM_CLOSED,
    ),
    "trailers that do not end the stream": (
        lambda peer: (peer.request(1), peer.send(HEADERS, END_HEADERS, 1, b"")),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "pseudo fields in trailers": (
        lambda peer: (peer.request(1), peer.send(HEADERS, END_HEADERS | END_STREAM, 1, b"\x83")),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a request without a path": (
        lambda peer: peer.send(HEADERS, END_HEADERS, 1, peer.block(REQUEST[:2])),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "PRIORITY of a wrong size": (
        lambda peer: (peer.request(1), peer.send(PRIORITY, 0, 1, bytes(4))),
        ErrorCode.FRAME_SIZE_ERROR,
    ),
    "a stream that depends on itself": (
        lambda peer: (peer.request(1), peer.send(PRIORITY, 0, 1, u32(1) + b"\0")),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "WINDOW_UPDATE of 0": (
        lambda peer: (peer.request(1), peer.send(WINDOW_UPDATE, 0, 1, u32(0))),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a window above 2^31-1": (
        lambda peer: (peer.request(1), peer.send(WINDOW_UPDATE, 0, 1, u32(ID_MASK))),
        ErrorCode.FLOW_CONTROL_ERROR,
    ),
    "a body that is shorter than told": (
        lambda peer: (
            peer.send(HEADERS, END_HEADERS, 1, peer.block((*REQUEST, (b"content-length", b"2")))),
            peer.send(DATA, END_STREAM, 1, b"x"),
        ),
        ErrorCode.PROTOCOL_ERROR,
    ),
    "a body that is longer than told": (
        lambda peer: (
            peer.send(HEADERS, END_HEADERS, 1, peer.block((*REQUEST, (b"content-length", b"2")))),
            peer.send(DATA, 0, 1, b"xyz"),
        ),
        ErrorCode.PROTOCOL_ERROR,
    ),
}


@pytest.mark.parametrize("rule", STREAM_ERRORS)
def test_a_broken_rule_of_a_stream_ends_that_stream_alone(rule: str) -> None:
    act, code = STREAM_ERRORS[rule]
    peer = Peer()
    act(peer)
    assert peer.resets() == {1: code}
    assert 1 not in peer.connection.streams
    peer.request(3, b"")
    assert peer.happened[-1] == ("received", 3, b"", True)
    assert not peer.is_closed


def test_frames_on_a_closed_stream_are_answered_by_its_state() -> None:
    peer = Peer()
    peer.request(1, b"x")
    peer.connection.sender.respond(peer.streams[1], RESPONSE, (b"y",), 1, END)
    peer.send(WINDOW_UPDATE, 0, 1, u32(5))
    peer.send(RST_STREAM, 0, 1, u32(8))
    assert peer.goaway() is None
    peer.send(DATA, 0, 1, b"late")
    assert peer.resets() == {1: ErrorCode.STREAM_CLOSED}
    peer.request(3, b"x")
    peer.connection.sender.respond(peer.streams[3], RESPONSE, (b"y",), 1, END)
    peer.request(3)
    assert peer.goaway() == ErrorCode.STREAM_CLOSED


def test_an_unknown_frame_and_an_unknown_setting_are_ignored() -> None:
    peer = Peer()
    peer.send(0x42, 0xFF, 7, b"who knows")
    peer.send(SETTINGS, 0, 0, b"\xff\xff" + u32(9))
    peer.request(1, b"")
    assert peer.happened[-1] == ("received", 1, b"", True)


def test_a_ping_comes_back() -> None:
    peer = Peer()
    peer.send(PING, 0, 0, b"whoarewe")
    assert peer.taken() == [(PING, ACK, 0, b"whoarewe")]


def test_more_streams_than_told_are_refused_and_may_come_again() -> None:
    peer = Peer(limits=Http2Limits(max_streams=2))
    for number in (1, 3, 5):
        peer.request(number)
    assert peer.resets() == {5: ErrorCode.REFUSED_STREAM}
    peer.send(RST_STREAM, 0, 1, u32(ErrorCode.CANCEL))
    peer.request(7)
    assert set(peer.connection.streams) == {3, 7}


def test_a_client_that_goes_away_takes_its_request_back() -> None:
    peer = Peer()
    peer.request(1)
    peer.request(3)
    peer.send(RST_STREAM, 0, 1, u32(ErrorCode.CANCEL))
    peer.connection.lost()
    assert peer.happened[-2:] == [("reset", 1, ErrorCode.CANCEL), ("reset", 3, ErrorCode.CANCEL)]


# -- floods ------------------------------------------------------------------------------------------------------------


FLOODS = [
    "ping", "settings", "priority", "unknown", "empty", "empty of no stream", "goaway", "rapid reset", "made to reset",
    "window update", "ping answers to nothing", "settings answers to nothing",
]  # fmt: skip


@pytest.mark.parametrize("kind", FLOODS)
def test_a_flood_ends_the_connection(kind: str) -> None:
    peer = Peer(limits=Http2Limits(burst=50, updates=50))
    for count in range(60):
        number = 2 * count + 1
        if kind == "ping":
            peer.send(PING, 0, 0, bytes(8))
        elif kind == "settings":
            peer.settings({})
        elif kind == "priority":
            peer.send(PRIORITY, 0, 1, bytes(5))
        elif kind == "unknown":
            peer.send(0xFA)
        elif kind.endswith("answers to nothing"):
            peer.send(*((PING, ACK, 0, bytes(8)) if kind.startswith("ping") else (SETTINGS, ACK)))
        elif kind == "goaway":
            peer.send(GOAWAY, 0, 0, bytes(8))
        elif kind == "window update":
            peer.send(WINDOW_UPDATE, 0, 0, u32(1))
        elif kind == "empty of no stream":
            if count == 0:
                peer.request(1)
                peer.connection.reset(peer.streams[1], ErrorCode.CANCEL)
            peer.send(DATA, 0, 1, b"")
        elif kind == "empty":
            if count == 0:
                peer.request(1)
            peer.send(DATA, 0, 1, b"")
        else:
            peer.request(number)
            kind_of_end = (RST_STREAM, u32(8)) if kind == "rapid reset" else (WINDOW_UPDATE, u32(0))
            peer.send(kind_of_end[0], 0, number, kind_of_end[1])
    assert peer.goaway() == ErrorCode.ENHANCE_YOUR_CALM
    assert peer.is_closed


def test_a_client_that_takes_back_some_of_many_requests_is_no_flood() -> None:
    peer = Peer(limits=Http2Limits(burst=50))
    for count in range(200):
        peer.request(4 * count + 1)
        peer.send(RST_STREAM, 0, 4 * count + 1, u32(ErrorCode.CANCEL))
        peer.request(4 * count + 3, b"x")
        peer.connection.sender.respond(peer.streams[4 * count + 3], RESPONSE, (b"y",), 1, END)
    assert peer.goaway() is None


def test_window_updates_that_move_data_are_no_flood_and_those_that_move_a_byte_each_are() -> None:
    peer = Peer(limits=Http2Limits(updates=50))
    for number in (1, 3):
        peer.request(number, b"x")
        peer.connection.sender.respond(peer.streams[number], RESPONSE, (bytes(1 << 20),), 1 << 20, END)
    for _ in range(400):
        peer.send(WINDOW_UPDATE, 0, 0, u32(4096))
        peer.send(WINDOW_UPDATE, 0, 1, u32(4096))
        peer.send(WINDOW_UPDATE, 0, 3, u32(4096))
    assert peer.goaway() is None
    for _ in range(60):
        peer.send(WINDOW_UPDATE, 0, 0, u32(1))
    assert peer.goaway() == ErrorCode.ENHANCE_YOUR_CALM


# -- flow control ------------------------------------------------------------------------------------------------------


def test_windows_are_opened_again_as_data_are_taken() -> None:
    peer = Peer(limits=Http2Limits(stream_window=1000, connection_window=100_000))
    peer.request(1)
    for _ in range(300):
        peer.send(DATA, 0, 1, b"x" * 400)
    updates = [(number, int.from_bytes(data, "big")) for kind, _, number, data in peer.taken() if kind == WINDOW_UPDATE]
    assert sum(size for number, size in updates if number == 1) >= 300 * 400 - 1000
    assert sum(size for number, size in updates if number == 0) >= 300 * 400 - 100_000
    assert not peer.is_closed


def test_more_than_a_streams_window_ends_the_stream() -> None:
    peer = Peer(limits=Http2Limits(stream_window=1000))
    peer.request(1)
    peer.send(DATA, 0, 1, b"x" * 1001)
    assert peer.resets() == {1: ErrorCode.FLOW_CONTROL_ERROR}


def test_more_than_the_connections_window_ends_the_connection() -> None:
    peer = Peer(limits=Http2Limits(connection_window=70_000))
    peer.request(1)
    peer.send(DATA, 0, 1, b"x" * 80_000)
    assert peer.goaway() == ErrorCode.FLOW_CONTROL_ERROR


def test_a_stream_that_is_held_gets_no_more_until_it_is_released() -> None:
    peer = Peer(limits=Http2Limits(stream_window=1000))
    peer.request(1)
    peer.streams[1].is_held = True
    peer.send(DATA, 0, 1, b"x" * 900)
    assert peer.taken() == []
    peer.connection.release(peer.streams[1])
    assert peer.taken() == [(WINDOW_UPDATE, 0, 1, u32(900))]


# -- beginning and end -------------------------------------------------------------------------------------------------


def test_the_server_tells_its_settings_and_acknowledges_the_clients() -> None:
    peer = Peer(greets=False, limits=Http2Limits(max_streams=7))
    peer.connection.receive(PREFACE + settings_frame({}))
    kinds = [(kind, flags) for kind, flags, _, _ in peer.taken()]
    assert kinds == [(SETTINGS, 0), (WINDOW_UPDATE, 0), (SETTINGS, ACK)]


def test_the_first_frame_must_be_settings() -> None:
    peer = Peer(greets=False)
    peer.connection.receive(PREFACE + frame(PING, 0, 0, bytes(8)))
    assert peer.goaway() == ErrorCode.PROTOCOL_ERROR


def test_a_client_of_http_1_is_told_so_in_its_own_words() -> None:
    peer = Peer(greets=False)
    peer.connection.receive(b"GET /v2 HTTP/1.1\r\nhost: here\r\n\r\n")
    assert peer.sent.startswith(b"HTTP/1.1 505 ")
    assert peer.is_closed


def test_other_bytes_end_the_connection() -> None:
    peer = Peer(greets=False)
    peer.connection.receive(b"PRI * HTTP/2.0\r\n\r\nSN\r\n\r\n" + bytes(40))
    assert peer.goaway() == ErrorCode.PROTOCOL_ERROR


def test_a_drain_takes_what_was_on_its_way_finishes_it_and_closes() -> None:
    peer = Peer()
    peer.request(1, b"x")
    peer.connection.drain()
    (goaway, ping) = peer.taken()
    assert goaway[3][:8] == u32(ID_MASK) + u32(ErrorCode.NO_ERROR)
    peer.request(3, b"y")  # sent before the client saw the GOAWAY
    peer.send(PING, ACK, 0, ping[3])
    assert peer.taken()[0][3][:8] == u32(3) + u32(ErrorCode.NO_ERROR)
    peer.request(5, b"z")  # a client should not; the stream is not looked at
    assert set(peer.connection.streams) == {1, 3}
    for number in (1, 3):
        assert not peer.is_closed
        peer.connection.sender.respond(peer.streams[number], RESPONSE, (b"y",), 1, END)
    assert peer.is_closed


@pytest.mark.parametrize("kind", [RST_STREAM, WINDOW_UPDATE, DATA])
def test_in_a_drain_frames_of_a_stream_that_nobody_looked_at_do_not_harm_the_others(kind: int) -> None:
    peer = Peer()
    peer.request(1)
    peer.connection.drain()
    (_, ping) = peer.taken()
    peer.send(PING, ACK, 0, ping[3])
    peer.request(3)
    peer.send(kind, 0, 3, u32(8))
    assert set(peer.connection.streams) == {1}
    assert not peer.is_closed
    peer.send(DATA, END_STREAM, 1, b"x")
    assert peer.happened[-1] == ("received", 1, b"x", True)


def test_the_servers_settings_come_before_its_goaway_even_where_the_client_said_nothing() -> None:
    peer = Peer(greets=False)
    peer.connection.fail(ErrorCode.ENHANCE_YOUR_CALM, "too many connections")
    assert [kind for kind, _, _, _ in peer.taken()] == [SETTINGS, WINDOW_UPDATE, GOAWAY]


def test_a_peer_that_reads_steadily_though_the_socket_is_always_full_is_not_given_up() -> None:
    peer = Peer(limits=Http2Limits(stall_s=3, keepalive_s=1000))
    for _ in range(20):
        peer.connection.resumed()
        peer.connection.sender.is_paused = True
        peer.connection.tick()
    assert not peer.is_closed
    for _ in range(4):
        peer.connection.tick()
    assert peer.goaway() == ErrorCode.ENHANCE_YOUR_CALM


def test_a_drain_without_an_answer_to_its_ping_goes_on_after_two_seconds() -> None:
    peer = Peer()
    peer.connection.drain()
    for _ in range(4):
        peer.connection.tick()
    assert peer.is_closed


def test_a_silent_peer_is_asked_and_then_given_up() -> None:
    peer = Peer(limits=Http2Limits(keepalive_s=5, ping_s=3))
    peer.request(1)
    for _ in range(5):
        peer.connection.tick()
    assert [each[0] for each in peer.taken()] == [PING]
    for _ in range(4):
        peer.connection.tick()
    assert peer.is_closed
    assert peer.happened[-1] == ("reset", 1, ErrorCode.CANCEL)


def test_an_answer_to_the_ping_keeps_the_connection() -> None:
    peer = Peer(limits=Http2Limits(keepalive_s=5, ping_s=3))
    for _ in range(100):
        peer.connection.tick()
        for kind, _, _, payload in peer.taken():
            peer.send(kind, ACK, 0, payload)
    assert not peer.is_closed


@pytest.mark.parametrize("beginning", [b"", PREFACE[:10], PREFACE, PREFACE + settings_frame({})[:4]])
def test_a_client_that_does_not_say_hello_is_given_up(beginning: bytes) -> None:
    peer = Peer(greets=False, limits=Http2Limits(handshake_s=3))
    peer.connection.receive(beginning)
    for _ in range(4):
        peer.connection.tick()
    assert peer.goaway() == ErrorCode.SETTINGS_TIMEOUT


@pytest.mark.parametrize("unfinished", [frame(PING, 0, 0, bytes(8))[:12], frame(HEADERS, 0, 1, b"\x83")])
def test_a_frame_or_a_header_block_that_does_not_end_is_given_up(unfinished: bytes) -> None:
    peer = Peer(limits=Http2Limits(handshake_s=3))
    peer.connection.receive(unfinished)
    for _ in range(4):
        peer.connection.tick()
    assert peer.goaway() == ErrorCode.ENHANCE_YOUR_CALM


def test_a_response_that_nobody_takes_is_given_up() -> None:
    peer = Peer(limits=Http2Limits(stall_s=3))
    peer.settings({Setting.INITIAL_WINDOW_SIZE: 0})
    peer.request(1, b"x")
    peer.connection.sender.respond(peer.streams[1], RESPONSE, (b"y",), 1, END)
    for _ in range(4):
        peer.connection.tick()
    assert peer.resets() == {1: ErrorCode.CANCEL}
    assert peer.happened[-1] == ("reset", 1, ErrorCode.CANCEL)


def test_an_idle_connection_is_closed_where_that_is_wanted() -> None:
    peer = Peer(limits=Http2Limits(idle_s=3))
    for _ in range(4):
        peer.connection.tick()
    assert peer.goaway() == ErrorCode.NO_ERROR
