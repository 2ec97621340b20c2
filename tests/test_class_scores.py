from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from npuops.evaluate.class_scores import softmax, top_k


@given(arrays.arrays(np.float64, (3, 7), elements=st.floats(-1e30, 1e30)))
def test_probabilities_sum_to_one_and_keep_the_best(scores: np.ndarray) -> None:
    made = softmax(scores)
    np.testing.assert_allclose(made.sum(axis=1), 1, rtol=1e-5)
    assert (made[np.arange(3), scores.argmax(axis=1)] == made.max(axis=1)).all()


def test_nan_stays_nan_and_raises_no_warning() -> None:
    assert np.isnan(softmax(np.array([[1.0, np.nan]]))).all()
    assert np.isnan(softmax(np.array([[-np.inf, -np.inf]]))).all()


def test_the_best_come_first_and_of_equals_the_lower_class() -> None:
    assert top_k(np.array([[0.1, 0.9, 0.9, 0.2]]), 3).tolist() == [[1, 2, 3]]
    assert top_k(np.array([[3, 200, 7]], dtype=np.uint8), 2).tolist() == [[1, 2]], "unsigned numbers do not wrap"
    assert top_k(np.array([[np.nan, 1.0, 2.0]]), 3).tolist() == [[2, 1, 0]]
