"""What one side of an HTTP/2 connection keeps: its limits, its streams, and the patience it has with its peer."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import Any, Final, Protocol

from npuops.errors import OptionError
from npuops.server.http2_frames import (
    DEFAULT_WINDOW,
    MAX_FRAME_BYTES,
    MAX_WINDOW,
    MIN_FRAME_BYTES,
    ErrorCode,
    Http2Error,
    Setting,
    StreamError,
    settings_frame,
    window_update,
)
from npuops.server.http2_headers import RequestHead

_GAPS: Final = 64
_RESETS: Final = 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class Http2Limits:
    """How much a peer may ask for, and how long it may take.

    Attributes:
        max_streams: open at a time on one connection; more are refused, and may be sent again.
        stream_window: bytes of one stream that may be on their way.
        connection_window: bytes of all streams that may be on their way.
        frame_bytes: largest frame that is taken.
        header_list_bytes: largest header list that is taken, by RFC 9113's count.
        continuations: most CONTINUATION frames of one header block.
        burst: frames that oblige this side to something (PING, SETTINGS, RST_STREAM, empty DATA, …) at once.
        burst_refill: as many more each second; each answered request gives one back as well.
        updates: WINDOW_UPDATEs in a second, while nothing is sent that is worth one.
        handshake_s: until the preface and the settings are there; also for a frame or a header block, once begun.
        keepalive_s: of silence, after which a PING asks whether the peer is there.
        ping_s: within which it must answer.
        idle_s: without a stream, after which the connection is closed; 0 for never.
        stall_s: that a response may wait for the peer's window or socket.
    """

    max_streams: int = 1024
    stream_window: int = 4 << 20
    connection_window: int = 64 << 20
    frame_bytes: int = 256 << 10
    header_list_bytes: int = 16 << 10
    continuations: int = 16
    burst: int = 2000
    burst_refill: int = 200
    updates: int = 6000
    handshake_s: int = 15
    keepalive_s: int = 60
    ping_s: int = 20
    idle_s: int = 0
    stall_s: int = 60

    def __post_init__(self) -> None:
        """Refuse what the protocol has no numbers for."""
        if not MIN_FRAME_BYTES <= self.frame_bytes <= MAX_FRAME_BYTES:
            raise OptionError(f"frame_bytes is {self.frame_bytes}", advice="2^14 to 2^24-1")
        if not 1 <= self.stream_window <= MAX_WINDOW:
            raise OptionError(f"stream_window is {self.stream_window}", advice="1 to 2^31-1")
        if not DEFAULT_WINDOW <= self.connection_window <= MAX_WINDOW:
            raise OptionError(f"connection_window is {self.connection_window}", advice="65535 to 2^31-1")

    def greeting(self) -> bytes:
        """What this side tells of itself first."""
        values = {
            Setting.MAX_CONCURRENT_STREAMS: self.max_streams,
            Setting.INITIAL_WINDOW_SIZE: self.stream_window,
            Setting.MAX_FRAME_SIZE: self.frame_bytes,
            Setting.MAX_HEADER_LIST_SIZE: self.header_list_bytes,
        }
        more = self.connection_window - DEFAULT_WINDOW
        return settings_frame(values) + (window_update(0, more) if more else b"")


class Http2Stream:
    """One request and its response.

    Attributes:
        send_window: bytes of DATA that the peer takes; negative after it lowered its initial window.
        receive_window: bytes of DATA that the peer may still send.
        body_bytes: received so far; counted only where the request tells its content length.
        is_remote_ended: the peer has sent all.
        is_closed: nothing is sent on it any more, and nothing that comes is for anybody.
        is_ready: it has its place among those that wait for the connection alone.
        is_held: its window is not opened again until it is released (`Http2Connection.release`).
        queue: data that waits for a window; None while all was sent at once.
        queued_bytes: in it.
        trailers: block that goes after the queue.
        stalled_s: seconds that the queue has not moved.
        context: whatever the receiver keeps with it.
    """

    __slots__ = (
        "body_bytes",
        "context",
        "head",
        "id",
        "is_closed",
        "is_held",
        "is_ready",
        "is_remote_ended",
        "queue",
        "queued_bytes",
        "receive_window",
        "send_window",
        "stalled_s",
        "trailers",
    )

    def __init__(self, number: int, head: RequestHead, send_window: int, receive_window: int) -> None:
        self.id = number
        self.head = head
        self.send_window = send_window
        self.receive_window = receive_window
        self.body_bytes = 0
        self.is_remote_ended = False
        self.is_closed = False
        self.is_held = False
        self.is_ready = False
        self.queue: deque[memoryview] | None = None
        self.queued_bytes = 0
        self.trailers: bytes | None = None
        self.stalled_s = 0
        self.context: Any = None

    def count_body(self, length: int, *, ended: bool) -> None:
        """So much of the request's body came.

        Raises:
            StreamError: it is not as long as the head tells.
        """
        wanted = self.head.content_length
        if wanted >= 0:
            self.body_bytes += length
            if self.body_bytes > wanted or (ended and self.body_bytes != wanted):
                raise StreamError("the body is not as long as content-length tells", stream_id=self.id)


class Remainder:
    """The bytes of a frame that is not there yet.

    Attributes:
        size: of what is kept.
    """

    __slots__ = ("_bytes", "_wanted", "size")

    def __init__(self) -> None:
        self._bytes = bytearray()
        self._wanted = 0
        self.size = 0

    def keep(self, piece: bytes, wanted: int) -> None:
        """The first piece; nothing can be done with less than `wanted` bytes."""
        self._bytes = bytearray(piece)  # a list of pieces would cost an object for each byte of a malicious client
        self._wanted, self.size = wanted, len(piece)

    def complete(self, piece: bytes) -> bytes:
        """The next piece. All of them, and nothing is kept, or b"" while that is not enough."""
        self._bytes += piece
        self.size += len(piece)
        if self.size < self._wanted:
            return b""
        whole, self._bytes, self.size = bytes(self._bytes), bytearray(), 0
        return whole


class StreamTable:
    """The streams of one connection, and what is remembered of those that are over.

    Attributes:
        open: by number.
        last_id: the highest that the peer used.
    """

    def __init__(self) -> None:
        self.open: dict[int, Http2Stream] = {}
        self.last_id = 0
        self._gaps: list[range] = []
        self._resets: dict[int, None] = {}

    def advance(self, number: int) -> None:
        """The peer used its next number; those that it left out are closed from now on (RFC 9113, section 5.1.1)."""
        if number != self.last_id + 2:
            self._gaps = [*self._gaps[1 - _GAPS :], range(self.last_id + 1, number)]
        self.last_id = number

    def was_left_out(self, number: int) -> bool:
        """The peer never used it, and may not any more."""
        return number == 0 or any(number in gap for gap in self._gaps)

    def remember_reset(self, number: int) -> None:
        """What the peer sent before it learns of the reset is not its fault (section 5.1)."""
        self._resets[number] = None
        if len(self._resets) > _RESETS:
            del self._resets[next(iter(self._resets))]

    def was_reset(self, number: int) -> bool:
        """By this side, not long ago."""
        return number in self._resets

    def is_never(self, number: int, *, is_draining: bool) -> bool:
        """Frames on this stream are an error of the connection: it is none, or the peer has not opened it.

        A peer that does not know yet that a drain began may have opened streams that nobody looked at.
        """
        return number == 0 or (number > self.last_id and not (is_draining and number & 1))

    def check_stray_data(self, number: int, *, is_draining: bool) -> None:
        """DATA came on a stream that takes none.

        Raises:
            Http2Error: one that was never open.
            StreamError: one whose end the peer knew of.
        """
        if self.is_never(number, is_draining=is_draining):
            raise Http2Error(f"DATA on stream {number}, which is not open")
        if number <= self.last_id and not self.was_reset(number):
            state = "half closed" if number in self.open else "closed"
            raise StreamError(
                f"DATA on stream {number}, which is {state}", code=ErrorCode.STREAM_CLOSED, stream_id=number
            )


class StreamReceiver(Protocol):
    """Gets what comes in. It must not raise."""

    def opened(self, stream: Http2Stream) -> None:
        """A request began: its head is there."""
        ...

    def received(self, stream: Http2Stream, data: bytes, *, ended: bool) -> None:
        """A part of its body, the last one where `ended`."""
        ...

    def drained(self, stream: Http2Stream) -> None:
        """All that waited for a window was sent; not called where nothing had to wait."""
        ...

    def was_reset(self, stream: Http2Stream, code: ErrorCode) -> None:
        """The stream ended before its response was complete: nobody waits for it."""
        ...


class Wire(Protocol):
    """Where a connection's bytes go."""

    def write(self, data: bytes) -> None:
        """In order; after `close` they go nowhere."""
        ...

    def close(self) -> None:
        """When all that was written is sent."""
        ...


class Budget:
    """Frames that cost this side work without being a request: so many at once, so many a second."""

    __slots__ = ("_burst", "_left", "_refill")

    def __init__(self, burst: int, refill: int) -> None:
        self._burst = burst
        self._left = burst
        self._refill = refill

    def spend(self, what: str) -> None:
        """One of them came.

        Raises:
            Http2Error: there were too many.
        """
        self._left -= 1
        if self._left < 0:
            raise Http2Error(f"too many frames that are no request; the last: {what}", code=ErrorCode.ENHANCE_YOUR_CALM)

    def earn(self) -> None:
        """A request was answered."""
        if self._left < self._burst:
            self._left += 1

    def refill(self) -> None:
        """A second passed."""
        self._left = min(self._burst, self._left + self._refill)
