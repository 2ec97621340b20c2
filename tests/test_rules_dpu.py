"""A DPU's filter bank and channel limits break where they say."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from npuops.models.model import Model
from npuops.vnpu.rules import rules_of
from rule_nets import made, on_npu, one, only

DPU = rules_of("dpu-b4096")


def test_a_filter_fills_at_most_2048_entries(tmp_path: Path) -> None:
    assert on_npu(DPU, one(tmp_path, "Conv", (16, 512, 7, 7), data=(1, 512, 14, 14)))
    assert only(DPU, one(tmp_path, "Conv", (16, 700, 7, 7), data=(1, 700, 14, 14))).found == "2156 entries"


def test_channels_times_dilation_are_at_most_4096(tmp_path: Path) -> None:
    model = one(tmp_path, "Conv", (4, 2000, 1, 3), data=(1, 2000, 4, 16), dilations=[1, 4])
    assert only(DPU, model).found == "8000 channels x dilation"


def test_groups_are_not_taken_but_depthwise_is(tmp_path: Path) -> None:
    assert on_npu(DPU, one(tmp_path, "Conv", (8, 1, 3, 3), group=8))
    assert only(DPU, one(tmp_path, "Conv", (8, 4, 3, 3), group=2)).found == "2 groups"


def test_only_8_bits_and_only_its_list(tmp_path: Path) -> None:
    place = only(rules_of("dpu-b4096", "fp16"), one(tmp_path, "Gelu"))
    assert place.rule == "number format must be int8; operator must be on the DPU list"


def test_depthwise_filters_stride_further(tmp_path: Path) -> None:
    assert on_npu(DPU, one(tmp_path, "Conv", (8, 1, 3, 3), group=8, strides=[9, 9]))
    assert only(DPU, one(tmp_path, "Conv", (8, 8, 3, 3), strides=[9, 9])).found == "strides [9, 9]"


def test_channels_of_a_depthwise_filter_count_too(tmp_path: Path) -> None:
    model = one(tmp_path, "Conv", (2000, 1, 3, 3), data=(1, 2000, 16, 16), group=2000, dilations=[4, 4])
    assert only(DPU, model).found == "8000 channels x dilation"


def test_a_transposed_convolution_is_limited_by_its_phases(tmp_path: Path) -> None:
    assert on_npu(DPU, one(tmp_path, "ConvTranspose", (8, 8, 32, 32), strides=[2, 2]))
    wide = one(tmp_path, "ConvTranspose", (8, 8, 34, 34), strides=[2, 2])
    assert only(DPU, wide).found == "kernel [34, 34] over [2, 2]"
    more = one(tmp_path, "ConvTranspose", (8, 8, 4, 4), strides=[2, 2], output_padding=[1, 1])
    assert only(DPU, more).found == "output_padding [1, 1]"


@pytest.mark.parametrize("op", ["Softmax", "Sigmoid", "Tanh"])
def test_what_needs_exponents_runs_on_the_cpu(op: str, tmp_path: Path) -> None:
    assert only(DPU, one(tmp_path, op)).rule == "operator must be on the DPU list"


@pytest.mark.parametrize(("slope", "on_dpu"), [(0.1, True), (26 / 256, True), (0.01, False), (0.2, False)])
def test_a_leaky_relu_has_one_slope(slope: float, on_dpu: bool, tmp_path: Path) -> None:
    assert on_npu(DPU, one(tmp_path, "LeakyRelu", alpha=slope)) is on_dpu


def test_a_product_of_activations_is_not_broadcast(tmp_path: Path) -> None:
    image = (1, 8, 4, 4)
    assert on_npu(DPU, one(tmp_path, "Mul", data=(image, image)))
    assert on_npu(DPU, one(tmp_path, "Mul", (1, 8, 1, 1), data=image))
    assert only(DPU, one(tmp_path, "Mul", data=(image, (1, 8, 1, 1)))).found == "shapes [[1, 8, 1, 1], [1, 8, 4, 4]]"


@pytest.mark.parametrize(
    ("mode", "where", "factor", "on_dpu"),
    [
        ("nearest", "asymmetric", 3, True),
        ("nearest", "asymmetric", 1.5, False),
        ("linear", "half_pixel", 4, True),
        ("linear", "half_pixel", 8, False),
        ("linear", "asymmetric", 8, True),
        ("linear", "align_corners", 2, False),
    ],
)
def test_resizing(mode: str, where: str, factor: float, on_dpu: bool, tmp_path: Path) -> None:
    scales = np.array([1, 1, factor, factor], np.float32)
    words = {"mode": mode, "coordinate_transformation_mode": where, "nearest_mode": "floor"}
    assert on_npu(DPU, one(tmp_path, "Resize", np.zeros(0, np.float32), scales, **words)) is on_dpu


LIMITS = [
    (made("Conv", (1, 8, 32, 32), weights=[(8, 8, 16, 1)]), made("Conv", (1, 8, 32, 32), weights=[(8, 8, 17, 1)])),
    (
        made("Conv", (1, 8, 8, 8), weights=[(8, 8, 3, 3)], strides=(8, 8)),
        made("Conv", (1, 8, 8, 8), weights=[(8, 8, 3, 3)], strides=(9, 1)),
    ),
    (
        made("Conv", (1, 8, 8, 8), weights=[(8, 8, 3, 3)], pads=(2,) * 4),
        made("Conv", (1, 8, 8, 8), weights=[(8, 8, 3, 3)], pads=(3,) * 4),
    ),
    (
        made("Conv", (1, 8, 8, 8), weights=[(4096, 8, 1, 1)], out=(1, 4096, 8, 8)),
        made("Conv", (1, 8, 8, 8), weights=[(4097, 8, 1, 1)], out=(1, 4097, 8, 8)),
    ),
    (
        made("Conv", (1, 8, 300, 300), weights=[(8, 1, 256, 1)], group=8),
        made("Conv", (1, 8, 300, 300), weights=[(8, 1, 257, 1)], group=8),
    ),
    (
        made("Conv", (1, 8, 300, 300), weights=[(8, 1, 3, 3)], group=8, strides=(256, 1)),
        made("Conv", (1, 8, 300, 300), weights=[(8, 1, 3, 3)], group=8, strides=(257, 1)),
    ),
    (
        made("MaxPool", (1, 8, 300, 300), kernel_shape=(256, 2)),
        made("MaxPool", (1, 8, 300, 300), kernel_shape=(257, 2)),
    ),
    (made("GlobalAveragePool", (1, 8, 256, 4)), made("GlobalAveragePool", (1, 8, 257, 4))),
    (made("Add", (1, 4096, 4, 4), (1, 4096, 4, 4)), made("Add", (1, 4097, 4, 4), (1, 4097, 4, 4))),
    (made("ArgMax", (1, 128, 4, 4), axis=1), made("ArgMax", (1, 129, 4, 4), axis=1)),
    (
        made("SpaceToDepth", (1, 1024, 4, 4), out=(1, 4096, 2, 2)),
        made("SpaceToDepth", (1, 1025, 4, 4), out=(1, 4100, 2, 2)),
    ),
]


@pytest.mark.parametrize(("fits", "breaks"), LIMITS, ids=lambda model: model.layers[0].op)
def test_a_limit_of_the_guide_is_taken_and_the_next_value_is_not(fits: Model, breaks: Model) -> None:
    assert only(DPU, fits).found == ""
    assert only(DPU, breaks).found != ""
