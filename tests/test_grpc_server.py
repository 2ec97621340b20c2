from __future__ import annotations

import asyncio
import gzip
import itertools
import os
import queue
import socket
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from struct import pack
from typing import Any

import grpc
import grpc.aio
import hpack
import pytest

from grpc_served import METHODS, Served, each, served
from http2_peer import REQUEST, Frame, Peer, frames_in
from npuops.errors import OverloadedError
from npuops.server.grpc_call import GrpcCall, Hold, Stream, Unary
from npuops.server.grpc_head import GrpcHead
from npuops.server.grpc_server import GrpcLimits, GrpcServer, GrpcSession
from npuops.server.http2_frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    WINDOW_UPDATE,
    ErrorCode,
    Setting,
    frame,
    settings_frame,
)
from npuops.server.http2_headers import literal
from npuops.server.http2_streams import Http2Limits

GZIP = (b"grpc-encoding", b"gzip")
BIG = [("grpc.max_receive_message_length", -1), ("grpc.max_send_message_length", -1)]


@pytest.fixture(scope="module")
def server() -> Iterator[Served]:
    with served({**METHODS, **PROBES}) as it:
        yield it


@pytest.fixture
def channel(server: Served) -> Iterator[grpc.Channel]:
    with grpc.insecure_channel(server.address, options=BIG) as it:
        yield it


def metadata(call: GrpcCall, message: bytes) -> None:
    call.reply(call.head.metadata.get(message.decode(), "").encode())


def timeout(call: GrpcCall, message: bytes) -> None:
    del message
    call.reply(str(call.head.timeout_us).encode())


def busy(call: GrpcCall, message: bytes) -> None:
    del call, message
    raise OverloadedError("the queue is full – 100 %", advice="ask later", retry_after_s=0.25)


def broken(call: GrpcCall, message: bytes) -> None:
    del call, message
    raise ZeroDivisionError("a secret")


def three(call: GrpcCall, message: bytes) -> None:
    for _ in range(3):
        call.send(message)
    call.end()


def half(call: GrpcCall, message: bytes) -> None:
    call.send(message)
    raise OverloadedError("enough")


PROBES = {
    "/t.Test/Metadata": Unary(handler=metadata),
    "/t.Test/Timeout": Unary(handler=timeout),
    "/t.Test/Busy": Unary(handler=busy),
    "/t.Test/Broken": Unary(handler=broken),
    "/t.Test/Three": Unary(handler=three),
    "/t.Test/Half": Stream(on_message=half, on_end=GrpcCall.end),
}


# -- real clients ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [0, 1, 16_379, 16_380, 65_530, 65_536, 9 << 20])
def test_a_message_of_any_size_comes_back(channel: grpc.Channel, size: int) -> None:
    message = os.urandom(size)
    assert channel.unary_unary("/t.Test/Echo")(message, timeout=30) == message


def test_many_calls_share_a_connection_and_none_is_mixed_up(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/t.Test/Echo")
    messages = [bytes([number % 256]) * (number * 37) for number in range(400)]
    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(lambda message: call(message, timeout=30), messages)) == messages


def test_an_asynchronous_client_runs_a_hundred_calls_at_a_time(server: Served) -> None:
    async def main() -> list[bytes]:
        async with grpc.aio.insecure_channel(server.address) as channel:
            call = channel.unary_unary("/t.Test/Echo")
            return await asyncio.gather(*(call(b"%d" % number * 3000, timeout=30) for number in range(100)))

    assert asyncio.run(main()) == [b"%d" % number * 3000 for number in range(100)]


@pytest.mark.parametrize("compression", [grpc.Compression.Gzip, grpc.Compression.Deflate])
def test_a_compressed_request_is_taken(channel: grpc.Channel, compression: grpc.Compression) -> None:
    message = b"abc" * 10_000
    assert channel.unary_unary("/t.Test/Echo")(message, compression=compression, timeout=30) == message
    stream = channel.stream_stream("/t.Test/Each")(iter([message, b"d" * 2000]), compression=compression, timeout=30)
    assert list(stream) == [message, b"d" * 2000]


