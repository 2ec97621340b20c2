"""From a picture to one row of an input: the same code for calibration, evaluation, `npuops run` and the server."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.errors import OptionError
from npuops.evaluate.image_decode import decode_image
from npuops.evaluate.image_normalize import normalize, to_tensor
from npuops.evaluate.image_resize import center_crop, resize
from npuops.models.steps import CenterCrop, DecodeImage, Normalize, PreStep, Resize, ToTensor


def run_image_steps(
    steps: Sequence[PreStep],
    source: Path | bytes | memoryview,
    *,
    where: str,
    begin: Callable[[PreStep], object] = lambda _: None,
) -> NDArray[Any]:
    """One row of the input, [1, …].

    Args:
        steps: in the order that `Pipeline` demands.
        source: a file, or its bytes.
        where: what to call it in an error.
        begin: called with each step before it runs.

    Raises:
        DataError: no readable picture, or too large a one.
        MissingToolchainError: Pillow is not installed.
    """
    first = steps[0]
    if not isinstance(first, DecodeImage):
        raise OptionError("the steps of a picture begin with DecodeImage")
    begin(first)
    picture = decode_image(source, first, where=where)
    pixels: NDArray[Any] | None = None
    for step in steps[1:]:
        begin(step)
        match step:
            case Resize():
                picture = resize(picture, step, where=where)
            case CenterCrop():
                picture = center_crop(picture, step)
            case Normalize():
                pixels = normalize(_pixels(picture, first), step)
            case ToTensor():
                return to_tensor(_pixels(picture, first) if pixels is None else pixels, step.layout)
            case DecodeImage():
                raise OptionError("a picture is decoded once")
    raise OptionError("the steps of a picture end with ToTensor")


def _pixels(picture: Any, step: DecodeImage) -> NDArray[np.uint8]:
    """uint8 [height, width, channels]."""
    array: NDArray[np.uint8] = np.asarray(picture)
    if array.ndim == 2:
        return array[..., None]
    return array[..., ::-1] if step.channels == "bgr" else array
