"""Calibration and evaluation data from where users keep it: .npz, a folder of .npy or images, a Python function.

Whatever the source, each sample is checked against the model's inputs before anything runs: names, shapes, dtypes,
NaN and infinity. Nothing is unpickled.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError, UsageError, nearest
from npuops.evaluate.entry_point import is_entry_point, load_function
from npuops.evaluate.image_decode import SUFFIXES
from npuops.evaluate.image_folder import load_images
from npuops.evaluate.samples import Samples, dtype_of, make_samples
from npuops.models.model import TensorInfo
from npuops.models.preprocessing import ImagePreprocessing

LABELS = "labels"
Row = dict[str, NDArray[Any]]


def load_samples(
    source: str,
    inputs: tuple[TensorInfo, ...],
    *,
    limit: int | None = None,
    image: ImagePreprocessing | None = None,
    class_names: Sequence[str] | None = None,
) -> Samples:
    """Read samples and fit them to the model.

    Args:
        source: one of

            - `data.npz`: arrays named like the inputs, [samples, *input shape], the batch dimension of 1 may be
              absent; `labels` [samples] is optional; a model with one input takes a single array of any name;
            - a folder of `.npy` files, one sample each, in order of name; for several inputs one subfolder each;
            - a folder of images (`npuops[images]`), with subfolders called by class or a `labels.txt` beside them;
            - `package.module:function`, called without arguments; yields dicts of arrays, or arrays.
        inputs: of the model; shapes must be static.
        limit: take the first so many; of images, so many spread evenly over the folder.
        image: how images become tensors; to 0..1 if left out.
        class_names: what subfolders of images may be called.

    Raises:
        DataError: missing, empty, corrupt, not finite, or not fitting; the sample is named.
        OptionError: the function cannot be imported.
        UsageError: `limit` is not positive.
    """
    if limit is not None and limit < 1:
        raise UsageError(f"limit {limit} is not positive")
    path, read_as = Path(source), None
    if is_entry_point(source):
        rows, labels = _from_function(source, inputs, limit)
    elif path.is_file() and path.suffix == ".npz":
        rows, labels = _from_npz(path, inputs, limit)
    elif path.is_dir():
        images = _images_of(path, inputs)
        if images is None:
            rows, labels = _from_arrays(path, inputs, limit), None
        else:
            read_as = image or ImagePreprocessing()
            found = load_images(path, images, limit=limit, image=read_as, class_names=class_names)
            rows, labels = [{images.name: array} for array in found.arrays], found.labels
    elif path.exists():
        raise DataError(f"{source} is no calibration data", advice="give .npz, a folder, or package.module:function")
    else:
        raise DataError(f"{source} does not exist", advice="give .npz, a folder, or package.module:function")
    return fitted_samples(rows, inputs, source=source, labels=labels, image=read_as)


def random_samples(inputs: tuple[TensorInfo, ...], count: int, seed: int) -> Samples:
    """Inputs that every model takes, the same for a seed: a smoke test, never evidence of accuracy.

    Floats are normal noise, and integers of 8 and 16 bits any of their levels, as quantized inputs have them. Wider
    ones and booleans are 0 or 1, and 1 at the first place of each row: valid as token, position or mask, where a
    random one may lie outside of the vocabulary, and where a mask that hides everything has no meaning.

    Raises:
        DataError: a shape is not fixed, or a dtype cannot be made up.
    """
    generator = np.random.default_rng(seed)
    rows = [{info.name: _random_array(generator, info) for info in inputs} for _ in range(count)]
    return fitted_samples(rows, inputs, source=f"random noise (seed {seed}), not real data")


def _random_array(generator: np.random.Generator, info: TensorInfo) -> NDArray[Any]:
    shape = _static(info)
    match info.dtype:
        case "float16" | "bfloat16" | "float32" | "float64":
            return np.asarray(generator.standard_normal(shape)).astype(dtype_of(info))
        case "int8" | "uint8" | "int16" | "uint16":
            levels = np.iinfo(info.dtype)
            drawn = generator.integers(levels.min, levels.max, shape, endpoint=True)
            return np.asarray(drawn).astype(info.dtype)
        case "int32" | "uint32" | "int64" | "uint64" | "bool":
            chosen = np.asarray(generator.integers(0, 2, shape)).astype(info.dtype)
            chosen[(..., slice(1)) if shape else ()] = 1
            return chosen
        case other:
            raise DataError(f"input {info.name!r} is {other}: no random input", advice="give data of your own")


def fitted_samples(
    rows: Iterable[Mapping[str, Any]],
    inputs: tuple[TensorInfo, ...],
    *,
    source: str,
    labels: Any = None,
    image: ImagePreprocessing | None = None,
) -> Samples:
    """Check rows that are already in memory against the model's inputs, cast them, and give them a digest.

    Raises:
        DataError: as `load_samples`.
    """
    fitted = tuple(_fit_row(row, inputs, f"{source}: sample {index}") for index, row in enumerate(rows))
    if not fitted:
        raise DataError(f"{source} holds no sample")
    checked = None if labels is None else _check_labels(labels, len(fitted), source)
    return make_samples(fitted, labels=checked, source=source, image=image)


def _from_npz(path: Path, inputs: tuple[TensorInfo, ...], limit: int | None) -> tuple[list[Row], Any]:
    try:
        # numpy leaks the descriptor of a truncated archive when it opens the file itself.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in archive.files}
    except Exception as error:
        raise DataError(
            f"{path} cannot be read: {error}", advice="write it with numpy.savez, without object arrays"
        ) from error
    labels = arrays.pop(LABELS, None) if LABELS not in {info.name for info in inputs} else None
    if len(inputs) == 1 and len(arrays) == 1:
        arrays = {inputs[0].name: next(iter(arrays.values()))}
    _check_names(arrays, inputs, str(path))
    counts = {name: len(array) if array.ndim else 0 for name, array in arrays.items()}
    if len(set(counts.values())) != 1:
        raise DataError(f"{path}: arrays hold different numbers of samples: {counts}")
    total = next(iter(counts.values()))
    if labels is not None and np.shape(labels) != (total,):
        raise DataError(f"{path}: labels have the shape {np.shape(labels)} for {total} samples")
    rows = [{name: array[index] for name, array in arrays.items()} for index in range(min(total, limit or total))]
    return rows, None if labels is None else labels[: len(rows)]


def _images_of(path: Path, inputs: tuple[TensorInfo, ...]) -> TensorInfo | None:
    """The input that a folder of images is for; None for a folder of arrays.

    Raises:
        DataError: neither, or images for a model with several inputs.
    """
    if any(path.glob("*.npy")) or all(any((path / info.name).glob("*.npy")) for info in inputs):
        return None
    if not any(entry.suffix.lower() in SUFFIXES for entry in path.rglob("*")):
        raise DataError(f"{path} holds neither .npy files nor images", advice=f"image types: {', '.join(SUFFIXES)}")
    if len(inputs) != 1:
        raise DataError(f"{path} holds images, but the model has {len(inputs)} inputs", advice="give an .npz")
    return inputs[0]


def _from_arrays(path: Path, inputs: tuple[TensorInfo, ...], limit: int | None) -> list[Row]:
    if any(path.glob("*.npy")):
        if len(inputs) != 1:
            names = ", ".join(info.name for info in inputs)
            raise DataError(f"{path} holds .npy files, but the model has inputs {names}", advice="one subfolder each")
        return [{inputs[0].name: array} for array in islice(_npy_files(path), limit)]
    columns = {info.name: list(islice(_npy_files(path / info.name), limit)) for info in inputs}
    counts = {name: len(column) for name, column in columns.items()}
    if len(set(counts.values())) != 1:
        raise DataError(f"{path}: subfolders hold different numbers of samples: {counts}")
    count = next(iter(counts.values()))
    return [{name: column[index] for name, column in columns.items()} for index in range(count)]


def _npy_files(folder: Path) -> Iterator[NDArray[Any]]:
    for file in sorted(folder.glob("*.npy")):
        try:
            yield np.load(file, allow_pickle=False)
        except Exception as error:
            raise DataError(f"{file} cannot be read: {error}", advice="write it with numpy.save") from error


def _from_function(source: str, inputs: tuple[TensorInfo, ...], limit: int | None) -> tuple[list[Row], Any]:
    function = load_function(source)
    rows, labels = [], []
    try:
        for item in islice(function(), limit):
            row = dict(item) if isinstance(item, Mapping) else {inputs[0].name: item}
            if LABELS not in {info.name for info in inputs} and "label" in row and len(row) == len(inputs) + 1:
                labels.append(row.pop("label"))
            rows.append(row)
    except Exception as error:
        raise DataError(f"{source} failed at sample {len(rows)}: {type(error).__name__}: {error}") from error
    return rows, labels or None


def _check_names(arrays: Mapping[str, Any], inputs: tuple[TensorInfo, ...], where: str) -> None:
    known = [info.name for info in inputs]
    for name in arrays:
        if name not in known:
            raise DataError(f"{where}: the model has no input {name!r}", advice=nearest(name, known))
    for name in known:
        if name not in arrays:
            raise DataError(
                f"{where}: input {name!r} is missing", advice=f"it has {', '.join(sorted(arrays)) or 'none'}"
            )


def _fit_row(row: Mapping[str, Any], inputs: tuple[TensorInfo, ...], where: str) -> Row:
    _check_names(row, inputs, where)
    return {info.name: _fit(np.asarray(row[info.name]), info, f"{where}, input {info.name!r}") for info in inputs}


def _fit(array: NDArray[Any], info: TensorInfo, where: str) -> NDArray[Any]:
    shape = _static(info)
    if array.shape != shape:
        if shape[:1] == (1,) and array.shape == shape[1:]:
            array = array[None]
        else:
            raise DataError(
                f"{where}: shape {list(array.shape)}, the model wants {list(shape)}",
                advice="one sample per entry; a batch dimension of 1 may be left out",
            )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise DataError(f"{where}: {int((~np.isfinite(array)).sum())} values are NaN or infinite")
    # Not ascontiguousarray: that would make a vector of a scalar.
    return np.asarray(_cast(array, dtype_of(info), where), order="C")


def _cast(array: NDArray[Any], wanted: np.dtype[Any], where: str) -> NDArray[Any]:
    """Lossless casts, float64 → float32, floats → bfloat16 (no file holds it), and integers whose values fit."""
    if array.dtype == wanted:
        return array
    if (array.dtype == np.float64 and wanted == np.float32) or (array.dtype.kind == "f" and wanted.name == "bfloat16"):
        with np.errstate(over="ignore"):
            cast = array.astype(wanted)
        if np.isfinite(cast).all():
            return cast
    elif np.can_cast(array.dtype, wanted, "safe"):
        return array.astype(wanted)
    elif array.dtype.kind in "iu" and wanted.kind in "iu":
        bounds = np.iinfo(wanted)
        if not array.size or (int(array.min()) >= bounds.min and int(array.max()) <= bounds.max):
            return array.astype(wanted)
    elif array.dtype.kind in "iu" and wanted.kind == "f" and np.array_equal(array.astype(wanted), array):
        return array.astype(wanted)
    raise DataError(
        f"{where}: {array.dtype} cannot become {wanted} without loss", advice=f"store the samples as {wanted}"
    )


def _static(info: TensorInfo) -> tuple[int, ...]:
    if info.shape is None or not info.is_static:
        raise DataError(f"input {info.name!r} has a dynamic shape {info.shape}", advice="fix it with --shape")
    return tuple(dim for dim in info.shape if isinstance(dim, int))


def _check_labels(labels: Any, count: int, source: str) -> NDArray[np.int64]:
    array = np.asarray(labels)
    if array.shape != (count,) or array.dtype.kind not in "iu":
        raise DataError(
            f"{source}: labels are {array.dtype}{list(array.shape)}", advice=f"one integer class for each of {count}"
        )
    return array.astype(np.int64)
