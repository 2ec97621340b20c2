"""`--pipeline`: what the build derives, and what it refuses to guess."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from npuops.build.serving_steps import check_kind, image_classification
from npuops.errors import DataError, OptionError, UsageError
from npuops.models.model import Model
from npuops.models.open import open_model
from npuops.models.preprocessing import ImagePreprocessing
from npuops.models.steps import Softmax, TopK
from onnx_models import mlp, save

PLAIN = ImagePreprocessing()


def classifier(path: Path, *last: str, classes: int = 7, rows: int = 1) -> Model:
    """image[rows,3,8,8] → mean → MatMul → the operators `last` → y[rows,classes]."""
    nodes = [
        helper.make_node("GlobalAveragePool", ["image"], ["p"]),
        helper.make_node("Flatten", ["p"], ["f"]),
        helper.make_node("MatMul", ["f", "w"], ["m"] if last else ["y"]),
    ]
    names = ["m", *(f"l{index}" for index in range(len(last) - 1)), "y"]
    nodes += [helper.make_node(op, [names[place]], [names[place + 1]]) for place, op in enumerate(last)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [rows, 3, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [rows, classes])],
        [numpy_helper.from_array(np.ones((3, classes), np.float32), "w")],
    )
    return open_model(save(graph, path))


def test_logits_get_a_softmax_and_probabilities_do_not(tmp_path: Path) -> None:
    logits = image_classification(classifier(tmp_path / "a.onnx"), PLAIN, None)
    assert logits.postprocess == (Softmax(tensor="y"), TopK(tensor="y", k=5))
    shown = image_classification(classifier(tmp_path / "b.onnx", "Softmax", "Flatten", "Identity"), PLAIN, None)
    assert shown.postprocess == (TopK(tensor="y", k=5),)
    several = image_classification(classifier(tmp_path / "c.onnx", "Sigmoid"), PLAIN, None)
    assert several.postprocess == (TopK(tensor="y", k=5),)


def test_fewer_classes_than_five_are_all_shown(tmp_path: Path) -> None:
    made = image_classification(classifier(tmp_path / "m.onnx", classes=2), PLAIN, ("a", "b"))
    assert made.postprocess[-1] == TopK(tensor="y", k=2)


def test_buckets_of_one_version_have_the_same_pipeline(tmp_path: Path) -> None:
    """A server takes them together only so."""
    one, four = (image_classification(classifier(tmp_path / f"{n}.onnx", rows=n), PLAIN, None) for n in (1, 4))
    assert one == four


def test_nobody_guesses_how_pixels_become_numbers(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="how pixels become numbers") as caught:
        image_classification(classifier(tmp_path / "m.onnx"), None, None)
    assert "--image" in caught.value.advice


def test_labels_of_another_model_are_refused(tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="3 labels for the 7 classes of output 'y'"):
        image_classification(classifier(tmp_path / "m.onnx"), PLAIN, ("a", "b", "c"))


def test_a_model_without_a_picture_or_without_classes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="is no image"):
        image_classification(open_model(mlp(tmp_path / "m.onnx")), PLAIN, None)
    one = classifier(tmp_path / "one.onnx", classes=1)
    with pytest.raises(DataError, match="no scores of classes"):
        image_classification(one, PLAIN, None)


def test_a_slip_in_the_name_names_the_nearest() -> None:
    check_kind(None)
    check_kind("image-classification")
    with pytest.raises(OptionError) as caught:
        check_kind("image_classification")
    assert "image-classification" in caught.value.advice
