"""A classifier with a pipeline, seen from outside."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from npuops.errors import OptionError, RunError
from npuops.models.steps import CenterCrop, DecodeImage, Normalize, Pipeline, Resize, Softmax, TopK, ToTensor
from npuops.runtime.signature import Port, Signature
from npuops.runtime.steps import Pictures
from npuops.runtime.text_tensor import read_text

PIPELINE = Pipeline(
    input="x",
    preprocess=(DecodeImage(), Resize(height=8, width=8), CenterCrop(height=8, width=8), Normalize(), ToTensor()),
    postprocess=(Softmax(tensor="y"), TopK(tensor="y", k=2)),
)
X = Port(name="x", dtype="float32", shape=(-1, 3, 8, 8))
Y = Port(name="y", dtype="float32", shape=(-1, 3))
INNER = Signature(inputs=(X,), outputs=(Port(name="z", dtype="int64", shape=(-1,)), Y), batched=True, max_rows=8)
SCORES = np.array([[1.0, 3.0, 2.0], [0.0, 0.0, 0.0]], dtype=np.float32)


def test_clients_see_pictures_labels_scores_and_indices() -> None:
    seen = Pictures(PIPELINE, INNER, ("cat", "dog", "öwl"))
    assert [(port.name, port.dtype, port.shape) for port in seen.signature.inputs] == [("image", "string", (-1,))]
    assert [(port.name, port.dtype, port.shape) for port in seen.signature.outputs] == [
        ("label", "string", (-1, 2)),
        ("score", "float32", (-1, 2)),
        ("index", "int64", (-1, 2)),
    ]
    assert (seen.row, seen.dtype, seen.output) == ((1, 3, 8, 8), "float32", 1)
    (labels, scores, index), shapes = seen.answer(SCORES)
    assert shapes == ((2, 2),) * 3
    assert read_text(labels, (2, 2)).tolist() == [[b"dog", "öwl".encode()], [b"cat", b"dog"]]
    assert np.frombuffer(index, "<i8").reshape(2, 2).tolist() == [[1, 2], [0, 1]]
    first = np.exp(SCORES[0]) / np.exp(SCORES[0]).sum()
    np.testing.assert_allclose(np.frombuffer(scores, "<f4").reshape(2, 2), [first[[1, 2]], [1 / 3, 1 / 3]], rtol=1e-6)


def test_without_labels_there_is_none_to_see() -> None:
    seen = Pictures(PIPELINE, INNER, None)
    assert [port.name for port in seen.signature.outputs] == ["score", "index"]
    assert len(seen.answer(SCORES)[0]) == 2


def test_scores_of_the_model_that_do_not_fit_are_an_error_and_no_wrong_label() -> None:
    with pytest.raises(RunError, match="3 scores"):
        Pictures(PIPELINE, INNER, ("a", "b")).answer(SCORES)
    with pytest.raises(RunError, match="1 scores for 2 best"):
        Pictures(PIPELINE, INNER, None).answer(SCORES[:, :1])


@pytest.mark.parametrize(
    "change",
    [
        {"inputs": (X, X)},
        {"inputs": (replace(X, name="w"),)},
        {"inputs": (replace(X, shape=None),)},
        {"inputs": (replace(X, shape=(-1, 3, -1, -1)),)},
        {"outputs": (replace(Y, name="other"),)},
        {"outputs": (replace(Y, dtype="string"),)},
    ],
)
def test_a_pipeline_of_another_model_is_refused(change: dict[str, tuple[Port, ...]]) -> None:
    with pytest.raises(OptionError):
        Pictures(PIPELINE, replace(INNER, **change), None)  # type: ignore[arg-type]
