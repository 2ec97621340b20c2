"""A picture's bytes, as strangers send them, to upright 8-bit pixels; or a clear no, before it costs anything."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np

from npuops.errors import DataError, MissingToolchainError
from npuops.models.steps import DecodeImage

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

FORMATS: Final = ("BMP", "GIF", "JPEG", "PNG", "WEBP")
"""Nothing else is opened: Pillow knows formats that start other programs, or that nobody has looked at for years."""
SUFFIXES: Final = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
_ORIENTATION: Final = 0x0112
_TURNS: Final = {2: 0, 3: 3, 4: 1, 5: 5, 6: 4, 7: 6, 8: 2}
"""Orientation (EXIF 3.0, 4.6.5.1.6) → the `PIL.Image.Transpose` that undoes it."""
_SUFFIX_ADVICE: Final = "send a JPEG, PNG, WebP, GIF or BMP"


def pillow() -> Any:
    """The module `PIL.Image`.

    Raises:
        MissingToolchainError: Pillow is not installed.
    """
    try:
        from PIL import Image  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise MissingToolchainError("images need Pillow", advice="pip install 'npuops[images]'") from error
    return Image


def decode_image(source: Path | bytes | memoryview, step: DecodeImage, *, where: str) -> Picture:
    """Upright pixels, `RGB` or `L` in Pillow's words.

    An animated picture gives its first frame; CMYK is converted; of 16 bits the upper 8 are kept; what lies under
    transparent pixels is shown, as image loaders in training do it.

    Args:
        source: a file, or its bytes.
        step: channels and the limit of pixels.
        where: what to call it in an error.

    Raises:
        DataError: not a picture, of another format, cut off, damaged, or too large.
        MissingToolchainError: Pillow is not installed.
    """
    image = pillow()
    opened = source if isinstance(source, Path) else io.BytesIO(source)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of what it finds odd and reads all the same; our own limit is below
            with image.open(opened, formats=FORMATS) as picture:
                _refuse_size(picture, step, where)
                return _converted(_upright(picture), "L" if step.channels == "gray" else "RGB")
    except DataError:
        raise
    except Exception as error:  # decoders raise anything on damaged input
        raise DataError(f"{where} is no readable image: {_words(error)}", advice=_SUFFIX_ADVICE) from error


def _refuse_size(picture: Picture, step: DecodeImage, where: str) -> None:
    pixels = picture.width * picture.height
    if pixels > step.max_pixels:
        raise DataError(
            f"{where} has {picture.width}x{picture.height} pixels, at most {step.max_pixels} are decoded",
            advice="send it smaller: the model sees a small picture in any case",
        )


def _upright(picture: Picture) -> Picture:
    """Turned as its EXIF says, which a phone writes instead of turning the pixels.

    Pillow's own `exif_transpose` also writes the EXIF anew, and fails on any tag in it that is odd.
    """
    picture.load()  # what is wrong with the pixels is told here; below, only what is wrong with the EXIF is let pass
    try:
        turn = _TURNS.get(picture.getexif().get(_ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - Pillow has many errors for a broken note, and it is the pixels that count
        turn = None
    return picture if turn is None else picture.transpose(turn)


def _converted(picture: Picture, mode: str) -> Picture:
    if picture.mode == "F":
        raise DataError("its pixels are fractions without a range", advice=_SUFFIX_ADVICE)
    if picture.mode.startswith("I"):
        # Pillow would cut each value at 255, and show nothing but white.
        values = np.asarray(picture)
        eight = (values >> 8 if int(values.max(initial=0)) > 255 or ";16" in picture.mode else values).astype(np.uint8)
        picture = pillow().fromarray(eight)
    elif picture.mode == "P":
        picture = picture.convert("RGBA" if "transparency" in picture.info else "RGB")
    converted: Picture = picture.convert(mode)
    return converted


def _words(error: Exception) -> str:
    words = str(error) or type(error).__name__
    # Pillow names the object that it was given, which tells a client nothing but an address.
    return "its format is not one of " + ", ".join(FORMATS) if words.startswith("cannot identify") else words[:200]
