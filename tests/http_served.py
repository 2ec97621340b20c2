"""The HTTP front end in a thread, with handlers that tests steer, and a client that writes what it likes."""

from __future__ import annotations

import asyncio
import queue
import socket
import ssl
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import uvloop

from npuops.errors import NotServedError, UnauthenticatedError
from npuops.runtime.job import Bytes
from npuops.server.http_connection import Connection
from npuops.server.http_head import Head
from npuops.server.http_known import HttpLimits, Known, Router
from npuops.server.http_response import response
from npuops.server.http_server import HttpServer

BIG_BYTES = 4 << 20


class Lab:
    """A router whose paths say what becomes of a request.

    Attributes:
        seen: every request that got to a handler: method, path and body.
        held: connections that wait for `release`.
        lost: clients that went away while they waited.
        big: how many large answers were written.
    """

    def __init__(self) -> None:
        self.seen: list[tuple[str, str, bytes]] = []
        self.held: queue.Queue[tuple[Connection, Known]] = queue.Queue()
        self.lost: queue.Queue[str] = queue.Queue()
        self.big = 0

    def know(self, head: Head) -> Known:
        if head.path == "/nowhere":
            raise NotServedError("there is no /nowhere here", advice="go home")
        if head.path == "/private":
            raise UnauthenticatedError("this server needs an API key")
        return Known(head, getattr(self, head.path.strip("/").partition("/")[0] or "echo", self.echo))

    def echo(self, connection: Connection, known: Known, body: Bytes) -> None:
        """The body comes back; `/echo/7` says its path in a field."""
        self.seen.append((known.head.method, known.head.path, bytes(body)))
        keep = known.head.keep_alive and not connection.ending
        fields = {"Path": known.head.path}
        connection.reply(response(200, body, headers=fields, keep_alive=keep), keep_alive=keep)

    def hold(self, connection: Connection, known: Known, body: Bytes) -> None:
        self.seen.append((known.head.method, known.head.path, bytes(body)))
        connection.on_lost = lambda: self.lost.put(known.head.path)
        self.held.put((connection, known))

    def fail(self, connection: Connection, known: Known, body: Bytes) -> None:
        raise RuntimeError(f"secret {len(body)} {connection} {known}")

    def large(self, connection: Connection, known: Known, body: Bytes) -> None:
        del body
        self.big += 1
        connection.reply(response(200, bytes(BIG_BYTES)), keep_alive=known.head.keep_alive)


@dataclass
class Served:
    """The server, and its event loop."""

    server: HttpServer
    lab: Lab
    loop: asyncio.AbstractEventLoop
    port: int
    sockets: list[Raw] = field(default_factory=list)

    def client(self, tls: ssl.SSLContext | None = None, buffer_bytes: int = 0) -> Raw:
        """Connect; `buffer_bytes` of the socket that receives, 0 for the system's own."""
        plain = socket.socket()
        plain.settimeout(30)
        if buffer_bytes:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer_bytes)
        plain.connect(("127.0.0.1", self.port))
        raw = Raw(plain if tls is None else tls.wrap_socket(plain, server_hostname="localhost"))
        self.sockets.append(raw)
        return raw

    def run(self, work: Callable[[], Any]) -> Any:
        """Run it within the server's loop."""

        async def call() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(30)

    def release(self, words: bytes = b"late") -> None:
        """Answer the request that waits longest."""
        connection, known = self.lab.held.get(timeout=30)

        def answer() -> None:
            keep = known.head.keep_alive and not connection.ending
            connection.reply(response(200, words, keep_alive=keep), keep_alive=keep)

        self.run(answer)

    def drain(self, limit_s: float) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(self.server.drain(limit_s), self.loop)


class Raw:
    """A client that knows little of HTTP."""

    def __init__(self, plain: socket.socket) -> None:
        self.socket = plain
        self._rest = b""

    def send(self, data: bytes) -> Raw:
        self.socket.sendall(data)
        return self

    def ask(self, path: str, body: bytes = b"", *fields: str, method: str = "POST", version: str = "1.1") -> Reply:
        """A request, and its answer."""
        self.send(request(path, body, *fields, method=method, version=version))
        return self.reply(head_only=method == "HEAD")

    def line(self) -> bytes:
        """Up to an empty line."""
        while b"\r\n\r\n" not in self._rest:
            data = self.socket.recv(65536)
            if not data:
                raise EOFError(self._rest)
            self._rest += data
        head, _, self._rest = self._rest.partition(b"\r\n\r\n")
        return head

    def reply(self, *, head_only: bool = False) -> Reply:
        """One answer."""
        first, *lines = self.line().decode("latin-1").split("\r\n")
        fields = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
        length = 0 if head_only else int(fields.get("content-length", "0"))
        while len(self._rest) < length:
            data = self.socket.recv(1 << 20)
            if not data:
                raise EOFError(self._rest)
            self._rest += data
        body, self._rest = self._rest[:length], self._rest[length:]
        return Reply(int(first.split()[1]), fields, body)

    def is_closed(self) -> bool:
        """The server has nothing more to say, and closes."""
        try:
            while data := self.socket.recv(65536):
                self._rest += data
        except ConnectionResetError:
            return not self._rest
        return not self._rest

    def close(self) -> None:
        self.socket.close()


@dataclass(frozen=True)
class Reply:
    status: int
    fields: dict[str, str]
    body: bytes


def request(path: str, body: bytes = b"", *fields: str, method: str = "POST", version: str = "1.1") -> bytes:
    """As bytes; a length is added unless `fields` say how the body comes."""
    lines = [f"{method} {path} HTTP/{version}", "Host: here", *fields]
    known = {field.partition(":")[0].lower() for field in fields}
    if (body or method == "POST") and not known & {"content-length", "transfer-encoding"}:
        lines.append(f"Content-Length: {len(body)}")
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body


@contextmanager
def http_served(
    limits: HttpLimits | None = None,
    tls: ssl.SSLContext | None = None,
    make: Callable[[asyncio.AbstractEventLoop], Router] | None = None,
) -> Iterator[Served]:
    """Serve until the end of the block; `make` makes another router than the lab."""
    ready: Future[Served] = Future()
    ended = asyncio.Event()

    async def main() -> None:
        loop = asyncio.get_running_loop()
        lab = Lab()
        server = HttpServer(lab if make is None else make(loop), limits or HttpLimits(), loop)
        port = await server.listen("127.0.0.1", 0, tls)
        ready.set_result(Served(server, lab, loop, port))
        await ended.wait()
        await server.drain(0)

    thread = threading.Thread(target=lambda: uvloop.run(main()))
    thread.start()
    it = ready.result(30)
    try:
        yield it
    finally:
        for each in it.sockets:
            each.close()
        it.loop.call_soon_threadsafe(ended.set)
        thread.join(30)
        assert not thread.is_alive(), "the server does not end"


def wait_for(holds: Callable[[], object], limit_s: float = 30.0) -> None:
    """What another thread does is awaited."""
    event = threading.Event()
    for _ in range(int(limit_s / 0.005)):
        if holds():
            return
        event.wait(0.005)
    raise AssertionError("it does not happen")
