"""A quote in a file, so that whoever verifies it needs neither the device nor its vendor. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import msgspec

from npuops.errors import IntegrityError
from npuops.vnpu.firmware import Measurements, Quote

SCHEMA: Final = "npuops.vnpu-quote/1"
LIMIT_BYTES: Final = 1 << 16


@dataclass(frozen=True, slots=True, kw_only=True)
class _QuoteFile:
    """All in hex."""

    nonce: str
    image_sha256: str
    config_sha256: str
    signature: str
    schema: str = SCHEMA


def encode_quote(quote: Quote) -> bytes:
    """The same bytes for the same quote."""
    file = _QuoteFile(
        nonce=quote.nonce.hex(),
        image_sha256=quote.measurements.image_sha256,
        config_sha256=quote.measurements.config_sha256,
        signature=quote.signature.hex(),
    )
    return msgspec.json.format(msgspec.json.encode(file), indent=1) + b"\n"


def decode_quote(data: bytes) -> Quote:
    """What `encode_quote` wrote; whether it is true, `firmware.verify_quote` tells.

    Raises:
        IntegrityError: not a quote, or of another format.
    """
    try:
        file = msgspec.json.decode(data, type=_QuoteFile)
        if file.schema != SCHEMA:
            raise IntegrityError(f"the format is {file.schema!r}, this npuops reads {SCHEMA!r}")
        nonce, signature = bytes.fromhex(file.nonce), bytes.fromhex(file.signature)
    except (ValueError, RecursionError) as error:  # msgspec's errors are ValueErrors
        raise IntegrityError(f"this is no quote: {error}", advice="ask the device for it again") from error
    measurements = Measurements(image_sha256=file.image_sha256, config_sha256=file.config_sha256)
    return Quote(nonce=nonce, measurements=measurements, signature=signature)
