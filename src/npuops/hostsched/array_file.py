"""Arrays in an `.npz` file, read as if the file were hostile: whole and plain, or a clear error."""

from __future__ import annotations

import tokenize
import zipfile
import zlib
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.disk import storage_errors
from npuops.errors import DataError

_DAMAGED: Final = (
    *(zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, OSError),
    *(ValueError, KeyError, TypeError, OverflowError),
    *(SyntaxError, tokenize.TokenError),  # a header is read as Python
    MemoryError,  # it claims more than there is room for
)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """All arrays by name.

    Raises:
        StorageError: the file cannot be read.
        DataError: no such file, cut off, changed, or with something in it that is no plain array.
    """
    with storage_errors("read", path), path.open("rb") as file:
        try:
            if not zipfile.is_zipfile(file):
                raise zipfile.BadZipFile("it is no archive, or its end is missing")
            file.seek(0)
            with np.load(file, allow_pickle=False) as stored:
                return {name: stored[name] for name in stored.files}
        except _DAMAGED as error:
            raise DataError(f"{path} holds no arrays: {error}") from error
