"""ONNX and TFLite layers look the same to a rule: image axes, and the window with all its numbers."""

from __future__ import annotations

from pathlib import Path

import pytest

from npuops.vnpu.layer_view import Window, axis_letter, in_both_words, nchw, window_of
from rule_nets import one, tflite


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
