"""The `--input` of `run` and `profile`: one inference's input from a file or from standard input."""

from __future__ import annotations

import io
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Final

import typer

from npuops.build.image_folder import SUFFIXES, ImageOptions
from npuops.build.run_input import read_npy, read_npz
from npuops.build.sample_sources import load_samples
from npuops.config import read_options
from npuops.errors import DataError, OptionError
from npuops.models.model import TensorInfo
from npuops.targets.protocol import Tensors

STDIN: Final = "-"
STDIN_LIMIT_BYTES: Final = 1 << 30

ImageFlag = Annotated[
    list[str] | None,
    typer.Option(
        "--image", help="How pixels become numbers: scale=, mean=R,G,B, std=R,G,B, channels=rgb|bgr, resize=."
    ),
]


def parse_image_options(words: Sequence[str] | None) -> ImageOptions:
    """`["mean=0.5", "std=0.5"]` → options; the defaults map pixels to 0..1.

    Raises:
        OptionError: no `=`, an unknown key, a value that is no number, an impossible value.
    """
    values: dict[str, object] = {}
    for word in words or ():
        key, equals, value = word.partition("=")
        if not equals:
            raise OptionError(f"--image {word!r} has no value", advice="write for example --image mean=0.5")
        try:
            values[key] = _pixel_value(key, value)
        except ValueError as error:
            raise OptionError(f"--image {word!r}: {error}") from error
    return read_options(ImageOptions, values, where="--image")


def _pixel_value(key: str, text: str) -> object:
    match key:
        case "channels":
            return text
        case "mean" | "std":
            return tuple(float(part) for part in text.split(","))
        case _:
            return float(text)


def read_input(source: str, wanted: Sequence[TensorInfo], image: ImageOptions) -> Tensors:
    """`-` is a .npz on standard input; otherwise the suffix decides: .npz, .npy, or an image.

    Raises:
        DataError: it cannot be read, or is not what the model takes.
    """
    if source == STDIN:
        data = sys.stdin.buffer.read(STDIN_LIMIT_BYTES + 1)
        if len(data) > STDIN_LIMIT_BYTES:
            raise DataError("standard input holds more than 1 GiB", advice="one inference at a time")
        return read_npz(io.BytesIO(data), wanted, where="standard input")
    path = Path(source)
    if not path.is_file():
        raise DataError(f"there is no file {source}", advice="--input takes .npz, .npy, an image, or - for stdin")
    match path.suffix.lower():
        case ".npz":
            return read_npz(path, wanted, where=str(path))
        case ".npy":
            return read_npy(path, wanted)
        case suffix if suffix in SUFFIXES:
            return _read_image(path, wanted, image)
        case suffix:
            raise DataError(
                f"{source}: {suffix or 'a file without a suffix'} is no input",
                advice=f"--input takes .npz, .npy, an image ({', '.join(SUFFIXES)}), or - for stdin",
            )


def _read_image(path: Path, wanted: Sequence[TensorInfo], image: ImageOptions) -> Tensors:
    # Images are read by the folder, so that calibration and run can never treat pixels differently.
    with tempfile.TemporaryDirectory(prefix="npuops-image-") as folder:
        (Path(folder) / path.name).symlink_to(path.resolve())
        return load_samples(folder, tuple(wanted), limit=1, image=image).inputs[0]
