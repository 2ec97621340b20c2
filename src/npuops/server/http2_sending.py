"""The sending half of an HTTP/2 connection: responses within the peer's windows, what does not fit waits its turn."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from npuops.server.http2_frames import (
    DATA,
    DEFAULT_WINDOW,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    HEADERS,
    MAX_WINDOW,
    MIN_FRAME_BYTES,
    ErrorCode,
    Http2Error,
    StreamError,
    frame_header,
    header_frames,
)
from npuops.server.http2_streams import Http2Stream

Bytes = bytes | bytearray | memoryview

_pack = FRAME_HEADER.pack

_WORTHWHILE_BYTES: Final = 1024
"""A frame that carries fewer, and is not a response's last, is no progress."""
_TABLE_BYTES: Final = 4096
"""Of the peer's decoder before it says anything (RFC 9113, section 6.5.2)."""
_NO_TABLE: Final = b"\x20"
"""Before a header block: the table has no room from here on."""


class Backlog:
    """Bytes that wait for peers' windows, over all connections of a server.

    Attributes:
        size: of all of them.
    """

    __slots__ = ("_most", "_on_full", "size")

    def __init__(self, most_bytes: int = 1 << 62, on_full: Callable[[], None] = lambda: None) -> None:
        """`on_full` is called each time that something is added while there are more than `most_bytes`."""
        self._most, self._on_full = most_bytes, on_full
        self.size = 0

    def add(self, size: int) -> None:
        """So many more wait."""
        self.size += size
        if self.size > self._most:
            self._on_full()


