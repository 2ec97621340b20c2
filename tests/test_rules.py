"""A profile's name gives its rules, where they stand, and how right they are against published placements."""

from __future__ import annotations

import importlib.util
import sys
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from conftest import ROOT
from npuops.errors import OptionError
from npuops.models.model import AttributeValue
from npuops.models.open import open_model
from npuops.models.placement import RunsOn, placement_report
from npuops.vnpu.perf import FORMATS
from npuops.vnpu.profile import load_profile, profile_names
from npuops.vnpu.rules import _COMMON, GENERIC_SOURCE, LISTED, RULE_SETS, rules_of, source_of
from rule_nets import layer_called, model_of, one, only
from small_graphs import outlier_block, small_cnn

PROOF = ROOT / "benchmarks" / "predictor"


@pytest.mark.parametrize("name", sorted(RULE_SETS))
def test_every_rule_set_places_every_layer_and_gives_a_reason(name: str, tmp_path: Path) -> None:
    for path in (small_cnn(tmp_path / "cnn.onnx"), outlier_block(tmp_path / "block.onnx")):
        model = open_model(path)
        placed = rules_of(name)(model)
        assert [place.name for place in placed] == [layer.name for layer in model.layers]
        assert all(place.rule for place in placed)
        assert all(place.found for place in placed if place.runs_on is RunsOn.CPU)
        assert 0 <= placement_report(model, placed).fallback_ratio.ops <= 1


@pytest.mark.parametrize("name", sorted(RULE_SETS))
def test_every_chip_takes_a_plain_convolution_in_8_bits_and_one_in_float32(name: str, tmp_path: Path) -> None:
    model = one(tmp_path, "Conv", (16, 8, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    assert only(rules_of(name), model).runs_on is RunsOn.NPU
    if name != "bm1684x":
        assert only(rules_of(name, "fp32"), model).found == "fp32"


def test_a_chip_without_a_list_says_so_in_every_placement(tmp_path: Path) -> None:
    placed = rules_of("one-of-ones-own")(open_model(outlier_block(tmp_path / "block.onnx")))
    assert source_of("one-of-ones-own") == GENERIC_SOURCE
    assert all(GENERIC_SOURCE in place.rule for place in placed)
    away = [place.op for place in placed if place.runs_on is RunsOn.CPU]
    assert away == ["Gelu", "LayerNormalization"]


@pytest.mark.parametrize("op", _COMMON.split())
def test_what_the_generic_rules_take_is_on_every_list_that_was_read_whole(op: str) -> None:
    for name in LISTED:
        place = only(rules_of(name), layer_called(op))
        assert "operator must be on" not in place.rule
        assert "operator is in" not in place.rule


@pytest.mark.parametrize("name", sorted(RULE_SETS))
@pytest.mark.parametrize(
    ("op", "attributes"),
    [
        ("Conv", {"dilations": (0, 0)}),
        ("ConvTranspose", {"strides": (0, 0)}),
        ("LeakyRelu", {"alpha": float("nan")}),
    ],
)
def test_attributes_that_make_no_sense_end_in_a_placement(
    name: str, op: str, attributes: dict[str, AttributeValue]
) -> None:
    layer = replace(layer_called(op).layers[0], attributes=attributes)
    assert len(rules_of(name)(model_of(layer))) == 1


@pytest.mark.parametrize("name", profile_names())
def test_a_chip_takes_layers_in_every_format_that_its_profile_has_and_in_no_other(name: str) -> None:
    """A format without a rate has no price; one that the rules refuse has no placement."""
    taken = [form for form in FORMATS if only(rules_of(name, form), layer_called("Relu")).runs_on is RunsOn.NPU]
    assert set(taken) == set(load_profile(name).formats)


def test_an_unknown_number_format_is_refused() -> None:
    with pytest.raises(OptionError, match="int4"):
        rules_of("rk3588", "int4")


@pytest.fixture(scope="module")
def proof() -> ModuleType:
    spec = importlib.util.spec_from_file_location("placement_proof", PROOF / "placement.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["placement_proof"] = module
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def rows(proof: ModuleType, shared_data: Path) -> list[Any]:
    """Of the published table, beside what the rules say."""
    if not (PROOF / "rows.csv").is_file():
        pytest.skip(f"{PROOF}/rows.csv and graphs/ are absent: nothing to compare")
    return list(proof.compare(shared_data / "npu_placement_published.csv", PROOF))


@pytest.mark.slow
def test_at_least_95_percent_of_published_operators_are_placed_right(proof: ModuleType, rows: list[Any]) -> None:
    assert len(rows) > 500
    assert proof.ops_right(rows) >= proof.GOAL
    for device in {row.device for row in rows}:
        assert proof.ops_right([row for row in rows if row.device == device]) >= proof.GOAL, device


def test_on_chips_without_float16_the_models_that_fall_back_are_found_and_no_others(
    proof: ModuleType, rows: list[Any]
) -> None:
    bound = [row for row in rows if not proof.PROCESSORS[row.device].has_float16]
    falling = [row for row in bound if row.published < 1]
    assert len(falling) == 6
    assert falling == [row for row in bound if row.ours < 1]
    assert proof.left_found(falling) > 0.95
    held_out = [row for row in falling if row.model not in proof.READ_OFF]
    assert {row.model for row in held_out} == {"segformer_base"}
    assert proof.left_found(held_out) > 0.95


def test_operators_that_leave_are_counted_and_the_empty_rule_finds_none(proof: ModuleType) -> None:
    made = {"device": "a", "model": "m", "precision": "w8a8", "runtime": "tflite", "layers": 100, "unit": "NPU"}
    half, ours, empty = (proof.Row(**made, published=0.5, ours=share) for share in (0.5, 0.8, 1.0))
    assert (half.right, half.left, half.left_ours) == (1, 50, 50)
    assert proof.left_found([half, empty]) == 0.5
    assert round(proof.left_found([ours]), 6) == 0.4
    assert proof.ops_right([half, empty]) == 0.75


def test_the_whole_table_is_the_frame_of_what_has_a_skeleton(proof: ModuleType, tmp_path: Path) -> None:
    head = "device,model,component,precision,runtime,primary_compute_unit,layers_total,layers_npu"
    device = "Samsung Galaxy S24"
    lines = [f"{device},m{at},m,float,tflite,NPU,100,{npu}" for at, npu in enumerate((100, 50, 0))]
    other = [f"{device},m,m,float,onnx,NPU,100,0", "some other board,m,m,float,tflite,NPU,100,0"]
    table = tmp_path / "table.csv"
    table.write_text("\n".join([head, *lines, *other]))
    made = {"device": device, "precision": "float", "runtime": "tflite", "layers": 100, "unit": "NPU"}
    whole = proof.coverage(table, [proof.Row(**made, model="m1", published=0.5, ours=0.5)])
    assert (whole.rows, whole.not_whole) == (3, 2)
    assert round(whole.ops_right, 6) == round(200 / 300, 6)
