from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from npuops.errors import UnsupportedModelError
from npuops.models.model import Model
from npuops.models.open import open_model
from npuops.models.placement import RunsOn
from npuops.targets.openvino_engine import runtime
from npuops.targets.openvino_rules import place_as_answered, place_on_openvino
from npuops.targets.ort_engine import installed_version
from npuops.targets.protocol import CompileOptions, Precision
from npuops.targets.registry import open_target


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


def graph(path: Path, node: onnx.NodeProto, shapes: dict[str, list[int | str]], opset: int = 17) -> Model:
    """`y` is the output of the one node, all others are inputs; `scales` is a constant."""
    infos = {name: helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in shapes.items()}
    inputs = [info for name, info in infos.items() if name != "y"]
    scales = [numpy_helper.from_array(np.array([1, 1, 2, 2], np.float32), "scales")]
    made = helper.make_graph([node], "g", inputs, [infos["y"]], scales)
    onnx.save(helper.make_model(made, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
    return open_model(path)


def test_dynamic_inputs_are_named_because_the_build_would_refuse_them(tmp_path: Path) -> None:
    model = graph(tmp_path / "m.onnx", helper.make_node("Relu", ["x"], ["y"]), {"x": ["n", 4], "y": ["n", 4]})
    (place,) = place_on_openvino(model)
    assert (place.runs_on, place.found) == (RunsOn.CPU, "dynamic: x")
    with pytest.raises(UnsupportedModelError, match="dynamic: x"):
        open_target("openvino:npu").compile(model, CompileOptions(precision=Precision.FP16), tmp_path)


def test_the_processor_takes_an_open_batch_and_nothing_else_open(tmp_path: Path) -> None:
    target = open_target("openvino")
    batch = graph(tmp_path / "b.onnx", helper.make_node("Relu", ["x"], ["y"]), {"x": ["n", 4], "y": ["n", 4]})
    assert [node.runs_on for node in target.check(batch).placement.nodes] == [RunsOn.NPU]
    length = graph(tmp_path / "l.onnx", helper.make_node("Relu", ["x"], ["y"]), {"x": ["n", "t"], "y": ["n", "t"]})
    assert [node.found for node in target.check(length).placement.nodes] == ["dynamic: x"]
    with pytest.raises(UnsupportedModelError, match="dynamic: x"):
        target.compile(length, CompileOptions(precision=Precision.FP32), tmp_path)


PLANE: dict[str, list[int | str]] = {"x": [1, 2, 4, 4], "y": [1, 2, 8, 8]}


@pytest.mark.parametrize("mode", ["half_pixel", "tf_crop_and_resize", "half_pixel_symmetric"])
def test_the_modes_of_resize_that_the_reader_lacks_are_named(mode: str, tmp_path: Path) -> None:
    operands = ["x", "roi" if mode == "tf_crop_and_resize" else "", "scales"]
    node = helper.make_node("Resize", operands, ["y"], mode="linear", coordinate_transformation_mode=mode)
    shapes = {**PLANE, **({"roi": [8]} if "roi" in operands else {})}
    model = graph(tmp_path / "m.onnx", node, shapes, opset=19)
    (place,) = place_on_openvino(model)
    assert place.found == ("" if mode == "half_pixel" else f"coordinate_transformation_mode {mode}")
    assert reads(model) is not bool(place.found)


def test_a_grid_in_space_is_named(tmp_path: Path) -> None:
    for shapes, found in (
        ({"x": [1, 2, 4, 4], "grid": [1, 3, 3, 2], "y": [1, 2, 3, 3]}, ""),
        ({"x": [1, 2, 4, 4, 4], "grid": [1, 3, 3, 3, 3], "y": [1, 2, 3, 3, 3]}, "rank 5"),
    ):
        model = graph(tmp_path / "m.onnx", helper.make_node("GridSample", ["x", "grid"], ["y"]), shapes, opset=20)
        (place,) = place_on_openvino(model)
        assert place.found == found
        assert reads(model) is not bool(found)


def reads(model: Model) -> bool:
    """Whether OpenVINO itself translates the graph."""
    if installed_version("openvino") is None:
        pytest.skip("openvino is not installed")
    try:
        runtime().Core().read_model(str(model.path))
    except RuntimeError:
        return False
    return True


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


def test_a_custom_operator_of_tflite_is_not_taken(shared_models: Path) -> None:
    places = place_on_openvino(open_model(shared_models / "vision" / "ssd_mobilenet_v1_300_uint8.tflite"))
    assert [place.op for place in places if place.runs_on is RunsOn.CPU] == ["CUSTOM:TFLite_Detection_PostProcess"]
    assert "custom operators of TFLite" in places[-1].found