def test_a_stream_answers_each_message_as_it_comes(channel: grpc.Channel) -> None:
    sent: queue.SimpleQueue[bytes | None] = queue.SimpleQueue()
    answers = channel.stream_stream("/t.Test/Each")(iter(sent.get, None), timeout=30)
    for number in range(50):
        sent.put(b"x" * number * 1000)
        assert next(answers) == b"x" * number * 1000
    sent.put(None)
    assert list(answers) == []
    assert answers.code() == grpc.StatusCode.OK


def test_one_message_may_have_several_answers(channel: grpc.Channel) -> None:
    assert list(channel.unary_stream("/t.Test/Three")(b"x", timeout=30)) == [b"x"] * 3


def test_metadata_and_timeout_reach_the_handler(channel: grpc.Channel) -> None:
    call = channel.unary_unary("/t.Test/Metadata")
    fields = (("x-npuops-tenant", "camera"), ("traceparent", "00-ab-cd-01"), ("twice", "1"), ("twice", "2"))
    for key, wanted in (("x-npuops-tenant", b"camera"), ("twice", b"1,2"), ("absent", b"")):
        assert call(key.encode(), metadata=fields, timeout=30) == wanted
    assert channel.unary_unary("/t.Test/Timeout")(b"") == b"None"
    assert 20_000_000 < int(channel.unary_unary("/t.Test/Timeout")(b"", timeout=30)) <= 30_300_000


def refusal(call: grpc.UnaryUnaryMultiCallable, message: bytes = b"") -> grpc.RpcError:
    with pytest.raises(grpc.RpcError) as error:
        call(message, timeout=30)
    return error.value


def test_an_unknown_method_is_answered_with_the_nearest_known(channel: grpc.Channel) -> None:
    error = refusal(channel.unary_unary("/t.Test/Ecco"))
    assert error.code() == grpc.StatusCode.UNIMPLEMENTED
    assert error.details() == "no method /t.Test/Ecco; did you mean 'Echo'?"
    error = refusal(channel.unary_unary("/elsewhere.Service/Echo"))
    assert error.details() == "no method /elsewhere.Service/Echo; the services here are t.Test"


def test_an_error_has_its_status_its_words_and_when_to_ask_again(channel: grpc.Channel) -> None:
    error = refusal(channel.unary_unary("/t.Test/Busy"))
    assert error.code() == grpc.StatusCode.UNAVAILABLE
    assert error.details() == "the queue is full – 100 %; ask later"
    assert dict(error.trailing_metadata())["grpc-retry-pushback-ms"] == "250"


def test_a_defect_ends_one_call_and_tells_the_client_nothing_of_it(
    channel: grpc.Channel, caplog: pytest.LogCaptureFixture
) -> None:
    error = refusal(channel.unary_unary("/t.Test/Broken"))
    assert error.code() == grpc.StatusCode.INTERNAL
    assert "secret" not in error.details()
    assert "a secret" in caplog.text
    assert channel.unary_unary("/t.Test/Echo")(b"still here", timeout=30) == b"still here"


def test_a_stream_may_fail_after_answers(channel: grpc.Channel) -> None:
    answers = channel.stream_stream("/t.Test/Half")(iter([b"x"]), timeout=30)
    assert next(answers) == b"x"
    with pytest.raises(grpc.RpcError) as error:
        next(answers)
    assert error.value.details() == "enough"


def test_a_cancel_reaches_the_handler_and_its_late_answer_goes_nowhere() -> None:
    began, ended = threading.Event(), threading.Event()
    calls: list[GrpcCall] = []

    def wait(call: GrpcCall, message: bytes) -> None:
        del message
        calls.append(call)
        call.on_cancel = ended.set
        began.set()

    with served({**METHODS, "/t.Test/Wait": Unary(handler=wait)}) as it, grpc.insecure_channel(it.address) as channel:
        future = channel.unary_unary("/t.Test/Wait").future(b"x")
        assert began.wait(30)
        future.cancel()
        assert ended.wait(30)
        assert not calls[0].is_open
        it.run(lambda: calls[0].reply(b"late"))
        assert channel.unary_unary("/t.Test/Echo")(b"next", timeout=30) == b"next"
        ended.clear()
        with pytest.raises(grpc.RpcError) as error:
            channel.unary_unary("/t.Test/Wait")(b"x", timeout=0.05)
        assert error.value.code() == grpc.StatusCode.DEADLINE_EXCEEDED
        assert ended.wait(30)


