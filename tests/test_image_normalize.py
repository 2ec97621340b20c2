from __future__ import annotations

import numpy as np
import pytest

from npuops.evaluate.image_normalize import normalize, to_tensor
from npuops.models.steps import Normalize

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PIXELS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_every_number_is_the_formula_in_float64_rounded_once(dtype: str) -> None:
    wanted = ((PIXELS * (1 / 255) - np.array(MEAN)) / np.array(STD)).astype(dtype)
    made = normalize(PIXELS, Normalize(mean=MEAN, std=STD, dtype=dtype))  # type: ignore[arg-type]
    assert made.dtype == dtype
    np.testing.assert_array_equal(made, wanted)


def test_one_value_holds_for_every_channel_and_for_grey() -> None:
    step = Normalize(scale=1.0, mean=(127.5,), std=(127.5,))
    assert normalize(np.array([[[0], [255]]], np.uint8), step).reshape(-1).tolist() == [-1.0, 1.0]
    np.testing.assert_array_equal(normalize(PIXELS, step)[..., 2:], normalize(PIXELS[..., 2:], step))


def test_layouts_are_contiguous_rows() -> None:
    made = normalize(PIXELS, Normalize())
    first, last = to_tensor(made, "nchw"), to_tensor(made, "nhwc")
    assert (first.shape, last.shape) == ((1, 3, 5, 7), (1, 5, 7, 3))
    assert first.flags.c_contiguous
    assert last.flags.c_contiguous
    np.testing.assert_array_equal(first.transpose(0, 2, 3, 1), last)
