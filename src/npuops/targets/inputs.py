"""What every session checks before vendor code sees an input: vendors crash, or answer, on nonsense."""

from __future__ import annotations

from npuops.errors import DataError, nearest
from npuops.models.model import TensorInfo
from npuops.targets.protocol import Tensors


def check_inputs(inputs: Tensors, wanted: tuple[TensorInfo, ...]) -> None:
    """Refuse a wrong name, dtype, byte order or shape before any vendor code sees it.

    Raises:
        DataError: naming the input, what came and what is wanted.
    """
    names = {tensor.name for tensor in wanted}
    for name in inputs:
        if name not in names:
            raise DataError(f"the model has no input {name!r}", advice=nearest(name, names))
    for tensor in wanted:
        if tensor.name not in inputs:
            raise DataError(f"input {tensor.name!r} is missing")
        array = inputs[tensor.name]
        found = "string" if array.dtype.kind in "OU" else array.dtype.name
        if found != tensor.dtype:
            raise DataError(f"input {tensor.name!r} is {found}, the model takes {tensor.dtype}")
        if not array.dtype.isnative:
            raise DataError(
                f"input {tensor.name!r} has the bytes of each number in the order of another machine",
                advice="array.astype(array.dtype.newbyteorder('='))",
            )
        shape = tensor.shape
        if shape is not None and (
            len(array.shape) != len(shape)
            or any(isinstance(dim, int) and dim != size for dim, size in zip(shape, array.shape, strict=True))
        ):
            raise DataError(f"input {tensor.name!r} has shape {list(array.shape)}, the model takes {list(shape)}")
