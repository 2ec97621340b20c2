"""TIDL's published limits break where they say; AM62A has one more."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest

from npuops.models.model import Model
from npuops.models.open import open_model
from npuops.vnpu.rules import rules_of
from rule_nets import made, on_npu, one, only, tflite

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


def test_casts_run_at_the_border_of_a_network_and_not_inside(tmp_path: Path) -> None:
    graph = (
        "(float[1,8] x) => (float[1,8] y) { a = Cast<to=6>(x) b = Cast<to=1>(a) c = Cast<to=6>(b) y = Cast<to=1>(c) }"
    )
    model = onnx.parser.parse_model(f'<ir_version: 9, opset_import: ["": 20]> casts {graph}')
    onnx.save(onnx.shape_inference.infer_shapes(model), tmp_path / "casts.onnx")
    inside = ["inside the network" in place.found for place in TDA4VM(open_model(tmp_path / "casts.onnx"))]
    assert inside == [False, True, True, False]


def test_gelu_is_on_no_line_of_the_list(tmp_path: Path) -> None:
    assert only(TDA4VM, one(tmp_path, "Gelu")).rule == "operator must be on the TIDL list"


def test_tflite_has_a_shorter_list() -> None:
    assert on_npu(TDA4VM, tflite("LOGISTIC", (1, 4), (1, 4)))
    assert on_npu(TDA4VM, tflite("MEAN", (1, 7, 7, 8), (1, 8)))
    assert not on_npu(TDA4VM, tflite("HARD_SWISH", (1, 4), (1, 4)))


def test_padding_is_around_the_image_only(tmp_path: Path) -> None:
    def padded(*sides: int) -> str:
        return only(TDA4VM, one(tmp_path, "Pad", np.array(sides, np.int64))).found

    assert padded(0, 0, 1, 1, 0, 0, 1, 1) == ""
    assert padded(0, 1, 0, 0, 0, 0, 0, 0) == "[1, 8, 14, 14] to [1, 9, 14, 14]"


def test_nearest_must_say_how_it_rounds(tmp_path: Path) -> None:
    def grown(**words: object) -> bool:
        scales = np.array([1, 1, 2, 2], np.float32)
        return on_npu(TDA4VM, one(tmp_path, "Resize", np.zeros(0, np.float32), scales, **words))

    assert grown(nearest_mode="round_prefer_ceil")
    assert not grown()
    assert grown(mode="linear")
    assert not grown(mode="linear", antialias=1)


def test_an_eleven_by_three_filter_is_not_an_eleven_by_eleven(tmp_path: Path) -> None:
    assert not on_npu(TDA4VM, one(tmp_path, "Conv", (8, 8, 11, 3), strides=[4, 4]))


def test_a_sum_has_any_number_of_operands_and_an_addition_two(tmp_path: Path) -> None:
    assert on_npu(TDA4VM, one(tmp_path, "Sum", data=((1, 8, 4, 4),) * 3))


def test_slopes_and_exponents_are_constant(tmp_path: Path) -> None:
    image = (1, 8, 4, 4)
    assert on_npu(TDA4VM, one(tmp_path, "PRelu", (8, 1, 1), data=image))
    assert only(TDA4VM, one(tmp_path, "PRelu", data=(image, image))).found == "slopes computed at run time"
    assert only(TDA4VM, one(tmp_path, "Pow", (14,))).found == "14 of them"


def test_the_small_chip_has_no_16_bit_deconvolution(tmp_path: Path) -> None:
    model = one(tmp_path, "ConvTranspose", (8, 8, 4, 4), strides=[2, 2])
    assert on_npu(AM62A, model)
    assert not on_npu(rules_of("am62a", "w8a16"), model)
    assert on_npu(rules_of("tda4vm", "w8a16"), model)


def test_a_gather_takes_slices_of_an_activation(tmp_path: Path) -> None:
    two = np.array([0, 2], np.int64)
    assert on_npu(TDA4VM, one(tmp_path, "Gather", two, axis=1))
    assert only(TDA4VM, one(tmp_path, "Gather", two, axis=2)).found == "sizes [1, 8] before axis 2"
    assert on_npu(TDA4VM, one(tmp_path, "Gather", two, data=(9, 4)))
    assert not on_npu(TDA4VM, one(tmp_path, "Gather", two, data=(9,)))


DEPTHWISE = [(kernel, stride) for kernel in ((1, 3), (3, 3), (5, 5), (7, 7)) for stride in (1, 2)]


@pytest.mark.parametrize("kernel", [(1, 1), (1, 3), (2, 2), (3, 3), (3, 5), (5, 5), (6, 6), (7, 7), (8, 8)])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_depthwise_filters_are_the_seven_of_the_list(kernel: tuple[int, int], stride: int) -> None:
    model = made("Conv", (1, 8, 32, 32), weights=[(8, 1, *kernel)], group=8, strides=(stride, stride))
    listed = (kernel, stride) in DEPTHWISE and (kernel, stride) != ((1, 3), 2)
    assert on_npu(TDA4VM, model) is listed


@pytest.mark.parametrize("kernel", [1, 2, 3, 4])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_pools_are_the_five_that_were_validated(kernel: int, stride: int) -> None:
    model = made("MaxPool", (1, 8, 32, 32), kernel_shape=(kernel, kernel), strides=(stride, stride))
    assert on_npu(TDA4VM, model) is (kernel in {1, 2, 3} and stride in {1, 2} and (kernel, stride) != (2, 1))


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("stride", [1, 2, 3])
def test_transposed_convolutions_double(kernel: int, stride: int) -> None:
    model = made("ConvTranspose", (1, 8, 8, 8), weights=[(8, 8, kernel, kernel)], strides=(stride, stride))
    assert on_npu(TDA4VM, model) is (kernel in {2, 3, 4} and stride == 2)


LIMITS = [
    (made("Relu", (1, 2, 2, 2, 2, 2, 2)), made("Relu", (2,) * 7)),
    (made("MatMul", (2, 2, 2, 2), (2, 2, 2, 2)), made("MatMul", (2,) * 5, (2,) * 5)),
    (made("Pad", (1,) * 6), made("Pad", (1,) * 7)),
    (made("BatchNormalization", (2,) * 5, weights=[(2,)]), made("BatchNormalization", (2,) * 6, weights=[(2,)])),
    (
        made("DeformConv", (1, 8, 8, 8), weights=[(8, 8, 3, 3)]),
        made("DeformConv", (1, 8, 8, 8), weights=[(8, 8, 3, 5)]),
    ),
    (made("InstanceNormalization", (1, 8, 8)), made("InstanceNormalization", (1, 8))),
    (made("DepthToSpace", (1, 8, 8, 8)), made("DepthToSpace", (8, 8, 8))),
    (made("Gemm", (1, 8), weights=[(8, 8)]), made("Gemm", (1, 8), weights=[(8, 8)], transA=1)),
    (made("Gemm", (1, 8), weights=[(8, 8)], alpha=1.0), made("Gemm", (1, 8), weights=[(8, 8)], alpha=2.0)),
    (made("ArgMax", (1, 8, 4, 4), axis=1), made("ArgMax", (1, 8, 4, 4), axis=1, select_last_index=1)),
    (made("ScatterND", (1, 8), reduction="add"), made("ScatterND", (1, 8), reduction="mul")),
    (made("ScatterElements", (1, 8)), made("ScatterElements", (1, 8), reduction="add")),
    (made("TopK", (1, 8), axis=-1), made("TopK", (1, 8), axis=-1, sorted=0)),
    (made("GridSample", (1, 8, 4, 4), (1, 4, 4, 2)), made("GridSample", (1, 8, 4, 4), (1, 4, 4, 2), mode="cubic")),
    (made("Add", (1, 8), (1, 8)), made("Add", (1, 8), (1, 8), (1, 8))),
    (
        made("Transpose", (2, 2, 2, 2, 2), perm=(0, 1, 4, 2, 3)),
        made("Transpose", (2, 2, 2, 2, 2), perm=(0, 4, 1, 2, 3)),
    ),
    (
        made("ReduceMax", (1, 8, 4, 4), out=(1, 8, 1, 4)),
        made("ReduceMax", (1, 8, 4, 4), out=(1, 8, 4, 1)),
    ),
]


@pytest.mark.parametrize(("fits", "breaks"), LIMITS, ids=lambda model: model.layers[0].op)
def test_a_limit_of_the_list_is_taken_and_the_next_value_is_not(fits: Model, breaks: Model) -> None:
    assert only(TDA4VM, fits).found == ""
    assert only(TDA4VM, breaks).found != ""
