"""A Hexagon without float16 takes no float model, and through TFLite not the layers that stay in float."""

from __future__ import annotations

from pathlib import Path

from npuops.models.open import open_model
from npuops.models.placement import RunsOn
from npuops.targets.qnn_rules import place_on_htp
from npuops.vnpu.rules import rules_of
from npuops.vnpu.rules_hexagon import PROCESSORS, Processor, Route, place_on
from rule_nets import on_npu, one, only, tflite
from small_graphs import outlier_block

V68, V75 = PROCESSORS["hexagon-v68"], PROCESSORS["hexagon-v75"]


def test_the_list_is_the_one_of_the_real_target(tmp_path: Path) -> None:
    from_target = place_on_htp(model := one(tmp_path, "Softmax", axis=-1))
    assert place_on(model, V75) == from_target


def test_float16_runs_on_all_but_the_rb3(tmp_path: Path) -> None:
    model = one(tmp_path, "Relu")
    assert {name: on_npu(rules_of(name, "fp16"), model) for name in PROCESSORS} == {
        name: name != "hexagon-v68" for name in PROCESSORS
    }


def test_layer_normalization_leaves_an_rb3_only_through_tflite(tmp_path: Path) -> None:
    model = open_model(outlier_block(tmp_path / "block.onnx"))

    def away(processor: Processor, route: Route) -> list[str]:
        placed = place_on(model, processor, route=route)
        return [place.op for place in placed if place.runs_on is RunsOn.CPU]

    assert away(V68, Route.TFLITE) == ["LayerNormalization"]
    assert away(V68, Route.QNN) == away(V75, Route.TFLITE) == []


def test_volumes_leave_an_rb3_only_through_tflite(tmp_path: Path) -> None:
    model = one(tmp_path, "Conv", (4, 8, 3, 3, 3), data=(1, 8, 6, 6, 6))
    assert place_on(model, V68, route=Route.TFLITE)[0].found == "Conv stays in float"
    assert place_on(model, V68)[0].runs_on is RunsOn.NPU


def test_a_tflite_file_tells_its_float_layers_itself() -> None:
    rb3 = rules_of("hexagon-v68")
    assert on_npu(rb3, tflite("ADD", (1, 4), (1, 4)))
    assert only(rb3, tflite("ADD", (1, 4), (1, 4), dtype="float32")).found == "float32"
    assert on_npu(rules_of("hexagon-v75"), tflite("ADD", (1, 4), (1, 4), dtype="float32"))


def test_every_broken_rule_is_told(tmp_path: Path) -> None:
    place = only(rules_of("hexagon-v68", "fp16"), one(tmp_path, "Acosh"))
    assert place.rule == "number format must be int8 or w8a16; operator must be on the HTP list"
