from __future__ import annotations

from contextlib import suppress

import pytest
from hyperframe.frame import Frame, HeadersFrame
from hypothesis import given, settings
from hypothesis import strategies as st

from http2_peer import frames_in
from npuops.server import http2_frames as frames
from npuops.server.http2_frames import ErrorCode, Http2Error, Setting, StreamError

EXAMPLES = {
    "settings": (frames.settings_frame({Setting.MAX_FRAME_SIZE: 16384, Setting.ENABLE_PUSH: 0}), "SettingsFrame"),
    "an update": (frames.window_update(5, 1000), "WindowUpdateFrame"),
    "a reset": (frames.reset_frame(5, ErrorCode.CANCEL), "RstStreamFrame"),
    "a goaway": (frames.goaway_frame(7, ErrorCode.NO_ERROR, "the server stops"), "GoAwayFrame"),
    "data": (frames.frame(frames.DATA, frames.END_STREAM, 3, b"x" * 70_000), "DataFrame"),
}


@pytest.mark.parametrize("name", EXAMPLES)
def test_a_frame_is_read_by_another_library(name: str) -> None:
    data, kind = EXAMPLES[name]
    frame, length = Frame.parse_frame_header(memoryview(data[:9]))
    frame.parse_body(memoryview(data[9:]))
    assert (type(frame).__name__, length) == (kind, len(data) - 9)


def test_a_large_header_block_is_continued() -> None:
    sent = frames_in(frames.header_frames(3, b"x" * 40_000, 16_384, end_stream=True))
    assert [(kind, flags, len(data)) for kind, flags, _, data in sent] == [
        (frames.HEADERS, frames.END_STREAM, 16384),
        (frames.CONTINUATION, 0, 16384),
        (frames.CONTINUATION, frames.END_HEADERS, 7232),
    ]


@given(st.binary(max_size=30), st.integers(0, 255), st.booleans())
@settings(deadline=None)
def test_padding_is_taken_off_as_another_library_put_it_on(data: bytes, padding: int, prioritized: bool) -> None:
    frame = HeadersFrame(5, data, flags=["PADDED", *(["PRIORITY"] if prioritized else [])])
    frame.pad_length, frame.depends_on = padding, 3
    wire = frame.serialize()
    _, flags, number, payload = frames_in(wire)[0]
    assert frames.unpadded(payload, flags, number) == data


@given(st.binary(max_size=30), st.integers(0, 255), st.integers(0, 7))
@settings(deadline=None)
def test_no_payload_raises_anything_but_our_error(payload: bytes, flags: int, number: int) -> None:
    for read in (
        lambda: frames.unpadded(payload, flags, number),
        lambda: frames.read_settings(payload),
        lambda: frames.read_u32(payload, "RST_STREAM"),
        lambda: frames.read_goaway(payload),
        lambda: frames.check_priority_frame(payload, number),
    ):
        with suppress(Http2Error):
            read()


def test_later_settings_win_and_unknown_ones_stay() -> None:
    payload = b"".join(key.to_bytes(2, "big") + value.to_bytes(4, "big") for key, value in [(4, 1), (4, 2), (99, 3)])
    assert frames.read_settings(payload) == {4: 2, 99: 3}


def test_an_error_of_a_stream_names_it() -> None:
    error = StreamError("no", code=ErrorCode.CANCEL, stream_id=9)
    assert (error.code, error.stream_id, isinstance(error, Http2Error)) == (ErrorCode.CANCEL, 9, True)
