"""Each published limit of a Rockchip NPU breaks where it says, and the chips differ where their lists do."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from npuops.models.placement import RunsOn
from npuops.vnpu.rules import rules_of
from npuops.vnpu.rules_rockchip import Chip, place_on
from rule_nets import layer_called, on_npu, one, only, tflite

RK3588, RK3576, RK3566, RV1126 = (rules_of(name) for name in ("rk3588", "rk3576", "rk3566", "rv1126"))


def test_a_usual_convolution_runs_on_every_chip(tmp_path: Path) -> None:
    model = one(tmp_path, "Conv", (16, 8, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    assert all(on_npu(placing, model) for placing in (RK3588, RK3576, RK3566, RV1126))


def test_a_patch_embedding_breaks_two_limits_and_both_are_told(tmp_path: Path) -> None:
    place = only(RK3588, one(tmp_path, "Conv", (16, 8, 32, 32), data=(1, 8, 64, 64), strides=[32, 32]))
    assert place.rule == "kernel must be at most 31, depthwise 8; strides must be 1 to 7"
    assert place.found == "kernel [32, 32]; strides [32, 32]"


def test_softmax_runs_on_the_rk3588_and_not_on_the_rk3566(tmp_path: Path) -> None:
    model = one(tmp_path, "Softmax", axis=-1)
    assert on_npu(RK3588, model)
    assert "operator must be on the NPU list of RK3566" in only(RK3566, model).rule


def test_softmax_over_the_height_is_not_on_the_list(tmp_path: Path) -> None:
    assert only(RK3588, one(tmp_path, "Softmax", axis=2)).found == "axis H of rank 4"


def test_hard_sigmoid_needs_the_slope_of_one_sixth(tmp_path: Path) -> None:
    assert on_npu(RK3588, one(tmp_path, "HardSigmoid", alpha=1 / 6))
    assert only(RK3588, one(tmp_path, "HardSigmoid")).found.startswith("alpha 0.2")


@pytest.mark.parametrize(("stride", "on_3588", "on_3576"), [(2, True, True), (3, False, True), (9, False, False)])
def test_transposed_strides_are_powers_of_two_on_the_rk3588(
    stride: int, on_3588: bool, on_3576: bool, tmp_path: Path
) -> None:
    model = one(tmp_path, "ConvTranspose", (8, 8, 9, 9), strides=[stride, stride])
    assert (on_npu(RK3588, model), on_npu(RK3576, model)) == (on_3588, on_3576)


def test_a_global_pool_of_a_large_plane_is_not_promised(tmp_path: Path) -> None:
    assert only(RK3588, one(tmp_path, "GlobalAveragePool")).found == "14x14"
    assert on_npu(RK3588, one(tmp_path, "GlobalAveragePool", data=(1, 8, 7, 7)))


def test_the_doubling_of_a_yolo_runs_although_its_coordinate_mode_is_not_listed(tmp_path: Path) -> None:
    none = np.zeros(0, np.float32)

    def model(factor: float, mode: str) -> bool:
        scales = np.array([1, 1, factor, factor], np.float32)
        words = {"mode": mode, "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return on_npu(RK3588, one(tmp_path, "Resize", none, scales, **words))

    assert (model(2, "nearest"), model(2, "linear"), model(1.5, "nearest")) == (True, False, False)


def test_subtraction_takes_one_value_per_channel_and_not_one_per_column(tmp_path: Path) -> None:
    assert on_npu(RK3588, one(tmp_path, "Sub", (1, 8, 1, 1)))
    assert on_npu(RK3588, one(tmp_path, "Sub", (1,)))
    assert only(RK3588, one(tmp_path, "Sub", (14,))).found == "[14] against [1, 8, 14, 14]"


def test_five_dimensions_are_told_beside_what_else_is_broken(tmp_path: Path) -> None:
    place = only(RK3588, one(tmp_path, "ReduceMax", np.array([2]), data=(1, 2, 3, 4, 5)))
    assert place.rule == "rank must be at most 4; operator must be on the NPU list of RK3588"


def test_float32_runs_nowhere_and_float16_on_the_npu(tmp_path: Path) -> None:
    model = one(tmp_path, "Relu")
    assert place_on(model, Chip.RK3588, "fp16")[0].runs_on is RunsOn.NPU
    assert place_on(model, Chip.RK3588, "fp32")[0].found == "fp32"


def test_tflite_layers_meet_the_same_limits() -> None:
    wide = tflite("DEPTHWISE_CONV_2D", (1, 20, 20, 8), (1, 12, 12, 8), (1, 9, 9, 8))
    assert only(RK3588, wide).found == "depthwise kernel [9, 9]"
    assert on_npu(RK3588, tflite("HARD_SWISH", (1, 4, 4, 8), (1, 4, 4, 8)))


def test_channels_of_tflite_come_last() -> None:
    image = (1, 4, 4, 8)
    assert on_npu(RK3588, tflite("SUB", image, image, (8,)))
    assert on_npu(RK3588, tflite("SUB", image, image, (1, 1, 1, 8)))
    assert not on_npu(RK3588, tflite("SUB", image, image, (1, 4, 1, 8)))
    assert on_npu(RK3588, tflite("RESIZE_BILINEAR", (1, 1, 1, 8), (1, 20, 20, 8), half_pixel_centers=True))


def test_the_older_toolkit_has_a_tflite_list_of_its_own() -> None:
    assert on_npu(RV1126, tflite("NEG", (1, 4), (1, 4)))
    assert only(RV1126, tflite("GELU", (1, 4), (1, 4))).found == "GELU"


@pytest.mark.parametrize(("group", "step", "found"), [(1, 31, ""), (1, 32, "dilations [32, 32]"), (8, 32, "")])
def test_a_depthwise_filter_may_have_one_hole_more(group: int, step: int, found: str, tmp_path: Path) -> None:
    weight = (8, 8 // group, 2, 2)
    model = one(tmp_path, "Conv", weight, data=(1, 8, 64, 64), group=group, dilations=[step, step])
    assert only(RK3588, model).found == found


def test_an_average_counts_its_padding_and_does_not_round_up(tmp_path: Path) -> None:
    pool = {"kernel_shape": [3, 3], "strides": [2, 2]}
    assert on_npu(RK3588, one(tmp_path, "AveragePool", **pool, pads=[1, 1, 1, 1], count_include_pad=1))
    assert only(RK3588, one(tmp_path, "AveragePool", **pool, pads=[1, 1, 1, 1])).found == "count_include_pad 0"
    assert only(RK3588, one(tmp_path, "AveragePool", **pool, ceil_mode=1)).found == "ceil_mode 1"
    assert on_npu(RK3588, one(tmp_path, "MaxPool", **pool, pads=[1, 1, 1, 1], ceil_mode=1))


def test_a_resize_grows_by_two_at_least(tmp_path: Path) -> None:
    def grows(height: float, width: float) -> bool:
        scales = np.array([1, 1, height, width], np.float32)
        return on_npu(RK3588, one(tmp_path, "Resize", np.zeros(0, np.float32), scales, mode="linear"))

    assert [grows(*factors) for factors in ((1, 1), (2, 2), (8, 2), (1, 2), (9, 9))] == [True, True, True, False, False]


def test_a_gru_has_one_sequence_and_an_lstm_one_or_a_multiple_of_four(tmp_path: Path) -> None:
    def taken(op: str, gates: int, batch: int) -> bool:
        weights = ((1, gates * 4, 8), (1, gates * 4, 4))
        return on_npu(RK3588, one(tmp_path, op, *weights, data=(5, batch, 8), hidden_size=4))

    assert [taken("GRU", 3, batch) for batch in (1, 4)] == [True, False]
    assert [taken("LSTM", 4, batch) for batch in (1, 3, 4)] == [True, False, True]


def test_an_exponent_is_one_constant(tmp_path: Path) -> None:
    assert on_npu(RK3588, one(tmp_path, "Pow", (1,)))
    assert only(RK3588, one(tmp_path, "Pow", (14,))).found == "14 of them"


def test_indices_that_flow_are_not_taken_for_the_table(tmp_path: Path) -> None:
    table = one(tmp_path, "Gather", np.array([0, 2], np.int64), axis=1)
    assert on_npu(RK3588, table)
    assert only(RK3588, one(tmp_path, "Gather", np.array(2, np.int64), axis=1)).found == "indices of rank 0"


def test_a_transposed_convolution_pads_less_than_its_kernel(tmp_path: Path) -> None:
    assert on_npu(RK3588, one(tmp_path, "ConvTranspose", (8, 8, 2, 2), strides=[2, 2], pads=[1, 1, 1, 1]))
    wide = one(tmp_path, "ConvTranspose", (8, 8, 2, 2), strides=[2, 2], pads=[2, 2, 2, 2])
    assert only(RK3588, wide).found == "pads [2, 2, 2, 2] of kernel [2, 2]"


def test_other_limits_of_the_list(tmp_path: Path) -> None:
    assert only(RK3588, one(tmp_path, "Elu", alpha=2.0)).found == "alpha 2.0"
    assert only(RK3588, one(tmp_path, "Hardmax", data=(1, 4, 128, 128), axis=1)).found == "16384 lines"
    around = np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)
    assert on_npu(RK3588, one(tmp_path, "Pad", around, data=(1, 1, 4, 8176), mode="reflect"))
    assert not on_npu(RK3588, one(tmp_path, "Pad", around, data=(1, 1, 4, 8177), mode="reflect"))
    assert on_npu(RK3588, one(tmp_path, "Pad", around, data=(1, 1, 4, 8177)))


def test_the_older_toolkit_resizes_and_pads() -> None:
    assert on_npu(RV1126, layer_called("Resize"))
    assert on_npu(RV1126, layer_called("Pad"))
