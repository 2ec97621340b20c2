"""A profile's name gives its rules, where they stand, and how right they are against published placements."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

from conftest import ROOT
from npuops.errors import OptionError
from npuops.models.open import open_model
from npuops.models.placement import RunsOn, placement_report
from npuops.vnpu.rules import _COMMON, GENERIC_SOURCE, LISTED, RULE_SETS, rules_of, source_of
from rule_nets import layer_called, one, only
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
def test_every_chip_takes_a_plain_convolution_in_8_bits_and_none_in_float32(name: str, tmp_path: Path) -> None:
    model = one(tmp_path, "Conv", (16, 8, 3, 3), strides=[2, 2], pads=[1, 1, 1, 1])
    assert only(rules_of(name), model).runs_on is RunsOn.NPU
    if not name.startswith("intel"):
        assert only(rules_of(name, "fp32"), model).found == "fp32"


def test_a_chip_without_a_list_says_so_in_every_placement(tmp_path: Path) -> None:
    placed = rules_of("hailo-8")(open_model(outlier_block(tmp_path / "block.onnx")))
    assert source_of("hailo-8") == GENERIC_SOURCE
    assert all(GENERIC_SOURCE in place.rule for place in placed)
    away = [place.op for place in placed if place.runs_on is RunsOn.CPU]
    assert away == ["Gelu", "LayerNormalization"]


@pytest.mark.parametrize("op", _COMMON.split())
def test_what_the_generic_rules_take_is_on_every_list_that_was_read_whole(op: str) -> None:
    for name in LISTED:
        place = only(rules_of(name), layer_called(op))
        assert "operator must be on" not in place.rule
        assert "operator is in" not in place.rule


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


def test_at_least_95_percent_of_published_operators_are_placed_right(proof: ModuleType, shared_data: Path) -> None:
    if not (PROOF / "rows.csv").is_file():
        pytest.skip(f"{PROOF}/rows.csv and graphs/ are absent: nothing to compare")
    rows = proof.compare(shared_data / "npu_placement_published.csv", PROOF)
    assert len(rows) > 500
    assert proof.ops_right(rows) >= proof.GOAL
    for device in {row.device for row in rows}:
        assert proof.ops_right([row for row in rows if row.device == device]) >= proof.GOAL, device


def test_the_rules_beat_all_on_npu_where_a_chip_has_no_float16(proof: ModuleType, shared_data: Path) -> None:
    if not (PROOF / "rows.csv").is_file():
        pytest.skip(f"{PROOF}/rows.csv and graphs/ are absent: nothing to compare")
    rows = proof.compare(shared_data / "npu_placement_published.csv", PROOF)
    bound = [row for row in rows if row.published < 1 and not proof.PROCESSORS[row.device].has_float16]
    assert proof.ops_right(bound) > proof.all_on_npu(bound)
