"""One inference's input from a file: `.npz` by tensor name, `.npy` for a model with one input.

Sizes are looked at before anything is read: a small file can claim to unpack into more than the machine has.
"""

from __future__ import annotations

import io
import lzma
import math
import struct
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError, nearest
from npuops.evaluate.sample_sources import fitted_samples
from npuops.models.batch_axis import is_open, with_rows
from npuops.models.model import TensorInfo
from npuops.targets.inputs import check_inputs
from npuops.targets.protocol import Tensors

_HEADER_BYTES: Final = 64 * 1024
"""More than the header of any .npy file has."""
_UNKNOWN_SHAPE_BYTES: Final = 1 << 30
"""What a tensor without a fixed shape may have."""
_DAMAGED: Final = (
    *(zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, MemoryError, NotImplementedError, RuntimeError, ValueError),
)
"""What zipfile and its codecs raise; ValueError for a name that is no text, or an offset before the file."""


def read_npz(source: Path | BinaryIO, wanted: Sequence[TensorInfo], *, where: str) -> Tensors:
    """The inputs of one inference, checked against the model's.

    Args:
        source: a `.npz` file, or a stream that can seek.
        wanted: the model's inputs.
        where: what to call the source in an error.

    Raises:
        DataError: not a .npz file, damaged, or a name, dtype or shape is not the model's.
    """
    limits = {tensor.name: _limit_bytes(tensor) for tensor in wanted}
    found: dict[str, NDArray[Any]] = {}
    try:
        with zipfile.ZipFile(source) as archive:
            for member in archive.infolist():
                name = member.filename.removesuffix(".npy")
                if name not in limits:
                    raise DataError(f"{where}: the model has no input {name!r}", advice=nearest(name, limits))
                _refuse_large(member.file_size, limits[name], f"{where}: {name!r}")
                found[name] = _array(archive.read(member), f"{where}: {name!r}")
    except _DAMAGED as error:
        raise DataError(
            f"{where} is not a readable .npz file: {error}", advice="write it with numpy.savez(path, input_name=array)"
        ) from error
    except OSError as error:
        raise DataError(f"cannot read {where}: {error.strerror or error}") from error
    return _fitted(found, wanted, where)


def read_npy(path: Path, wanted: Sequence[TensorInfo]) -> Tensors:
    """The one input of a model from a `.npy` file.

    Raises:
        DataError: the model has several inputs, or the file is damaged, or not of the model's dtype and shape.
    """
    if len(wanted) != 1:
        names = ", ".join(tensor.name for tensor in wanted)
        raise DataError(f"{path} holds one array, the model has {len(wanted)} inputs: {names}", advice="give a .npz")
    try:
        _refuse_large(path.stat().st_size, _limit_bytes(wanted[0]), str(path))
        data = path.read_bytes()
    except OSError as error:
        raise DataError(f"cannot read {path}: {error.strerror}") from error
    found = {wanted[0].name: _array(data, str(path))}
    return _fitted(found, wanted, str(path))


def _fitted(found: dict[str, NDArray[Any]], wanted: Sequence[TensorInfo], where: str) -> Tensors:
    """By the rules of calibration data, so that a sample that calibrates also runs.

    Where the batch is free, the first input says how many rows it has.
    """
    sized = with_rows(wanted, _rows(found, wanted, where))
    if all(tensor.is_static for tensor in sized):
        return fitted_samples([found], sized, source=where).inputs[0]
    check_inputs(found, tuple(wanted))
    return found


def _rows(found: dict[str, NDArray[Any]], wanted: Sequence[TensorInfo], where: str) -> int:
    for tensor in wanted:
        array = found.get(tensor.name)
        if is_open(tensor) and array is not None and array.ndim == len(tensor.shape or ()):
            if not len(array):
                raise DataError(f"{where}: input {tensor.name!r} has no row", advice="give one row or more")
            return len(array)
    return 1


def _array(data: bytes, where: str) -> NDArray[Any]:
    try:
        # Not numpy.load: that would also open an archive inside of the archive.
        array: NDArray[Any] = np.lib.format.read_array(io.BytesIO(data), allow_pickle=False)  # type: ignore[no-untyped-call]
    except Exception as error:  # numpy parses the header as Python: a damaged one raises anything
        raise DataError(
            f"{where} is not a .npy array: {error}", advice="object arrays are never read: they could run code"
        ) from error
    return array


def _limit_bytes(tensor: TensorInfo) -> int:
    if tensor.shape is None or not tensor.is_static:
        return _UNKNOWN_SHAPE_BYTES
    # 8 bytes an element: a wrong dtype must be named as such, not as a file that is too large.
    return _HEADER_BYTES + 8 * math.prod(dim for dim in tensor.shape if isinstance(dim, int))


def _refuse_large(size: int, limit: int, where: str) -> None:
    if size > limit:
        raise DataError(
            f"{where} has {size} bytes, the model's input at most {limit}", advice="one inference at a time"
        )
