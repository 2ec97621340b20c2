"""Neural-ART takes 8-bit layers of its list; float and unlisted ones run on the Cortex-M55."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from npuops.vnpu.rules import rules_of
from rule_nets import on_npu, one, only, tflite

N6 = rules_of("stm32n6")


def test_softmax_is_not_listed_and_sigmoid_is(tmp_path: Path) -> None:
    assert only(N6, one(tmp_path, "Softmax")).rule == "operator must be on the Neural-ART list"
    assert on_npu(N6, one(tmp_path, "Sigmoid"))
    assert on_npu(N6, tflite("LOGISTIC", (1, 4), (1, 4)))


def test_float_layers_stay_on_the_cpu(tmp_path: Path) -> None:
    assert only(rules_of("stm32n6", "fp16"), one(tmp_path, "Sigmoid")).found == "fp16"


def test_resizing_is_nearest_only(tmp_path: Path) -> None:
    twice = (np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32))
    assert on_npu(N6, one(tmp_path, "Resize", *twice, mode="nearest"))
    for mode in ("linear", "cubic"):
        assert only(N6, one(tmp_path, "Resize", *twice, mode=mode)).found == mode


def test_the_mean_of_an_image_is_a_pool(tmp_path: Path) -> None:
    assert on_npu(N6, one(tmp_path, "ReduceMean", np.array([2, 3])))
    assert not on_npu(N6, one(tmp_path, "ReduceMean", np.array([1])))
