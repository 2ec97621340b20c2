"""A quote that is carried in a file is the same quote, and nothing else is taken for one."""

from __future__ import annotations

import pytest

from npuops.artifacts.keys import Algorithm, new_key
from npuops.errors import IntegrityError
from npuops.vnpu.firmware import measure, quote
from npuops.vnpu.quote_file import decode_quote, encode_quote

QUOTE = quote(measure(b"image", b"config"), bytes(range(16)), new_key(Algorithm.ED25519))
DATA = encode_quote(QUOTE)


def test_a_quote_survives_its_file() -> None:
    assert decode_quote(DATA) == QUOTE
    assert encode_quote(decode_quote(DATA)) == DATA


@pytest.mark.parametrize(
    "data",
    [
        b"",
        DATA[:-20],
        b'{"nonce": "\xff"}',
        b'{"x":' * 100_000,
        DATA.replace(QUOTE.nonce.hex().encode(), b"no hex"),
        DATA.replace(b"signature", b"sign"),
    ],
)
def test_what_is_no_quote_is_said_so(data: bytes) -> None:
    with pytest.raises(IntegrityError, match="no quote"):
        decode_quote(data)


def test_a_later_format_is_named() -> None:
    with pytest.raises(IntegrityError, match="vnpu-quote/9"):
        decode_quote(DATA.replace(b"vnpu-quote/1", b"vnpu-quote/9"))
