"""An RKNPU2 swaps axes within published sizes; swapping axes of size 1 moves nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from npuops.vnpu.rockchip_transpose import transposes
from rule_nets import one, tflite


def found(chip: str, shape: tuple[int, ...], perm: tuple[int, ...], folder: Path, number_format: str = "int8") -> str:
    return transposes(chip, number_format).broken(one(folder, "Transpose", data=shape, perm=list(perm)).layers[0])


@pytest.mark.parametrize("chip", ["rk3588", "rk3576", "rk3566"])
def test_an_order_that_keeps_the_long_axes_is_free(chip: str, tmp_path: Path) -> None:
    assert found(chip, (1, 5, 1, 7), (2, 1, 0, 3), tmp_path) == ""


def test_rows_must_be_aligned_to_the_number_format(tmp_path: Path) -> None:
    assert found("rk3588", (1, 4, 32, 8), (0, 1, 3, 2), tmp_path) == ""
    assert found("rk3588", (1, 4, 24, 8), (0, 1, 3, 2), tmp_path) == "[1, 4, 24, 8] by [0, 1, 3, 2]"
    assert found("rk3588", (1, 4, 24, 8), (0, 1, 3, 2), tmp_path, "fp16") == ""


def test_the_rk3576_has_larger_limits(tmp_path: Path) -> None:
    shape, perm = (1, 4, 80, 80), (0, 1, 3, 2)
    assert found("rk3588", shape, perm, tmp_path) != ""
    assert found("rk3576", shape, perm, tmp_path) == ""


def test_the_rk3566_transposes_lines_only(tmp_path: Path) -> None:
    assert found("rk3566", (1, 4, 32, 8), (0, 1, 3, 2), tmp_path) != ""
    assert found("rk3566", (4, 6, 1, 1), (2, 1, 0, 3), tmp_path) == ""


def test_fewer_axes_are_padded_in_front(tmp_path: Path) -> None:
    assert found("rk3588", (32, 8), (1, 0), tmp_path) == ""
    assert found("rk3588", (24, 8), (1, 0), tmp_path) != ""


def test_the_order_of_a_tflite_transpose_is_read_off_the_shapes() -> None:
    layer = tflite("TRANSPOSE", (1, 4, 24, 8), (1, 4, 8, 24), (4,)).layers[0]
    assert transposes("rk3588", "int8").broken(layer) == "[1, 4, 24, 8] by [0, 1, 3, 2]"