def test_a_message_above_the_limit_is_refused_and_the_connection_stays() -> None:
    with (
        served(limits=GrpcLimits(message_bytes=100_000)) as it,
        grpc.insecure_channel(it.address, options=BIG) as channel,
    ):
        call = channel.unary_unary("/t.Test/Echo")
        for size in (100_001, 3 << 20):
            error = refusal(call, b"x" * size)
            assert error.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        with pytest.raises(grpc.RpcError) as bomb:
            call(b"x" * (3 << 20), compression=grpc.Compression.Gzip, timeout=30)
        assert bomb.value.code() == grpc.StatusCode.RESOURCE_EXHAUSTED
        assert call(b"x" * 100_000, timeout=30) == b"x" * 100_000
        assert it.server.room.used == 0


def test_a_drain_finishes_what_is_open_and_takes_nothing_new() -> None:
    began = threading.Event()
    calls: list[GrpcCall] = []

    def wait(call: GrpcCall, message: bytes) -> None:
        del message
        calls.append(call)
        began.set()

    with served({"/t.Test/Wait": Unary(handler=wait)}) as it, grpc.insecure_channel(it.address) as channel:
        future = channel.unary_unary("/t.Test/Wait").future(b"x", timeout=30)
        assert began.wait(30)
        drained = it.drain(30)
        it.run(lambda: None)  # the drain has begun
        with (
            grpc.insecure_channel(it.address, options=[("grpc.use_local_subchannel_pool", 1)]) as late,
            pytest.raises(grpc.RpcError) as error,
        ):
            late.unary_unary("/t.Test/Wait")(b"", timeout=30)
        assert error.value.code() == grpc.StatusCode.UNAVAILABLE
        it.run(lambda: calls[0].reply(b"finished"))
        assert future.result() == b"finished"
        drained.result(30)
        assert it.server.connections == 0


def test_a_client_that_does_not_take_its_answers_is_not_read_any_more() -> None:
    """Answers that wait are bounded, whatever a stream's client sends."""
    methods = {"/t.Test/Each": Stream(on_message=each, on_end=GrpcCall.end)}
    with served(methods, GrpcLimits(queued_bytes=100_000), Http2Limits(stream_window=100_000)) as it:
        channel = grpc.insecure_channel(it.address, options=[("grpc.http2.lookahead_bytes", 65_536)])
        seen = threading.Semaphore(0)

        def flood() -> Iterator[bytes]:
            for _ in range(300):
                seen.release()
                yield b"x" * 20_000

        answers = channel.stream_stream("/t.Test/Each")(flood(), timeout=60)
        assert next(answers) == b"x" * 20_000
        assert sum(1 for _ in answers) == 299  # and nothing is lost once it reads
        channel.close()


# -- the rules, by hand ------------------------------------------------------------------------------------------------


class GrpcPeer(Peer):
    """A raw client of a gRPC session."""

    def __post_init__(self) -> None:
        self.server = GrpcServer(METHODS, self.grpc_limits)
        self.session = GrpcSession(self.server)
        self.opened = self.session.opened  # type: ignore[method-assign]
        self.received = self.session.received  # type: ignore[method-assign]
        self.drained = self.session.drained  # type: ignore[method-assign]
        self.was_reset = self.session.was_reset  # type: ignore[method-assign]
        super().__post_init__()
        self.session.attached(self.connection, "test")

    grpc_limits = GrpcLimits(message_bytes=1000, unfinished_bytes=1500, stall_s=3)

    def ask(self, number: int, path: bytes, *pieces: bytes, ended: bool = True, **changed: bytes) -> None:
        fields = {**dict(REQUEST), b":path": path, **{key.replace("_", "-").encode(): changed[key] for key in changed}}
        self.send(HEADERS, END_HEADERS, number, self.encoder.encode(tuple(fields.items())))
        for index, piece in enumerate(pieces):
            self.send(DATA, END_STREAM if ended and index == len(pieces) - 1 else 0, number, piece)

    def status(self) -> dict[bytes, bytes]:
        """Fields of the last header block."""
        blocks = [payload for kind, _, _, payload in frames_in(self.sent) if kind == HEADERS]
        return dict(hpack.Decoder().decode(blocks[-1], raw=True))

    def messages(self) -> bytes:
        return b"".join(payload for kind, _, _, payload in frames_in(self.sent) if kind == DATA)


