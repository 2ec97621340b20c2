from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest

from npuops.errors import OptionError
from npuops.evaluate.image_steps import run_image_steps
from npuops.models.model import TensorInfo
from npuops.models.preprocessing import ImagePreprocessing
from npuops.models.steps import DecodeImage, Resize, ToTensor, image_steps

image: Any = pytest.importorskip("PIL.Image", reason="images need the extra `images`")


def orange() -> bytes:
    buffer = io.BytesIO()
    image.new("RGB", (40, 20), (255, 128, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def row(shape: tuple[int | str, ...], dtype: str = "float32", **options: Any) -> np.ndarray:
    info = TensorInfo(name="x", dtype=dtype, shape=shape)
    return run_image_steps(image_steps(info, ImagePreprocessing(**options)), orange(), where="x")


def test_a_picture_becomes_one_row_in_the_models_layout_and_dtype() -> None:
    first, last = row((1, 3, 8, 6)), row(("batch", 8, 6, 3), "float16")
    assert (first.shape, first.dtype) == ((1, 3, 8, 6), np.float32)
    assert (last.shape, last.dtype) == ((1, 8, 6, 3), np.float16)
    np.testing.assert_allclose(first[0, :, 3, 3], [1.0, 128 / 255, 0.0], rtol=1e-6)
    np.testing.assert_allclose(last[0, 3, 3], [1.0, 128 / 255, 0.0], rtol=1e-2)


def test_channels_come_in_the_order_that_the_model_was_trained_with() -> None:
    made = row((1, 3, 8, 8), channels="bgr", mean=(0.0, 0.0, 1.0))
    np.testing.assert_allclose(made[0, :, 0, 0], [0.0, 128 / 255, 0.0], atol=1e-6)


def test_bytes_stay_bytes_and_grey_is_one_channel() -> None:
    made = row((1, 8, 8, 1), "uint8")
    assert (made.shape, made.dtype) == ((1, 8, 8, 1), np.uint8)
    assert made.flags.c_contiguous


@pytest.mark.parametrize("steps", [(Resize(height=1, width=1), ToTensor()), (DecodeImage(),), (DecodeImage(),) * 2])
def test_steps_without_a_beginning_or_an_end_are_refused(steps: tuple[Any, ...]) -> None:
    with pytest.raises(OptionError):
        run_image_steps(steps, orange(), where="x")
