"""One HTTP/1.1 connection: bytes in, requests out, one at a time and in order; answers back.

Between two requests of the same head nothing is parsed: the bytes up to the empty line are looked up. Whatever is
unusual (a head in pieces, chunks, pipelining, compression) takes the slower way round through the buffer.

A client that closes its side is taken for gone, as most servers do: nothing else tells that a client has died.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from typing import Any, Final

from npuops.errors import DataError, DeadlineError, NpuopsError, OverloadedError, TooLargeError
from npuops.runtime.job import Bytes
from npuops.server.http_body import UNPACK_HERE_BYTES, Chunks, Pieces, Room, unpacked
from npuops.server.http_known import Heads, HttpLimits, Known
from npuops.server.http_response import CONTINUE, error_response

_log: Final = logging.getLogger("npuops.server")
_END: Final = b"\r\n\r\n"
_TLS: Final = b"\x16\x03"
"""The beginning of a TLS handshake (RFC 8446, 5.1)."""

IDLE: Final = 0
HEAD: Final = 1
BODY: Final = 2
CHUNKS: Final = 3
BUSY: Final = 4
STALLED: Final = 5
"""It is answered, and does not read: no further request is taken until it does."""
LINGERING: Final = 6
"""It was refused in the midst of a request: what it still sends is dropped, so that it can read why."""
CLOSED: Final = 7

LINGER_S: Final = 2.0
REFUSED_BODY_BYTES: Final = 64 * 1024
"""Of a request that is refused by its head: a shorter body is read, so that the connection can stay."""
SLOWEST_BYTES_S: Final = 1024


class Connection(asyncio.Protocol):
    """The protocol of one client.

    Attributes:
        on_lost: called when the client goes away while a request is being answered.
        exchange: the handler's own, kept from request to request.
        ending: it is closed after the answer to the present request.
        since_s: of the loop's clock, when something last came from the client or went to it.
        peer: its address, for the log.
    """

    __slots__ = (
        "_alive", "_began_s", "_body", "_buffer", "_chunks", "_heads", "_held", "_known", "_limits", "_loop",
        "_reading", "_room", "_stalled", "_state", "_task", "_transport", "_unsent", "ending", "exchange", "on_lost",
        "peer", "since_s",
    )  # fmt: skip

    def __init__(
        self,
        heads: Heads,
        limits: HttpLimits,
        loop: asyncio.AbstractEventLoop,
        alive: set[Connection],
        room: Room,
    ) -> None:
        """`alive` holds all connections that are open; `room` is what their bodies may take together."""
        self._heads, self._limits, self._loop, self._alive, self._room = heads, limits, loop, alive, room
        self._transport: Any = None
        self._state = IDLE
        self._buffer = bytearray()
        self._known: Known | None = None
        self._body: Pieces | None = None
        self._chunks: Chunks | None = None
        self._held = 0
        self._began_s = 0.0
        self._unsent = 0
        self._task: asyncio.Task[None] | None = None
        self._reading = True
        self._stalled = False
        self.ending = False
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
            error = OverloadedError(f"{self._limits.connections} clients are connected", advice="come back later")
            self._write(error_response(error, keep_alive=False))
            self._close()

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone; what it waited for is taken back."""
        del exc
        self._state = CLOSED
        self._alive.discard(self)
        self._transport = None
        self._drop()
        on_lost, self.on_lost = self.on_lost, None
        if on_lost is not None:
            on_lost()

    def data_received(self, data: bytes) -> None:
        """The whole request of a known client in one piece is the common case; the rest goes through the buffer."""
        if self._state == IDLE and not self._buffer:
            end = data.find(_END) + 4
            if end >= 4:
                known = self._heads.get(data[:end])
                if known is not None:
                    came = len(data) - end
                    if known.body_bytes == came:
                        self._take(known, memoryview(data)[end:])
                        return
                    if known.body_bytes > came > 0:
                        self._begin(known, memoryview(data)[end:])
                        return
        self._receive(data)

    def pause_writing(self) -> None:
        """The client does not read what it asked for: take no more requests from it."""
        self._stalled = True
        self._pause()

    def resume_writing(self) -> None:
        """It reads again."""
        self._stalled = False
        if self._state == STALLED:
            self._state, self.since_s = IDLE, self._loop.time()
            self._loop.call_soon(self._close if self.ending else self._go_on)

    def reply(self, data: bytes, *, keep_alive: bool) -> None:
        """A whole response. The next request, if one is there, begins after this call."""
        self.on_lost = None
        if self._state == CLOSED:
            return
        transport = self._transport
        if not transport.is_closing():  # uvloop raises on one that is; `connection_lost` tells of it
            transport.write(data)
        if not keep_alive or self.ending:
            self._close()
            return
        self.since_s = self._loop.time()
        if self._stalled:
            self._state, self._unsent = STALLED, self._transport.get_write_buffer_size()
            return
        self._state = IDLE
        if self._buffer or not self._reading:
            self._loop.call_soon(self._go_on)

    def fail(self, error: BaseException, *, keep_alive: bool, head_only: bool = False) -> None:
        """An error as the response; to a HEAD request without its body."""
        keep_alive = keep_alive and not self.ending
        self.reply(error_response(error, keep_alive=keep_alive, head_only=head_only), keep_alive=keep_alive)

    def drain(self) -> None:
        """No further request: a busy connection is closed after its answer, others by `hang_up_if_idle`."""
        self.ending = True

    def hang_up_if_idle(self) -> None:
        """Close it, unless a request came in part or is being answered."""
        if not self.is_busy:
            self._close()

    def sweep(self, now_s: float) -> None:
        """Cut off a client that trickles; close one that is idle for long. Called about every second."""
        limits, state, waited_s = self._limits, self._state, now_s - self.since_s
        if state == HEAD and waited_s > limits.head_s:
            self._refuse(DeadlineError("the request's head did not come in time", advice="send it at once"), 408)
        elif state in {BODY, CHUNKS}:
            slow = now_s - self._began_s > limits.body_s + self._held / SLOWEST_BYTES_S
            if slow or waited_s > limits.body_s:
                self._refuse(DeadlineError("the request's body did not come in time", advice="check its length"), 408)
        elif (state == IDLE and waited_s > limits.idle_s) or (state == LINGERING and waited_s > LINGER_S):
            self._close()
        elif state in {STALLED, CLOSED} and self._transport is not None:
            unsent = self._transport.get_write_buffer_size()
            if unsent < self._unsent:
                self._unsent, self.since_s = unsent, now_s
            elif waited_s > limits.body_s:
                self._transport.abort()

    def hang_up(self) -> None:
        """Close it, whatever it does."""
        self._close()

    @property
    def is_open(self) -> bool:
        """The client is there."""
        return self._state != CLOSED

    @property
    def is_busy(self) -> bool:
        """A request came in part, or is being answered; or an answer is not sent yet."""
        if self._state in {IDLE, LINGERING, CLOSED}:
            return self._transport is not None and self._transport.get_write_buffer_size() > 0
        return True

    def _receive(self, data: bytes) -> None:
        if self._state == BODY:
            self._fill(data)
        elif self._state == CHUNKS:
            self._feed(data)
        elif self._state in {BUSY, STALLED}:
            self._buffer += data
            if len(self._buffer) > self._limits.head_bytes:
                self._pause()
        elif self._state in {IDLE, HEAD}:
            self._buffer += data
            self._read_head()

    def _go_on(self) -> None:
        """The last answer is written; a request may lie in the buffer."""
        if self._state in {BUSY, STALLED}:
            return
        self._resume_reading()
        if self._state == IDLE and self._buffer:
            self._read_head()

    def _read_head(self) -> None:
        buffer = self._buffer
        if self._state == IDLE:
            self._state = HEAD
            self.since_s = self._loop.time()
        while buffer.startswith(b"\r\n"):  # some clients end a body with an empty line that belongs to nothing
            del buffer[:2]
        if buffer.startswith(_TLS):  # it waits for an answer in TLS, and would never send an empty line
            self._refuse(DataError("this port speaks HTTP without TLS", advice="ask http://, or set up [tls]"))
            return
        end = buffer.find(_END) + 4
        if end < 4 or end > self._limits.head_bytes:
            if len(buffer) > self._limits.head_bytes:
                self._refuse(TooLargeError(f"the head has more than {self._limits.head_bytes} bytes"))
            return
        raw = bytes(buffer[:end])
        rest = bytes(buffer[end:])
        self._buffer = bytearray()
        try:
            known = self._heads.get(raw) or self._heads.learn(raw)
            self._check(known)
        except NpuopsError as error:
            self._refuse(error)
            return
        if known.head.expects_continue and not rest:
            self._write(CONTINUE)
        if known.head.is_chunked:
            self._known = known
            self.since_s = self._began_s = self._loop.time()
            self._state, self._chunks = CHUNKS, Chunks(self._limits.body_bytes)
            self._feed(rest)
        else:
            self._begin(known, rest)

    def _check(self, known: Known) -> None:
        """A request that is refused whatever its body holds is refused before a long one is read."""
        head, limit = known.head, self._limits.body_bytes
        is_long = head.is_chunked or head.content_length > REFUSED_BODY_BYTES or head.expects_continue
        if known.refused is not None and is_long:
            raise known.refused
        if head.content_length > limit:
            raise TooLargeError(
                f"the body has {head.content_length} bytes, at most {limit} are taken",
                advice="send less at once, or raise limits.body_bytes of the server",
            )

    def _begin(self, known: Known, data: bytes | memoryview) -> None:
        """A body of a known length, and what came of it with its head."""
        self._known, self._state = known, BODY
        self._body = Pieces(known.head.content_length)
        self.since_s = self._began_s = self._loop.time()
        self._fill(data)

    def _fill(self, data: bytes | memoryview) -> None:
        body = self._body
        assert body is not None  # noqa: S101 - the head came before
        if len(data) > body.missing:
            self._buffer += data[body.missing :]
            data = data[: body.missing]
        body.add(data)
        if body.missing:
            self._hold(len(data))
        else:
            self._whole(body.whole())

    def _feed(self, data: bytes) -> None:
        assert self._chunks is not None  # noqa: S101 - the state says so
        try:
            body = self._chunks.feed(data)
        except NpuopsError as error:
            self._refuse(error)
            return
        if body is None:
            self._hold(len(data))
            return
        self.ending = self.ending or self._chunks.overran
        self._whole(body)

    def _hold(self, size: int) -> None:
        """So many bytes more of a body that is not whole."""
        self.since_s = self._loop.time()
        self._held += size
        self._room.left_bytes -= size
        if self._room.left_bytes < 0:
            self._refuse(OverloadedError("the server receives too many large requests", advice="send it again later"))

    def _drop(self) -> None:
        """What was held of a body is not any more."""
        self._room.left_bytes += self._held
        self._held = 0
        self._body = self._chunks = None

    def _whole(self, body: Bytes) -> None:
        self._drop()
        known = self._known
        assert known is not None  # noqa: S101 - the head came before the body
        self._known = None
        if not known.head.encoding:
            self._take(known, body)
            return
        self._state = BUSY
        if len(body) > UNPACK_HERE_BYTES:
            self._task = self._loop.create_task(self._unpack_apart(known, body))
            return
        try:
            whole = unpacked(body, known.head.encoding, self._limits.body_bytes)
        except NpuopsError as error:
            self.fail(error, keep_alive=known.head.keep_alive)
            return
        self._take(known, whole)

    async def _unpack_apart(self, known: Known, body: Bytes) -> None:
        try:
            whole = await asyncio.to_thread(unpacked, body, known.head.encoding, self._limits.body_bytes)
        except NpuopsError as error:
            self.fail(error, keep_alive=known.head.keep_alive)
            return
        finally:
            self._task = None
        if self._state == BUSY:
            self._take(known, whole)

    def _take(self, known: Known, body: Bytes) -> None:
        self._state = BUSY
        try:
            known.begin(self, known, body)
        except Exception as error:  # noqa: BLE001 - a defect of ours: logged, and the client gets no details
            _log.exception("%s %s", known.head.method, known.head.path)
            if self._state == BUSY:
                self.fail(error, keep_alive=known.head.keep_alive)

    def _refuse(self, error: NpuopsError, status: int | None = None) -> None:
        """The rest of the stream cannot be trusted: answer, read on for a while, and hang up."""
        self._write(error_response(error, keep_alive=False, status=status))
        self._drop()
        self._known, self._buffer = None, bytearray()
        self._state, self.since_s = LINGERING, self._loop.time()
        # Closing with bytes unread makes TCP send a reset, which may overtake the answer.
        if self._transport is not None and not self._transport.is_closing() and self._transport.can_write_eof():
            self._transport.write_eof()

    def _write(self, data: bytes) -> None:
        # uvloop raises on a transport that is closing; the client is gone then, and connection_lost tells.
        if self._transport is not None and not self._transport.is_closing():
            self._transport.write(data)

    def _close(self) -> None:
        if self._state == CLOSED:
            return
        self._drop()
        self._state, self.since_s = CLOSED, self._loop.time()
        self._known, self._buffer = None, bytearray()
        if self._transport is not None:
            self._unsent = self._transport.get_write_buffer_size()
            self._transport.close()

    def _pause(self) -> None:
        if self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = False
            self._transport.pause_reading()

    def _resume_reading(self) -> None:
        if not self._reading and self._transport is not None and not self._transport.is_closing():
            self._reading = True
            self._transport.resume_reading()
