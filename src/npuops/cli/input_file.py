"""The `--input` of `run` and `profile`: one inference's input from a file or from standard input."""

from __future__ import annotations

import io
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from npuops.artifacts.manifest import Manifest
from npuops.cli.image_flag import image_of_artifact
from npuops.errors import DataError
from npuops.evaluate.image_decode import SUFFIXES
from npuops.evaluate.image_folder import load_image
from npuops.evaluate.run_input import read_npy, read_npz
from npuops.events import Observer, Warned
from npuops.models.batch_axis import with_rows
from npuops.models.model import TensorInfo
from npuops.models.preprocessing import ImagePreprocessing
from npuops.targets.protocol import Tensors

STDIN: Final = "-"
STDIN_LIMIT_BYTES: Final = 1 << 30


def artifact_input(source: str, manifest: Manifest, words: Sequence[str] | None, *, observe: Observer) -> Tensors:
    """The input for an artifact; pixels are treated as in its calibration.

    Args:
        source: as for `read_input`.
        manifest: of the artifact.
        words: of `--image`.
        observe: is told when pixels are read without anybody having said how.

    Raises:
        DataError: as `read_input`.
        UsageError: the words are wrong, or contradict the artifact.
    """
    image = image_of_artifact(manifest, words)
    if manifest.image is None and not words and Path(source).suffix.lower() in SUFFIXES:
        message = f"the artifact does not say how pixels become numbers; taken: {image.words}"
        observe(Warned(step="input", message=message, advice="say it with --image, best in `npuops build` already"))
    return read_input(source, manifest.inputs, image)


def read_input(source: str, wanted: Sequence[TensorInfo], image: ImagePreprocessing) -> Tensors:
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


def _read_image(path: Path, wanted: Sequence[TensorInfo], image: ImagePreprocessing) -> Tensors:
    if len(wanted) != 1:
        raise DataError(f"{path} is one image, and the model has {len(wanted)} inputs", advice="give a .npz")
    return {wanted[0].name: load_image(path, with_rows(wanted)[0], image=image)}
