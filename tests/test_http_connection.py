from __future__ import annotations

import gzip
import logging
import socket
import ssl
import zlib
from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from http_served import BIG_BYTES, Raw, Served, http_served, request, wait_for
from npuops.server.http_known import HttpLimits

SMALL = HttpLimits(head_bytes=1024, body_bytes=100_000, received_bytes=150_000, connections=20)
HASTY = HttpLimits(head_s=0.05, body_s=0.05, idle_s=0.05)


@pytest.fixture(scope="module")
def it() -> Iterator[Served]:
    with http_served() as served:
        yield served


@pytest.fixture(scope="module")
def small() -> Iterator[Served]:
    with http_served(SMALL) as served:
        yield served


@pytest.fixture(scope="module")
def hasty() -> Iterator[Served]:
    with http_served(HASTY) as served:
        yield served


@pytest.fixture
def raw(it: Served) -> Iterator[Raw]:
    client = it.client()
    yield client
    client.close()


def test_requests_are_answered_one_after_the_other_on_one_connection(raw: Raw) -> None:
    for number in range(5):
        reply = raw.ask("/echo", b"body %d" % number)
        assert (reply.status, reply.body) == (200, b"body %d" % number)
        assert "connection" not in reply.fields


def test_a_request_may_come_byte_by_byte(raw: Raw) -> None:
    raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for _ in range(2):
        for byte in request("/echo", b"hello"):
            raw.send(bytes([byte]))
        assert raw.reply().body == b"hello"


PIPELINE = (
    request("/echo/1", b"one")
    + request("/echo/2", method="GET")
    + request("/echo/3", b"3" * 300)
    + request("/nowhere", b"x")
    + request("/echo/4")
    + request("/echo/5", b"5\r\n0\r\n\r\n", "Transfer-Encoding: chunked").replace(
        b"\r\n\r\n5\r\n0", b"\r\n\r\n1\r\n5\r\n0"
    )
)
ANSWERS = [
    (200, "/echo/1", b"one"),
    (200, "/echo/2", b""),
    (200, "/echo/3", b"3" * 300),
    (404, None, b'{"error":"there is no /nowhere here; go home"}'),
    (200, "/echo/4", b""),
    (200, "/echo/5", b"5"),
]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cuts=st.lists(st.integers(1, len(PIPELINE) - 1), max_size=12))
def test_any_cut_of_a_stream_of_requests_gives_the_same_answers_in_order(it: Served, cuts: list[int]) -> None:
    raw = it.client()
    raw.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    edges = [0, *sorted(set(cuts)), len(PIPELINE)]
    for start, stop in pairwise(edges):
        raw.send(PIPELINE[start:stop])
    got = [raw.reply() for _ in ANSWERS]
    assert [(each.status, each.fields.get("path"), each.body) for each in got] == ANSWERS
    raw.close()


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    data=st.one_of(
        st.binary(max_size=600),
        st.builds(
            lambda at, byte: PIPELINE[:at] + byte + PIPELINE[at + 1 :],
            st.integers(0, len(PIPELINE) - 1),
            st.binary(max_size=3),
        ),
    )
)
def test_whatever_bytes_come_the_server_answers_or_closes_and_goes_on(it: Served, data: bytes) -> None:
    raw = it.client()
    raw.send(data)
    raw.socket.shutdown(socket.SHUT_WR)
    received = bytearray()
    try:
        while piece := raw.socket.recv(65536):
            received += piece
    except ConnectionResetError:
        received += b""
    assert not received or received.startswith(b"HTTP/1.1 ")
    assert b"HTTP/1.1 500" not in received
    raw.close()
    fresh = it.client()
    assert fresh.ask("/echo", b"still here").body == b"still here"
    fresh.close()


def test_later_requests_wait_until_the_first_is_answered(it: Served, raw: Raw) -> None:
    before = len(it.lab.seen)
    raw.send(request("/hold/first") + request("/echo/second", b"2"))
    wait_for(lambda: len(it.lab.seen) > before)
    it.release(b"first")
    assert raw.reply().body == b"first"
    assert raw.reply().body == b"2"
    assert [path for _, path, _ in it.lab.seen[before:]] == ["/hold/first", "/echo/second"]


