from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from npuops.errors import UnsupportedModelError
from npuops.models.model import QDQ_OPS
from npuops.models.open import open_model
from npuops.models.placement import Placement, RunsOn
from npuops.models.zoo import zoo_model
from npuops.targets.child import call
from npuops.targets.protocol import Precision
from npuops.targets.qnn_rules import advice_for, place_on_htp
from npuops.targets.registry import open_target
from ort_targets import build, modern, quantized, random_feeds, taken_whole

CHIP = "qnn-htp:sm8650"
F32 = TensorProto.FLOAT


def graph_of(
    path: Path, nodes: list[onnx.NodeProto], shapes: dict[str, list[int | str]], **constants: np.ndarray
) -> Path:
    """`x…` are inputs, `y` is the output; every other name is a constant."""
    values = {name: helper.make_tensor_value_info(name, F32, shape) for name, shape in shapes.items()}
    inputs = [value for name, value in values.items() if name != "y"]
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, [values["y"]], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def only_place(path: Path) -> Placement:
    (place,) = place_on_htp(open_model(path))
    return place


SPACE = {"x": [1, 2, 4, 4], "y": [1, 2, 8, 8]}
SCALES = np.array([1, 1, 2, 2], dtype=np.float32)


@pytest.mark.parametrize(
    ("attributes", "found"),
    [
        ({"mode": "linear"}, ""),
        ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}, ""),
        ({"mode": "nearest", "coordinate_transformation_mode": "asymmetric"}, "asymmetric with nearest_mode"),
        ({"mode": "linear", "coordinate_transformation_mode": "tf_half_pixel_for_nn"}, "tf_half_pixel_for_nn"),
        ({"mode": "linear", "coordinate_transformation_mode": "tf_crop_and_resize"}, "tf_crop_and_resize"),
    ],
)
def test_resize_modes(tmp_path: Path, attributes: dict[str, str], found: str) -> None:
    node = helper.make_node("Resize", ["x", "", "s"], ["y"], name="resize", **attributes)
    place = only_place(graph_of(tmp_path / "m.onnx", [node], SPACE, s=SCALES))
    assert place.runs_on is (RunsOn.CPU if found else RunsOn.NPU)
    assert found in place.found


def test_every_broken_rule_is_named(tmp_path: Path) -> None:
    node = helper.make_node("Add", ["x1", "x2"], ["y"], name="add")
    wide = {name: ["n", 1, 1, 1, 1, 2] for name in ("x1", "x2", "y")}
    place = only_place(graph_of(tmp_path / "m.onnx", [node], wide))
    assert place.runs_on is RunsOn.CPU
    assert "static" in place.rule
    assert "rank must be at most 5" in place.rule
    assert "rank 6" in place.found


@pytest.mark.parametrize("op", ["Acosh", "Celu", "Trilu", "NonZero", "ReduceProd", "IsInf"])
def test_operators_outside_the_list_go_to_the_cpu(tmp_path: Path, op: str) -> None:
    node = helper.make_node(op, ["x"], ["y"], name="odd")
    path = graph_of(tmp_path / "m.onnx", [node], {"x": [4, 4], "y": [4, 4]})
    proto = onnx.load(path)
    if op in {"NonZero", "IsInf"}:
        proto.graph.output[0].type.tensor_type.elem_type = TensorProto.INT64 if op == "NonZero" else TensorProto.BOOL
    if op in {"ReduceProd", "NonZero"}:
        proto.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(proto, path)
    assert only_place(path).runs_on is RunsOn.CPU


def test_erf_counts_only_inside_a_gelu(tmp_path: Path) -> None:
    shapes = {"x": [1, 8], "y": [1, 8]}
    alone = graph_of(tmp_path / "erf.onnx", [helper.make_node("Erf", ["x"], ["y"], name="erf")], shapes)
    assert only_place(alone).found == "Erf on its own"
    gelu = [
        helper.make_node("Div", ["x", "root"], ["a"], name="div"),
        helper.make_node("Erf", ["a"], ["b"], name="erf"),
        helper.make_node("Add", ["b", "one"], ["c"], name="add"),
        helper.make_node("Mul", ["x", "c"], ["d"], name="mul"),
        helper.make_node("Mul", ["d", "half"], ["y"], name="half_of"),
    ]
    constants = {"root": np.float32(2**0.5), "one": np.float32(1), "half": np.float32(0.5)}
    whole = graph_of(tmp_path / "gelu.onnx", gelu, shapes, **constants)
    assert {place.runs_on for place in place_on_htp(open_model(whole))} == {RunsOn.NPU}


