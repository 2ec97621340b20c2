"""ONNX and TFLite layers look the same to a rule: image axes, and the window with all its numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from npuops.vnpu.layer_view import Window, axis_letter, in_both_words, is_tflite, nchw, window_of
from rule_nets import layer_called, one, tflite


def test_a_strided_convolution_has_one_window_in_both_formats(tmp_path: Path) -> None:
    onnx = one(tmp_path, "Conv", (16, 8, 3, 3), strides=[2, 2], dilations=[1, 1]).layers[0]
    lite = tflite(
        "CONV_2D", (1, 14, 14, 8), (1, 6, 6, 16), (16, 3, 3, 8), stride_h=2, stride_w=2, padding="VALID"
    ).layers[0]
    expected = Window(
        kernel=(3, 3),
        strides=(2, 2),
        dilations=(1, 1),
        pads=(0, 0, 0, 0),
        groups=1,
        channels_in=8,
        channels_out=16,
        depthwise=False,
    )
    assert window_of(onnx) == expected
    assert window_of(lite) == expected


def test_depthwise_is_seen_in_both_formats(tmp_path: Path) -> None:
    onnx = one(tmp_path, "Conv", (8, 1, 5, 5), group=8).layers[0]
    lite = tflite("DEPTHWISE_CONV_2D", (1, 14, 14, 8), (1, 10, 10, 8), (1, 5, 5, 8)).layers[0]
    for layer in (onnx, lite):
        window = window_of(layer)
        assert window is not None
        assert (window.depthwise, window.kernel, window.groups) == (True, (5, 5), 8)


def test_a_grouped_convolution_is_not_depthwise(tmp_path: Path) -> None:
    window = window_of(one(tmp_path, "Conv", (8, 4, 3, 3), group=2).layers[0])
    assert window is not None
    assert not window.depthwise
    assert window.channels_in == 4


def test_a_layer_without_a_window_has_none(tmp_path: Path) -> None:
    assert window_of(one(tmp_path, "Relu").layers[0]) is None


def test_axes_of_an_image_have_the_same_letters_in_both_formats(tmp_path: Path) -> None:
    onnx, lite = one(tmp_path, "Relu").layers[0], tflite("RELU", (1, 14, 13, 8), (1, 14, 13, 8)).layers[0]
    assert [axis_letter(onnx, axis, 4) for axis in (0, 1, 2, -1)] == ["N", "C", "H", "W"]
    assert [axis_letter(lite, axis, 4) for axis in (0, 1, 2, -1)] == ["N", "H", "W", "C"]
    assert nchw(lite, (1, 14, 13, 8)) == (1, 8, 14, 13)


@pytest.mark.parametrize(("axis", "name"), [(0, "first"), (1, "middle"), (-1, "last")])
def test_axes_of_other_ranks_are_told_by_place(axis: int, name: str, tmp_path: Path) -> None:
    assert axis_letter(one(tmp_path, "Relu", data=(2, 3, 4)).layers[0], axis, 3) == name


def test_a_rule_under_a_tflite_name_of_its_own_wins() -> None:
    own = in_both_words({"Relu": (), "Softmax": (), "SOFTMAX": ()})
    assert set(own) == {"Relu", "RELU", "Softmax", "SOFTMAX"}


@pytest.mark.parametrize("op", ["SQUARED_DIFFERENCE", "REVERSE_V2", "CUSTOM:TFLite_Detection_PostProcess", "NOT_EQUAL"])
def test_channels_are_last_in_every_tflite_layer_also_one_that_onnx_has_no_name_for(op: str) -> None:
    layer = tflite(op, (1, 14, 13, 8), (1, 14, 13, 8)).layers[0]
    assert is_tflite(layer)
    assert axis_letter(layer, 3, 4) == "C"


@pytest.mark.parametrize("op", ["LRN", "LSTM", "GRU", "RNN", "Relu"])
def test_onnx_operators_in_capitals_are_not_tflite(op: str) -> None:
    assert not is_tflite(layer_called(op).layers[0])


@pytest.mark.parametrize("op", ["Add", "MatMul", "BatchNormalization"])
def test_a_constant_of_four_axes_is_not_a_window(op: str) -> None:
    assert window_of(layer_called(op).layers[0]) is None


@pytest.mark.parametrize("op", ["ADD", "RELU", "MUL", "FULLY_CONNECTED"])
def test_a_tflite_layer_without_a_window_has_none(op: str) -> None:
    assert window_of(tflite(op, (1, 14, 13, 8), (1, 14, 13, 8), (1, 1, 1, 8)).layers[0]) is None


def test_pooling_has_a_window_in_both_formats(tmp_path: Path) -> None:
    onnx = window_of(one(tmp_path, "MaxPool", kernel_shape=[3, 2], strides=[2, 2]).layers[0])
    lite = window_of(
        tflite(
            "MAX_POOL_2D", (1, 14, 14, 8), (1, 6, 7, 8), filter_height=3, filter_width=2, stride_h=2, stride_w=2
        ).layers[0]
    )
    for window in (onnx, lite):
        assert window is not None
        assert (window.kernel, window.strides) == ((3, 2), (2, 2))
