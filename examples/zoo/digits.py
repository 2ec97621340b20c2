"""The data of the zoo: scikit-learn's bundled 8x8 digits, split once and for all."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

SEED = 2026
HELD_OUT = 360
CALIBRATION = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """Images f32[n, 1, 8, 8] in 0..1 (whole sixteenths), labels i64[n]."""

    images: NDArray[np.float32]
    labels: NDArray[np.int64]


def load() -> tuple[Part, Part, Part]:
    """Training, calibration (taken from the training part) and evaluation (never trained on)."""
    digits = load_digits()
    images = (digits.images / 16).astype(np.float32)[:, None]
    labels = digits.target.astype(np.int64)
    rest_x, held_x, rest_y, held_y = train_test_split(
        images, labels, test_size=HELD_OUT, stratify=labels, random_state=SEED
    )
    _, calibration_x, _, calibration_y = train_test_split(
        rest_x, rest_y, test_size=CALIBRATION, stratify=rest_y, random_state=SEED
    )
    return (
        Part(images=rest_x, labels=rest_y),
        Part(images=calibration_x, labels=calibration_y),
        Part(images=held_x, labels=held_y),
    )
