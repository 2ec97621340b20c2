"""HTTP/1.1 connections that carry one request at a time, with as little Python for each as possible.

The requests are whole byte strings, made beforehand. A lane settles every request exactly once: with a status, or with
a code of `outcomes.TRANSPORT`. It connects again by itself when it has to.
"""

from __future__ import annotations

import asyncio
import errno
import ssl
from collections.abc import Callable, Sequence
from typing import Any, Final

from npuops.errors import MissingToolchainError
from npuops.loadgen.lane import TaskLane
from npuops.loadgen.outcomes import LOST, MALFORMED, NO_SOCKET, REFUSED

try:
    import httptools
except ModuleNotFoundError:
    httptools = None

IDLE_S: Final = 1.0
"""A server may close a connection that idled longer; a request that crosses that is sent again once, uncounted."""

_OUT_OF_SOCKETS: Final = frozenset({errno.EMFILE, errno.ENFILE, errno.EADDRNOTAVAIL, errno.ENOBUFS, errno.ENOMEM})
"""This machine has no descriptor or no port left: the server was not even asked."""
_HEAD_END: Final = b"\r\n\r\n"

Settled = Callable[["HttpLane", int], None]


class HttpLane(TaskLane, asyncio.Protocol):
    """One connection, and the request that is on it."""

    __slots__ = (
        "_again",
        "_closing",
        "_code",
        "_context",
        "_head",
        "_keep",
        "_opened",
        "_parser",
        "_requests",
        "_server",
        "_settled_s",
        "_transport",
    )

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        server: tuple[str, int],
        context: ssl.SSLContext | None,
        requests: Sequence[bytes],
        settled: Settled,
    ) -> None:
        super().__init__(loop, settled)
        self._server = server
        self._context = context
        self._requests = requests
        self._transport: Any = None
        self._parser: Any = None
        self._code = 0
        self._head = b""
        self._keep = True
        self._opened = 0
        self._again = False
        self._closing = 0
        self._settled_s = 0.0

    @property
    def is_open(self) -> bool:
        """There is a connection."""
        return self._transport is not None

    async def open(self) -> None:
        """Connect, so that the first request need not; a failure waits until that one."""
        await self._connect()

    def send(self, kind: int) -> None:
        """Put the request on the wire, after connecting where that is needed."""
        self.kind = kind
        self.busy = True
        transport = self._transport
        if transport is not None:
            self._again = self._loop.time() - self._settled_s > IDLE_S
            try:
                transport.write(self._requests[kind])
            except RuntimeError:  # uvloop's word for a transport that closed since
                self._drop()
            else:
                return
        self._again = False
        self._begin(self._send_late())

    def fail(self, code: int) -> None:
        """Give the request up: its connection cannot be used for another."""
        self._cancel()
        self._drop()
        self._settle(code)

    def close(self) -> None:
        """End the connection, without a word about a request that is on it."""
        self.busy = False
        self._cancel()
        self._drop()

    async def _connect(self) -> int:
        """0, or why there is no connection."""
        try:
            await self._loop.create_connection(
                lambda: self,
                *self._server,
                ssl=self._context,
                server_hostname=self._server[0] if self._context is not None else None,
            )
        except OSError as error:  # also an SSL error
            return NO_SOCKET if error.errno in _OUT_OF_SOCKETS else REFUSED
        return 0

    async def _send_late(self) -> None:
        refused = await self._connect()
        if refused:
            self._settle(refused)
        elif self._transport is None:
            self._settle(LOST)
        elif self.busy:
            self._transport.write(self._requests[self.kind])

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A new connection, a new parser."""
        self._transport = transport
        self._parser = httptools.HttpResponseParser(self)
        self._code = 0
        self._head = b""
        self._settled_s = self._loop.time()
        self.reconnects += self._opened
        self._opened = 1

    def data_received(self, data: bytes) -> None:
        """A part of an answer; settle the request when it is whole."""
        self.received_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._broken(MALFORMED)
            return
        code = self._code
        if not code:
            if _HEAD_END not in self._head:
                self._head += data
            return
        self._code = 0
        self._head = b""
        if not self._keep or not self.busy:  # or it is an answer that nobody asked for
            self._drop()
        self._settle(code)

    def on_message_complete(self) -> None:
        """The parser's word; an interim answer (1xx) does not count."""
        code = self._parser.get_status_code()
        if code >= 200:
            self._keep = self._parser.should_keep_alive()  # known only here: the parser forgets it at once
            self._code = code

    def connection_lost(self, exc: Exception | None) -> None:
        """The server closed; where it gave no length, that is how an answer ends."""
        if self._closing:  # from here, and perhaps there is a new connection already
            self._closing -= 1
            return
        self._transport = None
        if not self.busy:
            return
        if exc is None and self._head and _ends_at_close(self._head):
            self._settle(self._parser.get_status_code())
        elif self._again and not self._head:
            self._again = False
            self._begin(self._send_late())
        else:
            self._settle(LOST)

    def _broken(self, code: int) -> None:
        self._drop()
        if self.busy:
            self._settle(code)

    def _drop(self) -> None:
        transport, self._transport = self._transport, None
        if transport is not None:
            self._closing += 1
            transport.abort()

    def _settle(self, code: int) -> None:
        self._settled_s = self._loop.time()
        super()._settle(code)


class KeepingHttpLane(HttpLane):
    """A lane that keeps the answer's body, for whoever compares it."""

    __slots__ = ("_body", "header_bytes")

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._body: list[bytes] = []
        self.header_bytes: int | None = None

    @property
    def body(self) -> bytes:
        """Of the answer that settled the request; valid until the next one is sent."""
        return self._body[0] if len(self._body) == 1 else b"".join(self._body)

    def on_message_begin(self) -> None:
        """The parser's word."""
        self._body = []
        self.header_bytes = None

    def on_header(self, name: bytes, value: bytes) -> None:
        """The parser's word; one header tells where the tensors begin."""
        if name.lower() == b"inference-header-content-length" and value.isdigit():
            self.header_bytes = int(value)

    def on_body(self, part: bytes) -> None:
        """The parser's word."""
        self._body.append(part)


def _ends_at_close(head: bytes) -> bool:
    fields, end, _ = head.lower().partition(_HEAD_END)
    return bool(end) and b"\r\ncontent-length:" not in fields and b"\r\ntransfer-encoding:" not in fields


def require_parser() -> None:
    """Say at once what is missing.

    Raises:
        MissingToolchainError: httptools is not installed.
    """
    if httptools is None:
        raise MissingToolchainError(
            "the load generator needs httptools, which is not installed", advice='pip install "npuops[bench]"'
        )
