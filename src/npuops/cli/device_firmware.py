"""What `npuops device firmware`, `quote` and `verify` do: images are made and installed, and what runs is verified."""

from __future__ import annotations

import re
import secrets
from pathlib import Path

import msgspec

from npuops.artifacts.disk import read_small, storage_errors
from npuops.artifacts.keys import read_public_key
from npuops.errors import OptionError
from npuops.vnpu.control_client import DeviceControl
from npuops.vnpu.device_folder import DeviceFolder
from npuops.vnpu.factory import vendor_key
from npuops.vnpu.firmware import (
    NONCE_BYTES,
    Header,
    Measurements,
    Verifier,
    make_image,
    measure,
    read_header,
)
from npuops.vnpu.quote_file import LIMIT_BYTES, decode_quote, encode_quote

_IMAGE_LIMIT_BYTES = 8 << 20


def make_file(folder: DeviceFolder, path: Path, version: str) -> dict[str, object]:
    """Sign an image of that version and write it."""
    header = Header(version=version, api=version, build=secrets.token_hex(4))
    image = make_image(header, b"the firmware of a virtual NPU", vendor_key(folder))
    with storage_errors("write", path):
        path.write_bytes(image)
    return {"image": str(path), **msgspec.to_builtins(header)}


def install(client: DeviceControl, folder: DeviceFolder, path: Path) -> dict[str, object]:
    """Into the flash; from now on it is what a verifier expects."""
    image = read_small(path, limit_bytes=_IMAGE_LIMIT_BYTES)
    client.update_firmware(image)
    with storage_errors("write", folder.firmware):
        folder.firmware.write_bytes(image)
    return {
        "installed": str(path),
        **msgspec.to_builtins(read_header(image)),
        "next": f"npuops device reset {folder.name}",
    }


def attest(client: DeviceControl, folder: DeviceFolder, expect: Path | None) -> dict[str, object]:
    """A quote with a fresh nonce, checked against the device's key and the image that should run."""
    image = read_small(expect or folder.firmware, limit_bytes=_IMAGE_LIMIT_BYTES)
    config = read_small(folder.config, limit_bytes=_IMAGE_LIMIT_BYTES)
    verifier = Verifier(read_public_key(folder.device_key), measure(image, config))
    nonce = secrets.token_bytes(NONCE_BYTES)
    quote = client.attest(nonce)
    verifier.check(quote, nonce)
    return {"verified": True, **msgspec.to_builtins(read_header(image)), **msgspec.to_builtins(quote.measurements)}


def read_nonce(text: str | None) -> bytes:
    """From hex; a fresh one for None.

    Raises:
        OptionError: not hex.
    """
    if text is None:
        return secrets.token_bytes(NONCE_BYTES)
    try:
        return bytes.fromhex(text)
    except ValueError as error:
        raise OptionError(f"{text!r} is no nonce in hex", advice=f"openssl rand -hex {NONCE_BYTES}") from error


def ask_quote(client: DeviceControl, nonce: bytes, output: Path | None) -> dict[str, object]:
    """A quote for somebody else to verify: nothing of it is checked here."""
    quote = client.attest(nonce)
    if output is not None:
        with storage_errors("write", output):
            output.write_bytes(encode_quote(quote))
    return {
        **({"quote": str(output)} if output is not None else {"signature": quote.signature.hex()}),
        "nonce": quote.nonce.hex(),
        **msgspec.to_builtins(quote.measurements),
    }


def verify_file(path: Path, *, key: Path, nonce: str, image: str, config: str) -> dict[str, object]:
    """Check a quote in a file with nothing but these figures; they may come from another machine.

    Raises:
        OptionError: a nonce or a digest that is none.
        IntegrityError: no quote, or the device runs something else.
        SignatureError: not this device's, or an answer to another nonce.
    """
    quote = decode_quote(read_small(path, limit_bytes=LIMIT_BYTES))
    expected = Measurements(image_sha256=_digest(image), config_sha256=_digest(config))
    Verifier(read_public_key(key), expected).check(quote, read_nonce(nonce))
    return {"verified": True, **msgspec.to_builtins(quote.measurements)}


def _digest(text: str) -> str:
    if not re.fullmatch("[0-9a-fA-F]{64}", text):
        raise OptionError(f"{text!r} is no SHA-256 in hex", advice="sha256sum FILE")
    return text.lower()
