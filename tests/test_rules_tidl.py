"""TIDL's published limits break where they say; AM62A has one more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from npuops.vnpu.rules import rules_of
from rule_nets import on_npu, one, only, tflite

TDA4VM, AM62A = rules_of("tda4vm"), rules_of("am62a")


@pytest.mark.parametrize(
    ("kernel", "stride", "group", "fits"),
    [
        ((3, 3), 2, 1, True),
        ((7, 7), 2, 1, True),
        ((9, 9), 2, 1, False),
        ((4, 4), 4, 1, False),
        ((11, 11), 4, 1, True),
        ((5, 5), 2, 8, True),
        ((9, 9), 1, 8, False),
    ],
)
def test_convolutions_by_kernel_and_stride(
    kernel: tuple[int, int], stride: int, group: int, fits: bool, tmp_path: Path
) -> None:
    model = one(tmp_path, "Conv", (8, 8 // group, *kernel), strides=[stride, stride], group=group)
    assert on_npu(TDA4VM, model) is fits


def test_strides_must_be_equal_both_ways(tmp_path: Path) -> None:
    place = only(TDA4VM, one(tmp_path, "Conv", (8, 8, 3, 3), strides=[1, 2]))
    assert (place.rule, place.found) == ("strides must be equal along height and width", "strides [1, 2]")


def test_the_small_chip_lacks_three_by_three_with_stride_three(tmp_path: Path) -> None:
    model = one(tmp_path, "Conv", (8, 8, 3, 3), strides=[3, 3])
    assert (on_npu(TDA4VM, model), on_npu(AM62A, model)) == (True, False)


def test_softmax_runs_along_width_and_height_not_channels(tmp_path: Path) -> None:
    assert [on_npu(TDA4VM, one(tmp_path, "Softmax", axis=axis)) for axis in (1, 2, 3)] == [False, True, True]


def test_a_global_pool_has_at_most_1024_places(tmp_path: Path) -> None:
    assert on_npu(TDA4VM, one(tmp_path, "GlobalAveragePool", data=(1, 8, 32, 32)))
    assert only(TDA4VM, one(tmp_path, "GlobalAveragePool", data=(1, 8, 33, 32))).found == "33x32"


def test_a_resize_grows_both_ways_by_one_power_of_two(tmp_path: Path) -> None:
    def grows(height: float, width: float) -> bool:
        scales = np.array([1, 1, height, width], np.float32)
        words = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        return on_npu(TDA4VM, one(tmp_path, "Resize", np.zeros(0, np.float32), scales, **words))

    assert (grows(2, 2), grows(4, 4), grows(2, 4), grows(3, 3)) == (True, True, False, False)


def test_casts_run_at_the_border_of_a_network(tmp_path: Path) -> None:
    assert on_npu(TDA4VM, one(tmp_path, "Cast", to=1))


def test_gelu_is_on_no_line_of_the_list(tmp_path: Path) -> None:
    assert only(TDA4VM, one(tmp_path, "Gelu")).rule == "operator must be on the TIDL list"


def test_tflite_has_a_shorter_list() -> None:
    assert on_npu(TDA4VM, tflite("LOGISTIC", (1, 4), (1, 4)))
    assert on_npu(TDA4VM, tflite("MEAN", (1, 7, 7, 8), (1, 8)))
    assert not on_npu(TDA4VM, tflite("HARD_SWISH", (1, 4), (1, 4)))
