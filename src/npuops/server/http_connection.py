"""One HTTP/1.1 connection: bytes in, requests out, one at a time and in order; answers back.

Between two requests of the same head nothing is parsed: the bytes up to the empty line are looked up. Whatever is
unusual (a head in pieces, chunks, pipelining, compression) takes the slower way round through the buffer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any, Final

from npuops.errors import DeadlineError, NpuopsError, TooLargeError
from npuops.server.http_body import Chunks, unpacked
from npuops.server.http_known import Heads, HttpLimits, Known
from npuops.server.http_response import CONTINUE, error_response

_END: Final = b"\r\n\r\n"
IDLE: Final = 0
HEAD: Final = 1
BODY: Final = 2
CHUNKS: Final = 3
BUSY: Final = 4
CLOSED: Final = 5


class Connection(asyncio.Protocol):
    """The protocol of one client.

    Attributes:
        on_lost: called when the client goes away while a request is being answered.
        exchange: the handler's own, kept from request to request.
        peer: its address, for the log.
    """

    def __init__(
        self, heads: Heads, limits: HttpLimits, loop: asyncio.AbstractEventLoop, alive: set[Connection]
    ) -> None:
        """`alive`: holds all connections that are open."""
        self._heads, self._limits, self._loop, self._alive = heads, limits, loop, alive
        self._transport: Any = None
        self._state = IDLE
        self._buffer = bytearray()
        self._known: Known | None = None
        self._body = bytearray()
        self._filled = 0
        self._chunks: Chunks | None = None
        self._draining = False
        self._reading = True
        self.on_lost: Callable[[], None] | None = None
        self.exchange: Any = None
        self.since_s = 0.0
        self.peer = ""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """A client is there."""
        self._transport = transport
        self.since_s = self._loop.time()
        self._alive.add(self)
        self.peer = str((transport.get_extra_info("peername") or ("",))[0])
        if len(self._alive) > self._limits.connections:
            error = TooLargeError(f"more than {self._limits.connections} connections", advice="come back later")
            self._write(error_response(error, keep_alive=False))
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; what it waited for is taken back."""
        del exc
        self._state = CLOSED
        self._alive.discard(self)
        self._transport = None
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()

    def data_received(self, data: bytes) -> None:
        """The whole request of a known client in one piece is the common case; the rest goes through the buffer."""
        if self._state == IDLE and not self._buffer:
            end = data.find(_END) + 4
            if end >= 4:
                known = self._heads.get(data[:end])
                if known is not None and known.head.content_length == len(data) - end:
                    self._state = BUSY
                    known.begin(self, known, memoryview(data)[end:])
                    return
        self._receive(data)

    def pause_writing(self) -> None:
        """The client does not read: take no more requests from it."""
        self._pause()

    def resume_writing(self) -> None:
        """It reads again."""
        if self._state not in {BUSY, CLOSED}:
            self._resume_reading()

    def reply(self, data: bytes, *, keep_alive: bool) -> None:
        """A whole response. The next request, if one is there, begins after this call."""
        if self._state == CLOSED:
            return
        self.on_lost = None
        self._write(data)
        if not keep_alive or self._draining:
            self._close()
            return
        self._state = IDLE
        self.since_s = self._loop.time()
        if self._buffer or not self._reading:
            self._loop.call_soon(self._go_on)

    def fail(self, error: NpuopsError, *, keep_alive: bool) -> None:
        """An error as the response."""
        self.reply(error_response(error, keep_alive=keep_alive and not self._draining), keep_alive=keep_alive)

    def drain(self) -> None:
        """No further request: an idle connection is closed now, a busy one after its answer."""
        self._draining = True
        if self._state == IDLE and not self._buffer:
            self._close()

    def sweep(self, now_s: float) -> None:
        """Cut off a client that trickles; close one that is idle for long. Called about every second."""
        limits, waited_s = self._limits, now_s - self.since_s
        if self._state == HEAD and waited_s > limits.head_s:
            self._refuse(DeadlineError("the request's head did not come in time", advice="send it at once"), 408)
        elif self._state in {BODY, CHUNKS} and waited_s > limits.body_s:
            self._refuse(DeadlineError("the request's body did not come in time", advice="check its length"), 408)
        elif self._state == IDLE and waited_s > limits.idle_s:
            self._close()

    def hang_up(self) -> None:
        """Close it, whatever it does."""
        if self._state != CLOSED:
            self._close()

    @property
    def is_open(self) -> bool:
        """The client is there."""
        return self._state != CLOSED

    @property
    def is_busy(self) -> bool:
        """A request came in part, or is being answered."""
        return self._state not in {IDLE, CLOSED}

    def _receive(self, data: bytes) -> None:
        if self._state == BODY:
            self._fill(data)
        elif self._state == CHUNKS:
            self._feed(data)
        elif self._state == BUSY:
            self._buffer += data
            if len(self._buffer) > self._limits.head_bytes:
                self._pause()
        elif self._state != CLOSED:
            self._buffer += data
            self._read_head()

    def _go_on(self) -> None:
        """The last answer is written; a request may lie in the buffer."""
        if self._state != IDLE:
            return
        self._resume_reading()
        if self._buffer:
            self._read_head()

    def _read_head(self) -> None:
        if self._state == IDLE:
            self._state = HEAD
            self._since_now()
        end = self._buffer.find(_END) + 4
        if end < 4 or end > self._limits.head_bytes:
            if len(self._buffer) > self._limits.head_bytes:
                self._refuse(TooLargeError(f"the head has more than {self._limits.head_bytes} bytes"))
            return
        raw = bytes(self._buffer[:end])
        del self._buffer[:end]
        try:
            known = self._heads.get(raw) or self._heads.learn(raw)
            if known.head.content_length > self._limits.body_bytes:
                raise TooLargeError(
                    f"the body has {known.head.content_length} bytes, at most {self._limits.body_bytes} are taken",
                    advice="send less at once, or raise limits.body_bytes of the server",
                )
        except NpuopsError as error:
            self._refuse(error)
            return
        self._known = known
        rest, self._buffer = self._buffer, bytearray()
        if known.head.expects_continue:
            self._write(CONTINUE)
        if known.head.is_chunked:
            self._state, self._chunks = CHUNKS, Chunks(raw, self._limits.body_bytes)
            self._feed(bytes(rest))
            return
        self._state, self._filled = BODY, 0
        self._body = bytearray(known.head.content_length)
        self._fill(bytes(rest))

    def _fill(self, data: bytes) -> None:
        need = len(self._body) - self._filled
        taken = data[:need] if len(data) > need else data
        self._body[self._filled : self._filled + len(taken)] = taken
        self._filled += len(taken)
        self._buffer += data[need:]
        self._since_now()
        if self._filled == len(self._body):
            body, self._body = self._body, bytearray()
            self._begin(body)

    def _feed(self, data: bytes) -> None:
        assert self._chunks is not None  # noqa: S101 - the state says so
        self._since_now()
        try:
            body = self._chunks.feed(data)
        except NpuopsError as error:
            self._refuse(error)
            return
        if body is not None:
            self._draining = self._draining or self._chunks.overran
            self._chunks = None
            self._begin(body)

    def _begin(self, body: bytearray) -> None:
        known = self._known
        assert known is not None  # noqa: S101 - the head came before the body
        try:
            whole = unpacked(body, known.head.headers.get("content-encoding", ""), self._limits.body_bytes)
        except NpuopsError as error:
            self._refuse(error)
            return
        self._state = BUSY
        known.begin(self, known, whole)

    def _refuse(self, error: NpuopsError, status: int | None = None) -> None:
        """The rest of the stream cannot be trusted: answer and hang up."""
        self._write(error_response(error, keep_alive=False, status=status))
        self._close()

    def _write(self, data: bytes) -> None:
        # uvloop raises on a transport that is closing; the client is gone then, and connection_lost tells.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        self._state = CLOSED
        self._buffer = bytearray()
        if self._transport is not None:
            self._transport.close()

    def _pause(self) -> None:
        if self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()

    def _since_now(self) -> None:
        self.since_s = self._loop.time()
