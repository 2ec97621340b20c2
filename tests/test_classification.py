"""The classification extension: best classes of each row, in Triton's words."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from npuops.runtime.bytes_tensor import split_elements
from npuops.server.classification import class_shape, classify
from npuops.server.datatypes import DATATYPES, to_bytes


def test_the_best_classes_of_each_row_carry_score_index_and_label() -> None:
    scores = np.array([[0.25, 2, -1], [5, 5, 6]], "f4")
    part = classify(scores.tobytes(), DATATYPES["FP32"], (2, 3), 2, batched=True, labels=["cat", "dog"])
    assert split_elements(part) == [b"2.000000:1:dog", b"0.250000:0:cat", b"6.000000:2", b"5.000000:0:cat"]
    assert class_shape((2, 3), 2, batched=True) == (2, 2)


def test_an_output_without_batch_is_one_row() -> None:
    scores = np.array([[3, 250], [7, 7]], "u1")
    part = classify(scores.tobytes(), DATATYPES["UINT8"], (2, 2), 9, batched=False)
    assert split_elements(part) == [b"250:1", b"7:2", b"7:3", b"3:0"]
    assert class_shape((2, 2), 9, batched=False) == (4,)


def test_nan_comes_last_and_the_smallest_integer_is_not_the_best() -> None:
    scores = np.array([np.nan, 1, -np.inf, np.nan], "f4")
    part = classify(scores.tobytes(), DATATYPES["FP32"], (4,), 4, batched=False)
    assert split_elements(part) == [b"1.000000:1", b"-inf:2", b"nan:0", b"nan:3"]
    lowest = np.array([-(2**63), 0, 2**63 - 1], "i8")
    part = classify(lowest.tobytes(), DATATYPES["INT64"], (3,), 3, batched=False)
    assert split_elements(part) == [b"9223372036854775807:2", b"0:1", b"-9223372036854775808:0"]


@pytest.mark.parametrize(("word", "kind"), [("FP16", np.float16), ("BF16", ml_dtypes.bfloat16)])
def test_sixteen_bit_floats_are_compared_by_value(word: str, kind: type) -> None:
    scores = np.array([-1.5, 0.5, 1.0], kind)
    part = classify(scores.tobytes(), DATATYPES[word], (3,), 1, batched=False)
    assert split_elements(part) == [b"1.000000:2"]


@given(hnp.arrays(np.int16, hnp.array_shapes(min_dims=2, max_dims=3, min_side=0)), st.integers(1, 30))
def test_the_classes_have_the_promised_shape_and_the_order_of_a_stable_sort(
    scores: np.ndarray,
    classes: int,  # type: ignore[type-arg]
) -> None:
    part = classify(to_bytes(scores, DATATYPES["INT16"]), DATATYPES["INT16"], scores.shape, classes, batched=True)
    rows, width = class_shape(scores.shape, classes, batched=True)
    words = split_elements(part)
    assert len(words) == rows * width
    for at, row in enumerate(scores.reshape(rows, -1) if rows else []):
        wanted = sorted(range(row.size), key=lambda index, row=row: (-int(row[index]), index))[:width]
        assert [int(word.split(b":")[1]) for word in words[at * width : (at + 1) * width]] == wanted
