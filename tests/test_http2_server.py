from __future__ import annotations

import asyncio
import contextlib
import select
import socket
import ssl
import time
from itertools import islice
from pathlib import Path
from struct import pack

import grpc
import pytest

from grpc_served import METHODS, served
from http2_peer import frames_in
from npuops.errors import OptionError
from npuops.server.grpc_server import GrpcLimits
from npuops.server.http2_frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    ErrorCode,
    Setting,
    frame,
    settings_frame,
    window_update,
)
from npuops.server.http2_headers import literal
from npuops.server.http2_streams import Http2Limits
from npuops.server.tls import HTTP2, server_tls
from self_signed import self_signed

Files = tuple[Path, Path]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A certificate, and its key."""
    return self_signed(tmp_path_factory.mktemp("tls"))


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def all_of(client: socket.socket) -> bytes:
    data = b""
    while chunk := client.recv(65_536):
        data += chunk
    return data


def test_a_client_over_tls_is_answered(certificate: Files) -> None:
    with served(tls=server_tls(*certificate, HTTP2)) as it:
        credentials = grpc.ssl_channel_credentials(certificate[0].read_bytes())
        with grpc.secure_channel(f"localhost:{it.port}", credentials) as channel:
            call = channel.unary_unary("/t.Test/Echo")
            assert call(b"x" * 300_000, timeout=30) == b"x" * 300_000
        context = ssl.create_default_context(cafile=str(certificate[0]))
        context.set_alpn_protocols(["h2", "http/1.1"])
        with context.wrap_socket(connected(it.port), server_hostname="localhost") as client:
            assert client.selected_alpn_protocol() == "h2"


def test_files_that_are_no_certificate_are_refused(certificate: Files, tmp_path: Path) -> None:
    for files in ((certificate[1], certificate[0]), (tmp_path / "absent", certificate[1])):
        with pytest.raises(OptionError, match=files[0].name):
            server_tls(*files, HTTP2)


def test_a_port_that_is_taken_is_told() -> None:
    with served() as it, served() as other, pytest.raises(OptionError, match=str(it.port)):
        asyncio.run_coroutine_threadsafe(other.server.listen("127.0.0.1", it.port), other.loop).result(30)


def test_a_client_of_http_1_gets_an_answer_it_can_read() -> None:
    with served() as it, connected(it.port) as client:
        client.sendall(b"GET / HTTP/1.1\r\nhost: here\r\n\r\n")
        assert all_of(client).startswith(b"HTTP/1.1 505 ")


def test_a_broken_rule_is_told_before_the_socket_closes() -> None:
    with served() as it, connected(it.port) as client:
        client.sendall(PREFACE + settings_frame({}) + frame(PING, 0, 3, bytes(8)))
        kind, _, _, payload = frames_in(all_of(client))[-1]
        assert (kind, payload[7]) == (GOAWAY, ErrorCode.PROTOCOL_ERROR)


def test_a_connection_too_many_is_told_so() -> None:
    with served(limits=GrpcLimits(max_connections=1)) as it, connected(it.port) as first:
        first.sendall(PREFACE + settings_frame({}))
        assert first.recv(9)
        with connected(it.port) as second:
            assert frames_in(all_of(second))[-1][0] == GOAWAY
        first.sendall(frame(PING, 0, 0, b"12345678"))
        data = b""
        while frame(PING, ACK, 0, b"12345678") not in data:
            data += first.recv(65_536)


@pytest.mark.slow
def test_a_client_that_reads_nothing_is_not_read_either_until_it_does() -> None:
    """Its calls fail in an instant, so only the socket can slow it down: the server's memory must not grow with it."""
    block = b"\x83\x86" + literal(b":path", b"/t.Test/Nothing") + literal(b"content-type", b"application/grpc")
    calls = (frame(HEADERS, END_HEADERS | END_STREAM, number, block) for number in range(1, 1 << 30, 2))
    with served(METHODS) as it, connected(it.port) as client:
        client.sendall(PREFACE + settings_frame({}))
        client.setblocking(False)
        rest = b""
        while select.select([], [client], [], 1)[1]:
            rest = rest or b"".join(islice(calls, 2000))
            rest = rest[client.send(rest) :]
        while not select.select([], [client], [], 0)[1]:
            assert select.select([client], [], [], 30)[0]
            assert client.recv(1 << 20)


