"""A DLA takes what TensorRT lists as native, within its published limits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from npuops.vnpu.rules import rules_of
from rule_nets import on_npu, one, only

DLA = rules_of("orin-dla")


def test_convolutions_up_to_32_by_32_with_strides_up_to_8(tmp_path: Path) -> None:
    assert on_npu(DLA, one(tmp_path, "Conv", (16, 8, 3, 3), strides=[8, 8]))
    assert only(DLA, one(tmp_path, "Conv", (16, 8, 3, 3), strides=[9, 9])).found == "strides [9, 9]"
    assert only(DLA, one(tmp_path, "Conv", (1, 8, 33, 1), data=(1, 8, 40, 4))).found == "kernel [33, 1]"


def test_transposed_convolutions_without_padding_and_groups(tmp_path: Path) -> None:
    assert on_npu(DLA, one(tmp_path, "ConvTranspose", (8, 8, 2, 2), strides=[2, 2]))
    place = only(DLA, one(tmp_path, "ConvTranspose", (8, 1, 4, 4), strides=[2, 2], pads=[1, 1, 1, 1], group=8))
    assert place.found == "pads [1, 1, 1, 1]; 8 groups"


def test_images_are_joined_along_channels_only(tmp_path: Path) -> None:
    pair = {"data": ((1, 8, 4, 4), (1, 8, 4, 4))}
    assert on_npu(DLA, one(tmp_path, "Concat", axis=1, **pair))
    assert only(DLA, one(tmp_path, "Concat", axis=2, **pair)).found == "axis H of rank 4"


def test_operators_that_wait_for_a_release_run_on_the_gpu(tmp_path: Path) -> None:
    assert not on_npu(DLA, one(tmp_path, "GlobalAveragePool"))
    assert not on_npu(DLA, one(tmp_path, "Div", (1,)))


def test_float16_is_taken_and_16_bit_integers_are_not(tmp_path: Path) -> None:
    assert on_npu(rules_of("orin-dla", "fp16"), one(tmp_path, "Relu"))
    assert not on_npu(rules_of("orin-dla", "w8a16"), one(tmp_path, "Relu"))


def test_a_transpose_is_native(tmp_path: Path) -> None:
    assert on_npu(DLA, one(tmp_path, "Transpose", perm=[0, 2, 3, 1]))


@pytest.mark.parametrize(
    ("factor", "words", "found"),
    [
        (2, {"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}, ""),
        (2, {"mode": "linear"}, ""),
        (2, {"mode": "linear", "coordinate_transformation_mode": "asymmetric"}, "linear with asymmetric"),
        (1.5, {"mode": "nearest"}, "factors 1.5 and 1.5"),
        (33, {"mode": "nearest"}, "factors 33 and 33"),
    ],
)
def test_a_resize_grows_by_whole_factors_up_to_32(
    factor: float, words: dict[str, str], found: str, tmp_path: Path
) -> None:
    scales = np.array([1, 1, factor, factor], np.float32)
    assert only(DLA, one(tmp_path, "Resize", np.zeros(0, np.float32), scales, **words)).found == found


def test_all_axes_before_the_last_three_are_the_batch(tmp_path: Path) -> None:
    assert on_npu(DLA, one(tmp_path, "Relu", data=(4096, 1, 1, 1)))
    assert only(DLA, one(tmp_path, "Relu", data=(2, 2049, 1, 1, 1))).found == "batch 4098"
