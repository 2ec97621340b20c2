"""Every broken rule is told, with what was found, also for an operator that is on no list."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from npuops.models.placement import RunsOn
from npuops.targets.rules import Rule, static_shapes
from npuops.vnpu import rule_conditions as that
from rule_nets import layer_called, made, model_of, one, tflite


def test_an_unlisted_operator_is_told_its_other_broken_rules_too(tmp_path: Path) -> None:
    small = that.sizes_at_most(8)
    (place,) = that.place_by(one(tmp_path, "Erf"), {}, list_name="the list", everywhere=(static_shapes(), small))
    assert place.runs_on is RunsOn.CPU
    assert place.rule == "every size must be at most 8; operator must be on the list"
    assert place.found == "size 14; Erf"


def test_all_broken_rules_of_a_layer_are_told(tmp_path: Path) -> None:
    rules = {"Conv": (that.kernel_within(1, 3), that.strides_within(1, 2), that.pads_within(0))}
    model = one(tmp_path, "Conv", (4, 8, 5, 5), strides=[3, 3], pads=[1, 1, 1, 1])
    (place,) = that.place_by(model, rules, list_name="the list", everywhere=())
    assert place.rule == "kernel must be 1 to 3; strides must be 1 to 2; padding must be 0 to 0"
    assert place.found == "kernel [5, 5]; strides [3, 3]; pads [1, 1, 1, 1]"


def test_a_list_in_onnx_words_holds_for_tflite() -> None:
    model = tflite("LOGISTIC", (1, 4), (1, 4))
    (place,) = that.place_by(model, {"Sigmoid": ()}, list_name="the list", everywhere=())
    (other,) = that.place_by(model, {"Sigmoid": ()}, list_name="the list", everywhere=(), both_words=False)
    assert (place.runs_on, other.runs_on) == (RunsOn.NPU, RunsOn.CPU)


def test_a_number_format_that_a_chip_lacks_is_told(tmp_path: Path) -> None:
    assert that.computes_in(("int8",), "int8") == ()
    everywhere = that.computes_in(("int8", "w8a16"), "fp16")
    (place,) = that.place_by(one(tmp_path, "Relu"), {"Relu": ()}, list_name="the list", everywhere=everywhere)
    assert (place.rule, place.found) == ("number format must be int8 or w8a16", "fp16")


@pytest.mark.parametrize(
    ("rule", "op", "weights", "attributes", "found"),
    [
        (that.kernel_by_kind(31, 8), "Conv", [(8, 1, 9, 9)], {"group": 8}, "depthwise kernel [9, 9]"),
        (that.kernel_by_kind(31, 8), "Conv", [(8, 8, 9, 9)], {}, ""),
        (that.strides_in((1, 2, 4)), "Conv", [(8, 8, 3, 3)], {"strides": [3, 3]}, "strides [3, 3]"),
        (that.dilations_within(2), "Conv", [(8, 8, 3, 3)], {"dilations": [3, 3]}, "dilations [3, 3]"),
        (that.plain_or_depthwise(), "Conv", [(8, 4, 3, 3)], {"group": 2}, "2 groups"),
        (that.plain_or_depthwise(), "Conv", [(8, 1, 3, 3)], {"group": 8}, ""),
        (that.plane_at_most(100), "GlobalAveragePool", [], {}, "14x14"),
        (that.plane_at_most(14, side=True), "GlobalAveragePool", [], {}, ""),
        (that.axis_among("W"), "Softmax", [], {"axis": 1}, "axis C of rank 4"),
        (that.axis_among("W"), "Softmax", [], {"axis": -1}, ""),
        (that.constant_operand("weights"), "Relu", [], {}, "weights computed at run time"),
        (that.busy_rank_at_most(2), "Relu", [], {}, "3 axes longer than 1"),
        (that.operands_at_most(1), "Add", [(1,)], {}, "2 operands"),
        (that.number_is("alpha", 1 / 6, 0.2), "HardSigmoid", [], {}, "alpha 0.2"),
        (that.number_is("alpha", 1 / 6, 0.2), "HardSigmoid", [], {"alpha": 1 / 6}, ""),
    ],
)
def test_a_condition_finds_what_breaks_it(
    rule: Rule, op: str, weights: list[tuple[int, ...]], attributes: dict[str, object], found: str, tmp_path: Path
) -> None:
    assert rule.broken(one(tmp_path, op, *weights, **attributes).layers[0]) == found


def test_three_dimensions_are_not_flat(tmp_path: Path) -> None:
    layer = one(tmp_path, "Conv", (4, 8, 3, 3, 3), data=(1, 8, 6, 6, 6)).layers[0]
    assert that.flat_window().broken(layer) == "kernel [3, 3, 3]"


def test_a_mean_over_height_and_width_is_a_pool_and_over_channels_is_not(tmp_path: Path) -> None:
    rule = that.spatial_reduction(that.plane_at_most(7, side=True))
    plane, channels = (one(tmp_path, "ReduceMean", np.array(axes)).layers[0] for axes in ([2, 3], [1]))
    small = one(tmp_path, "ReduceMean", np.array([2, 3]), data=(1, 8, 7, 7)).layers[0]
    assert rule.broken(plane) == "14x14"
    assert rule.broken(small) == ""
    assert rule.broken(channels) == "[1, 8, 14, 14] to [1, 1, 14, 14]"


@pytest.mark.parametrize(("where", "same"), [("asymmetric", True), ("half_pixel", True), ("align_corners", False)])
def test_doubling_by_nearest_repeats_pixels_unless_corners_are_aligned(where: str, same: bool, tmp_path: Path) -> None:
    none, twice = np.zeros(0, np.float32), np.array([1, 1, 2, 2], np.float32)
    layer = one(
        tmp_path, "Resize", none, twice, mode="nearest", coordinate_transformation_mode=where, nearest_mode="floor"
    ).layers[0]
    assert that.resize_scales(layer) == (2, 2)
    assert that.repeats_pixels(layer) is same


def test_what_is_made_of_constants_alone_is_no_activation(tmp_path: Path) -> None:
    rule = that.sizes_at_most(8)
    layer = one(tmp_path, "Relu").layers[0]
    assert rule.broken(layer) == "size 14"
    assert rule.broken(replace(layer, inputs=())) == ""


def test_indices_are_told_from_the_table_by_their_kind(tmp_path: Path) -> None:
    taken, embedded = (one(tmp_path, "Gather", table).layers[0] for table in (np.zeros((2, 2), np.int64), (9, 4)))
    assert that.indices_of_rank(1).broken(taken) == "indices of rank 2"
    assert that.indices_of_rank(1).broken(embedded) == "indices of rank 4"
    assert that.indices_of_rank(1, 0).words == "indices must be of rank 1 or 0"


@pytest.mark.parametrize(
    ("rule", "op", "weights", "attributes", "found"),
    [
        (that.channels_at_most(7), "Relu", [], {}, "8 channels"),
        (that.channels_at_most(8), "Relu", [], {}, ""),
        (that.one_constant("exponent"), "Pow", [(14,)], {}, "14 of them"),
        (that.one_constant("exponent"), "Pow", [()], {}, ""),
        (that.dilations_by_kind(1, 2), "Conv", [(8, 8, 3, 3)], {"dilations": [2, 2]}, "dilations [2, 2]"),
        (that.dilations_by_kind(1, 2), "Conv", [(8, 1, 3, 3)], {"dilations": [2, 2], "group": 8}, ""),
        (that.pads_inside_kernel(), "Conv", [(8, 8, 3, 3)], {"pads": [2, 2, 2, 2]}, ""),
        (
            that.pads_inside_kernel(),
            "Conv",
            [(8, 8, 3, 3)],
            {"pads": [0, 0, 3, 0]},
            "pads [0, 0, 3, 0] of kernel [3, 3]",
        ),
        (that.padding_counted(), "AveragePool", [], {"kernel_shape": [2, 2]}, ""),
    ],
)
def test_more_conditions_find_what_breaks_them(
    rule: Rule, op: str, weights: list[tuple[int, ...]], attributes: dict[str, object], found: str, tmp_path: Path
) -> None:
    assert rule.broken(one(tmp_path, op, *weights, **attributes).layers[0]) == found


def test_a_refused_number_format_stands_beside_what_else_was_broken() -> None:
    fine, broken = that.place_by(
        model_of(*(layer_called(op).layers[0] for op in ("Relu", "Erf"))),
        {"Relu": ()},
        list_name="the list",
        everywhere=(),
    )
    assert that.refused(fine, ("int8",), "int8") is fine
    assert that.refused(fine, ("int8",), "fp16").found == "fp16"
    assert that.refused(broken, ("int8",), "fp16").found == "fp16; Erf"


def test_height_and_width_are_told_apart(tmp_path: Path) -> None:
    none, scales = np.zeros(0, np.float32), np.array([1, 1, 2, 3], np.float32)
    assert that.resize_scales(one(tmp_path, "Resize", none, scales, data=(1, 8, 6, 10)).layers[0]) == (2, 3)
    assert that.resize_scales(made("Resize", (1, 8, 0, 4), out=(1, 8, 0, 8)).layers[0]) is None
    wide = made("GlobalAveragePool", (1, 8, 6, 10), out=(1, 8, 1, 1)).layers[0]
    assert that.plane_at_most(9, side=True).broken(wide) == "6x10"
