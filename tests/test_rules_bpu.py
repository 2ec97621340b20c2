"""The Bayes BPU's published limits break where they say; what it does only on asking is on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from npuops.vnpu.rules import rules_of
from rule_nets import on_npu, one, only

X5 = rules_of("rdk-x5")


def test_softmax_is_on_the_cpu_unless_asked_for(tmp_path: Path) -> None:
    place = only(X5, one(tmp_path, "Softmax", axis=-1))
    assert (place.rule, place.found) == ("on the CPU unless asked for by name", "Softmax")


@pytest.mark.parametrize(
    ("weight", "attributes", "found"),
    [
        ((16, 8, 3, 3), {"strides": [2, 2]}, ""),
        ((16, 8, 3, 3), {"strides": [2, 2], "dilations": [2, 2]}, "dilation 2 with stride 2"),
        ((16, 8, 32, 1), {}, "kernel [32, 1]"),
    ],
)
def test_convolutions(weight: tuple[int, ...], attributes: dict[str, object], found: str, tmp_path: Path) -> None:
    place = only(X5, one(tmp_path, "Conv", weight, data=(1, 8, 40, 40), **attributes))
    assert place.found == found


def test_a_filter_has_at_most_65535_values(tmp_path: Path) -> None:
    assert only(X5, one(tmp_path, "Conv", (1, 400, 13, 13), data=(1, 400, 14, 14))).found == "67600 values"


def test_volumes_run_with_equal_strides(tmp_path: Path) -> None:
    volume = {"data": (1, 8, 6, 6, 6)}
    assert on_npu(X5, one(tmp_path, "Conv", (4, 8, 3, 3, 3), **volume))
    assert not on_npu(X5, one(tmp_path, "Conv", (4, 8, 3, 3, 3), strides=[1, 1, 2], **volume))


def test_a_transposed_convolution_must_move(tmp_path: Path) -> None:
    assert on_npu(X5, one(tmp_path, "ConvTranspose", (8, 8, 2, 2), strides=[2, 2]))
    assert only(X5, one(tmp_path, "ConvTranspose", (8, 8, 3, 3))).found == "strides [1, 1]"


def test_a_reduction_is_over_one_axis_and_keeps_it(tmp_path: Path) -> None:
    def mean(*axes: int, keepdims: int = 1) -> bool:
        return on_npu(X5, one(tmp_path, "ReduceMean", np.array(axes), keepdims=keepdims))

    assert (mean(1), mean(2, 3), mean(1, 2), mean(1, keepdims=0)) == (True, True, False, False)


def test_operands_of_a_product_have_one_rank(tmp_path: Path) -> None:
    assert on_npu(X5, one(tmp_path, "MatMul", data=((2, 3, 4), (2, 4, 5))))
    assert only(X5, one(tmp_path, "MatMul", (4, 5), data=(2, 3, 4))).found == "ranks 2, 3"


def test_division_by_a_constant_is_not_taken(tmp_path: Path) -> None:
    assert on_npu(X5, one(tmp_path, "Div", data=((1, 4), (1, 4))))
    assert only(X5, one(tmp_path, "Div", (1, 4), data=(1, 4))).found == "a constant"
