from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from npuops.evaluate.accuracy import Metric, find_metric
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples, make_samples
from npuops.quantize.held_back import answers, pick, split, standard_error
from small_graphs import CNN_INPUT, noise, small_cnn


def _rows(count: int) -> Samples:
    rows = [{"x": np.full(3, row, np.float32)} for row in range(count)]
    return make_samples(rows, labels=np.arange(count), source="rows")


def test_a_large_set_is_split_in_turn_and_keeps_its_labels() -> None:
    searched, held = split(_rows(17))
    assert searched.labels is not None
    assert held.labels is not None
    assert (searched.labels.tolist(), held.labels.tolist()) == (list(range(0, 17, 2)), list(range(1, 17, 2)))
    assert [int(row["x"][0]) for row in held.inputs] == held.labels.tolist()


def test_a_small_set_is_used_twice() -> None:
    small = _rows(15)
    assert split(small) == (small, small)


@pytest.mark.parametrize("count", [1, 2, 3, 9])
def test_answers_of_several_workers_are_those_of_one_in_the_same_order(tmp_path: Path, count: int) -> None:
    model = onnx.load(small_cnn(tmp_path / "f.onnx"))
    samples = noise(CNN_INPUT, count, 0)
    assert np.array_equal(answers(model, samples)["y"], run_reference(model, samples)["y"])


def test_the_standard_error_of_a_mean_is_the_textbook_one() -> None:
    values = np.random.default_rng(0).standard_normal((8, 1)).astype(np.float32)
    mean = Metric("mean", lambda outputs, *_: float(outputs["y"].mean()))
    textbook = float(values.std(ddof=1) / np.sqrt(8))
    assert standard_error(mean, {"y": values}, {"y": values}, _rows(8)) == pytest.approx(textbook, rel=1e-5)


def test_one_sample_has_no_spread() -> None:
    one = {"y": np.ones((1, 4), np.float32)}
    assert standard_error(find_metric("cosine"), one, one, pick(_rows(4), [2])) == 0.0
