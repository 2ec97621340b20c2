"""Images, measured boots, and quotes that cannot be forged or replayed."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.artifacts.keys import Algorithm, new_key
from npuops.errors import ArtifactError, IncompatibleArtifactError, IntegrityError, OptionError, SignatureError
from npuops.vnpu.firmware import (
    MAGIC,
    BootRom,
    Header,
    Quote,
    Verifier,
    make_image,
    measure,
    quote,
    read_header,
    verify_quote,
)

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


def test_an_image_with_any_byte_changed_or_cut_off_anywhere_does_not_boot() -> None:
    for place in range(len(IMAGE)):
        tampered = bytearray(IMAGE)
        tampered[place] ^= 1 << place % 8
        for image in (bytes(tampered), IMAGE[:place], IMAGE[:place] + IMAGE[place + 1 :]):
            with pytest.raises(ArtifactError):
                replace(ROM, image=image).boot()


@given(st.binary(max_size=300) | st.binary(max_size=200).map(lambda tail: MAGIC + tail))
def test_garbage_is_no_image(garbage: bytes) -> None:
    with pytest.raises(IntegrityError):
        read_header(garbage)
    with pytest.raises(IntegrityError):
        replace(ROM, image=garbage).boot()


@pytest.mark.parametrize(
    "words",
    [
        b"{}",
        b"[" * 100_000,
        b'{"x":' + b"[" * 4_000,
        b'{"version": "1.0\\n2", "api": "1", "build": "1"}',
        b'{"version": "1.0", "api": "1", "build": "1", "security": -1}',
        b'{"version": 1, "api": "1", "build": "1"}',
        b"\xff\xfe",
        b'{"version": "' + b"9" * 10_000 + b'", "api": "1", "build": "1"}',
    ],
)
def test_a_hostile_header_is_an_error_of_ours(words: bytes) -> None:
    with pytest.raises(IntegrityError):
        read_header(MAGIC + len(words).to_bytes(4, "big") + words + bytes(64))


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"version": ""}, "version"),
        ({"api": "1 0"}, "api"),
        ({"build": "a\nb"}, "build"),
        ({"build": "x" * 65}, "build"),
        ({"security": -1}, "security"),
        ({"security": 2**31}, "security"),
    ],
)
def test_no_vendor_writes_such_a_header(change: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        replace(HEADER, **change)


def test_a_bug_may_be_rolled_back_and_a_known_hole_may_not() -> None:
    fixed = replace(ROM, image=make_image(replace(HEADER, version="3.5.0", security=2), b"fixed", VENDOR))
    assert fixed.lowest_security == 0, "nothing is burnt before a boot has succeeded"
    fixed.boot()
    after = fixed.booted()
    buggy = make_image(replace(HEADER, version="3.4.9", security=2), b"older", VENDOR)
    assert replace(after, image=buggy).boot() == measure(buggy, ROM.config)
    with pytest.raises(IncompatibleArtifactError, match="has security version 1, and this device has booted 2"):
        replace(after, image=IMAGE).boot()
    assert replace(after, image=IMAGE).booted().lowest_security == 2, "it never falls"


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


def test_a_short_nonce_is_refused_by_both_sides() -> None:
    with pytest.raises(OptionError, match="nonce of 8 bytes"):
        quote(ROM.boot(), NONCE[:8], DEVICE)
    with pytest.raises(OptionError, match="nonce of 0 bytes"):
        verify_quote(quote(ROM.boot(), NONCE, DEVICE), nonce=b"", device=DEVICE.public, expected=ROM.measured())


def test_a_verifier_needs_no_key_but_the_devices_and_takes_a_nonce_once() -> None:
    verifier = Verifier(DEVICE.public, measure(IMAGE, b"sku=1"))
    answer = quote(ROM.boot(), NONCE, DEVICE)
    verifier.check(answer, NONCE)
    with pytest.raises(SignatureError, match="used before"):
        verifier.check(answer, NONCE)
    other = bytes(reversed(NONCE))
    with pytest.raises(SignatureError, match="replay"):
        verifier.check(answer, other)
    with pytest.raises(SignatureError, match="used before"):
        verifier.check(quote(ROM.boot(), other, DEVICE), other)


def test_nothing_else_that_the_device_signs_passes_for_a_quote() -> None:
    measured = ROM.boot()
    same = {"config_sha256": measured.config_sha256, "image_sha256": measured.image_sha256, "nonce": NONCE.hex()}
    signature = DEVICE.sign(json.dumps(same, sort_keys=True).encode())
    forged = Quote(nonce=NONCE, measurements=measured, signature=signature)
    with pytest.raises(SignatureError, match="not signed by this device"):
        verify_quote(forged, nonce=NONCE, device=DEVICE.public, expected=measured)


def test_a_quote_with_any_byte_changed_fails() -> None:
    answer = quote(ROM.boot(), NONCE, DEVICE)
    image, config = answer.measurements.image_sha256, answer.measurements.config_sha256
    forged: list[Quote] = []
    for place in range(64):
        signature = bytearray(answer.signature)
        signature[place] ^= 1
        forged.append(replace(answer, signature=bytes(signature)))
        other = "0" if image[place] != "0" else "1"
        changed = replace(answer.measurements, image_sha256=image[:place] + other + image[place + 1 :])
        forged.append(replace(answer, measurements=changed))
    forged.append(replace(answer, measurements=replace(answer.measurements, image_sha256=config, config_sha256=image)))
    forged.append(replace(answer, signature=b""))
    for each in forged:
        with pytest.raises(SignatureError):
            verify_quote(each, nonce=NONCE, device=DEVICE.public, expected=each.measurements)
