"""Firmware images, what a boot measures of them, and quotes by which others can check it. Pure.

An image is `MAGIC`, the header's length (4 bytes, big-endian), the header (JSON), the payload, and the vendor's
Ed25519 signature over everything before it. A boot refuses an image whose signature is not the vendor's, or whose
security version lies below the device's, and measures the one it takes: the SHA-256 of the image and of the device's
configuration. A quote is the measurements with the asker's nonce, signed with the device's own key: no answer to an
older question fits.

**Rollback protection**: an older version may be installed again, which is how a firmware bug is got rid of; one with a
known hole may not. The vendor raises the security version with the fix, and the first boot that succeeds with it
raises the device's for good, as with the fuses of real chips.
"""

from __future__ import annotations

import hashlib
import hmac
import json
from dataclasses import dataclass, field, replace
from typing import Final

import msgspec

from npuops.artifacts.keys import Algorithm, PublicKey, SigningKey
from npuops.errors import IncompatibleArtifactError, IntegrityError, OptionError, SignatureError
from npuops.vnpu.versions import VERSION

MAGIC: Final = b"VNPUFW1\n"
NONCE_BYTES: Final = 16
"""At least; shorter ones can be guessed, and quotes for them kept in store."""

_SIGNATURE_BYTES: Final = 64
_HEADER_LIMIT_BYTES: Final = 4096
_QUOTE_DOMAIN: Final = b"npuops vnpu quote 1\n"
"""Before what a device signs, so that no quote can pass for anything else signed with the key."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Header:
    """What an image says of itself.

    Attributes:
        version: compared with the driver's (`versions.py`).
        api: the interface to the driver; shown and not compared.
        build: tells two builds of a version apart.
        security: the security version; a device refuses an image below its own.

    Raises:
        OptionError: what is no version, or cannot be shown.
    """

    version: str
    api: str
    build: str
    security: int = 1

    def __post_init__(self) -> None:
        """Refuse what no vendor writes; it goes into logs and the device's tree."""
        for key, text in (("version", self.version), ("api", self.api)):
            if not VERSION.fullmatch(text):
                raise OptionError(f"{key}: {text!r} is no version", advice="write it like 1.2.0")
        if len(self.build) > 64 or not self.build.isprintable():
            raise OptionError("build must be printable, at most 64 characters")
        if not 0 <= self.security < 2**31:
            raise OptionError(f"security must be from 0 to {2**31 - 1}, found {self.security}")


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
    length = int.from_bytes(image[len(MAGIC) : start], "big")
    end = start + length
    if not image.startswith(MAGIC) or length > _HEADER_LIMIT_BYTES or len(image) < end + _SIGNATURE_BYTES:
        raise IntegrityError("this is no firmware image, or the end is missing", advice="get the image again")
    try:
        return msgspec.json.decode(image[start:end], type=Header, strict=True)
    except (msgspec.MsgspecError, OptionError, UnicodeDecodeError, RecursionError) as error:
        raise IntegrityError(f"the header of the firmware image: {error}", advice="get the image again") from error


def measure(image: bytes, config: bytes) -> Measurements:
    """What a device that boots this image with this configuration will say; needs no key."""
    image_sha256, config_sha256 = (hashlib.sha256(each).hexdigest() for each in (image, config))
    return Measurements(image_sha256=image_sha256, config_sha256=config_sha256)


@dataclass(frozen=True, slots=True, kw_only=True)
class BootRom:
    """What the device trusts and what lies in its flash.

    Attributes:
        vendor: whose signature an image needs.
        image: in the flash, tampered with or not.
        config: of the device, in the owner's bytes; measured beside the image.
        lowest_security: the device's security version.
    """

    vendor: PublicKey
    image: bytes
    config: bytes = b""
    lowest_security: int = 0

    def boot(self) -> Measurements:
        """Check the image and measure it.

        Raises:
            IntegrityError: not an image.
            SignatureError: not the vendor's.
            IncompatibleArtifactError: its security version lies below the device's.
        """
        header = read_header(self.image)
        signed, signature = self.image[:-_SIGNATURE_BYTES], self.image[-_SIGNATURE_BYTES:]
        if not self.vendor.verifies(signature, signed):
            raise SignatureError(
                "the firmware image is not signed by the vendor, or was changed afterwards",
                advice="install the vendor's image again, then reset the device",
            )
        if header.security < self.lowest_security:
            raise IncompatibleArtifactError(
                f"rollback refused: firmware {header.version} has security version {header.security}, and this device"
                f" has booted {self.lowest_security}",
                advice=f"install an image with security version {self.lowest_security} or later, then reset the device",
            )
        return self.measured()

    def measured(self) -> Measurements:
        """The digests, whoever signed."""
        return measure(self.image, self.config)

    def booted(self) -> BootRom:
        """After a boot that succeeded: from now on no image with an older security version."""
        return replace(self, lowest_security=max(self.lowest_security, read_header(self.image).security))


def quote(measurements: Measurements, nonce: bytes, device: SigningKey) -> Quote:
    """Answer an asker.

    Args:
        measurements: of the last boot.
        nonce: the asker's, fresh for every question.
        device: the device's own key.

    Raises:
        OptionError: a nonce that is too short to be fresh.
    """
    _refuse_short(nonce)
    return Quote(nonce=nonce, measurements=measurements, signature=device.sign(_quoted(measurements, nonce)))


def verify_quote(answer: Quote, *, nonce: bytes, device: PublicKey, expected: Measurements) -> None:
    """Check an answer: the device's, to this question, and of what is expected to run.

    Raises:
        OptionError: a nonce that is too short to be fresh.
        SignatureError: not signed by the device, or an answer to another question.
        IntegrityError: the device runs something else; the message names what differs.
    """
    _refuse_short(nonce)
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


@dataclass(slots=True)
class Verifier:
    """Checks the quotes of one device with its public key and the measurements it should have; every nonce once.

    It needs nothing of the vendor's and no connection: a quote can be carried to it in a file.
    """

    device: PublicKey
    expected: Measurements
    _spent: set[bytes] = field(default_factory=set)

    def check(self, answer: Quote, nonce: bytes) -> None:
        """Check an answer to a question that was asked with this nonce; it is spent, whatever comes out.

        Raises:
            SignatureError: the nonce was spent before; or as `verify_quote`, like the rest.
        """
        if nonce in self._spent:
            raise SignatureError("this nonce was used before: the quote may be a replay", advice="ask with a fresh one")
        self._spent.add(nonce)
        verify_quote(answer, nonce=nonce, device=self.device, expected=self.expected)


def _refuse_short(nonce: bytes) -> None:
    if len(nonce) < NONCE_BYTES:
        raise OptionError(f"a nonce of {len(nonce)} bytes", advice=f"ask with at least {NONCE_BYTES} random bytes")


def _quoted(measurements: Measurements, nonce: bytes) -> bytes:
    words = {"nonce": nonce.hex(), **msgspec.to_builtins(measurements)}
    return _QUOTE_DOMAIN + json.dumps(words, sort_keys=True).encode()
