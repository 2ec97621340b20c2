"""Pictures to the size that a model wants: resized until they cover it, then cut from the centre."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from npuops.errors import DataError
from npuops.models.steps import MAX_PIXELS, CenterCrop, Resize

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

_BILINEAR = 2
"""`PIL.Image.Resampling.BILINEAR`; when it makes a picture smaller, every pixel counts."""


def resize(picture: Picture, step: Resize, *, where: str) -> Picture:
    """The smallest picture of the same shape that covers the size.

    Raises:
        DataError: it would become absurdly large, being far too long and thin.
    """
    ratio = max(step.height / picture.height, step.width / picture.width)
    size = (max(step.width, round(picture.width * ratio)), max(step.height, round(picture.height * ratio)))
    if math.prod(size) > MAX_PIXELS:
        raise DataError(
            f"{where}, {picture.width}x{picture.height} pixels, would be resized to {size[0]}x{size[1]}",
            advice="remove or crop it: it is far too long and thin, or the resize factor is too large",
        )
    return picture.resize(size, _BILINEAR)


def center_crop(picture: Picture, step: CenterCrop) -> Picture:
    """The middle. A picture that is smaller gets black edges; `resize` before it leaves none such."""
    left, top = (picture.width - step.width) // 2, (picture.height - step.height) // 2
    return picture.crop((left, top, left + step.width, top + step.height))
