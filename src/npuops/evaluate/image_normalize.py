"""Pixels to the numbers that a model was trained with."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.models.steps import Layout, Normalize


def normalize(pixels: NDArray[np.uint8], step: Normalize) -> NDArray[Any]:
    """(pixel · scale - mean) / std.

    Args:
        pixels: uint8 [height, width, channels].
        step: one value, or one for each channel.

    Returns:
        The same shape, in the step's dtype; in memory one channel after the other, as most models want it.
    """
    tables = _tables(step, pixels.shape[2])
    planes = np.empty((pixels.shape[2], *pixels.shape[:2]), dtype=step.dtype)
    for channel, table in enumerate(tables):
        np.take(table, pixels[..., channel], out=planes[channel], mode="clip")
    return planes.transpose(1, 2, 0)


def to_tensor(pixels: NDArray[Any], layout: Layout) -> NDArray[Any]:
    """[height, width, channels] → [1, C, H, W] or [1, H, W, C], contiguous."""
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if layout == "nchw" else pixels)[None]


@lru_cache(maxsize=64)
def _tables(step: Normalize, channels: int) -> tuple[NDArray[Any], ...]:
    """For each channel, what becomes of each of the 256 values: computed once, exactly."""
    values = np.arange(256, dtype=np.float64)
    means, stds = (np.broadcast_to(np.array(numbers), channels) for numbers in (step.mean, step.std))
    return tuple(((values * step.scale - mean) / std).astype(step.dtype) for mean, std in zip(means, stds, strict=True))
