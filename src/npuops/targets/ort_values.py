"""Runs of ONNX Runtime with bfloat16, which it computes with and hands to nobody: numpy has no such dtype.

An array of `ml_dtypes.bfloat16` goes in as ONNX Runtime's own value over the same memory, and what comes out is read
from the memory of such a value. Text goes in as a numpy array alone, so a model of both has no way to be run.
"""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from math import prod
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import UnsupportedModelError
from npuops.targets.protocol import Tensors

BFLOAT16: Final = 16
"""ONNX's number for it."""

_WORD: Final = "tensor(bfloat16)"
_ITEM_BYTES: Final = 2


class Bfloat16Session:
    """An `InferenceSession` whose `run` takes and gives arrays of bfloat16 as well. Not thread-safe."""

    def __init__(self, session: Any) -> None:
        """Around a session.

        Raises:
            UnsupportedModelError: an input is text and an output is bfloat16.
        """
        self._session = session
        self._gives = any(node.type == _WORD for node in session.get_outputs())
        texts = [node.name for node in session.get_inputs() if node.type == "tensor(string)"]
        if self._gives and texts:
            raise UnsupportedModelError(
                f"input {texts[0]!r} is text and an output is bfloat16: ONNX Runtime's Python has no call for both",
                advice="cast the output to float32 in the model",
            )

    def __getattr__(self, name: str) -> Any:
        """Everything else is the session's."""
        return getattr(self._session, name)

    def run(self, names: Sequence[str], inputs: Tensors) -> list[NDArray[Any]]:
        """The outputs of these names.

        Raises:
            Exception: ONNX Runtime refuses; whatever its own `run` raises.
        """
        import onnxruntime  # noqa: PLC0415 - as in ort_engine: 0.1 s that listing targets must not pay

        arrays = {name: np.asarray(array, order="C") for name, array in inputs.items()}
        made = onnxruntime.OrtValue
        values = {
            name: made.ortvalue_from_numpy_with_onnx_type(array, BFLOAT16) if array.dtype.name == "bfloat16" else array
            for name, array in arrays.items()
        }
        if not self._gives:
            found: list[NDArray[Any]] = self._session.run(names, values)
            return found
        feeds = {
            name: made.ortvalue_from_numpy(value) if isinstance(value, np.ndarray) else value
            for name, value in values.items()
        }
        return [_array(value) for value in self._session.run_with_ort_values(names, feeds)]


def with_bfloat16(session: Any) -> Any:
    """The session as it is, or behind a `Bfloat16Session` where an input or output is bfloat16.

    Raises:
        UnsupportedModelError: such a model has text as well.
    """
    nodes = (*session.get_inputs(), *session.get_outputs())
    return Bfloat16Session(session) if any(node.type == _WORD for node in nodes) else session


def _array(value: Any) -> NDArray[Any]:
    """A copy of an output: its memory goes with the value."""
    if value.data_type() != _WORD:
        array: NDArray[Any] = value.numpy()
        return array
    import ml_dtypes  # noqa: PLC0415 - few models need it

    shape = tuple(value.shape())
    data = ctypes.string_at(value.data_ptr(), prod(shape) * _ITEM_BYTES) if prod(shape) else b""
    return np.frombuffer(bytearray(data), ml_dtypes.bfloat16).reshape(shape)
