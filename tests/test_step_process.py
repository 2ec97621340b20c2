"""What the process that decodes pictures makes of bytes, before any decoder sees them."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import DataError
from npuops.runtime.step_process import plain

STARTS = (b"\xff\xd8\xff\xe0", b"\x89PNG\r\n\x1a\n", b"RIFF....WEBP", b"GIF89a", b"BM")


@given(st.sampled_from(STARTS), st.binary(max_size=100))
def test_a_picture_in_base64_is_the_picture(start: bytes, rest: bytes) -> None:
    picture = start + rest
    assert bytes(plain(bytearray(picture))) == picture
    assert bytes(plain(bytearray(base64.b64encode(picture)))) == picture


def test_half_of_base64_is_an_error_that_says_so() -> None:
    with pytest.raises(DataError, match="no Base64") as caught:
        plain(bytearray(b"/9j/abc"))
    assert "line ends" in caught.value.advice