def test_a_float_where_is_taken_and_advised_against(tmp_path: Path) -> None:
    mask = np.array([[True, False]])
    where = helper.make_node("Where", ["mask", "x", "huge"], ["w"], name="where")
    float_graph = graph_of(
        tmp_path / "float.onnx",
        [where, helper.make_node("Softmax", ["w"], ["y"], name="softmax")],
        {"x": [1, 2], "y": [1, 2]},
        mask=mask,
        huge=np.float32(-3e38),
    )
    model = open_model(float_graph)
    advice = {entry.pattern: entry for entry in advice_for(model, place_on_htp(model))}
    assert advice["float-where-mask"].nodes == ("where",)
    assert advice["float-where-mask"].fix == "additive-mask"
    assert {place.runs_on for place in place_on_htp(model)} == {RunsOn.NPU}


def test_an_int8_gamma_sends_a_layernorm_to_the_cpu_and_names_the_cure(tmp_path: Path) -> None:
    for kind, place in ((np.int8, RunsOn.CPU), (np.uint8, RunsOn.NPU)):
        nodes = [
            helper.make_node("DequantizeLinear", ["g", "s", "z"], ["gamma"], name="gamma_dq"),
            helper.make_node("LayerNormalization", ["x", "gamma"], ["y"], name="norm", axis=-1),
        ]
        constants = {"g": np.ones(8, dtype=kind), "s": np.float32(1), "z": kind(0)}
        model = open_model(graph_of(tmp_path / "m.onnx", nodes, {"x": [1, 4, 8], "y": [1, 4, 8]}, **constants))
        placement = place_on_htp(model)
        assert {entry.name: entry.runs_on for entry in placement}["norm"] is place
        patterns = {entry.pattern: entry.fix for entry in advice_for(model, placement)}
        assert patterns.get("layernorm-gamma") == ("layernorm-gamma-uint8" if place is RunsOn.CPU else None)


def test_a_dynamic_batch_is_found_and_told(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], name="relu")
    model = open_model(graph_of(tmp_path / "m.onnx", [node], {"x": ["n", 4], "y": ["n", 4]}))
    report = open_target(CHIP).check(model)
    assert report.placement.fallback_ratio.ops == 1.0
    assert {entry.pattern: entry.nodes for entry in report.advice}["dynamic-shape"] == ("x",)


def test_a_tflite_file_is_not_judged_by_onnx_rules(shared_models: Path) -> None:
    with pytest.raises(UnsupportedModelError, match="takes ONNX"):
        open_target(CHIP).check(open_model(shared_models / "tiny" / "ic_resnet8_int8.tflite"))


def work_on_cpu(placement: Iterable[Placement]) -> Counter[str]:
    return Counter(node.op for node in placement if node.runs_on is RunsOn.CPU and node.op not in QDQ_OPS)


def agreement(model: Path, precision: Precision, folder: Path) -> float:
    """Share of the operators (Q/DQ aside) that rules and compiler place alike, operator by operator."""
    rules = open_target(CHIP).check(open_model(model)).placement.nodes
    arguments = {"target": CHIP, "model": model, "precision": precision, "folder": folder}
    artifact = call(build, arguments, what="compile", timeout_s=240).value
    ours, theirs = work_on_cpu(rules), work_on_cpu(artifact.manifest.placement.nodes)
    work = sum(node.op not in QDQ_OPS for node in rules)
    return 1 - ((ours - theirs).total() + (theirs - ours).total()) / work


@pytest.fixture
def _emulator() -> None:
    probe = open_target(CHIP).probe()
    if not probe.available:
        pytest.skip(probe.why_not)


REAL = (
    "vision/mobilenet_v2_1.0_224_fp32.onnx",
    "vision/mobilenet_v1_0.25_128_fp32.onnx",
    "vision/ultraface_rfb_320_fp32.onnx",
    "vision/yunet_n_640_fp32.onnx",
    "tiny/mnist_fp32.onnx",
    "audio/dtln_1_fp32.onnx",
    "audio/dtln_2_fp32.onnx",
)


PLANE: list[int | str] = [1, 4, 8, 8]
UNARY = (
    *("Abs", "Acos", "Acosh", "Asinh", "Atan", "Atanh", "Ceil", "Cos", "Cosh", "Elu", "Erf", "Exp", "Floor"),
    *("GlobalAveragePool", "GlobalMaxPool", "HardSigmoid", "HardSwish", "Hardmax", "LeakyRelu", "Log", "LogSoftmax"),
    *("LpNormalization", "Neg", "Reciprocal", "Relu", "Round", "Selu", "Sigmoid", "Sign"),
    *("Sin", "Sinh", "Softmax", "Softplus", "Softsign", "Sqrt", "Tan", "Tanh", "ThresholdedRelu", "Max", "Sum"),
)
BINARY = ("Add", "Sub", "Mul", "Div", "Pow", "Max", "Min", "Mean", "Sum", "PRelu")
REDUCERS = ("ReduceL1", "ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd")