def whole_frames(data: bytes) -> list[Frame]:
    """Those that are there whole."""
    found, at = [], 0
    while len(data) - at >= 9 and len(data) - at >= 9 + int.from_bytes(data[at : at + 3], "big"):
        end = at + 9 + int.from_bytes(data[at : at + 3], "big")
        found += frames_in(data[at:end])
        at = end
    return found


def framed(message: bytes, flag: int = 0) -> bytes:
    return pack(">BI", flag, len(message)) + message


@pytest.mark.parametrize("path", [b"/t.Test/Echo", b"/t.Test/Each"])
def test_a_message_may_come_in_any_pieces(path: bytes) -> None:
    wire = framed(b"hello")
    for cut in range(len(wire) + 1):
        peer = GrpcPeer()
        peer.ask(1, path, *[piece for piece in (wire[:cut], wire[cut:], b"") if piece or cut])
        assert peer.messages() == wire
        assert peer.status()[b"grpc-status"] == b"0"
        assert peer.server.room.used == 0


BROKEN = {
    "no message": ((b"",), b"12"),
    "two messages": ((framed(b"a") + framed(b"b"),), b"12"),
    "two messages in two pieces": ((framed(b"a"), framed(b"b")), b"12"),
    "half a message": ((framed(b"abc")[:-1],), b"13"),
    "half a prefix": ((b"\0\0",), b"13"),
    "a message that is too large": ((framed(b"x" * 1001),), b"8"),
    "a large length": ((b"\0\xff\xff\xff\xff",), b"8"),
    "compressed without an encoding": ((framed(b"a", 1),), b"13"),
    "an unknown flag": ((framed(b"a", 2),), b"13"),
}


@pytest.mark.parametrize("why", BROKEN)
def test_a_broken_call_has_the_status_of_grpcs_tables(why: str) -> None:
    pieces, status = BROKEN[why]
    peer = GrpcPeer()
    peer.ask(1, b"/t.Test/Echo", *pieces)
    assert peer.status()[b"grpc-status"] == status
    assert peer.server.room.used == 0
    assert peer.connection.streams == {}


@pytest.mark.parametrize("message", [b"no gzip at all", b"\x1f\x8b\x08\0\0\0\0\0\0\x03"])
def test_damaged_compression_is_internal(message: bytes) -> None:
    peer = GrpcPeer()
    peer.ask(1, b"/t.Test/Echo", framed(message, 1), grpc_encoding=b"gzip")
    assert peer.status()[b"grpc-status"] == b"13"


@pytest.mark.parametrize(
    ("changed", "status"),
    [({"content_type": b"text/plain"}, b"415"), ({"content_type": b"application/grpcx"}, b"415")],
)
def test_what_is_no_grpc_is_answered_in_http(changed: dict[str, bytes], status: bytes) -> None:
    peer = GrpcPeer()
    peer.ask(1, b"/t.Test/Echo", b"hello", **changed)
    assert peer.status()[b":status"] == status


def test_a_get_is_answered_in_http() -> None:
    peer = GrpcPeer()
    fields = ((b":method", b"GET"), (b":scheme", b"http"), (b":path", b"/"))
    peer.send(HEADERS, END_HEADERS | END_STREAM, 1, peer.encoder.encode(fields))
    assert peer.status() == {b":status": b"405"}


def test_a_timeout_that_is_none_is_refused() -> None:
    peer = GrpcPeer()
    peer.ask(1, b"/t.Test/Echo", framed(b""), grpc_timeout=b"soon")
    assert peer.status()[b"grpc-status"] == b"13"


def test_an_encoding_that_is_not_spoken_is_unimplemented_and_the_others_are_named() -> None:
    peer = GrpcPeer()
    peer.ask(1, b"/t.Test/Echo", framed(b"x", 1), grpc_encoding=b"snappy")
    assert peer.status()[b"grpc-status"] == b"12"
    assert peer.status()[b"grpc-accept-encoding"] == b"identity,deflate,gzip"


def test_an_unknown_method_is_refused_at_once_and_the_rest_of_its_request_ignored() -> None:
    peer = GrpcPeer()
    peer.ask(1, b"/t.Test/Nothing", framed(b"x"), ended=False)
    assert peer.status()[b"grpc-status"] == b"12"
    assert peer.resets() == {1: ErrorCode.NO_ERROR}


