"""HTTP/2 frames: their numbers, how they are built, and how their payloads are read (RFC 9113, section 6)."""

from __future__ import annotations

from enum import IntEnum
from struct import Struct
from typing import Final

from npuops.errors import ServingError

PREFACE: Final = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
"""What a client sends first (section 3.4)."""

HEADER_BYTES: Final = 9
MIN_FRAME_BYTES: Final = 1 << 14
MAX_FRAME_BYTES: Final = (1 << 24) - 1
MAX_WINDOW: Final = (1 << 31) - 1
DEFAULT_WINDOW: Final = 65_535
ID_MASK: Final = (1 << 31) - 1
"""The highest bit of a stream's number, and of an increment, is reserved and ignored."""

DATA: Final = 0x0
HEADERS: Final = 0x1
PRIORITY: Final = 0x2
RST_STREAM: Final = 0x3
SETTINGS: Final = 0x4
PUSH_PROMISE: Final = 0x5
PING: Final = 0x6
GOAWAY: Final = 0x7
WINDOW_UPDATE: Final = 0x8
CONTINUATION: Final = 0x9

END_STREAM: Final = 0x1
ACK: Final = 0x1
END_HEADERS: Final = 0x4
PADDED: Final = 0x8
PRIORITIZED: Final = 0x20

FRAME_HEADER: Final = Struct(">HBBBI")
"""Length in 16 and 8 bits, type, flags, stream."""
_U32: Final = Struct(">I")
_SETTING: Final = Struct(">HI")


class ErrorCode(IntEnum):
    """Why a stream or a connection ends (section 7)."""

    NO_ERROR = 0x0
    PROTOCOL_ERROR = 0x1
    INTERNAL_ERROR = 0x2
    FLOW_CONTROL_ERROR = 0x3
    SETTINGS_TIMEOUT = 0x4
    STREAM_CLOSED = 0x5
    FRAME_SIZE_ERROR = 0x6
    REFUSED_STREAM = 0x7
    CANCEL = 0x8
    COMPRESSION_ERROR = 0x9
    CONNECT_ERROR = 0xA
    ENHANCE_YOUR_CALM = 0xB
    INADEQUATE_SECURITY = 0xC
    HTTP_1_1_REQUIRED = 0xD


class Setting(IntEnum):
    """Parameters of a SETTINGS frame (section 6.5.2)."""

    HEADER_TABLE_SIZE = 0x1
    ENABLE_PUSH = 0x2
    MAX_CONCURRENT_STREAMS = 0x3
    INITIAL_WINDOW_SIZE = 0x4
    MAX_FRAME_SIZE = 0x5
    MAX_HEADER_LIST_SIZE = 0x6


class Http2Error(ServingError):
    """The peer broke a rule of HTTP/2: the connection ends with a GOAWAY.

    Attributes:
        code: goes into the GOAWAY.
    """

    def __init__(self, message: str, *, advice: str = "", code: ErrorCode = ErrorCode.PROTOCOL_ERROR) -> None:
        super().__init__(message, advice=advice)
        self.code = code


class StreamError(Http2Error):
    """The peer broke a rule on one stream: that one is reset, the others go on.

    Attributes:
        stream_id: the one to reset.
    """

    def __init__(
        self, message: str, *, advice: str = "", code: ErrorCode = ErrorCode.PROTOCOL_ERROR, stream_id: int = 0
    ) -> None:
        super().__init__(message, advice=advice, code=code)
        self.stream_id = stream_id


def frame_header(length: int, kind: int, flags: int, stream_id: int) -> bytes:
    """The 9 bytes before a payload of `length` bytes."""
    return FRAME_HEADER.pack(length >> 8, length & 0xFF, kind, flags, stream_id)


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    """A whole frame."""
    return frame_header(len(payload), kind, flags, stream_id) + payload


def settings_frame(values: dict[Setting, int]) -> bytes:
    """What this side tells of itself."""
    return frame(SETTINGS, 0, 0, b"".join(_SETTING.pack(key, value) for key, value in values.items()))


def window_update(stream_id: int, increment: int) -> bytes:
    """Room for `increment` more bytes; stream 0 is the connection."""
    return frame(WINDOW_UPDATE, 0, stream_id, _U32.pack(increment))


def reset_frame(stream_id: int, code: ErrorCode) -> bytes:
    """The end of one stream."""
    return frame(RST_STREAM, 0, stream_id, _U32.pack(code))


def goaway_frame(last_stream_id: int, code: ErrorCode, why: str = "") -> bytes:
    """The end of the connection: streams above `last_stream_id` were not, and will not be, looked at."""
    return frame(GOAWAY, 0, 0, _U32.pack(last_stream_id) + _U32.pack(code) + why.encode()[:200])


