"""The AX650's few published limits break where they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from npuops.vnpu.rules import rules_of
from rule_nets import on_npu, one, only

AX650 = rules_of("ax650n")


def test_attention_runs_whole(tmp_path: Path) -> None:
    assert on_npu(AX650, one(tmp_path, "Softmax", axis=-1))
    assert on_npu(AX650, one(tmp_path, "LayerNormalization", (14,), axis=-1))
    assert on_npu(AX650, one(tmp_path, "Gelu"))


def test_normalisation_is_over_the_last_axis(tmp_path: Path) -> None:
    assert only(AX650, one(tmp_path, "LayerNormalization", (8, 14, 14), axis=1)).found == "axis C of rank 4"


def test_padding_of_an_average_is_counted(tmp_path: Path) -> None:
    pool = {"kernel_shape": [3, 3], "pads": [1, 1, 1, 1]}
    assert on_npu(AX650, one(tmp_path, "AveragePool", **pool, count_include_pad=1))
    assert only(AX650, one(tmp_path, "AveragePool", **pool)).found == "count_include_pad 0"


def test_an_exponent_is_one_constant(tmp_path: Path) -> None:
    assert on_npu(AX650, one(tmp_path, "Pow", (1,)))
    assert not on_npu(AX650, one(tmp_path, "Pow", (14,)))


def test_nearest_rounds_up_or_repeats_pixels(tmp_path: Path) -> None:
    def nearest(factor: float) -> bool:
        scales = np.array([1, 1, factor, factor], np.float32)
        return on_npu(AX650, one(tmp_path, "Resize", np.zeros(0, np.float32), scales, mode="nearest"))

    assert (nearest(2), nearest(1.5)) == (True, False)


def test_other_limits_of_the_list(tmp_path: Path) -> None:
    assert only(AX650, one(tmp_path, "ArgMax", select_last_index=1)).found == "select_last_index 1"
    assert only(AX650, one(tmp_path, "Cast", to=9)).found == "to bool"
    assert on_npu(AX650, one(tmp_path, "Cast", to=6))
    fixed = one(tmp_path, "ConvTranspose", (8, 8, 2, 2), strides=[2, 2], output_shape=[28, 28])
    assert only(AX650, fixed).found == "output_shape (28, 28)"
