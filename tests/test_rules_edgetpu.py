"""An Edge TPU runs the first stretch of an 8-bit model that its list covers, and nothing after it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from onnx import helper

from npuops.models.open import open_model
from npuops.models.placement import RunsOn
from npuops.vnpu.rules import rules_of
from rule_nets import on_npu, one, only, tflite
from small_graphs import save, small_cnn

CORAL = rules_of("coral-edgetpu")


def test_a_small_network_runs_whole(tmp_path: Path) -> None:
    placed = CORAL(open_model(small_cnn(tmp_path / "cnn.onnx")))
    assert [place.op for place in placed if place.runs_on is RunsOn.CPU] == []


def test_what_follows_a_return_to_the_cpu_stays_there(tmp_path: Path) -> None:
    node = helper.make_node
    nodes = [node("Relu", ["x"], ["a"]), node("Erf", ["a"], ["b"]), node("Relu", ["b"], ["c"])]
    path = save(tmp_path / "m.onnx", [*nodes, node("Erf", ["c"], ["y"])], ([1, 4], [1, 4]))
    first, second, third, fourth = CORAL(open_model(path))
    assert [place.runs_on for place in (first, second, third)] == [RunsOn.NPU, RunsOn.CPU, RunsOn.CPU]
    assert second.found == "Erf"
    assert third.rule == "only the first stretch on the TPU is compiled"
    assert fourth.found == "Erf; behind a layer on the CPU"


def test_what_comes_before_the_first_stretch_does_not_end_it(tmp_path: Path) -> None:
    nodes = [helper.make_node("Erf", ["x"], ["a"]), helper.make_node("Relu", ["a"], ["y"])]
    placed = CORAL(open_model(save(tmp_path / "m.onnx", nodes, ([1, 4], [1, 4]))))
    assert [place.runs_on for place in placed] == [RunsOn.CPU, RunsOn.NPU]


def test_a_batch_is_one_axis_too_many(tmp_path: Path) -> None:
    place = only(CORAL, one(tmp_path, "Relu", data=(2, 4, 4, 4)))
    assert place.found == "shape [2, 4, 4, 4]"


def test_softmax_is_one_line_of_at_most_16000_values(tmp_path: Path) -> None:
    assert on_npu(CORAL, one(tmp_path, "Softmax", data=(1, 1000), axis=-1))
    assert not on_npu(CORAL, one(tmp_path, "Softmax", data=(1, 16_001), axis=-1))
    assert not on_npu(CORAL, one(tmp_path, "Softmax", data=(1, 10, 10), axis=-1))


def test_a_product_of_two_activations_is_not_on_the_list(tmp_path: Path) -> None:
    assert on_npu(CORAL, one(tmp_path, "MatMul", (4, 5), data=(3, 4)))
    assert only(CORAL, one(tmp_path, "MatMul", data=((3, 4), (4, 5)))).found == "weights computed at run time"


def test_fused_activations_of_pools_and_uneven_dilation_are_refused() -> None:
    pool = {"filter_height": 2, "filter_width": 2, "stride_h": 2, "stride_w": 2}
    shapes = ((1, 8, 8, 4), (1, 4, 4, 4))
    assert on_npu(CORAL, tflite("AVERAGE_POOL_2D", *shapes, **pool))
    fused = tflite("AVERAGE_POOL_2D", *shapes, **pool, fused_activation_function="RELU")
    assert only(CORAL, fused).found == "fused RELU"
    uneven = tflite("CONV_2D", (1, 8, 8, 4), (1, 4, 6, 4), (4, 3, 3, 4), dilation_h_factor=2, dilation_w_factor=1)
    assert only(CORAL, uneven).found == "dilations [2, 1]"


def test_only_8_bits(tmp_path: Path) -> None:
    assert only(rules_of("coral-edgetpu", "fp16"), one(tmp_path, "Relu")).found == "fp16"


def test_a_squeeze_takes_leading_axes_only(tmp_path: Path) -> None:
    assert on_npu(CORAL, one(tmp_path, "Squeeze", np.array([0]), data=(1, 5, 10)))
    assert not on_npu(CORAL, one(tmp_path, "Squeeze", np.array([1]), data=(5, 1, 10)))