class Sender:
    """Sends for all streams of one connection.

    Attributes:
        window: bytes of DATA that the peer takes on all streams together.
        initial_window: of a new stream, as the peer told.
        frame_bytes: largest frame that the peer takes.
        is_paused: the socket takes no more for now.
        queued_bytes: that wait for a window or the socket, of all streams.
        updates: WINDOW_UPDATEs since something was sent that is worth one, or since a second began.
    """

    def __init__(
        self,
        write: Callable[[bytes], None],
        finished: Callable[[Http2Stream], None],
        drained: Callable[[Http2Stream], None],
        backlog: Backlog,
    ) -> None:
        """`finished` is called when a response is sent whole, `drained` when a queue ran empty."""
        self._write = write
        self._finished = finished
        self._drained = drained
        self._backlog = backlog
        self.window = DEFAULT_WINDOW
        self.initial_window = DEFAULT_WINDOW
        self.frame_bytes = MIN_FRAME_BYTES
        self.is_paused = False
        self.queued_bytes = 0
        self.updates = 0
        self._blocked: dict[int, Http2Stream] = {}
        self._ready: deque[Http2Stream] = deque()
        self._table_bytes = _TABLE_BYTES
        self._first = b""

    def respond(
        self, stream: Http2Stream, header_block: bytes, parts: Sequence[Bytes], size: int, trailer_block: bytes
    ) -> None:
        """A whole response of `size` bytes; in one write where the windows allow.

        The parts may be reused by their owner afterwards: what has to wait is copied.
        """
        if (
            size <= self.window
            and size <= stream.send_window
            and size <= self.frame_bytes
            and stream.queue is None
            and not self.is_paused
            and not self._first
        ):
            number = stream.id
            self.window -= size
            self.updates = 0
            length, trailers_length = len(header_block), len(trailer_block)
            self._write(
                b"".join(
                    (
                        _pack(length >> 8, length & 0xFF, HEADERS, END_HEADERS, number),
                        header_block,
                        _pack(size >> 8, size & 0xFF, DATA, 0, number),
                        *parts,
                        _pack(trailers_length >> 8, trailers_length & 0xFF, HEADERS, END_HEADERS | END_STREAM, number),
                        trailer_block,
                    )
                )
            )
            self._finished(stream)
            return
        self.headers(stream, header_block)
        self.data(stream, b"".join(parts))
        self.finish(stream, trailer_block)

    def headers(self, stream: Http2Stream, block: bytes, *, end: bool = False) -> None:
        """The response's head, or with `end` the whole response where it has no body."""
        if self._first:
            block, self._first = self._first + block, b""
        self._write(header_frames(stream.id, block, self.frame_bytes, end_stream=end))
        if end:
            self._finished(stream)

    def data(self, stream: Http2Stream, data: Bytes) -> None:
        """A part of the body; it must not change afterwards."""
        if not data:
            return
        if stream.queue is None:
            stream.queue = deque()
        stream.queue.append(memoryview(data))
        stream.queued_bytes += len(data)
        self.queued_bytes += len(data)
        self._backlog.add(len(data))
        self._blocked.setdefault(stream.id, stream)
        self._pump(stream)

    def finish(self, stream: Http2Stream, trailer_block: bytes) -> None:
        """The trailers, after all data that waits."""
        if stream.queued_bytes:
            stream.trailers = trailer_block
        else:
            self.headers(stream, trailer_block, end=True)

    def forget(self, stream: Http2Stream) -> None:
        """Drop what waits: the stream is over."""
        self._blocked.pop(stream.id, None)
        if stream.is_ready:
            stream.is_ready = False
            self._ready.remove(stream)
        self.queued_bytes -= stream.queued_bytes
        self._backlog.size -= stream.queued_bytes
        stream.queue = None
        stream.queued_bytes = 0
        stream.trailers = None

    def set_table_size(self, size: int) -> None:
        """The peer's decoder has room for so much.

        Nothing here is ever indexed; but a decoder that has less room than before wants to hear that it is known
        (RFC 7541, section 4.2). Said once that it may have none, it need not be said again.
        """
        if size < self._table_bytes:
            self._table_bytes, self._first = 0, _NO_TABLE

    def widen(self, increment: int) -> None:
        """The peer takes more on the connection.

        Raises:
            Http2Error: more than there are numbers for, or nothing.
        """
        if increment == 0:
            raise Http2Error("a WINDOW_UPDATE of 0")
        self.updates += 1
        self.window += increment
        if self.window > MAX_WINDOW:
            raise Http2Error("the connection's window is above 2^31-1", code=ErrorCode.FLOW_CONTROL_ERROR)
        self.pump()

    def widen_stream(self, stream: Http2Stream, increment: int) -> None:
        """The peer takes more on one stream.

        Raises:
            StreamError: more than there are numbers for.
        """
        self.updates += 1
        stream.send_window += increment
        if stream.send_window > MAX_WINDOW:
            raise StreamError(
                "the stream's window is above 2^31-1", code=ErrorCode.FLOW_CONTROL_ERROR, stream_id=stream.id
            )
        if stream.queued_bytes:
            self._pump(stream)

    def set_initial_window(self, window: int, streams: Sequence[Http2Stream]) -> None:
        """The peer changed it, which moves the windows of all open streams (RFC 9113, section 6.9.2).

        Raises:
            Http2Error: one of them is above what there are numbers for.
        """
        change = window - self.initial_window
        self.initial_window = window
        for stream in streams:
            stream.send_window += change
            if stream.send_window > MAX_WINDOW:
                raise Http2Error("a stream's window is above 2^31-1", code=ErrorCode.FLOW_CONTROL_ERROR)
            self._line_up(stream)
        self.pump()

    def pump(self) -> None:
        """Send what waits, one frame of each stream in turn."""
        while self._ready and self.window > 0 and not self.is_paused:
            stream = self._ready.popleft()
            stream.is_ready = False
            self._pump_frame(stream)
            self._line_up(stream)

    def stalled(self, seconds: int) -> list[Http2Stream]:
        """A second passed: the streams whose queue has not moved for so many."""
        for stream in self._blocked.values():
            stream.stalled_s += 1
        return [stream for stream in self._blocked.values() if stream.stalled_s > seconds]

    def _pump(self, stream: Http2Stream) -> None:
        while stream.queued_bytes and self._pump_frame(stream):
            pass
        self._line_up(stream)

    def _line_up(self, stream: Http2Stream) -> None:
        """A stream that waits for the connection alone gets its turn; one without a window costs nothing meanwhile."""
        if stream.queued_bytes and stream.send_window > 0 and not stream.is_ready:
            stream.is_ready = True
            self._ready.append(stream)

    def _pump_frame(self, stream: Http2Stream) -> bool:
        """Send one frame; False where nothing may be sent."""
        room = min(self.window, stream.send_window, self.frame_bytes)
        queue = stream.queue
        if room <= 0 or self.is_paused or not queue:
            return False
        taken = 0
        parts: list[Bytes] = [b""]
        while taken < room:
            chunk = queue.popleft()
            part = chunk[: room - taken]
            parts.append(part)
            taken += len(part)
            if len(part) < len(chunk):
                queue.appendleft(chunk[len(part) :])
            elif not queue:
                break
        parts[0] = frame_header(taken, DATA, 0, stream.id)
        self.window -= taken
        stream.send_window -= taken
        stream.queued_bytes -= taken
        self.queued_bytes -= taken
        self._backlog.size -= taken
        stream.stalled_s = 0
        if taken >= _WORTHWHILE_BYTES or not stream.queued_bytes:
            self.updates = 0
        self._write(b"".join(parts))
        if not stream.queued_bytes:
            self._emptied(stream)
        return True

    def _emptied(self, stream: Http2Stream) -> None:
        self._blocked.pop(stream.id, None)
        trailers = stream.trailers
        if trailers is not None:
            stream.trailers = None
            self.headers(stream, trailers, end=True)
        else:
            self._drained(stream)
