"""Pictures as strangers send them: odd ones are read right, hostile ones are refused before they cost anything."""

from __future__ import annotations

import io
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npuops.errors import DataError
from npuops.evaluate.image_decode import decode_image
from npuops.models.steps import DecodeImage

image: Any = pytest.importorskip("PIL.Image", reason="images need the extra `images`")

RED, BLUE = (250, 10, 20), (10, 20, 250)


def encoded(picture: Any, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, kind, **options)
    return buffer.getvalue()


def decode(data: bytes, **options: Any) -> np.ndarray:
    return np.asarray(decode_image(data, DecodeImage(**options), where="the picture"))


def halves() -> Any:
    """Red on the left, blue on the right, 8 wide and 4 high."""
    picture = image.new("RGB", (8, 4), RED)
    picture.paste(BLUE, (4, 0, 8, 4))
    return picture


def chunk(kind: bytes, data: bytes) -> bytes:
    """Of a PNG."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


@pytest.mark.parametrize("kind", ["PNG", "BMP", "WEBP", "GIF", "JPEG"])
def test_every_format_gives_the_same_picture(kind: str) -> None:
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    pixels = decode(encoded(halves(), kind, **options)).astype(int)
    assert pixels.shape == (4, 8, 3)
    assert np.abs(pixels[1, 1] - RED).max() < 12
    assert np.abs(pixels[1, 6] - BLUE).max() < 12


def test_a_path_and_its_bytes_are_the_same_picture(tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(encoded(halves(), "PNG"))
    from_path = decode_image(tmp_path / "x.png", DecodeImage(), where="x")
    np.testing.assert_array_equal(np.asarray(from_path), decode(encoded(halves(), "PNG")))


def test_a_picture_that_a_phone_holds_sideways_comes_upright() -> None:
    exif = image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees to the right
    pixels = decode(encoded(halves(), "JPEG", exif=exif, quality=95, subsampling=0)).astype(int)
    assert pixels.shape == (8, 4, 3)
    assert np.abs(pixels[1, 2] - RED).max() < 12, "what was left is on top"
    assert np.abs(pixels[6, 2] - BLUE).max() < 12


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_orientation_is_undone(orientation: int) -> None:
    shown = np.random.default_rng(1).integers(0, 255, (5, 7, 3), dtype=np.uint8)
    turned = np.swapaxes(shown, 0, 1)
    # Where row 0 and column 0 of the file lie in the picture, by the table of EXIF 3.0, 4.6.5.1.6.
    stored = {
        1: shown,
        2: shown[:, ::-1],
        3: shown[::-1, ::-1],
        4: shown[::-1],
        5: turned,
        6: turned[::-1],
        7: turned[::-1, ::-1],
        8: turned[:, ::-1],
    }[orientation]
    exif = image.Exif()
    exif[0x0112] = orientation
    data = encoded(image.fromarray(np.ascontiguousarray(stored)), "PNG", exif=exif)
    np.testing.assert_array_equal(decode(data), shown)


def test_a_strange_tag_beside_the_orientation_costs_no_picture() -> None:
    entries = ((0x0100, 2, 1, b"a\0\0\0"), (0x0112, 3, 1, struct.pack("<HH", 6, 0)))  # a width in letters
    tags = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    exif = b"Exif\0\0II*\0\x08\0\0\0" + struct.pack("<H", len(entries)) + tags + bytes(4)
    plain = encoded(halves(), "JPEG", quality=95, subsampling=0)
    data = plain[:2] + b"\xff\xe1" + struct.pack(">H", len(exif) + 2) + exif + plain[2:]
    assert decode(data).shape == (8, 4, 3)


def test_a_broken_exif_costs_no_picture() -> None:
    plain = encoded(halves(), "PNG")
    np.testing.assert_array_equal(decode(plain[:33] + chunk(b"eXIf", b"broken") + plain[33:]), decode(plain))


def test_cmyk_is_converted() -> None:
    pixels = decode(encoded(image.new("CMYK", (4, 4), (0, 255, 255, 0)), "JPEG", quality=95)).astype(int)
    assert pixels[0, 0, 0] > 200
    assert pixels[0, 0, 2] < 60


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P", "1", "L"])
def test_odd_modes_become_three_channels(mode: str) -> None:
    picture = halves().convert(mode)
    options = {"transparency": b"\x00\x80"} if mode == "P" else {}
    assert decode(encoded(picture, "PNG", **options)).shape == (4, 8, 3)


def test_what_lies_under_transparent_pixels_is_shown_as_in_training() -> None:
    assert decode(encoded(image.new("RGBA", (2, 2), (*RED, 0)), "PNG"))[0, 0].tolist() == list(RED)


def test_of_sixteen_bits_the_upper_eight_are_kept() -> None:
    deep = image.fromarray(np.array([[0, 255, 256, 32768, 65535]], dtype=np.uint16))
    assert decode(encoded(deep, "PNG"), channels="gray").tolist() == [[0, 0, 1, 128, 255]]


def test_an_animation_gives_its_first_frame() -> None:
    frames = [image.new("RGB", (4, 4), RED), image.new("RGB", (4, 4), BLUE)]
    data = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert np.abs(decode(data).astype(int)[0, 0] - RED).max() < 12


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_a_picture_that_is_cut_off_is_refused(kind: str) -> None:
    noise = image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(DataError, match="the picture is no readable image"):
        decode(data[: len(data) // 2])


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims to be large and holds nothing of it."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")


@pytest.mark.parametrize(("width", "height"), [(30_000, 30_000), (1, 2**30), (2**31 - 1, 2**31 - 1)])
def test_a_bomb_is_refused_by_its_head_alone(width: int, height: int) -> None:
    with pytest.raises(DataError):
        decode(bomb(width, height))


def test_the_limit_is_the_pipelines_own() -> None:
    assert decode(encoded(halves(), "PNG"), max_pixels=32).shape == (4, 8, 3)
    with pytest.raises(DataError, match="has 8x4 pixels, at most 31 are decoded"):
        decode(encoded(halves(), "PNG"), max_pixels=31)


@pytest.mark.parametrize("data", [b"", b"not a picture", b"\xff\xd8\xff", b"%!PS-Adobe-3.0 EPSF-3.0\n", b"GIF89a"])
def test_what_is_no_picture_is_refused_and_told_what_is(data: bytes) -> None:
    with pytest.raises(DataError, match="the picture is no readable image") as caught:
        decode(data)
    assert "JPEG" in caught.value.advice
    assert "0x" not in caught.value.message, "an address in our memory is nobody's business"


@pytest.mark.parametrize("kind", ["TIFF", "PPM", "TGA"])
def test_formats_that_nobody_asked_for_are_not_opened(kind: str) -> None:
    with pytest.raises(DataError, match="its format is not one of"):
        decode(encoded(halves(), kind))


GOOD = {kind: encoded(halves(), kind) for kind in ("JPEG", "PNG", "GIF", "WEBP", "BMP")}


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(GOOD)), st.integers(0, 10_000), st.binary(min_size=1, max_size=8))
def test_damage_anywhere_gives_pixels_or_a_clear_no(kind: str, place: int, damage: bytes) -> None:
    data = bytearray(GOOD[kind])
    at = place % len(data)
    data[at : at + len(damage)] = damage
    try:
        pixels = decode(bytes(data), max_pixels=100_000)
    except DataError:
        return
    assert pixels.ndim == 3
