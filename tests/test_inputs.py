from __future__ import annotations

import numpy as np
import pytest

from npuops.errors import DataError
from npuops.models.model import Dim, TensorInfo
from npuops.targets.inputs import check_inputs


def info(shape: tuple[Dim, ...] | None) -> tuple[TensorInfo, ...]:
    return (TensorInfo(name="image", dtype="float32", shape=shape),)


def test_what_fits_passes() -> None:
    for shape in ((1, 4), ("n", 4), (None, 4), None):
        check_inputs({"image": np.zeros((1, 4), np.float32)}, info(shape))
    check_inputs({"image": np.zeros((), np.float32)}, info(()))
    check_inputs({"image": np.zeros((2, 2, 2), np.float32)}, info(None))


@pytest.mark.parametrize(
    ("name", "array", "words"),
    [
        ("imgae", np.zeros((1, 4), np.float32), "no input 'imgae'"),
        ("image", np.zeros((1, 4), np.float64), "is float64, the model takes float32"),
        ("image", np.zeros((1, 5), np.float32), r"shape \[1, 5\], the model takes \[1, 4\]"),
        ("image", np.zeros(4, np.float32), r"shape \[4\]"),
        ("image", np.zeros((), np.float32), r"shape \[\]"),
    ],
)
def test_what_does_not_fit_is_named(name: str, array: np.ndarray, words: str) -> None:
    with pytest.raises(DataError, match=words):
        check_inputs({name: array}, info((1, 4)))


def test_a_missing_input_is_named() -> None:
    with pytest.raises(DataError, match="'image' is missing"):
        check_inputs({}, info((1, 4)))


def test_numbers_in_the_byte_order_of_another_machine_are_refused_because_engines_read_them_as_their_own() -> None:
    foreign = np.ones((1, 4), np.float32).astype(np.dtype(np.float32).newbyteorder())
    assert foreign.dtype.name == "float32"
    with pytest.raises(DataError, match="order of another machine"):
        check_inputs({"image": foreign}, info((1, 4)))
