from __future__ import annotations

import asyncio
import socket
import ssl
from pathlib import Path

import pytest

from http_served import BIG_BYTES, http_served, request, wait_for
from npuops.errors import UsageError
from npuops.server.http_known import HttpLimits
from npuops.server.http_server import HttpServer
from self_signed import self_signed


@pytest.fixture
def tls(tmp_path: Path) -> tuple[ssl.SSLContext, ssl.SSLContext]:
    """The server's side, and a client's that trusts it."""
    certificate, key = self_signed(tmp_path)
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(certificate, key)
    return server, ssl.create_default_context(cafile=str(certificate))


def test_a_port_that_is_taken_is_said_with_its_number_and_what_to_do() -> None:
    with http_served() as served:
        second = HttpServer(served.lab, HttpLimits(), served.loop)
        listening = asyncio.run_coroutine_threadsafe(second.listen("127.0.0.1", served.port), served.loop)
        with pytest.raises(UsageError, match=f"127.0.0.1:{served.port}") as error:
            listening.result(30)
    assert "--http-port" in error.value.advice


def test_a_server_that_ends_answers_what_is_under_way_and_then_closes() -> None:
    with http_served() as served:
        first, second, idle = served.client(), served.client(), served.client()
        half = served.client().send(request("/echo", b"half")[:-2])
        first.send(request("/hold/1"))
        second.send(request("/hold/2"))
        idle.ask("/echo")
        wait_for(lambda: served.lab.held.qsize() == 2)
        done = served.drain(30)
        assert idle.is_closed()
        half.send(b"lf")
        reply = half.reply()
        assert (reply.body, reply.fields["connection"]) == (b"half", "close")
        assert not done.done()
        served.release(b"one")
        served.release(b"two")
        got = {first.reply().body, second.reply().body}
        assert got == {b"one", b"two"}
        done.result(30)
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", served.port))


def test_a_request_that_was_on_its_way_when_the_end_began_is_answered() -> None:
    with http_served() as served:
        raw = served.client()
        raw.ask("/echo")

        ends: list[asyncio.Task[None]] = []

        def send_and_end() -> None:
            ends.append(served.loop.create_task(served.server.drain(30)))
            served.loop.call_soon(raw.send, request("/echo", b"in time"))

        served.run(send_and_end)
        assert raw.reply().body == b"in time"
        assert raw.is_closed()


def test_what_takes_longer_than_the_end_may_take_is_cut_off_and_taken_back() -> None:
    with http_served() as served:
        raw = served.client().send(request("/hold/long"))
        wait_for(lambda: not served.lab.held.empty())
        served.drain(0.05).result(30)
        assert raw.is_closed()
        assert served.lab.lost.get(timeout=30) == "/hold/long"
        served.release()


def test_tls_carries_the_same_requests(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    ours, theirs = tls
    with http_served(tls=ours) as served:
        raw = served.client(theirs)
        assert raw.ask("/echo", b"secret").body == b"secret"
        assert len(raw.send(request("/large")).reply().body) == BIG_BYTES
        for byte in request("/echo", b"slow"):
            raw.send(bytes([byte]))
        assert raw.reply().body == b"slow"
        assert raw.ask("/echo", b"", f"Content-Length: {1 << 30}").status == 413


def test_a_client_that_never_reads_is_bounded_with_tls_too(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    ours, theirs = tls
    with http_served(tls=ours) as served:
        raw = served.client(theirs, buffer_bytes=4096)
        raw.send(request("/large") * 10)
        wait_for(lambda: served.lab.big)
        for _ in range(100):
            served.run(lambda: None)
        assert served.lab.big <= 2
        for _ in range(10):
            assert len(raw.reply().body) == BIG_BYTES


def test_a_client_that_begins_tls_and_stops_is_cut_off(tls: tuple[ssl.SSLContext, ssl.SSLContext]) -> None:
    with http_served(HttpLimits(head_s=0.1), tls=tls[0]) as served:
        assert served.client().is_closed()
        plain = served.client().send(request("/echo"))
        assert plain.is_closed() or plain._rest
