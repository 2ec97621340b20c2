"""Folders of images as model inputs, and the class of each from its subfolder or a labels file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from npuops.errors import DataError, nearest
from npuops.evaluate.image_decode import SUFFIXES
from npuops.evaluate.image_steps import run_image_steps
from npuops.models.model import TensorInfo
from npuops.models.preprocessing import ImagePreprocessing
from npuops.models.steps import image_steps

LABELS_FILE = "labels.txt"


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
    steps = image_steps(info, image)
    return LabelledImages(
        arrays=tuple(run_image_steps(steps, files[index], where=str(files[index])) for index in taken),
        labels=None if labels is None else tuple(labels[index] for index in taken),
    )


def load_image(file: Path, info: TensorInfo, *, image: ImagePreprocessing) -> NDArray[Any]:
    """One image in the shape of one inference.

    Raises:
        DataError: no readable image, or an input that is no image.
        MissingToolchainError: Pillow is not installed.
    """
    return run_image_steps(image_steps(info, image), file, where=str(file))


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
