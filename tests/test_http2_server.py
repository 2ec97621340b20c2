from __future__ import annotations

import asyncio
import select
import socket
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from itertools import islice
from pathlib import Path

import grpc
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from grpc_served import METHODS, served
from http2_peer import frames_in
from npuops.errors import OptionError
from npuops.server.grpc_server import GrpcLimits
from npuops.server.http2_frames import (
    ACK,
    END_HEADERS,
    END_STREAM,
    GOAWAY,
    HEADERS,
    PING,
    PREFACE,
    SETTINGS,
    ErrorCode,
    frame,
    settings_frame,
)
from npuops.server.http2_headers import literal
from npuops.server.http2_server import http2_tls

Files = tuple[Path, Path]


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> Files:
    """A certificate for 127.0.0.1, and its key."""
    folder = tmp_path_factory.mktemp("tls")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.now(UTC)
    signed = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ip_address("127.0.0.1"))]), critical=False)
        .sign(key, hashes.SHA256())
    )
    files = folder / "cert.pem", folder / "key.pem"
    files[0].write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    files[1].write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return files


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=30)


def all_of(client: socket.socket) -> bytes:
    data = b""
    while chunk := client.recv(65_536):
        data += chunk
    return data


def test_a_client_over_tls_is_answered(certificate: Files) -> None:
    with served(tls=http2_tls(*certificate)) as it:
        credentials = grpc.ssl_channel_credentials(certificate[0].read_bytes())
        with grpc.secure_channel(it.address, credentials) as channel:
            call = channel.unary_unary("/t.Test/Echo")
            assert call(b"x" * 300_000, timeout=30) == b"x" * 300_000
        context = ssl.create_default_context(cafile=str(certificate[0]))
        context.set_alpn_protocols(["h2", "http/1.1"])
        with context.wrap_socket(connected(it.port), server_hostname="127.0.0.1") as client:
            assert client.selected_alpn_protocol() == "h2"


def test_files_that_are_no_certificate_are_refused(certificate: Files, tmp_path: Path) -> None:
    for files in ((certificate[1], certificate[0]), (tmp_path / "absent", certificate[1])):
        with pytest.raises(OptionError, match=files[0].name):
            http2_tls(*files)


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
