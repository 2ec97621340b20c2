from __future__ import annotations

from typing import Any

import pytest

from npuops.errors import DataError
from npuops.evaluate.image_resize import center_crop, resize
from npuops.models.steps import CenterCrop, Resize

image: Any = pytest.importorskip("PIL.Image", reason="images need the extra `images`")


@pytest.mark.parametrize(
    ("size", "wanted", "covers"),
    [((640, 480), (256, 256), (341, 256)), ((480, 640), (256, 256), (256, 341)), ((10, 10), (8, 20), (20, 20))],
)
def test_a_picture_just_covers_the_size_and_keeps_its_shape(
    size: tuple[int, int], wanted: tuple[int, int], covers: tuple[int, int]
) -> None:
    made = resize(image.new("RGB", size), Resize(height=wanted[0], width=wanted[1]), where="x")
    assert made.size == covers


def test_a_picture_far_too_long_and_thin_is_refused_before_it_is_made() -> None:
    with pytest.raises(DataError, match="x, 1x30000 pixels, would be resized to 224x6720000"):
        resize(image.new("L", (1, 30_000)), Resize(height=224, width=224), where="x")


def test_the_middle_is_cut() -> None:
    picture = image.new("L", (5, 3), 0)
    picture.putpixel((2, 1), 255)
    made = center_crop(picture, CenterCrop(height=1, width=1))
    assert (made.size, made.getpixel((0, 0))) == ((1, 1), 255)
