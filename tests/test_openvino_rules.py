from __future__ import annotations

from pathlib import Path

import onnx
import pytest
from onnx import TensorProto, helper

from npuops.models.model import Model
from npuops.models.open import open_model
from npuops.models.placement import RunsOn
from npuops.targets.openvino_engine import runtime
from npuops.targets.openvino_rules import place_as_answered, place_on_openvino
from npuops.targets.ort_engine import installed_version


def one_node(path: Path, op: str, domain: str = "", *, dtype: int = TensorProto.FLOAT) -> Model:
    node = helper.make_node(op, ["x"], ["y"], name="it", domain=domain)
    shapes = {"x": [2, 2], "y": [] if op == "Det" else [2, 2]}
    values = [helper.make_tensor_value_info(name, dtype, shape) for name, shape in shapes.items()]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    opsets = [helper.make_opsetid("", 17), *([helper.make_opsetid(domain, 1)] if domain else [])]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), path)
    return open_model(path)


@pytest.mark.parametrize(
    ("op", "domain", "found"),
    [
        ("Relu", "", ""),
        ("Det", "", "Det: not translated"),
        ("Gelu", "com.microsoft", ""),
        ("Inverse", "com.microsoft", "Inverse: not translated"),
        ("Normalizer", "ai.onnx.ml", ""),
        ("Scaler", "ai.onnx.ml", "Scaler: classic machine learning is not translated"),
    ],
)
def test_what_the_reader_lacks_is_named(op: str, domain: str, found: str, tmp_path: Path) -> None:
    (place,) = place_on_openvino(one_node(tmp_path / "m.onnx", op, domain))
    assert (place.found, place.runs_on) == (found, RunsOn.CPU if found else RunsOn.NPU)


def test_strings_have_no_place(tmp_path: Path) -> None:
    (place,) = place_on_openvino(one_node(tmp_path / "m.onnx", "Identity", dtype=TensorProto.STRING))
    assert place.found == "dtype string"


def test_the_rules_take_the_mobilenet_whole(mobilenet: Path) -> None:
    assert {place.runs_on for place in place_on_openvino(open_model(mobilenet))} == {RunsOn.NPU}


def test_a_refused_part_is_told_of_the_layer_that_it_is_a_part_of(mobilenet: Path) -> None:
    if installed_version("openvino") is None:
        pytest.skip("openvino is not installed")
    model, graph = open_model(mobilenet), runtime().Core().read_model(str(mobilenet))
    names = {node.get_friendly_name(): node for node in graph.get_ordered_ops()}
    whole = place_as_answered(model, graph, set(names), "CPU")
    assert [place.name for place in whole] == [layer.name for layer in model.layers]
    assert {place.runs_on for place in whole} == {RunsOn.NPU}
    # A convolution with a bias is two nodes there; the convolution itself carries no name of the ONNX graph.
    conv = next(layer for layer in model.layers if layer.op == "Conv")
    part = next(
        name
        for name, node in names.items()
        if node.get_type_name() == "Convolution" and conv.outputs[0].name not in node.output(0).get_names()
    )
    constants = {name for name, node in names.items() if node.get_type_name() == "Constant"}
    taken = set(names) - {part} - constants
    refused = [place for place in place_as_answered(model, graph, taken, "CPU") if place.found]
    assert [(place.name, place.runs_on, place.found) for place in refused] == [
        (conv.name, RunsOn.CPU, "needs Convolution")
    ]
