"""What `npuops device firmware` does: make an image, install one, or verify what runs."""

from __future__ import annotations

import secrets
from pathlib import Path

import msgspec

from npuops.artifacts.disk import read_small, storage_errors
from npuops.artifacts.keys import read_public_key
from npuops.vnpu.control_client import DeviceControl
from npuops.vnpu.device_folder import DeviceFolder
from npuops.vnpu.factory import vendor_key
from npuops.vnpu.firmware import NONCE_BYTES, Header, Verifier, make_image, measure, read_header

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