def test_two_ends_that_close_at_once_leave_nothing_open() -> None:
    with served() as it:
        for _ in range(20):
            with connected(it.port) as client:
                client.sendall(PREFACE + settings_frame({}) + frame(SETTINGS, ACK, 0))
        with grpc.insecure_channel(it.address) as channel:
            assert channel.unary_unary("/t.Test/Echo")(b"x", timeout=30) == b"x"
        it.drain(30).result(30)
        assert it.server.connections == 0


def asked(number: int, message: bytes) -> bytes:
    """A call of `Echo`."""
    head = b"\x83\x86" + literal(b":path", b"/t.Test/Echo") + literal(b"content-type", b"application/grpc")
    body = pack(">BI", 0, len(message)) + message
    pieces = [body[start : start + 16_384] for start in range(0, len(body), 16_384)]
    data = [frame(DATA, 0, number, piece) for piece in pieces] + [frame(DATA, END_STREAM, number)]
    return frame(HEADERS, END_HEADERS, number, head) + b"".join(data)


def test_a_drain_loses_nothing_of_an_answer_though_the_client_still_talks() -> None:
    """A socket that is closed while something unread lies in it takes back what was sent."""
    size = 3 << 20
    with served() as it, connected(it.port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.sendall(PREFACE + settings_frame({Setting.INITIAL_WINDOW_SIZE: 1 << 30}) + window_update(0, 1 << 30))
        client.sendall(asked(1, bytes(size)))
        data = client.recv(65_536)
        drained = it.drain(30)
        while chunk := client.recv(8192):
            data += chunk
            client.sendall(frame(PING, ACK, 0, b"npu-last"))
        client.close()
        drained.result(30)
    kinds = frames_in(data)
    assert sum(len(payload) for kind, _, _, payload in kinds if kind == DATA) == size + 5
    assert [flags for kind, flags, _, _ in kinds if kind == HEADERS][-1] & END_STREAM


def test_of_clients_that_take_no_answers_those_with_the_most_are_cut_off_when_memory_gets_short() -> None:
    with served(limits=GrpcLimits(unsent_bytes=6 << 20)) as it, connected(it.port) as hoarder:
        greeting = PREFACE + settings_frame({Setting.INITIAL_WINDOW_SIZE: 0})
        hoarder.sendall(greeting)
        with connected(it.port) as modest:
            modest.sendall(greeting + asked(1, bytes(1 << 20)))
            with contextlib.suppress(ConnectionError):  # of what it sends and of what it is told, much goes nowhere
                for number in range(1, 41, 2):
                    hoarder.sendall(asked(number, bytes(1 << 20)))
                while hoarder.recv(1 << 20):
                    pass
            it.until(lambda: it.server.connections == 1)
            modest.sendall(window_update(1, 2 << 20) + window_update(0, 2 << 20))
            data = b""
            while len(data) < 1 << 20:
                data += modest.recv(1 << 20)


def test_a_client_that_reads_slowly_for_minutes_is_served_all_the_same() -> None:
    """Where the network is slower than the models, the socket is full at almost every look."""
    with served(http2=Http2Limits(stall_s=1)) as it, connected(it.port) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 65_536)
        client.sendall(PREFACE + settings_frame({Setting.INITIAL_WINDOW_SIZE: 1 << 30}) + window_update(0, 1 << 30))
        size, got = 24 << 20, 0
        client.sendall(asked(1, bytes(size)))
        ends_s = time.monotonic() + 4
        while got < size:
            chunk = client.recv(32_768 if time.monotonic() < ends_s else 1 << 20)
            assert chunk, "the server gave up"
            got += len(chunk)
            select.select([], [], [], 0.005 if time.monotonic() < ends_s else 0)


@pytest.mark.parametrize("offered", [[], ["h2"], ["http/1.1"]])
def test_over_tls_a_client_need_not_negotiate_and_one_of_http_1_is_told_so(
    certificate: Files, offered: list[str]
) -> None:
    trusting = ssl.create_default_context(cafile=certificate[0])
    if offered:
        trusting.set_alpn_protocols(offered)
    with (
        served(tls=server_tls(*certificate, HTTP2)) as it,
        connected(it.port) as plain,
        trusting.wrap_socket(plain, server_hostname="localhost") as client,
    ):
        client.sendall(b"GET / HTTP/1.1\r\n\r\n" if "http/1.1" in offered else PREFACE + settings_frame({}))
        data = client.recv(9)
        assert data.startswith(b"HTTP/1.1 ") if "http/1.1" in offered else data[3] == SETTINGS