def test_unfinished_messages_have_one_room_for_all_and_give_it_back() -> None:
    peer = GrpcPeer()
    half = framed(b"x" * 900)[:800]
    peer.ask(1, b"/t.Test/Echo", half, ended=False)
    peer.ask(3, b"/t.Test/Echo", half, ended=False)
    assert peer.status()[b"grpc-status"] == b"8"
    assert set(peer.connection.streams) == {1}
    assert peer.server.room.used == 800
    peer.send(DATA, END_STREAM, 1, b"x" * 105)
    assert peer.status()[b"grpc-status"] == b"0"
    assert peer.server.room.used == 0
    peer.ask(5, b"/t.Test/Each", half, ended=False)
    peer.connection.lost()
    assert peer.server.room.used == 0


@pytest.mark.parametrize("pieces", [(), (framed(b"x" * 900)[:800],)])
def test_a_message_that_does_not_come_is_given_up(pieces: tuple[bytes, ...]) -> None:
    peer = GrpcPeer()
    peer.ask(1, b"/t.Test/Echo", *pieces, ended=False)
    for _ in range(4):
        peer.session.tick()
    assert peer.status()[b"grpc-status"] == b"4"
    assert peer.server.room.used == 0


def test_a_stream_may_be_silent_between_messages() -> None:
    peer = GrpcPeer()
    peer.ask(1, b"/t.Test/Each", framed(b"x"), ended=False)
    for _ in range(100):
        peer.session.tick()
    assert set(peer.connection.streams) == {1}


def test_a_message_that_trickles_is_given_up_and_a_slow_one_is_not() -> None:
    class Patient(GrpcPeer):
        grpc_limits = GrpcLimits(message_bytes=1 << 20, stall_s=3)

    peer = Patient()
    peer.ask(1, b"/t.Test/Echo", framed(bytes(900_000))[:10], ended=False)
    peer.ask(3, b"/t.Test/Each", framed(bytes(900_000))[:10], ended=False)
    for _ in range(100):
        peer.send(DATA, 0, 1, bytes(2000))
        peer.send(DATA, 0, 3, b"x")
        peer.session.tick()
    assert set(peer.connection.streams) == {1}
    assert peer.status()[b"grpc-status"] == b"4"


def test_a_stream_may_be_silent_before_its_first_message() -> None:
    peer = GrpcPeer()
    peer.ask(1, b"/t.Test/Each", ended=False)
    for _ in range(100):
        peer.session.tick()
    peer.send(DATA, END_STREAM, 1, framed(b"late"))
    assert peer.messages() == framed(b"late")
    assert peer.status()[b"grpc-status"] == b"0"


@pytest.mark.parametrize("path", ["/t.Test/Echo", "/t.Test/Each"])
def test_a_message_that_another_thread_opens_keeps_its_place(channel: grpc.Channel, path: str) -> None:
    large = os.urandom(3 << 20)
    if path == "/t.Test/Echo":
        assert channel.unary_unary(path)(large, compression=grpc.Compression.Gzip, timeout=30) == large
        return
    sent = [b"a" * 2000, large, b"b" * 2000, b"", large[::-1], b"c"]
    answers = channel.stream_stream(path)(iter(sent), compression=grpc.Compression.Gzip, timeout=30)
    assert list(answers) == sent


def test_a_damaged_message_that_another_thread_opens_ends_its_call_alone() -> None:
    spoiled = bytearray(gzip.compress(os.urandom(1 << 20)))
    spoiled[100] ^= 0xFF
    wire = framed(bytes(spoiled), 1)
    with served() as it, socket.create_connection(("127.0.0.1", it.port), timeout=30) as client:
        client.sendall(PREFACE + settings_frame({Setting.INITIAL_WINDOW_SIZE: 1 << 20}))
        block = hpack.Encoder().encode([*{**dict(REQUEST), b":path": b"/t.Test/Echo"}.items(), GZIP])
        client.sendall(frame(HEADERS, END_HEADERS, 1, block))
        for start in range(0, len(wire), 16_384):
            client.sendall(frame(DATA, 0, 1, wire[start : start + 16_384]))
        client.sendall(frame(DATA, END_STREAM, 1))
        data = b""
        while b"a message is no gzip" not in data:
            data += client.recv(65_536)
        it.until(lambda: it.server.room.used == 0)
        client.sendall(frame(PING, 0, 0, b"whoarewe"))
        while frame(PING, ACK, 0, b"whoarewe") not in data:
            data += client.recv(65_536)


