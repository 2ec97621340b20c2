from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from npuops.errors import DataError, OptionError
from npuops.evaluate.accuracy import find_metric, measure_accuracy, metric_identity

FP32 = {"y": np.array([[0.1, 0.9], [0.8, 0.2], [0.4, 0.6]], np.float32)}
GOT = {"y": np.array([[0.2, 0.8], [0.3, 0.7], [0.4, 0.6]], np.float32)}


def test_top1_agrees_with_fp32_without_labels_and_counts_right_answers_with_them() -> None:
    metric = find_metric("top1")
    assert measure_accuracy(metric, artifact=GOT, fp32=FP32, labels=None).artifact == pytest.approx(2 / 3)
    labelled = measure_accuracy(metric, artifact=GOT, fp32=FP32, labels=np.array([1, 1, 0]))
    assert (labelled.fp32, labelled.artifact) == (pytest.approx(1 / 3), pytest.approx(2 / 3))
    assert labelled.drop == pytest.approx(-1 / 3)


def test_cosine_is_one_for_fp32_and_the_worst_output_decides() -> None:
    fp32 = {**FP32, "z": np.ones((3, 2), np.float32)}
    got = {**FP32, "z": np.array([[1, -1]] * 3, np.float32)}
    found = measure_accuracy(find_metric("cosine"), artifact=got, fp32=fp32, labels=None)
    assert found.fp32 == pytest.approx(1)
    assert found.artifact == pytest.approx(0, abs=1e-6)


def test_a_metric_of_the_user_is_called_and_its_failures_are_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "mymetric_b.py").write_text(
        "def half(outputs, labels):\n    return 0.5 * outputs['y'][0, 1]\n"
        "def broken(outputs, labels):\n    raise KeyError('w')\n"
        "def nan(outputs, labels):\n    return float('nan')\n"
    )
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", list(sys.path))
    found = measure_accuracy(find_metric("mymetric_b:half"), artifact=GOT, fp32=FP32, labels=None)
    assert found.drop == pytest.approx(0.05)
    for name in ("broken", "nan"):
        with pytest.raises(DataError, match=name):
            measure_accuracy(find_metric(f"mymetric_b:{name}"), artifact=GOT, fp32=FP32, labels=None)


def test_nan_never_counts_as_an_accuracy() -> None:
    with pytest.raises(DataError, match="NaN"):
        measure_accuracy(find_metric("top1"), artifact={"y": GOT["y"] * np.nan}, fp32=FP32, labels=None)


def test_unknown_metrics_and_outputs_without_classes_are_refused() -> None:
    with pytest.raises(OptionError) as caught:
        find_metric("cosin")
    assert "cosine" in caught.value.advice
    picture = {"y": np.zeros((2, 3, 4), np.float32)}
    with pytest.raises(DataError, match="classes"):
        measure_accuracy(find_metric("top1"), artifact=picture, fp32=picture, labels=None)


def test_a_metric_of_the_users_is_another_one_when_its_code_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    module = tmp_path / "their_metric.py"
    module.write_text("def score(outputs, labels): return 1.0\n")
    before = metric_identity("their_metric:score")
    module.write_text("def score(outputs, labels): return 0.5\n")
    assert metric_identity("their_metric:score") != before
    assert metric_identity("top1") == "top1"
