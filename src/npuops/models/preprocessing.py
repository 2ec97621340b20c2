"""How pixels become a model's input: said once, for calibration, evaluation and every later run of the artifact."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from npuops.errors import OptionError


@dataclass(frozen=True, slots=True, kw_only=True)
class ImagePreprocessing:
    """Resize, cut the centre, then (pixel · scale - mean) / std for each channel."""

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    """One for all channels, or one for each."""
    std: tuple[float, ...] = (1.0,)
    channels: Literal["rgb", "bgr"] = "rgb"
    resize: float = 1.0
    """Shorter side before the centre crop, as a factor of the model's size (1.14 gives 256 for 224)."""

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            OptionError: a channel order, factor or deviation that cannot be.
        """
        if self.channels not in {"rgb", "bgr"}:
            raise OptionError(f"channels {self.channels!r} is neither 'rgb' nor 'bgr'")
        if not all(math.isfinite(value) for value in (self.scale, self.resize, *self.mean, *self.std)):
            raise OptionError("a scale, mean, std or resize of an image is not finite")
        if self.resize < 1:
            raise OptionError(f"resize {self.resize:g} would leave less than the crop needs")
        if 0 in self.std:
            raise OptionError("std holds a zero")
        if {len(self.mean), len(self.std)} - {1, 3}:
            raise OptionError("mean and std have one value, or one for each of three channels")

    @property
    def words(self) -> str:
        """`scale=0.00392157 mean=0.5 std=0.5 channels=rgb resize=1`: as `--image` takes it, to six digits."""
        mean, std = (",".join(f"{value:g}" for value in values) for values in (self.mean, self.std))
        return f"scale={self.scale:g} mean={mean} std={std} channels={self.channels} resize={self.resize:g}"
