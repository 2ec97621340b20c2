"""Firmware images, what a boot measures of them, and quotes by which others can check it. Pure.

An image is `MAGIC`, the header's length (4 bytes, big-endian), the header (JSON: version, api, build), the payload,
and the vendor's Ed25519 signature over everything before it. A boot refuses an image whose signature is not the
vendor's, and measures the one it takes: the SHA-256 of the image and of the device's configuration. A quote is the
measurements with the asker's nonce, signed with the device's own key: no answer to an older question fits.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass
from typing import Final

import msgspec

from npuops.artifacts.keys import Algorithm, PublicKey, SigningKey
from npuops.errors import IntegrityError, OptionError, SignatureError

MAGIC: Final = b"VNPUFW1\n"
NONCE_BYTES: Final = 16
"""At least; shorter ones can be guessed, and quotes for them kept in store."""

_SIGNATURE_BYTES: Final = 64
_QUOTE_DOMAIN: Final = b"npuops vnpu quote 1\n"
"""Before what a device signs, so that no quote can pass for anything else signed with the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What an image says of itself.

    Attributes:
        version: compared with the driver's (`versions.py`).
        api: the interface to the driver.
        build: tells two builds of a version apart.
    """

    version: str
    api: str
    build: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Measurements:
    """What was booted, as SHA-256 in hex."""

    image_sha256: str
    config_sha256: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Quote:
    """A device's word for what it runs."""

    nonce: bytes
    measurements: Measurements
    signature: bytes


def make_image(header: Header, payload: bytes, vendor: SigningKey) -> bytes:
    """A signed image.

    Raises:
        OptionError: a key that isn't Ed25519.
    """
    if vendor.public.algorithm is not Algorithm.ED25519:
        raise OptionError(f"firmware is signed with {Algorithm.ED25519}, and this key is {vendor.public.algorithm}")
    words = json.dumps(msgspec.to_builtins(header), sort_keys=True).encode()
    signed = MAGIC + len(words).to_bytes(4, "big") + words + payload
    return signed + vendor.sign(signed)


def read_header(image: bytes) -> Header:
    """What an image says of itself; whether it is the vendor's, `BootRom.boot` tells.

    Raises:
        IntegrityError: not an image, or truncated.
    """
    start = len(MAGIC) + 4
    end = start + int.from_bytes(image[len(MAGIC) : start], "big")
    if not image.startswith(MAGIC) or len(image) < end + _SIGNATURE_BYTES:
        raise IntegrityError("this is no firmware image, or the end is missing", advice="get the image again")
    try:
        return msgspec.json.decode(image[start:end], type=Header, strict=True)
    except msgspec.MsgspecError as error:
        raise IntegrityError(f"the header of the firmware image: {error}", advice="get the image again") from error


@dataclass(frozen=True, slots=True, kw_only=True)
class BootRom:
    """What the device trusts and what lies in its flash.

    Attributes:
        vendor: whose signature an image needs.
        image: in the flash, tampered with or not.
        config: of the device, in the owner's bytes; measured beside the image.
    """

    vendor: PublicKey
    image: bytes
    config: bytes = b""

    def boot(self) -> Measurements:
        """Check the image and measure it.

        Raises:
            IntegrityError: not an image.
            SignatureError: not the vendor's.
        """
        read_header(self.image)
        signed, signature = self.image[:-_SIGNATURE_BYTES], self.image[-_SIGNATURE_BYTES:]
        if not self.vendor.verifies(signature, signed):
            raise SignatureError(
                "the firmware image is not signed by the vendor, or was changed afterwards",
                advice="install the vendor's image again, then reset the device",
            )
        return self.measured()

    def measured(self) -> Measurements:
        """The digests, whoever signed."""
        return Measurements(
            image_sha256=hashlib.sha256(self.image).hexdigest(), config_sha256=hashlib.sha256(self.config).hexdigest()
        )


def quote(measurements: Measurements, nonce: bytes, device: SigningKey) -> Quote:
    """Answer an asker.

    Args:
        measurements: of the last boot.
        nonce: the asker's, fresh for every question.
        device: the device's own key.

    Raises:
        OptionError: a nonce that is too short to be fresh.
    """
    if len(nonce) < NONCE_BYTES:
        raise OptionError(f"a nonce of {len(nonce)} bytes", advice=f"ask with at least {NONCE_BYTES} random bytes")
    return Quote(nonce=nonce, measurements=measurements, signature=device.sign(_quoted(measurements, nonce)))


def verify_quote(answer: Quote, *, nonce: bytes, device: PublicKey, expected: Measurements) -> None:
    """Check an answer: the device's, to this question, and of what is expected to run.

    Raises:
        SignatureError: not signed by the device, or an answer to another question.
        IntegrityError: the device runs something else; the message names what differs.
    """
    if not device.verifies(answer.signature, _quoted(answer.measurements, answer.nonce)):
        raise SignatureError("the quote is not signed by this device", advice="check which device was asked")
    if not hmac.compare_digest(answer.nonce, nonce):
        raise SignatureError("the quote answers another question: a replay", advice="ask again with a fresh nonce")
    found = answer.measurements
    pairs = (
        ("firmware image", found.image_sha256, expected.image_sha256),
        ("configuration", found.config_sha256, expected.config_sha256),
    )
    differing = [f"{what} {here[:12]}… instead of {there[:12]}…" for what, here, there in pairs if here != there]
    if differing:
        raise IntegrityError(
            f"the device runs something else: {'; '.join(differing)}", advice="take it out of service; install again"
        )


def _quoted(measurements: Measurements, nonce: bytes) -> bytes:
    words = {"nonce": nonce.hex(), **msgspec.to_builtins(measurements)}
    return _QUOTE_DOMAIN + json.dumps(words, sort_keys=True).encode()