def test_a_client_that_sends_far_ahead_is_read_no_further_until_its_answer(it: Served, raw: Raw) -> None:
    body = b"z" * 1_000_000
    raw.send(request("/hold"))
    wait_for(lambda: not it.lab.held.empty())
    connection, known = it.lab.held.get()
    raw.socket.setblocking(False)
    sent, whole = 0, request("/echo", body) * 30
    while True:
        try:
            sent += raw.socket.send(whole[sent : sent + 65536])
        except BlockingIOError:
            if not it.run(lambda: connection._reading):
                break
        assert sent < len(whole)
    assert len(connection._buffer) < 2_000_000
    raw.socket.settimeout(30)
    it.lab.held.put((connection, known))
    it.release()
    assert raw.reply().body == b"late"
    for _ in range(sent // len(request("/echo", body))):
        assert raw.reply().body == body


@pytest.mark.slow
def test_a_client_that_never_reads_is_answered_a_bounded_number_of_times(it: Served) -> None:
    raw = it.client(buffer_bytes=4096)
    before = it.lab.big
    raw.send(request("/large") * 20)
    wait_for(lambda: it.lab.big > before)
    for _ in range(100):  # rounds of the server's loop, in each of which it could answer one more
        it.run(lambda: None)
    assert it.lab.big - before <= 2
    for _ in range(20):
        assert len(raw.reply().body) == BIG_BYTES
    assert it.lab.big - before == 20
    raw.close()


def test_a_client_that_never_reads_is_cut_off_in_the_end(hasty: Served) -> None:
    raw = hasty.client(buffer_bytes=4096)
    raw.send(request("/large") * 3)
    wait_for(lambda: hasty.server.connections == 0)
    raw.close()


def test_a_client_that_reads_no_last_answer_is_cut_off_too(hasty: Served) -> None:
    raw = hasty.client(buffer_bytes=4096)
    raw.send(request("/large", b"", "Connection: close"))
    wait_for(lambda: hasty.server.connections == 0)
    raw.close()


@pytest.mark.parametrize("start", [b"POST /echo HT", request("/echo", b"body")[:-2], b"\r\n"])
def test_a_client_that_trickles_is_told_408_and_closed(hasty: Served, start: bytes) -> None:
    raw = hasty.client().send(start)
    reply = raw.reply()
    assert (reply.status, reply.fields["connection"]) == (408, "close")
    assert raw.is_closed()


def test_an_idle_client_is_closed_without_a_word(hasty: Served) -> None:
    raw = hasty.client()
    assert raw.ask("/echo").status == 200
    assert raw.is_closed()


def test_a_busy_client_is_never_taken_for_idle(hasty: Served) -> None:
    raw = hasty.client().send(request("/hold"))
    swept = []
    hasty.loop.call_soon_threadsafe(hasty.loop.call_later, 0.3, swept.append, 1)
    wait_for(lambda: swept)
    hasty.release()
    assert raw.reply().body == b"late"


def test_a_head_beyond_the_limit_is_413(small: Served) -> None:
    for data in (b"GET /" + b"a" * 2000, request("/echo", b"", "X: " + "y" * 1024)):
        raw = small.client().send(data)
        assert raw.reply().status == 413
        assert raw.is_closed()


def test_a_body_beyond_the_limit_is_413_before_it_is_read(small: Served) -> None:
    for _ in range(2):  # the head is not remembered as one that may pass
        raw = small.client().send(request("/echo", b"", "Content-Length: 100001"))
        reply = raw.reply()
        assert reply.status == 413
        assert b"raise limits.body_bytes" in reply.body
        assert raw.is_closed()
    raw = small.client().send(request("/echo", b"x" * 200_000))
    assert raw.reply().status == 413


def test_a_client_that_sends_on_can_still_read_why_it_was_refused(small: Served) -> None:
    raw = small.client().send(request("/echo", b"", f"Content-Length: {50 << 20}"))
    for _ in range(50):
        raw.send(bytes(1 << 20))
    assert raw.reply().status == 413


def test_bodies_that_are_not_whole_have_a_limit_together(small: Served) -> None:
    room = small.server._room
    first = small.client().send(request("/echo", b"", "Content-Length: 100000") + b"a" * 99_999)
    wait_for(lambda: room.left_bytes == 150_000 - 99_999)
    second = small.client().send(request("/echo", b"", "Content-Length: 100000") + b"b" * 99_999)
    reply = second.reply()
    assert (reply.status, reply.fields["retry-after"]) == (503, "1")
    assert first.send(b"a").reply().body == b"a" * 100_000
    gone = small.client().send(request("/echo", b"", "Content-Length: 100000") + b"b" * 99_999)
    wait_for(lambda: room.left_bytes < 150_000)
    gone.close()
    wait_for(lambda: room.left_bytes == 150_000)


def test_more_clients_than_the_limit_are_sent_away_and_the_others_stay() -> None:
    with http_served(SMALL) as served:
        inside = [served.client() for _ in range(20)]
        for each in inside:
            assert each.ask("/echo", b"in").body == b"in"
        extra = served.client()
        reply = extra.reply()
        assert (reply.status, reply.fields["retry-after"]) == (503, "1")
        assert extra.is_closed()
        inside.pop().close()
        wait_for(lambda: served.server.connections == 19)
        assert served.client().ask("/echo", b"in").body == b"in"


def test_a_thousand_idle_clients_do_not_keep_one_from_its_answer() -> None:
    with http_served() as served:
        idle = [served.client() for _ in range(1000)]
        assert idle[0].ask("/echo", b"a").body == b"a"
        assert idle[-1].ask("/echo", b"b").body == b"b"
        wait_for(lambda: served.server.connections == 1000)


def chunked(*chunks: bytes, end: bytes = b"0\r\n\r\n", fields: tuple[str, ...] = ()) -> bytes:
    head = request("/echo", b"", "Transfer-Encoding: chunked", *fields)
    return head + b"".join(b"%x\r\n%s\r\n" % (len(chunk), chunk) for chunk in chunks) + end


def test_a_client_that_speaks_tls_is_told_so_and_does_not_hang(it: Served) -> None:
    hello = ssl.MemoryBIO()
    tls = ssl.create_default_context().wrap_bio(ssl.MemoryBIO(), hello, server_hostname="localhost")
    with suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    client = it.client()
    client.send(hello.read())
    reply = client.reply()
    assert (reply.status, reply.fields["connection"]) == (400, "close")
    assert b"without TLS" in reply.body
    client.close()


def test_a_large_body_in_many_segments_is_put_together_again_and_again(raw: Raw) -> None:
    for seed in range(3):
        body = np.random.default_rng(seed).bytes(BIG_BYTES)
        data = request("/echo", body)
        for at in range(0, len(data), 70_000):
            raw.send(data[at : at + 70_000])
        assert raw.reply().body == body


def test_a_body_in_chunks_is_put_together(raw: Raw) -> None:
    for _ in range(2):
        assert raw.send(chunked(b"hello, ", b"w" * 5000, b"!")).reply().body == b"hello, " + b"w" * 5000 + b"!"
    assert raw.send(chunked(b"a", end=b"0\r\nTrailer: x\r\n\r\n")).reply().body == b"a"
    assert raw.send(chunked(b"a", fields=("Upgrade: h2c", "Connection: upgrade"))).reply().body == b"a"


def test_what_comes_in_one_piece_behind_the_last_chunk_is_not_taken_for_a_request(raw: Raw) -> None:
    raw.send(chunked(b"a") + b"GET /echo HTTP/1.1\r\nHost: h\r\n\r\n")
    reply = raw.reply()
    assert (reply.body, reply.fields["connection"]) == (b"a", "close")
    assert raw.is_closed()


@pytest.mark.parametrize(
    "data",
    [
        chunked()[:-5] + b"xyz\r\n",
        chunked()[:-5] + b"-5\r\nhello\r\n0\r\n\r\n",
        chunked()[:-5] + b"5 5\r\nhello\r\n0\r\n\r\n",
        chunked()[:-5] + b"5\r\nhelloworld\r\n0\r\n\r\n",
        chunked()[:-5] + b"5\nhello\n0\n\n",
        chunked()[:-5] + b"ffffffffffffffffff\r\n",
    ],
)
def test_malformed_chunks_are_400_and_the_end(raw: Raw, data: bytes) -> None:
    reply = raw.send(data).reply()
    assert (reply.status, reply.fields["connection"]) == (400, "close")
    assert raw.is_closed()


def test_chunks_have_the_body_limit_and_may_not_be_mostly_frames(small: Served) -> None:
    assert small.client().send(chunked(b"x" * 60_000, b"x" * 60_000)).reply().status == 413
    trailer = b"0\r\n" + b"A: b\r\n" * 20_000
    reply = small.client().send(chunked(end=trailer)).reply()
    assert reply.status == 413
    assert b"trailer" in reply.body
    extension = chunked()[:-5] + b"1;" + b"e" * 100_000
    assert small.client().send(extension).reply().status in {400, 413}


def test_a_client_that_expects_100_gets_it_before_it_sends(raw: Raw, small: Served) -> None:
    raw.send(request("/echo", b"", "Content-Length: 5", "Expect: 100-continue"))
    assert raw.line() == b"HTTP/1.1 100 Continue"
    assert raw.send(b"hello").reply().body == b"hello"
    assert raw.send(request("/echo", b"hello", "Expect: 100-continue")).reply().body == b"hello"
    big = small.client().send(request("/echo", b"", "Content-Length: 999999", "Expect: 100-continue"))
    assert big.reply().status == 413
    private = small.client().send(request("/private", b"", "Content-Length: 5", "Expect: 100-continue"))
    assert private.reply().status == 401


def test_a_request_that_its_head_refuses_keeps_the_connection_unless_its_body_is_long(raw: Raw) -> None:
    for _ in range(2):
        reply = raw.ask("/private", b"short")
        assert (reply.status, reply.fields["www-authenticate"]) == (401, "Bearer")
    assert raw.ask("/echo", b"x").status == 200
    raw.send(request("/private", b"", f"Content-Length: {1 << 20}"))
    assert raw.reply().fields["connection"] == "close"
    assert raw.is_closed()


def test_an_error_to_head_has_no_body(raw: Raw) -> None:
    reply = raw.ask("/nowhere", method="HEAD")
    assert reply.status == 404
    assert int(reply.fields["content-length"]) > 0
    assert raw.ask("/echo", b"in step").body == b"in step"


def test_http_1_0_and_close_are_answered_and_closed(it: Served) -> None:
    for fields, version in (((), "1.0"), (("Connection: keep-alive",), "1.0"), (("Connection: x, Close",), "1.1")):
        for method in ("GET", "POST"):
            raw = it.client()
            reply = raw.ask("/echo", b"", *fields, method=method, version=version)
            assert (reply.status, reply.fields["connection"]) == (200, "close")
            assert raw.is_closed()


@pytest.mark.parametrize(
    ("name", "pack"), [("gzip", gzip.compress), ("deflate", zlib.compress), ("GZIP", gzip.compress)]
)
def test_a_compressed_body_is_unpacked_every_time(raw: Raw, name: str, pack: object) -> None:
    for body in (b"hello" * 100, b"hello" * 100, bytes(range(256)) * 400):
        packed = pack(body)  # type: ignore[operator]
        if len(body) > 1000:
            packed = gzip.compress(body, 0) if name != "deflate" else zlib.compress(body, 0)
        assert raw.ask("/echo", packed, f"Content-Encoding: {name}").body == body
    assert raw.send(chunked(gzip.compress(b"both"), fields=("Content-Encoding: gzip",))).reply().body == b"both"


def test_bodies_that_do_not_unpack_are_400_or_413_and_the_connection_stays(small: Served) -> None:
    raw = small.client()
    bomb = gzip.compress(bytes(50_000_000))
    bad = {
        "gzip": [(b"no gzip", 400), (gzip.compress(b"x" * 99)[:-4], 400), (gzip.compress(b"x") + b"tail", 400)],
        "br": [(b"x", 400)],
        "gzip, gzip": [(gzip.compress(gzip.compress(b"x")), 400)],
        "deflate": [(zlib.compress(bytes(200_000)), 413)],
    }
    for encoding, cases in bad.items():
        for body, status in cases:
            assert raw.ask("/echo", body, f"Content-Encoding: {encoding}").status == status
    assert len(bomb) > 4096
    assert raw.ask("/echo", bomb, "Content-Encoding: gzip").status == 413
    assert raw.ask("/echo", b"fine").body == b"fine"


@pytest.mark.parametrize(
    "head",
    [
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 0x5\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length : 5\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nTransfer-Encoding:\x0bchunked\r\n\r\n",
        b"POST /echo HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nContent-Length: 5\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 5\r\n\r\n",
        b"GET /echo HTTP/1.1\nHost: a\n\nGET /echo HTTP/1.1\r\nHost: a\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: a\r\nX: y\r\n z\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: a\r\nX: y\rZ: z\r\n\r\n",
        b"GET /echo HTTP/1.1\r\nHost: a\r\nX: \x00\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"GET /echo HTTP/0.9\r\n\r\n",
        b"GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n",
    ],
)
def test_what_two_servers_could_read_differently_is_400_and_the_end(it: Served, head: bytes) -> None:
    seen = len(it.lab.seen)
    raw = it.client().send(head)
    reply = raw.reply()
    assert (reply.status, reply.fields["connection"]) == (400, "close")
    assert raw.is_closed()
    assert len(it.lab.seen) == seen


def test_a_defect_in_a_handler_is_500_without_details_and_the_connection_goes_on(
    raw: Raw, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.ERROR):
        for body in (b"a", b"a", b"b" * 70_000):
            reply = raw.ask("/fail", body)
            assert reply.status == 500
            assert b"secret" not in reply.body
    assert raw.ask("/echo", b"x").body == b"x"
    assert "secret" in caplog.text


def test_a_client_that_vanishes_is_reported_once_and_its_answer_goes_nowhere(it: Served) -> None:
    raw = it.client().send(request("/hold/gone"))
    connection, known = it.lab.held.get(timeout=30)
    raw.close()
    assert it.lab.lost.get(timeout=30) == "/hold/gone"
    it.lab.held.put((connection, known))
    it.release()
    assert it.lab.lost.empty()


def test_a_client_that_vanishes_in_the_midst_of_its_request_or_its_answer_harms_nobody(it: Served) -> None:
    it.client().send(b"POST /echo HTTP/1.1\r\nHo").close()
    it.client().send(request("/echo", b"x" * 1000)[:-10]).close()
    it.client(buffer_bytes=4096).send(request("/large")).close()
    reset = it.client(buffer_bytes=4096).send(request("/large"))
    reset.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")
    reset.close()
    assert it.client().ask("/echo", b"x").body == b"x"


def test_writing_to_a_client_that_closes_is_not_an_error(it: Served, caplog: pytest.LogCaptureFixture) -> None:
    """uvloop raises on a transport that is closing: between its end and `connection_lost` an answer may come."""
    raw = it.client().send(request("/hold"))
    connection, known = it.lab.held.get(timeout=30)

    def close_and_answer() -> None:
        connection._transport.abort()
        connection._transport.close()
        connection.reply(b"HTTP/1.1 200 OK\r\n\r\n", keep_alive=True)
        connection._pause()
        connection._resume_reading()
        connection.fail(ValueError(known), keep_alive=True)
        connection.hang_up()

    it.run(close_and_answer)
    assert raw.is_closed()
    assert not caplog.records
