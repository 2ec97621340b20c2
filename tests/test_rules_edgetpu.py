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
    assert on_npu(CORAL, one(tmp_path, "MatMul", (4, 5), data=(1, 4)))
    assert only(CORAL, one(tmp_path, "MatMul", (4, 5), data=(3, 4))).found == "shape [3, 5]"
    assert only(CORAL, one(tmp_path, "MatMul", data=((1, 4), (4, 5)))).found == "weights computed at run time"


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


def test_the_kind_of_the_first_layer_goes_first_as_in_tflite(tmp_path: Path) -> None:
    node = helper.make_node
    nodes = [node("Relu", ["x"], ["a"]), node("Erf", ["x"], ["b"]), node("Relu", ["b"], ["c"])]
    placed = CORAL(open_model(save(tmp_path / "m.onnx", [*nodes, node("Add", ["a", "c"], ["y"])], ([1, 4], [1, 4]))))
    assert [place.runs_on for place in placed] == [RunsOn.NPU, RunsOn.CPU, RunsOn.CPU, RunsOn.CPU]
    later = [nodes[1], nodes[0], nodes[2], node("Add", ["a", "c"], ["y"])]
    placed = CORAL(open_model(save(tmp_path / "m.onnx", later, ([1, 4], [1, 4]))))
    assert [place.runs_on for place in placed] == [RunsOn.CPU, RunsOn.NPU, RunsOn.NPU, RunsOn.NPU]


def test_padding_is_around_the_image_only(tmp_path: Path) -> None:
    assert on_npu(CORAL, one(tmp_path, "Pad", np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)))
    assert not on_npu(CORAL, one(tmp_path, "Pad", np.array([0, 1, 0, 0, 0, 0, 0, 0], np.int64)))


def test_weights_that_are_dequantized_are_neither_wide_nor_first(tmp_path: Path) -> None:
    scale = {"s": np.array(0.1, np.float32), "w": np.zeros((8, 4, 3, 3), np.int8)}
    node = helper.make_node
    pair = [node("QuantizeLinear", ["x", "s"], ["q"]), node("DequantizeLinear", ["q", "s"], ["d"])]
    tail = [node("Erf", ["d"], ["e"]), node("Conv", ["e", "v"], ["y"])]
    weights = [node("DequantizeLinear", ["w", "s"], ["v"])]
    shapes = ([1, 4, 8, 8], [1, 8, 6, 6])
    placed = CORAL(open_model(save(tmp_path / "m.onnx", [*weights, *pair, *tail], shapes, **scale)))
    assert {place.op for place in placed if place.runs_on is RunsOn.CPU} == {"Erf"}


def test_a_mean_over_channels_needs_a_multiple_of_four() -> None:
    assert on_npu(CORAL, tflite("MEAN", (1, 4, 4, 8), (1, 4, 4)))
    assert only(CORAL, tflite("MEAN", (1, 4, 4, 6), (1, 4, 4))).found == "6 channels"
    assert on_npu(CORAL, tflite("MEAN", (1, 4, 4, 6), (1, 6)))


def test_the_inverse_root_is_on_the_list_and_the_root_is_not(tmp_path: Path) -> None:
    assert on_npu(CORAL, tflite("RSQRT", (1, 8), (1, 8)))
    assert not on_npu(CORAL, tflite("SQRT", (1, 8), (1, 8)))
    assert not on_npu(CORAL, one(tmp_path, "Sqrt"))
    assert not on_npu(CORAL, one(tmp_path, "Reciprocal"))
    nodes = [helper.make_node("Sqrt", ["x"], ["a"]), helper.make_node("Reciprocal", ["a"], ["y"])]
    placed = CORAL(open_model(save(tmp_path / "m.onnx", nodes, ([1, 4], [1, 4]))))
    assert {place.runs_on for place in placed} == {RunsOn.NPU}
