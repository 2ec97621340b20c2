"""Images, measured boots, and quotes that cannot be forged or replayed."""

from __future__ import annotations

from dataclasses import replace

import pytest

from npuops.artifacts.keys import Algorithm, new_key
from npuops.errors import ArtifactError, IntegrityError, OptionError, SignatureError
from npuops.vnpu.firmware import BootRom, Header, make_image, quote, read_header, verify_quote

VENDOR, DEVICE, STRANGER = (new_key(Algorithm.ED25519) for _ in range(3))
HEADER = Header(version="3.4.5", api="3.0", build="2026-11-22")
IMAGE = make_image(HEADER, b"instructions" * 100, VENDOR)
ROM = BootRom(vendor=VENDOR.public, image=IMAGE, config=b"sku=1")
NONCE = bytes(range(16))


def test_the_vendors_image_boots_and_is_measured_with_the_configuration() -> None:
    assert read_header(IMAGE) == HEADER
    measured = ROM.boot()
    assert measured == ROM.boot()
    assert replace(ROM, config=b"sku=2").boot().config_sha256 != measured.config_sha256
    assert replace(ROM, config=b"sku=2").boot().image_sha256 == measured.image_sha256


@pytest.mark.parametrize("place", [0, 9, 30, 200, len(IMAGE) - 70, len(IMAGE) - 1])
def test_an_image_with_any_bit_flipped_does_not_boot(place: int) -> None:
    tampered = bytearray(IMAGE)
    tampered[place] ^= 1
    with pytest.raises(ArtifactError):
        replace(ROM, image=bytes(tampered)).boot()


@pytest.mark.parametrize("length", [0, 5, 11, 40, 100])
def test_a_truncated_image_is_no_image(length: int) -> None:
    with pytest.raises(IntegrityError):
        replace(ROM, image=IMAGE[:length]).boot()


def test_an_image_with_more_at_its_end_or_of_another_vendor_does_not_boot() -> None:
    with pytest.raises(SignatureError, match="not signed by the vendor"):
        replace(ROM, image=IMAGE + b"x").boot()
    with pytest.raises(SignatureError, match="not signed by the vendor"):
        replace(ROM, image=make_image(HEADER, b"instructions", STRANGER)).boot()
    with pytest.raises(OptionError, match="ed25519"):
        make_image(HEADER, b"instructions", new_key(Algorithm.ECDSA_P256))


def test_a_quote_convinces_who_asked_for_it() -> None:
    answer = quote(ROM.boot(), NONCE, DEVICE)
    verify_quote(answer, nonce=NONCE, device=DEVICE.public, expected=ROM.measured())


def test_a_replayed_quote_fails() -> None:
    answer = quote(ROM.boot(), NONCE, DEVICE)
    fresh = bytes(reversed(NONCE))
    with pytest.raises(SignatureError, match="replay"):
        verify_quote(answer, nonce=fresh, device=DEVICE.public, expected=ROM.measured())
    with pytest.raises(SignatureError, match="not signed by this device"):
        verify_quote(replace(answer, nonce=fresh), nonce=fresh, device=DEVICE.public, expected=ROM.measured())


def test_a_quote_of_a_tampered_image_or_configuration_fails_and_says_which() -> None:
    for other, what in (
        (replace(ROM, image=IMAGE[:-1] + b"?"), "firmware image"),
        (replace(ROM, config=b"debug=1"), "configuration"),
    ):
        answer = quote(other.measured(), NONCE, DEVICE)
        with pytest.raises(IntegrityError, match=f"runs something else: {what}"):
            verify_quote(answer, nonce=NONCE, device=DEVICE.public, expected=ROM.measured())


def test_a_quote_of_another_device_or_with_forged_measurements_fails() -> None:
    answer = quote(ROM.boot(), NONCE, STRANGER)
    with pytest.raises(SignatureError, match="not signed by this device"):
        verify_quote(answer, nonce=NONCE, device=DEVICE.public, expected=ROM.measured())
    forged = replace(quote(replace(ROM, config=b"debug=1").measured(), NONCE, DEVICE), measurements=ROM.measured())
    with pytest.raises(SignatureError, match="not signed by this device"):
        verify_quote(forged, nonce=NONCE, device=DEVICE.public, expected=ROM.measured())


def test_a_short_nonce_is_refused() -> None:
    with pytest.raises(OptionError, match="nonce of 8 bytes"):
        quote(ROM.boot(), NONCE[:8], DEVICE)
