"""The published limits of RDK X5's BPU break where they say; what it does only on asking is on the CPU."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from npuops.models.model import Model
from npuops.vnpu.rules import rules_of
from rule_nets import made, on_npu, one, only

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


def test_a_filter_has_at_most_32767_values(tmp_path: Path) -> None:
    assert only(X5, one(tmp_path, "Conv", (1, 200, 13, 13), data=(1, 200, 14, 14))).found == "33800 values"


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


def test_activations_of_a_product_have_one_rank_and_constants_may_have_less(tmp_path: Path) -> None:
    assert on_npu(X5, one(tmp_path, "MatMul", data=((2, 3, 4), (2, 4, 5))))
    assert on_npu(X5, one(tmp_path, "MatMul", (4, 5), data=(2, 3, 4)))
    assert only(X5, one(tmp_path, "MatMul", data=((2, 3, 4), (4, 5)))).found == "ranks 2, 3"
    assert only(X5, one(tmp_path, "MatMul", (2, 4, 5), data=(3, 4))).found == "ranks 2, 3"


def test_what_an_export_to_opset_11_takes_apart_is_judged_by_its_parts(tmp_path: Path) -> None:
    assert on_npu(X5, one(tmp_path, "LayerNormalization", (14,)))
    assert only(X5, one(tmp_path, "LayerNormalization", (14, 14), axis=2)).found == "axis H of rank 4"
    assert on_npu(X5, one(tmp_path, "Gelu"))


def test_slopes_are_of_images_only() -> None:
    assert only(X5, made("PRelu", IMAGE, weights=[(8, 1, 1)])).found == ""
    assert only(X5, made("PRelu", (1, 8), weights=[(8,)])).found == "rank 2"


def test_a_part_of_a_split_divides_the_whole(tmp_path: Path) -> None:
    def split(*parts: int) -> str:
        return only(X5, one(tmp_path, "Split", np.array(parts), data=(1, 8, 4, 4), outputs=len(parts), axis=1)).found

    assert split(4, 4) == split(2, 2, 4) == ""
    assert split(2, 6) == "part [1, 6, 4, 4] of [1, 8, 4, 4]"


def test_an_exponent_is_one_constant(tmp_path: Path) -> None:
    assert on_npu(X5, one(tmp_path, "Pow", (1,)))
    assert not on_npu(X5, one(tmp_path, "Pow", data=((1, 4), (1, 4))))


def test_a_dilated_filter_needs_a_plane_that_it_divides(tmp_path: Path) -> None:
    weight = (16, 8, 3, 3)
    assert on_npu(X5, one(tmp_path, "Conv", weight, data=(1, 8, 40, 40), dilations=[2, 2]))
    assert only(X5, one(tmp_path, "Conv", weight, data=(1, 8, 40, 41), dilations=[2, 2])).found == "40x41 by [2, 2]"


@pytest.mark.parametrize(
    ("kernel", "attributes", "found"),
    [
        (4, {"strides": [2, 2], "pads": [1, 1, 1, 1]}, ""),
        (4, {"strides": [2, 2], "pads": [3, 3, 3, 3]}, "pads [3, 3, 3, 3] of kernel [4, 4]"),
        (1, {"strides": [2, 2]}, "kernel [1, 1]"),
        (4, {"strides": [3, 3], "output_padding": [2, 2]}, "output_padding [2, 2]"),
    ],
)
def test_transposed_convolutions(kernel: int, attributes: dict[str, object], found: str, tmp_path: Path) -> None:
    assert only(X5, one(tmp_path, "ConvTranspose", (8, 8, kernel, kernel), **attributes)).found == found


def test_deep_volumes_are_limited_by_depth_times_channels(tmp_path: Path) -> None:
    def volume(depth: int, channels: int) -> bool:
        return on_npu(X5, one(tmp_path, "Conv", (4, channels, depth, 1, 1), data=(1, channels, depth, 4, 4)))

    assert volume(40, 8)
    assert not volume(5, 2000)


IMAGE = (1, 8, 32, 32)
LIMITS = [
    (
        made("AveragePool", (1, 8, 300, 300), kernel_shape=(256, 1)),
        made("AveragePool", (1, 8, 300, 300), kernel_shape=(257, 1)),
    ),
    (
        made("MaxPool", IMAGE, kernel_shape=(2, 2), strides=(256, 1)),
        made("MaxPool", IMAGE, kernel_shape=(2, 2), strides=(257, 1)),
    ),
    (
        made("MaxPool", IMAGE, kernel_shape=(2, 2), dilations=(1, 1)),
        made("MaxPool", IMAGE, kernel_shape=(2, 2), dilations=(2, 1)),
    ),
    (
        made("Conv", IMAGE, weights=[(8, 8, 3, 3)], pads=(256,) * 4),
        made("Conv", IMAGE, weights=[(8, 8, 3, 3)], pads=(257,) * 4),
    ),
    (
        made("Conv", IMAGE, weights=[(8, 8, 3, 3)], strides=(256, 1)),
        made("Conv", IMAGE, weights=[(8, 8, 3, 3)], strides=(257, 1)),
    ),
    (
        made("Conv", (1, 8, 32, 34), weights=[(8, 8, 2, 2)], dilations=(16, 1)),
        made("Conv", (1, 8, 32, 34), weights=[(8, 8, 2, 2)], dilations=(1, 17)),
    ),
    (made("Conv", IMAGE, weights=[(8, 8, 31, 3)]), made("Conv", IMAGE, weights=[(8, 8, 32, 3)])),
    (
        made("Conv", (1, 4681, 8, 8), weights=[(8, 4681, 7, 1)]),
        made("Conv", (1, 4682, 8, 8), weights=[(8, 4682, 7, 1)]),
    ),
    (
        made("AveragePool", (1, 8, 300, 300), kernel_shape=(128, 64)),
        made("AveragePool", (1, 8, 300, 300), kernel_shape=(128, 65)),
    ),
    (
        made("AveragePool", IMAGE, kernel_shape=(2, 1)),
        made("AveragePool", IMAGE, kernel_shape=(1, 1)),
    ),
    (
        made("AveragePool", IMAGE, kernel_shape=(2, 2), pads=(255,) * 4),
        made("AveragePool", IMAGE, kernel_shape=(2, 2), pads=(256,) * 4),
    ),
    (
        made("Conv", (1, 8192, 8, 8), weights=[(8, 8192, 1, 1)]),
        made("Conv", (1, 8193, 8, 8), weights=[(8, 8193, 1, 1)]),
    ),
    (
        made("Conv", (1, 4, 9, 8, 8), weights=[(8, 4, 3, 3, 3)], strides=(1, 2, 2)),
        made("Conv", (1, 4, 9, 8, 8), weights=[(8, 4, 3, 3, 3)], strides=(1, 3, 3)),
    ),
    (
        made("Conv", (1, 4096, 9, 8, 8), weights=[(8, 4096, 2, 1, 1)]),
        made("Conv", (1, 4097, 9, 8, 8), weights=[(8, 4097, 2, 1, 1)]),
    ),
    (
        made("Conv", (1, 4, 9, 8, 8), weights=[(8, 4, 3, 3, 3)], pads=(1, 0, 0, 1, 0, 0)),
        made("Conv", (1, 4, 9, 8, 8), weights=[(8, 4, 3, 3, 3)], pads=(2, 0, 0, 2, 0, 0)),
    ),
    (
        made("ConvTranspose", IMAGE, weights=[(8, 8, 14, 14)], strides=(14, 1)),
        made("ConvTranspose", IMAGE, weights=[(8, 8, 14, 14)], strides=(15, 1)),
    ),
    (
        made("ConvTranspose", IMAGE, weights=[(8, 8, 14, 1)], strides=(2, 2)),
        made("ConvTranspose", IMAGE, weights=[(8, 8, 15, 1)], strides=(2, 2)),
    ),
    (
        made("ConvTranspose", (1, 2048, 4, 4), weights=[(2048, 8, 2, 2)], strides=(2, 2)),
        made("ConvTranspose", (1, 2049, 4, 4), weights=[(2049, 8, 2, 2)], strides=(2, 2)),
    ),
    (
        made("ConvTranspose", IMAGE, weights=[(8, 8, 6, 6)], strides=(3, 3), pads=(1,) * 4),
        made("ConvTranspose", IMAGE, weights=[(8, 8, 6, 6)], strides=(3, 3), pads=(2,) * 4),
    ),
    (
        made("ConvTranspose", (1, 668, 4, 4), weights=[(668, 8, 14, 14)], strides=(2, 2)),
        made("ConvTranspose", (1, 669, 4, 4), weights=[(669, 8, 14, 14)], strides=(2, 2)),
    ),
    (made("ArgMax", (1, 8191, 4, 4), axis=1), made("ArgMax", (1, 8192, 4, 4), axis=1)),
    (made("GlobalMaxPool", (1, 8, 256, 256)), made("GlobalMaxPool", (1, 8, 257, 4))),
    (made("Gather", (2, 3, 4, 5), (2,)), made("Gather", (1, 2, 3, 4, 5), (2,))),
    (made("Add", (1,) * 10, (1,) * 10), made("Add", (1,) * 11, (1,) * 11)),
    (made("Max", (1,) * 10, (1,) * 10), made("Max", (1,) * 11, (1,) * 11)),
    (made("Sigmoid", (1,) * 10), made("Sigmoid", (1,) * 11)),
    (made("MatMul", (8192, 8192), (8192, 8192)), made("MatMul", (8193, 64), (64, 64))),
    (
        made("ReduceMax", (1, 8192, 4), out=(1, 1, 4)),
        made("ReduceMax", (1, 8193, 4), out=(1, 1, 4)),
    ),
    (made("DepthToSpace", (1, 16, 4, 4), blocksize=2), made("DepthToSpace", (1, 36, 4, 4), blocksize=3)),
    (made("SpaceToDepth", (1, 4, 8, 8), blocksize=2), made("SpaceToDepth", (1, 4, 9, 9), blocksize=3)),
    (made("GridSample", (1, 8, 256, 1024), (1, 4, 4, 2)), made("GridSample", (1, 8, 257, 1024), (1, 4, 4, 2))),
    (made("GridSample", (1, 8, 1024, 4), (1, 4, 4, 2)), made("GridSample", (1, 8, 1025, 4), (1, 4, 4, 2))),
    (made("TopK", (1, 8), sorted=1), made("TopK", (1, 8), sorted=0)),
    (made("LSTM", (5, 1, 8), weights=[(1, 16, 8)]), made("LSTM", (5, 2, 8), weights=[(1, 16, 8)])),
    (made("Gemm", (1, 8192), weights=[(8192, 8)]), made("Gemm", (1, 8193), weights=[(8193, 8)])),
]


@pytest.mark.parametrize(("fits", "breaks"), LIMITS, ids=lambda model: model.layers[0].op)
def test_a_limit_of_the_table_is_taken_and_the_next_value_is_not(fits: Model, breaks: Model) -> None:
    assert only(X5, fits).found == ""
    assert only(X5, breaks).found != ""