def single_operators(folder: Path) -> dict[str, Path]:
    """One graph per operator, in float32."""
    made: dict[str, Path] = {}

    def add(name: str, node: onnx.NodeProto, shapes: dict[str, list[int | str]], **constants: np.ndarray) -> None:
        made[name] = graph_of(folder / f"{name}.onnx", [node], shapes, **constants)

    pooled = {"GlobalAveragePool", "GlobalMaxPool"}
    for op in UNARY:
        small: list[int | str] = [1, 4, 1, 1]
        add(op, helper.make_node(op, ["x"], ["y"], name=op), {"x": PLANE, "y": small if op in pooled else PLANE})
    for op in BINARY:
        node = helper.make_node(op, ["x1", "x2"], ["y"], name=op)
        add(f"{op}-2", node, {"x1": PLANE, "x2": PLANE, "y": PLANE})
    for op in REDUCERS:
        node = helper.make_node(op, ["x"], ["y"], name=op, axes=[2, 3])
        add(op, node, {"x": PLANE, "y": [1, 4, 1, 1]})
    weights = np.random.default_rng(0).normal(size=(4, 4, 3, 3)).astype(np.float32)
    inner: list[int | str] = [1, 4, 6, 6]
    add("Conv", helper.make_node("Conv", ["x", "w"], ["y"], name="Conv"), {"x": PLANE, "y": inner}, w=weights)
    deep = np.ones((4, 4, 3, 3, 3), dtype=np.float32)
    cube: dict[str, list[int | str]] = {"x": [1, 4, 8, 8, 8], "y": [1, 4, 6, 6, 6]}
    add("Conv-3d", helper.make_node("Conv", ["x", "w"], ["y"], name="Conv"), cube, w=deep)
    pool = helper.make_node("MaxPool", ["x"], ["y"], name="MaxPool", kernel_shape=[3, 3, 3])
    add("MaxPool-3d", pool, cube)
    for name, attributes in {"floor": {"nearest_mode": "floor"}, "default": {}}.items():
        place = {"coordinate_transformation_mode": "asymmetric", **attributes}
        node = helper.make_node("Resize", ["x", "", "s"], ["y"], name="Resize", mode="nearest", **place)
        add(f"Resize-{name}", node, SPACE, s=SCALES)
    six: list[int | str] = [1, 2, 2, 2, 2, 4]
    add("Relu-rank-6", helper.make_node("Relu", ["x"], ["y"], name="Relu"), {"x": six, "y": six})
    return made


@pytest.mark.slow
@pytest.mark.usefixtures("_emulator")
def test_rules_and_compiler_agree_on_every_operator_alone(tmp_path: Path) -> None:
    models = single_operators(tmp_path)
    truth = call(taken_whole, {"models": models}, what="operators", timeout_s=240).value
    rules = {name: {place.runs_on for place in place_on_htp(open_model(path))} for name, path in models.items()}
    differ = {name for name in models if (rules[name] == {RunsOn.NPU}) is not truth[name]}
    assert len(models) > 60
    assert differ == set()


@pytest.mark.slow
@pytest.mark.usefixtures("_emulator")
@pytest.mark.parametrize("name", REAL)
def test_rules_and_compiler_agree_on_quantized_real_models(shared_models: Path, tmp_path: Path, name: str) -> None:
    model = quantized(shared_models / name, tmp_path / "q", _few(shared_models / name, tmp_path))
    assert agreement(model, Precision.A8W8, tmp_path / "o") >= 0.95


@pytest.mark.slow
@pytest.mark.usefixtures("_emulator")
@pytest.mark.parametrize("name", [*REAL[:3], REAL[5]])
def test_rules_and_compiler_agree_on_float_real_models(shared_models: Path, tmp_path: Path, name: str) -> None:
    assert agreement(modern(shared_models / name, tmp_path), Precision.FP16, tmp_path / "o") >= 0.95


@pytest.mark.usefixtures("_emulator")
@pytest.mark.parametrize("name", ["digits-cnn", "digits-transformer"])
def test_rules_and_compiler_agree_on_the_zoo(tmp_path: Path, name: str) -> None:
    assert agreement(zoo_model(name).model, Precision.FP16, tmp_path / "float") >= 0.95
    model = quantized(zoo_model(name).model, tmp_path / "q")
    assert agreement(model, Precision.A8W8, tmp_path / "o") >= 0.95


def _few(source: Path, folder: Path) -> list[dict[str, np.ndarray]]:
    return random_feeds(modern(source, folder), 2)