def header_frames(stream_id: int, block: bytes, frame_bytes: int, *, end_stream: bool) -> bytes:
    """A header block as a HEADERS frame, with CONTINUATIONs where it is larger than a frame may be."""
    flags = END_STREAM if end_stream else 0
    if len(block) <= frame_bytes:
        return frame(HEADERS, flags | END_HEADERS, stream_id, block)
    parts = [block[start : start + frame_bytes] for start in range(0, len(block), frame_bytes)]
    frames = [frame(HEADERS, flags, stream_id, parts[0])]
    frames += [frame(CONTINUATION, 0, stream_id, part) for part in parts[1:-1]]
    frames.append(frame(CONTINUATION, END_HEADERS, stream_id, parts[-1]))
    return b"".join(frames)


def http_1_answer(data: bytes) -> bytes:
    """What a client is told that begins with HTTP/1.

    Raises:
        Http2Error: it does not: that is nobody's protocol.
    """
    if b" HTTP/1." not in data[:8192]:
        raise Http2Error("this port speaks HTTP/2, and the client does not")
    return (
        b"HTTP/1.1 505 HTTP Version Not Supported\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n"
        b"This is the gRPC port: it speaks HTTP/2 only. REST has a port of its own.\n"
    )


def read_settings(payload: bytes) -> dict[int, int]:
    """A SETTINGS payload, later values winning; unknown keys are in it too.

    Raises:
        Http2Error: its length is no multiple of 6, or a value is out of its range.
    """
    if len(payload) % _SETTING.size:
        raise Http2Error(f"a SETTINGS frame of {len(payload)} bytes", code=ErrorCode.FRAME_SIZE_ERROR)
    values: dict[int, int] = dict(_SETTING.iter_unpack(payload))
    if values.get(Setting.ENABLE_PUSH, 0) > 1:
        raise Http2Error("ENABLE_PUSH is neither 0 nor 1")
    if values.get(Setting.INITIAL_WINDOW_SIZE, 0) > MAX_WINDOW:
        raise Http2Error("INITIAL_WINDOW_SIZE is above 2^31-1", code=ErrorCode.FLOW_CONTROL_ERROR)
    if not MIN_FRAME_BYTES <= values.get(Setting.MAX_FRAME_SIZE, MIN_FRAME_BYTES) <= MAX_FRAME_BYTES:
        raise Http2Error("MAX_FRAME_SIZE is not within 2^14 and 2^24-1")
    return values


def read_u32(payload: bytes, what: str) -> int:
    """The one number of a RST_STREAM or WINDOW_UPDATE payload.

    Raises:
        Http2Error: it does not have 4 bytes.
    """
    if len(payload) != _U32.size:
        raise Http2Error(f"a {what} frame of {len(payload)} bytes", code=ErrorCode.FRAME_SIZE_ERROR)
    number: int = _U32.unpack(payload)[0]
    return number


def read_goaway(payload: bytes) -> tuple[int, int]:
    """Last stream and error code of a GOAWAY payload.

    Raises:
        Http2Error: it is too short.
    """
    if len(payload) < 2 * _U32.size:
        raise Http2Error(f"a GOAWAY frame of {len(payload)} bytes", code=ErrorCode.FRAME_SIZE_ERROR)
    last, code = Struct(">II").unpack_from(payload)
    return last & ID_MASK, code


def unpadded(payload: bytes, flags: int, stream_id: int) -> bytes:
    """The payload of a DATA or HEADERS frame without its padding and its priority.

    Raises:
        Http2Error: the padding is longer than the frame, or a stream depends on itself.
    """
    start, end = 0, len(payload)
    if flags & PADDED:
        start = 1
        end -= payload[0] if payload else end + 1
    if flags & PRIORITIZED:
        _check_priority(payload[start : start + 5], stream_id)
        start += 5
    if start > end:
        raise Http2Error("padding as long as the frame, or longer")
    return payload[start:end]


def check_priority_frame(payload: bytes, stream_id: int) -> None:
    """A PRIORITY frame is only checked: the scheme is deprecated, and nothing here follows it.

    Raises:
        Http2Error: it is the connection's.
        StreamError: its size is wrong, or the stream depends on itself.
    """
    if stream_id == 0:
        raise Http2Error("PRIORITY on stream 0")
    if len(payload) != 5:
        raise StreamError(
            f"a PRIORITY frame of {len(payload)} bytes", code=ErrorCode.FRAME_SIZE_ERROR, stream_id=stream_id
        )
    if _U32.unpack_from(payload)[0] & ID_MASK == stream_id:
        raise StreamError(f"stream {stream_id} depends on itself", stream_id=stream_id)


def _check_priority(fields: bytes, stream_id: int) -> None:
    if len(fields) < 5:
        raise Http2Error("a HEADERS frame too short for its priority", code=ErrorCode.FRAME_SIZE_ERROR)
    if _U32.unpack_from(fields)[0] & ID_MASK == stream_id:
        raise Http2Error(f"stream {stream_id} depends on itself")
