"""Inputs for calibration and evaluation: one entry is one inference, in the model's names, shapes and dtypes."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError
from npuops.models.model import TensorInfo
from npuops.models.preprocessing import ImagePreprocessing


@dataclass(frozen=True, slots=True, kw_only=True)
class Samples:
    """A set of inputs, and labels where the source has them."""

    inputs: tuple[dict[str, NDArray[Any]], ...]
    labels: NDArray[np.int64] | None = None
    """Shape [len(inputs)]: the right class of each sample."""
    source: str
    """Where they came from, for messages and the manifest."""
    image: ImagePreprocessing | None = None
    """How the pixels were read, where the source is images."""
    digest: str
    """`sha256:…` over names, dtypes, shapes and bytes, in order."""

    def __len__(self) -> int:
        return len(self.inputs)

    def first(self, count: int) -> Samples:
        """The first `count` samples, with a digest of their own."""
        if count >= len(self):
            return self
        labels = None if self.labels is None else self.labels[:count]
        return make_samples(self.inputs[:count], labels=labels, source=self.source, image=self.image)


def make_samples(
    inputs: Iterable[Mapping[str, NDArray[Any]]],
    *,
    source: str,
    labels: NDArray[np.int64] | None = None,
    image: ImagePreprocessing | None = None,
) -> Samples:
    """Samples from arrays that are already as the model wants them."""
    rows = tuple({name: np.asarray(array, order="C") for name, array in row.items()} for row in inputs)
    digest = hashlib.sha256()
    for row in rows:
        for name, array in sorted(row.items()):
            digest.update(f"{name}\0{array.dtype.str}\0{array.shape}\0".encode())
            digest.update(array.tobytes())
    if labels is not None:
        digest.update(np.asarray(labels, dtype="<i8").tobytes())
    return Samples(inputs=rows, labels=labels, source=source, image=image, digest=f"sha256:{digest.hexdigest()}")


def dtype_of(info: TensorInfo) -> np.dtype[Any]:
    """The numpy dtype of an input's arrays.

    Raises:
        DataError: text, a sequence or another input that no array of numbers can be.
    """
    try:
        return np.dtype(info.dtype)
    except TypeError as error:
        raise DataError(
            f"input {info.name!r} is {info.dtype}: it cannot be given as an array of numbers",
            advice="cut the model so that its inputs are tensors of numbers",
        ) from error
