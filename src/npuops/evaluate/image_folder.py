"""Images as model inputs: resize, crop, scale, and the class from the folder or a labels file."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError, MissingToolchainError, OptionError, nearest
from npuops.evaluate.samples import dtype_of
from npuops.models.model import TensorInfo
from npuops.models.preprocessing import ImagePreprocessing

SUFFIXES = (".bmp", ".gif", ".jpeg", ".jpg", ".png", ".webp")
LABELS_FILE = "labels.txt"
MAX_PIXELS = 2**26
"""After resizing. One by 30,000 pixels take 200 bytes in a file, and gigabytes once they are 224 wide."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LabelledImages:
    """What a folder of images holds for one model."""

    arrays: tuple[NDArray[Any], ...]
    """Each in the shape of one inference."""
    labels: tuple[int, ...] | None
    """The class of each, where the folder tells."""


def load_images(
    folder: Path,
    info: TensorInfo,
    *,
    limit: int | None,
    image: ImagePreprocessing,
    class_names: Sequence[str] | None = None,
) -> LabelledImages:
    """Images in the model's layout, in order of path, and the class of each where the folder tells.

    Classes: `labels.txt` in the folder, one integer a line in the order of the images' names; or subfolders that
    are called by a class number, or by a class name if `class_names` are given. The place of a subfolder among its
    neighbours says nothing about the model's classes, so other subfolders are no labels.

    Args:
        folder: searched in all depths.
        info: the model's input.
        limit: take so many, spread evenly over the folder.
        image: how pixels become numbers.
        class_names: of the model's output, in its order.

    Raises:
        DataError: a corrupt image (named), an input that is no image, labels that do not match.
        MissingToolchainError: Pillow is not installed.
    """
    files = sorted(file for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES)
    labels = _labels(folder, files, class_names)
    count = min(limit or len(files), len(files))
    # Evenly: the first of a folder with a subfolder for each class would all be of one class.
    taken = [index * len(files) // count for index in range(count)]
    layout = _layout(info)
    return LabelledImages(
        arrays=tuple(_load(files[index], info, layout, image) for index in taken),
        labels=None if labels is None else tuple(labels[index] for index in taken),
    )


def load_image(file: Path, info: TensorInfo, *, image: ImagePreprocessing) -> NDArray[Any]:
    """One image in the shape of one inference.

    Raises:
        DataError: no readable image, or an input that is no image.
        MissingToolchainError: Pillow is not installed.
    """
    return _load(file, info, _layout(info), image)


def class_folders(folder: Path) -> tuple[str, ...]:
    """The subfolders that look like classes: every image lies in one. Empty if there is no such thing."""
    parts = [file.relative_to(folder).parts for file in folder.rglob("*") if file.suffix.lower() in SUFFIXES]
    return tuple(sorted({part[0] for part in parts})) if all(len(part) > 1 for part in parts) else ()


def _labels(folder: Path, files: list[Path], class_names: Sequence[str] | None) -> list[int] | None:
    listed = folder / LABELS_FILE
    if listed.is_file():
        return _listed(listed, len(files))
    classes = class_folders(folder)
    if class_names is not None:
        numbers = {name: _class_number(folder / name, class_names) for name in classes}
    else:
        numbers = {name: int(name) for name in classes if name.isdecimal()}
    if not classes or len(numbers) != len(classes):
        return None
    return [numbers[file.relative_to(folder).parts[0]] for file in files]


def _listed(path: Path, count: int) -> list[int]:
    try:
        labels = [int(line) for line in path.read_text(encoding="utf-8").split()]
    except (OSError, ValueError) as error:
        raise DataError(f"{path}: {error}", advice="one integer class a line") from error
    if len(labels) != count:
        raise DataError(f"{path} has {len(labels)} labels for {count} images")
    return labels


def _class_number(folder: Path, class_names: Sequence[str]) -> int:
    """By the whole class name, by one of its comma-separated synonyms, or by number; case and `_` do not matter."""
    wanted = _plain(folder.name)
    whole = [index for index, name in enumerate(class_names) if _plain(name) == wanted]
    found = whole or [index for index, name in enumerate(class_names) if wanted in map(_plain, name.split(","))]
    if not found and wanted.isdecimal() and int(wanted) < len(class_names):
        found = [int(wanted)]
    if len(found) == 1:
        return found[0]
    if found:
        places = ", ".join(str(index) for index in found)
        raise DataError(f"{folder} may be any of the classes {places}", advice="name the folder by the class number")
    raise DataError(f"{folder} is called like none of the classes", advice=nearest(folder.name, class_names))


def _plain(name: str) -> str:
    return name.replace("_", " ").strip().casefold()


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


def _load(file: Path, info: TensorInfo, layout: tuple[str, int, int, int], image: ImagePreprocessing) -> NDArray[Any]:
    order, height, width, channels = layout
    kind = dtype_of(info)
    _refuse_mismatch(info, kind, channels, image)
    pixels = _pixels(file, height, width, channels, image.resize)
    if image.channels == "bgr":
        pixels = pixels[..., ::-1]
    if kind.kind == "f":
        pixels = ((pixels * image.scale - np.array(image.mean)) / np.array(image.std)).astype(kind)
    return np.ascontiguousarray(pixels.transpose(2, 0, 1) if order == "NCHW" else pixels)[None]


def _refuse_mismatch(info: TensorInfo, kind: np.dtype[Any], channels: int, image: ImagePreprocessing) -> None:
    if kind.kind != "f" and kind != np.uint8:
        raise DataError(f"input {info.name!r} is {kind}: images become float or uint8", advice="give an .npz")
    plain = ImagePreprocessing()
    if kind == np.uint8 and (image.scale, image.mean, image.std) != (plain.scale, plain.mean, plain.std):
        raise OptionError(f"input {info.name!r} takes raw bytes: scale, mean and std of an image do not apply to it")
    if max(len(image.mean), len(image.std)) > channels:
        raise OptionError(f"mean or std has three values, and input {info.name!r} takes grey images")


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
    if math.prod(size) > MAX_PIXELS:
        raise DataError(
            f"{file}, {image.width}x{image.height} pixels, would be resized to {size[0]}x{size[1]}",
            advice="remove or crop it: it is far too long and thin, or the resize factor is too large",
        )
    image = image.resize(size, Image.Resampling.BILINEAR)
    left, top = (size[0] - width) // 2, (size[1] - height) // 2
    array = np.asarray(image.crop((left, top, left + width, top + height)))
    return array if array.ndim == 3 else array[..., None]
