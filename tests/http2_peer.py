"""The other side of an HTTP/2 connection, for tests: frame by frame, so that it can break any rule."""

from __future__ import annotations

from dataclasses import dataclass, field

import hpack

from npuops.server.http2_connection import Http2Connection
from npuops.server.http2_frames import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_HEADER,
    GOAWAY,
    HEADERS,
    ID_MASK,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    ErrorCode,
    Setting,
    frame,
    settings_frame,
)
from npuops.server.http2_sending import Backlog
from npuops.server.http2_streams import Http2Limits, Http2Stream

REQUEST = (
    (b":method", b"POST"),
    (b":scheme", b"http"),
    (b":path", b"/t.Service/Method"),
    (b":authority", b"localhost"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
)

Frame = tuple[int, int, int, bytes]


def frames_in(data: bytes) -> list[Frame]:
    """Type, flags, stream, payload of each."""
    found = []
    while data:
        high, low, kind, flags, number = FRAME_HEADER.unpack_from(data)
        end = FRAME_HEADER.size + (high << 8 | low)
        found.append((kind, flags, number, data[FRAME_HEADER.size : end]))
        data = data[end:]
    return found


@dataclass
class Peer:
    """A server's connection with somebody at the other end, and what both did."""

    limits: Http2Limits = field(default_factory=Http2Limits)
    greets: bool = True
    happened: list[tuple[object, ...]] = field(default_factory=list)
    streams: dict[int, Http2Stream] = field(default_factory=dict)
    is_closed: bool = False
    sent: bytes = b""

    def __post_init__(self) -> None:
        self.encoder = hpack.Encoder()
        self.backlog = Backlog()
        self.connection = Http2Connection(self.limits, self, self, self.backlog)
        if self.greets:
            self.connection.receive(PREFACE + settings_frame({}))
            self.taken()

    # what the connection calls

    def write(self, data: bytes) -> None:
        self.sent += data

    def close(self) -> None:
        self.is_closed = True

    def opened(self, stream: Http2Stream) -> None:
        self.streams[stream.id] = stream
        self.happened.append(("opened", stream.id, stream.head.path))

    def received(self, stream: Http2Stream, data: bytes, *, ended: bool) -> None:
        self.happened.append(("received", stream.id, data, ended))

    def drained(self, stream: Http2Stream) -> None:
        self.happened.append(("drained", stream.id))

    def was_reset(self, stream: Http2Stream, code: ErrorCode) -> None:
        self.happened.append(("reset", stream.id, code))

    # what a test says

    def send(self, kind: int, flags: int = 0, number: int = 0, payload: bytes = b"") -> None:
        self.connection.receive(frame(kind, flags, number, payload))

    def settings(self, values: dict[Setting, int]) -> None:
        self.connection.receive(settings_frame(values))

    def block(self, fields: tuple[tuple[bytes, bytes], ...] = REQUEST) -> bytes:
        block: bytes = self.encoder.encode(fields)
        return block

    def request(self, number: int, body: bytes | None = None) -> None:
        """Headers, and with a body all of it."""
        self.send(HEADERS, END_HEADERS | (END_STREAM if body == b"" else 0), number, self.block())
        if body:
            self.send(DATA, END_STREAM, number, body)

    def taken(self) -> list[Frame]:
        """What the server sent since the last look."""
        data, self.sent = self.sent, b""
        return frames_in(data)

    def answer(self) -> list[Frame]:
        """The same, without acknowledged settings."""
        return [each for each in self.taken() if each[:2] != (SETTINGS, ACK)]

    def goaway(self) -> ErrorCode | None:
        """The code of the last GOAWAY, if one was sent."""
        codes = [payload[4:8] for kind, _, _, payload in frames_in(self.sent) if kind == GOAWAY]
        return ErrorCode(int.from_bytes(codes[-1], "big")) if codes else None

    def resets(self) -> dict[int, ErrorCode]:
        """Stream → code of the RST_STREAM that were sent."""
        return {
            number & ID_MASK: ErrorCode(int.from_bytes(payload, "big"))
            for kind, _, number, payload in frames_in(self.sent)
            if kind == RST_STREAM
        }
