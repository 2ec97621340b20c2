from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(max_examples=60, deadline=None)
@given(
    size=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    wanted=st.tuples(st.integers(4, 24), st.integers(4, 24)),
    factor=st.sampled_from([1.0, 256 / 224, 1.5]),
    layout=st.sampled_from(["nchw", "nhwc"]),
    channels=st.sampled_from(["rgb", "bgr", "gray"]),
    dtype=st.sampled_from(["float16", "float32", "float64", "uint8"]),
    seed=st.integers(0, 99),
)
def test_every_number_is_what_one_gets_by_hand(
    size: tuple[int, int],
    wanted: tuple[int, int],
    factor: float,
    layout: str,
    channels: Any,
    dtype: str,
    seed: int,
) -> None:
    """Bit by bit, without any of Pillow's own resizing, cutting or arithmetic."""
    deep = 1 if channels == "gray" else 3
    shape = (1, deep, *wanted) if layout == "nchw" else (1, *wanted, deep)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, deep), dtype=np.uint8)
    plain: dict[str, Any] = {"channels": "rgb" if deep == 1 else channels, "resize": factor}
    maths = {"scale": 1 / 255, "mean": (0.485, 0.456, 0.406)[:deep], "std": (0.229, 0.224, 0.225)[:deep]}
    options = plain if dtype == "uint8" else {**plain, **maths}
    steps = image_steps(TensorInfo(name="x", dtype=dtype, shape=shape), ImagePreprocessing(**options))
    buffer = io.BytesIO()
    image.fromarray(pixels[..., 0] if deep == 1 else pixels).save(buffer, "PNG")
    found = run_image_steps(steps, buffer.getvalue(), where="x")

    covering = [max(side, round(side * factor)) for side in wanted]
    ratio = max(covering[0] / size[0], covering[1] / size[1])
    height, width = (max(least, round(side * ratio)) for least, side in zip(covering, size, strict=True))
    orders = [stretched(stretched(pixels, 1, width), 0, height), stretched(stretched(pixels, 0, height), 1, width)]
    by_hand = [normalized(resized, wanted, layout, dtype, channels == "bgr", maths) for resized in orders]
    assert (found.shape, found.dtype.name) == (shape, dtype)
    assert found.tobytes() in by_hand, "Pillow begins with the axis that costs less"


def normalized(
    pixels: np.ndarray, size: tuple[int, int], layout: str, dtype: str, turned: bool, maths: dict[str, Any]
) -> bytes:
    top, left = (pixels.shape[0] - size[0]) // 2, (pixels.shape[1] - size[1]) // 2
    cut = pixels[top : top + size[0], left : left + size[1]]
    numbers = (cut[..., ::-1] if turned else cut).astype(np.float64)
    if dtype != "uint8":
        numbers = (numbers * maths["scale"] - np.array(maths["mean"])) / np.array(maths["std"])
    row = numbers.astype(dtype)[None]
    return (row.transpose(0, 3, 1, 2) if layout == "nchw" else row).tobytes()


def stretched(pixels: np.ndarray, axis: int, size: int) -> np.ndarray:
    """One axis resampled by a triangle as wide as two pixels of the smaller picture, in Pillow's 22 fractional bits."""
    old = pixels.shape[axis]
    if old == size:
        return pixels
    lines = np.moveaxis(pixels, axis, 0).astype(np.int64)
    made = np.empty((size, *lines.shape[1:]), np.uint8)
    scale = old / size
    reach = max(scale, 1.0)
    for place in range(size):
        middle = (place + 0.5) * scale
        first, end = max(int(middle - reach + 0.5), 0), min(int(middle + reach + 0.5), old)
        weights = [max(1.0 - abs((near - middle + 0.5) * (1.0 / reach)), 0.0) for near in range(first, end)]
        total = sum(weights)
        whole = [int(0.5 + weight / total * (1 << 22)) for weight in weights]
        added = sum(weight * line for weight, line in zip(whole, lines[first:end], strict=True)) + (1 << 21)
        made[place] = np.clip(added >> 22, 0, 255)
    return np.moveaxis(made, 0, axis)


@pytest.mark.parametrize("steps", [(Resize(height=1, width=1), ToTensor()), (DecodeImage(),), (DecodeImage(),) * 2])
def test_steps_without_a_beginning_or_an_end_are_refused(steps: tuple[Any, ...]) -> None:
    with pytest.raises(OptionError):
        run_image_steps(steps, orange(), where="x")