def test_tiny_messages_by_the_ten_thousand_leave_other_clients_their_turn() -> None:
    seen: list[int] = []
    turns: list[int] = []

    def count(call: GrpcCall, message: bytes) -> None:
        del call, message
        seen.append(1)

    def look(loop: asyncio.AbstractEventLoop) -> None:
        turns.append(len(seen))
        if len(seen) < 40_000:
            loop.call_soon(look, loop)

    with served({"/t.Test/Count": Stream(on_message=count, on_end=GrpcCall.end)}) as it:
        it.loop.call_soon_threadsafe(look, it.loop)
        with socket.create_connection(("127.0.0.1", it.port), timeout=30) as client:
            block = hpack.Encoder().encode(list({**dict(REQUEST), b":path": b"/t.Test/Count"}.items()))
            data = framed(b"") * 40_000
            client.sendall(PREFACE + settings_frame({}) + frame(HEADERS, END_HEADERS, 1, block))
            client.sendall(frame(DATA, END_STREAM, 1, data))
            answer = b""
            while literal(b"grpc-status", b"0") not in answer:
                answer += client.recv(65_536)
        it.until(lambda: turns[-1] == 40_000)
    assert max(after - before for before, after in itertools.pairwise(turns)) <= 64


def test_a_handler_that_has_enough_gets_no_more_until_it_asks() -> None:
    calls: list[GrpcCall] = []
    seen: list[bytes] = []

    def take(call: GrpcCall, message: bytes) -> None:
        seen.append(message)
        call.hold(Hold.CROWDED)

    with (
        served({"/t.Test/Take": Stream(on_open=calls.append, on_message=take, on_end=GrpcCall.end)}) as it,
        grpc.insecure_channel(it.address) as channel,
    ):
        sent = [b"%d" % number for number in range(100)]
        answers = channel.stream_stream("/t.Test/Take")(iter(sent), timeout=30)
        for count in range(1, 101):
            it.until(lambda count=count: len(seen) == count)
            it.run(lambda: None)
            assert len(seen) == count
            it.run(lambda: calls[0].release(Hold.CROWDED))
        assert list(answers) == []
    assert seen == sent


def test_a_call_that_is_refused_has_its_path_in_the_record() -> None:
    peer = GrpcPeer()
    heads: list[str] = []

    def make(head: GrpcHead, *rest: Any) -> GrpcCall:
        heads.append(head.path)
        return GrpcCall(head, *rest)

    peer.server.make_call = make
    peer.ask(1, b"/t.Test/Nothing", framed(b""))
    peer.ask(3, b"/index.html", b"hello", content_type=b"text/html")
    assert heads == ["/t.Test/Nothing", "/index.html"]


def test_a_stream_whose_messages_wait_may_send_a_window_and_no_more() -> None:
    """Each turn takes a few hundred bytes: were the window opened for each, the rest would pile up."""
    with (
        served(METHODS, http2=Http2Limits(stream_window=100_000)) as it,
        socket.create_connection(("127.0.0.1", it.port), timeout=30) as client,
    ):
        block = hpack.Encoder().encode(list({**dict(REQUEST), b":path": b"/t.Test/Each"}.items()))
        client.sendall(PREFACE + settings_frame({Setting.INITIAL_WINDOW_SIZE: 1 << 30}))
        client.sendall(frame(HEADERS, END_HEADERS, 1, block) + frame(DATA, 0, 1, framed(b"") * 20_000))
        data, used = b"", []
        while not any(kind == WINDOW_UPDATE and number == 1 for kind, _, number, _ in whole_frames(data)):
            used.append(it.run(lambda: it.server.room.used))
            data += client.recv(1 << 20)
        assert it.run(lambda: it.server.room.used) == 0
    assert max(used) <= 100_000


def test_only_the_first_wrong_paths_of_a_connection_are_answered_with_a_hint() -> None:
    peer = GrpcPeer()
    for count in range(40):
        peer.ask(2 * count + 1, b"/t.Test/Ecco%d" % count, framed(b""))
        assert (b"did you mean" in peer.status()[b"grpc-message"]) == (count < 16)
