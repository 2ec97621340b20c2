"""What a client gets of a classifier's scores, against the same worked out by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from npuops.errors import OptionError, RunError
from npuops.models.steps import Pipeline, Softmax, TopK
from npuops.runtime.signature import Port
from npuops.runtime.steps import Pictures
from npuops.runtime.text_tensor import read_text
from picture_models import COLOUR_PIPELINE, COLOUR_SIGNATURE

CLASSES = 6
NAMES = tuple(f"class {number}" for number in range(CLASSES))


def pictures(dtype: str = "float32", *, probabilities: bool = False, k: int = 4) -> Pictures:
    """Of a model that gives six scores."""
    signature = replace(COLOUR_SIGNATURE, outputs=(Port(name="y", dtype=dtype, shape=(1, CLASSES)),))
    after = (Softmax(tensor="y"), TopK(tensor="y", k=k)) if probabilities else (TopK(tensor="y", k=k),)
    return Pictures(Pipeline(input="x", preprocess=COLOUR_PIPELINE.preprocess, postprocess=after), signature, NAMES)


def answered(made: Pictures, scores: np.ndarray) -> tuple[list[list[str]], np.ndarray, np.ndarray]:
    (label, score, index), shapes = made.answer(scores)
    names = [[name.decode() for name in row] for row in read_text(label, shapes[0])]
    return names, np.frombuffer(score, "<f4").reshape(shapes[1]), np.frombuffer(index, "<i8").reshape(shapes[2])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "uint8", "int32"])
def test_the_best_are_those_that_sorting_finds_and_of_equals_the_lower_class(dtype: str) -> None:
    made = pictures(dtype)

    @given(arrays.arrays(np.dtype(dtype), (3, CLASSES), elements=st.integers(0, 3)))
    def check(scores: np.ndarray) -> None:
        rows = [made.scores(row.tobytes()) for row in scores]
        names, best, index = answered(made, np.concatenate(rows))
        for row, row_names, row_best, row_index in zip(scores.tolist(), names, best, index, strict=True):
            by_hand = sorted(range(CLASSES), key=lambda number: (-row[number], number))[:4]
            assert row_index.tolist() == by_hand
            assert row_names == [NAMES[number] for number in by_hand]
            assert row_best.tolist() == [row[number] for number in by_hand]

    check()


def test_probabilities_are_the_formulas_and_keep_the_order_of_scores_too_small_for_them() -> None:
    scores = np.array([[0.0, 300.0, -50.0, 299.0, 100.0, -200.0]], np.float32)
    names, best, index = answered(pictures(probabilities=True, k=6), scores)
    assert index.tolist() == [[1, 3, 4, 0, 2, 5]]
    assert names[0][:2] == ["class 1", "class 3"]
    by_hand = [1 / (1 + math.exp(-1)), math.exp(-1) / (1 + math.exp(-1)), 0, 0, 0, 0]
    np.testing.assert_allclose(best, [by_hand], rtol=1e-6, atol=1e-38)


def test_other_scores_than_labels_are_an_error_of_the_model() -> None:
    with pytest.raises(RunError, match="5 scores for 4 best classes of 6 labels"):
        pictures().answer(np.zeros((1, 5), np.float32))


@pytest.mark.parametrize(
    "output", [Port(name="z", dtype="float32", shape=(1, 6)), Port(name="y", dtype="string", shape=(1, 6))]
)
def test_an_output_that_holds_no_scores_is_refused(output: Port) -> None:
    with pytest.raises(OptionError, match=r"output '[yz]'"):
        Pictures(COLOUR_PIPELINE, replace(COLOUR_SIGNATURE, outputs=(output,)), None)
