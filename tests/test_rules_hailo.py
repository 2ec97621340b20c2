"""A Hailo-8 takes what somebody compiled for it; the rest is assumed, and says so."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from npuops.vnpu.rules import rules_of
from rule_nets import layer_called, on_npu, one, only

HAILO = rules_of("hailo-8")


def test_tried_and_assumed_operators_are_told_apart() -> None:
    assert only(HAILO, layer_called("LayerNormalization")).rule == "LayerNormalization is supported"
    assert only(HAILO, layer_called("Softmax")).rule == "Softmax is assumed (untried, and no list is public)"
    assert only(HAILO, layer_called("LSTM")).rule == "operator must be on the list of what a user compiled"


def test_convolutions_have_two_dimensions(tmp_path: Path) -> None:
    assert on_npu(HAILO, one(tmp_path, "Conv", (4, 4, 3, 3), group=2))
    assert only(HAILO, one(tmp_path, "Conv", (4, 8, 3), data=(1, 8, 20))).found == "kernel [3]"
    assert only(HAILO, one(tmp_path, "Conv", (4, 8, 3, 3, 3), data=(1, 8, 6, 6, 6))).found == "kernel [3, 3, 3]"


def test_a_mean_is_over_height_and_width(tmp_path: Path) -> None:
    assert on_npu(HAILO, one(tmp_path, "ReduceMean", np.array([2, 3])))
    assert not on_npu(HAILO, one(tmp_path, "ReduceMean", np.array([1])))


def test_only_8_bits(tmp_path: Path) -> None:
    assert only(rules_of("hailo-8", "fp16"), one(tmp_path, "Relu")).found == "fp16"
