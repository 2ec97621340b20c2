"""The server's side of one HTTP/2 connection (RFC 9113) as a state machine: bytes go in, calls and bytes come out.

It knows no socket and no clock: whoever owns it passes what was received, and calls `tick` once a second.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from npuops.server import http2_frames as frames
from npuops.server.http2_frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADER_BYTES,
    HEADERS,
    ID_MASK,
    PADDED,
    SETTINGS,
    ErrorCode,
    Http2Error,
    StreamError,
)
from npuops.server.http2_headers import HeaderBlock, HeaderReader
from npuops.server.http2_patience import Patience
from npuops.server.http2_sending import Backlog, Sender
from npuops.server.http2_streams import Budget, Http2Limits, Http2Stream, Remainder, StreamReceiver, StreamTable, Wire

_PING_KEEPALIVE: Final = b"npu-live"
_PING_DRAIN: Final = b"npu-last"

_unpack = frames.FRAME_HEADER.unpack_from


class Http2Connection:
    """One connection.

    Attributes:
        streams: the open ones, by number.
        sender: responses go through it.
        is_over: a GOAWAY was sent for an error, or the connection is lost; nothing more comes in.
        is_draining: no new streams are taken.
    """

    def __init__(self, limits: Http2Limits, receiver: StreamReceiver, wire: Wire, backlog: Backlog) -> None:
        """Nothing is sent before the client's preface: to one that speaks HTTP/1 it would be noise."""
        self._limits, self._receiver, self._wire = limits, receiver, wire
        self._table = StreamTable()
        self.streams = self._table.open
        self.sender = Sender(wire.write, self._finished, receiver.drained, backlog)
        self.is_over = False
        self.is_draining = False
        self._headers = HeaderReader(limits.header_list_bytes)
        self._budget = Budget(limits.burst, limits.burst_refill)
        self._patience = Patience(limits)
        self._window = limits.connection_window
        self._rest = Remainder()
        self._has_preface = False
        self._has_settings = False
        self._drained_id = ID_MASK
        self._block = HeaderBlock(limits.continuations, limits.header_list_bytes)
        self._others: dict[int, Callable[[int, int, bytes], None]] = {
            frames.PRIORITY: self._on_priority,
            frames.RST_STREAM: self._on_reset,
            SETTINGS: self._on_settings,
            frames.PING: self._on_ping,
            frames.GOAWAY: self._on_goaway,
            frames.WINDOW_UPDATE: self._on_window_update,
            CONTINUATION: self._on_continuation,
        }

    def receive(self, data: bytes) -> None:
        """Bytes came. A broken rule ends a stream or the connection, as the rule wants; nothing is raised."""
        if self.is_over:
            return
        self._patience.heard()
        if self._rest.size and not (data := self._rest.complete(data)):
            return
        try:
            self._frames(data)
        except Http2Error as error:
            self.fail(error.code, error.message)

    def reset(self, stream: Http2Stream, code: ErrorCode) -> None:
        """End one stream without a response. Does not tell the receiver."""
        if not stream.is_closed:
            self._wire.write(frames.reset_frame(stream.id, code))
            self._table.remember_reset(stream.id)
            self._drop(stream)

    def release(self, stream: Http2Stream) -> None:
        """Take more of a stream that was held."""
        stream.is_held = False
        self._reopen(stream)

    def fail(self, code: ErrorCode, why: str) -> None:
        """End the connection: a GOAWAY, then the socket; the receiver is told of every stream."""
        if not self.is_over:
            greeting = b"" if self._has_preface else self._limits.greeting()  # comes first, whatever happens
            self._wire.write(greeting + frames.goaway_frame(self._table.last_id, code, why))
            self.lost()
            self._wire.close()

    def resumed(self) -> None:
        """The socket takes more."""
        self.sender.is_paused = False
        self._patience.resumed()
        self.sender.pump()

    def lost(self) -> None:
        """The socket is gone."""
        self.is_over = True
        for stream in list(self.streams.values()):
            self._drop(stream)
            self._receiver.was_reset(stream, ErrorCode.CANCEL)

    def drain(self) -> None:
        """Take no new streams, finish the open ones, then close (RFC 9113, section 6.8, the graceful way)."""
        if self.is_draining or self.is_over:
            return
        self.is_draining = True
        if not self._has_settings:
            self.fail(ErrorCode.NO_ERROR, "the server stops")
            return
        self._wire.write(frames.goaway_frame(ID_MASK, ErrorCode.NO_ERROR, "the server stops"))
        self._wire.write(frames.frame(frames.PING, 0, 0, _PING_DRAIN))  # once it is back, the peer has seen the GOAWAY

    def tick(self) -> None:
        """A second passed."""
        if self.is_over:
            return
        self._budget.refill()
        self.sender.updates = 0
        if self.is_draining and self._drained_id == ID_MASK and self._patience.drain_s > 1:
            self._end_streams()
        for stream in self.sender.stalled(self._limits.stall_s):
            self.reset(stream, ErrorCode.CANCEL)
            self._receiver.was_reset(stream, ErrorCode.CANCEL)
        verdict = self._patience.tick(
            is_greeted=self._has_settings,
            is_mid_frame=self._rest.size > 0,
            is_mid_block=self._block.stream_id != 0,
            is_idle=not self.streams,
            is_draining=self.is_draining,
            is_paused=self.sender.is_paused,
        )
        if verdict.is_over:
            self.fail(verdict.code, verdict.why)
        elif verdict.must_ping:
            self._wire.write(frames.frame(frames.PING, 0, 0, _PING_KEEPALIVE))

    def _frames(self, data: bytes) -> None:
        """Handle all whole frames, and keep what is left."""
        position, size = 0, len(data)
        if not self._has_preface:
            if frames.PREFACE.startswith(data) and size < len(frames.PREFACE):
                self._rest.keep(data, len(frames.PREFACE))
                return
            if not data.startswith(frames.PREFACE):
                self._wire.write(frames.http_1_answer(data))
                self._close()
                return
            position, self._has_preface = len(frames.PREFACE), True
            self._wire.write(self._limits.greeting())
        largest = self._limits.frame_bytes
        wanted = HEADER_BYTES
        while size - position >= HEADER_BYTES:
            high, low, kind, flags, number = _unpack(data, position)
            length = high << 8 | low
            if length > largest:
                raise Http2Error(f"a frame of {length} bytes, of at most {largest}", code=ErrorCode.FRAME_SIZE_ERROR)
            start = position + HEADER_BYTES
            end = start + length
            if end > size:
                wanted += length
                break
            try:
                self._frame(kind, flags, number & ID_MASK, data[start:end])
            except StreamError as error:
                self._refuse(error)
            if self.is_over:
                return
            position = end
        if position:
            self._patience.advanced()
        if position < size:
            self._rest.keep(data[position:], wanted)

    def _frame(self, kind: int, flags: int, number: int, payload: bytes) -> None:
        expected = self._block.stream_id
        if expected and (kind != CONTINUATION or number != expected):
            raise Http2Error("a header block was not continued")
        if not self._has_settings and kind != SETTINGS:
            raise Http2Error("the first frame is no SETTINGS")
        if kind == DATA:
            self._on_data(number, flags, payload)
        elif kind == HEADERS:
            self._on_headers(number, flags, payload)
        elif kind in self._others:
            self._others[kind](number, flags, payload)
        elif kind == frames.PUSH_PROMISE:
            raise Http2Error("PUSH_PROMISE from a client")
        else:
            self._budget.spend(f"unknown type {kind}")

    def _on_data(self, number: int, flags: int, payload: bytes) -> None:
        length = len(payload)
        self._window -= length
        if self._window < 0:
            raise Http2Error("more DATA than the connection's window", code=ErrorCode.FLOW_CONTROL_ERROR)
        if self._window < self._limits.connection_window >> 1:
            self._wire.write(frames.window_update(0, self._limits.connection_window - self._window))
            self._window = self._limits.connection_window
        if flags & PADDED:
            payload = frames.unpadded(payload, flags & PADDED, number)
        stream = self.streams.get(number)
        if stream is None or stream.is_remote_ended:
            self._table.check_stray_data(number, is_draining=self.is_draining)
            self._budget.spend("DATA of no stream")
            return
        stream.receive_window -= length
        if stream.receive_window < 0:
            raise StreamError("more DATA than the stream's window", code=ErrorCode.FLOW_CONTROL_ERROR, stream_id=number)
        if flags & END_STREAM:
            stream.count_body(len(payload), ended=True)
            stream.is_remote_ended = True
            self._receiver.received(stream, payload, ended=True)
            return
        if not payload:
            self._budget.spend("empty DATA")
        stream.count_body(len(payload), ended=False)
        self._receiver.received(stream, payload, ended=False)
        self._reopen(stream)

    def _reopen(self, stream: Http2Stream) -> None:
        window = self._limits.stream_window
        if stream.receive_window < window >> 1 and not (stream.is_held or stream.is_remote_ended or stream.is_closed):
            self._wire.write(frames.window_update(stream.id, window - stream.receive_window))
            stream.receive_window = window

    def _on_headers(self, number: int, flags: int, payload: bytes) -> None:
        if flags & (PADDED | frames.PRIORITIZED):
            payload = frames.unpadded(payload, flags, number)
        if flags & END_HEADERS:
            self._on_block(number, flags, payload)
        else:
            self._block.begin(number, flags, payload)

    def _on_continuation(self, number: int, flags: int, payload: bytes) -> None:
        self._block.add(payload)
        if flags & END_HEADERS:
            self._on_block(number, self._block.flags, self._block.end())

    def _on_block(self, number: int, flags: int, block: bytes) -> None:
        if number <= self._table.last_id:
            self._on_late_block(number, flags, block)
            return
        if not number & 1:
            raise Http2Error(f"stream {number} is not a client's")
        if number > self._drained_id:
            self._headers.skip(block)
            return
        self._table.advance(number)
        head = self._headers.request(block, number)
        if len(self.streams) >= self._limits.max_streams:
            raise StreamError("too many streams", code=ErrorCode.REFUSED_STREAM, stream_id=number)
        stream = Http2Stream(number, head, self.sender.initial_window, self._limits.stream_window)
        self.streams[number] = stream
        stream.is_remote_ended = bool(flags & END_STREAM)
        if stream.is_remote_ended:
            stream.count_body(0, ended=True)
        self._receiver.opened(stream)
        if stream.is_remote_ended and not stream.is_closed:
            self._receiver.received(stream, b"", ended=True)

    def _on_late_block(self, number: int, flags: int, block: bytes) -> None:
        """Trailers, or something that must not be."""
        stream = self.streams.get(number)
        if stream is None:
            self._headers.skip(block)
            if self._table.was_reset(number):
                return
            if self._table.was_left_out(number):
                raise Http2Error(f"HEADERS on stream {number}")
            raise Http2Error(f"HEADERS on stream {number}, which is closed", code=ErrorCode.STREAM_CLOSED)
        self._headers.trailers(block, number)
        if stream.is_remote_ended:
            raise StreamError("HEADERS after the end", code=ErrorCode.STREAM_CLOSED, stream_id=number)
        if not flags & END_STREAM:
            raise StreamError("trailers that do not end the stream", stream_id=number)
        stream.count_body(0, ended=True)
        stream.is_remote_ended = True
        self._receiver.received(stream, b"", ended=True)

    def _on_priority(self, number: int, _: int, payload: bytes) -> None:
        self._budget.spend("PRIORITY")
        frames.check_priority_frame(payload, number)

    def _on_reset(self, number: int, _: int, payload: bytes) -> None:
        code = frames.read_u32(payload, "RST_STREAM")
        if self._table.is_never(number, is_draining=self.is_draining):
            raise Http2Error(f"RST_STREAM on stream {number}, which is not open")
        self._budget.spend("RST_STREAM")
        stream = self.streams.get(number)
        if stream is not None:
            self._drop(stream)
            self._receiver.was_reset(stream, ErrorCode(code) if code <= max(ErrorCode) else ErrorCode.INTERNAL_ERROR)

    def _on_settings(self, number: int, flags: int, payload: bytes) -> None:
        if number:
            raise Http2Error(f"SETTINGS on stream {number}")
        self._budget.spend("SETTINGS")
        if flags & ACK:
            if payload:
                raise Http2Error("SETTINGS with ACK and values", code=ErrorCode.FRAME_SIZE_ERROR)
            return
        values = frames.read_settings(payload)
        self._has_settings = True
        self.sender.frame_bytes = values.get(frames.Setting.MAX_FRAME_SIZE, self.sender.frame_bytes)
        if frames.Setting.HEADER_TABLE_SIZE in values:
            self.sender.set_table_size(values[frames.Setting.HEADER_TABLE_SIZE])
        self._wire.write(frames.frame(SETTINGS, ACK, 0))
        if frames.Setting.INITIAL_WINDOW_SIZE in values:
            self.sender.set_initial_window(values[frames.Setting.INITIAL_WINDOW_SIZE], list(self.streams.values()))

    def _on_ping(self, number: int, flags: int, payload: bytes) -> None:
        if number:
            raise Http2Error(f"PING on stream {number}")
        if len(payload) != 8:
            raise Http2Error(f"a PING frame of {len(payload)} bytes", code=ErrorCode.FRAME_SIZE_ERROR)
        self._budget.spend("PING")
        if flags & ACK:
            if payload == _PING_DRAIN and self.is_draining and self._drained_id == ID_MASK:
                self._end_streams()
            return
        self._wire.write(frames.frame(frames.PING, ACK, 0, payload))

    def _on_goaway(self, number: int, _: int, payload: bytes) -> None:
        if number:
            raise Http2Error(f"GOAWAY on stream {number}")
        self._budget.spend("GOAWAY")
        frames.read_goaway(payload)  # the peer takes no streams of ours, and there are none; its own may go on

    def _on_window_update(self, number: int, _: int, payload: bytes) -> None:
        increment = frames.read_u32(payload, "WINDOW_UPDATE") & frames.MAX_WINDOW
        if self.sender.updates > self._limits.updates:
            raise Http2Error("too many WINDOW_UPDATEs that move nothing", code=ErrorCode.ENHANCE_YOUR_CALM)
        if number == 0:
            self.sender.widen(increment)
            return
        if self._table.is_never(number, is_draining=self.is_draining):
            raise Http2Error(f"WINDOW_UPDATE on stream {number}, which is not open")
        if increment == 0:
            raise StreamError("a WINDOW_UPDATE of 0", stream_id=number)
        stream = self.streams.get(number)
        if stream is not None:
            self.sender.widen_stream(stream, increment)

    def _refuse(self, error: StreamError) -> None:
        """Reset the stream that broke a rule; one that is not open has nothing to reset (RFC 9113, section 6.4)."""
        self._budget.spend(error.message)
        if error.stream_id > self._table.last_id:
            raise Http2Error(error.message, code=error.code) from error
        self._wire.write(frames.reset_frame(error.stream_id, error.code))
        self._table.remember_reset(error.stream_id)
        stream = self.streams.get(error.stream_id)
        if stream is not None:
            self._drop(stream)
            self._receiver.was_reset(stream, error.code)

    def _finished(self, stream: Http2Stream) -> None:
        """Its response is sent whole."""
        self._budget.earn()
        if not stream.is_remote_ended:  # the rest of the request is of no use to anybody
            self._wire.write(frames.reset_frame(stream.id, ErrorCode.NO_ERROR))
            self._table.remember_reset(stream.id)
        self._drop(stream)
        stream.context = None  # it may know the stream: no request shall leave a cycle to the garbage collector

    def _drop(self, stream: Http2Stream) -> None:
        stream.is_closed = True
        self.streams.pop(stream.id, None)
        if stream.queue is not None:
            self.sender.forget(stream)
        if not self.streams and self._drained_id != ID_MASK and not self.is_over:
            self._close()

    def _end_streams(self) -> None:
        """The second half of a drain: no stream above this one was looked at."""
        self._drained_id = self._table.last_id
        self._wire.write(frames.goaway_frame(self._table.last_id, ErrorCode.NO_ERROR, "the server stops"))
        if not self.streams:
            self._close()

    def _close(self) -> None:
        self.is_over = True
        self._wire.close()
