"""A folder of images as model inputs: resize, crop, scale, and the class from the folder or a labels file."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError, MissingToolchainError, OptionError
from npuops.models.model import TensorInfo

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
LABELS_FILE = "labels.txt"


@dataclass(frozen=True, slots=True, kw_only=True)
class ImageOptions:
    """How pixels become numbers: (pixel · scale - mean) / std, per channel."""

    scale: float = 1 / 255
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)
    channels: str = "rgb"
    """`rgb` or `bgr`."""
    resize: float = 1.0
    """Shorter side before the centre crop, as a factor of the model's size (1.14 gives 256 for 224)."""

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            OptionError: a channel order, factor or deviation that cannot be.
        """
        if self.channels not in {"rgb", "bgr"}:
            raise OptionError(f"channels {self.channels!r} is neither 'rgb' nor 'bgr'")
        if self.resize < 1:
            raise OptionError(f"resize {self.resize:g} would leave less than the crop needs")
        if any(value == 0 for value in self.std):
            raise OptionError("std holds a zero")


def load_images(
    folder: Path, info: TensorInfo, *, limit: int | None, options: ImageOptions
) -> tuple[list[NDArray[Any]], list[int] | None]:
    """Arrays in the model's layout, in order of path, and the class of each where the folder tells.

    Classes: with subfolders, their place in sorted order; with `labels.txt` in the folder, one integer a line in
    the order of the images' names; else none.

    Raises:
        DataError: a corrupt image (named), an input that is no image, labels that do not match.
        MissingToolchainError: Pillow is not installed.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    labels = _labels(folder, files)
    files = files[:limit]
    layout = _layout(info)
    return [_load(file, info, layout, options) for file in files], None if labels is None else labels[: len(files)]


def _labels(folder: Path, files: list[Path]) -> list[int] | None:
    listed = folder / LABELS_FILE
    if listed.is_file():
        try:
            labels = [int(line) for line in listed.read_text(encoding="utf-8").split()]
        except ValueError as error:
            raise DataError(f"{listed}: {error}", advice="one integer class a line") from error
        if len(labels) != len(files):
            raise DataError(f"{listed} has {len(labels)} labels for {len(files)} images")
        return labels
    parts = [file.relative_to(folder).parts for file in files]
    if not all(len(part) > 1 for part in parts):
        return None
    classes = sorted({part[0] for part in parts})
    return [classes.index(part[0]) for part in parts]


def _layout(info: TensorInfo) -> tuple[str, int, int, int]:
    """(`NCHW` or `NHWC`, height, width, channels) of an image input."""
    shape = info.shape or ()
    if len(shape) == 4 and info.is_static and shape[0] == 1:
        _, a, b, c = (int(dim or 0) for dim in shape)
        if a in {1, 3}:
            return "NCHW", b, c, a
        if c in {1, 3}:
            return "NHWC", a, b, c
    raise DataError(
        f"input {info.name!r} {list(shape)} is no image",
        advice="images need [1,C,H,W] or [1,H,W,C] with 1 or 3 channels",
    )


def _load(file: Path, info: TensorInfo, layout: tuple[str, int, int, int], options: ImageOptions) -> NDArray[Any]:
    order, height, width, channels = layout
    pixels = _pixels(file, height, width, channels, options.resize)
    if options.channels == "bgr":
        pixels = pixels[..., ::-1]
    kind = np.dtype(info.dtype)
    if kind.kind == "f":
        values = (pixels * options.scale - np.array(options.mean)) / np.array(options.std)
        pixels = values.astype(kind)
    elif kind != np.uint8:
        raise DataError(f"input {info.name!r} is {kind}: images become float or uint8", advice="give an .npz")
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if order == "NCHW" else pixels)[None]


def _pixels(file: Path, height: int, width: int, channels: int, factor: float) -> NDArray[Any]:
    """Resized so that the crop fits, then cut from the centre: uint8 [height, width, channels]."""
    try:
        from PIL import Image  # noqa: PLC0415 - an optional extra
    except ImportError as error:
        raise MissingToolchainError("images need Pillow", advice="pip install 'npuops[images]'") from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error", Image.DecompressionBombWarning)
            with Image.open(file) as opened:
                image = opened.convert("RGB" if channels == 3 else "L")
    except Exception as error:
        raise DataError(f"{file} is no readable image: {error}", advice="remove or replace it") from error
    ratio = max(height / image.height, width / image.width) * factor
    size = (max(width, round(image.width * ratio)), max(height, round(image.height * ratio)))
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    array = np.asarray(image.crop((left, top, left + width, top + height)))
    return array if array.ndim == 3 else array[..., None]
