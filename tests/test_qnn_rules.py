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
    path: Path,
    nodes: list[onnx.NodeProto],
    shapes: dict[str, list[int | str]],
    opset: int = 17,
    **constants: np.ndarray,
) -> Path:
    """`x…` are inputs, `y` is the output; every other name is a constant."""
    values = {name: helper.make_tensor_value_info(name, F32, shape) for name, shape in shapes.items()}
    inputs = [value for name, value in values.items() if name != "y"]
    held = [numpy_helper.from_array(np.asarray(array), name) for name, array in constants.items()]
    graph = helper.make_graph(nodes, "g", inputs, [values["y"]], held)
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=9), path)
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


HALF: list[int | str] = [1, 4, 6, 6]
ROWS: list[int | str] = [1, 4, 8]
F = np.ones
POOL: dict[str, object] = {"kernel_shape": [2, 2], "dilations": [2, 2]}
# Operator, what it is given beside x, the shapes of x and y, its constants: all of these the compiler leaves.
LEFT: dict[str, tuple[str, dict[str, object], list[int | str], list[int | str], dict[str, np.ndarray]]] = {
    "MaxPool-dilated": ("MaxPool", POOL, PLANE, HALF, {}),
    "LpPool-dilated": ("LpPool", POOL, PLANE, HALF, {}),
    "LpPool-3d": ("LpPool", {"kernel_shape": [3, 3, 3]}, [1, 4, 8, 8, 8], [1, 4, 6, 6, 6], {}),
    "ConvTranspose-dilated": (
        "ConvTranspose",
        {"dilations": [2, 2]},
        HALF,
        [1, 4, 10, 10],
        {"w": F((4, 4, 3, 3), "f")},
    ),
    "Gemm-alpha": ("Gemm", {"alpha": 0.5}, [1, 4], [1, 4], {"w": F((4, 4), "f"), "b": F(4, "f")}),
    "Gemm-beta": ("Gemm", {"beta": 0.5}, [1, 4], [1, 4], {"w": F((4, 4), "f"), "b": F(4, "f")}),
    "CumSum-exclusive": ("CumSum", {"exclusive": 1}, PLANE, PLANE, {"a": np.int64(1)}),
    "CumSum-reverse": ("CumSum", {"reverse": 1}, PLANE, PLANE, {"a": np.int64(1)}),
    "LpNormalization-1": ("LpNormalization", {"p": 1, "axis": 1}, PLANE, PLANE, {}),
    "GatherND-batch": ("GatherND", {"batch_dims": 1}, [2, 2, 4], [2, 4], {"i": np.array([[0], [1]], np.int64)}),
    "GridSample-cubic": ("GridSample", {"mode": "bicubic"}, PLANE, HALF, {"g": np.zeros((1, 6, 6, 2), "f")}),
    "ScatterElements-add": (
        *("ScatterElements", {"axis": 1, "reduction": "add"}, PLANE, PLANE),
        {"i": np.zeros((1, 2, 8, 8), np.int64), "u": F((1, 2, 8, 8), "f")},
    ),
    "ScatterND-max": (
        *("ScatterND", {"reduction": "max"}, [4, 4], [4, 4]),
        {"i": np.array([[0]], np.int64), "u": F((1, 4), "f")},
    ),
    "LayerNormalization-axis": ("LayerNormalization", {"axis": 1}, ROWS, ROWS, {"w": F((4, 8), "f")}),
    "InstanceNormalization-3d": (
        *("InstanceNormalization", {}, [1, 4, 4, 4, 4], [1, 4, 4, 4, 4]),
        {"w": F(4, "f"), "b": F(4, "f")},
    ),
    "Pow-integer": ("Pow", {}, PLANE, PLANE, {"e": np.int64(2)}),
    "Pad-wrap": ("Pad", {"mode": "wrap"}, PLANE, [1, 4, 10, 10], {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)}),
    "Einsum-broadcast": ("Einsum", {"equation": "bij,jk->bik"}, ROWS, ROWS, {"w": F((8, 8), "f")}),
    "Einsum-sum": ("Einsum", {"equation": "bij->b"}, ROWS, [1], {}),
    "Asin": ("Asin", {}, PLANE, PLANE, {}),
}
# The same operators in a form that it takes.
TAKEN: dict[str, tuple[str, dict[str, object], list[int | str], list[int | str], dict[str, np.ndarray]]] = {
    "MaxPool": ("MaxPool", {"kernel_shape": [3, 3], "dilations": [1, 1]}, PLANE, HALF, {}),
    "LpPool": ("LpPool", {"kernel_shape": [3, 3]}, PLANE, HALF, {}),
    "ConvTranspose": ("ConvTranspose", {}, HALF, PLANE, {"w": F((4, 4, 3, 3), "f")}),
    "Gemm": ("Gemm", {"transB": 1}, [1, 4], [1, 4], {"w": F((4, 4), "f"), "b": F(4, "f")}),
    "CumSum": ("CumSum", {}, PLANE, PLANE, {"a": np.int64(1)}),
    "GatherND": ("GatherND", {}, [2, 2, 4], [2, 4], {"i": np.array([[0, 1], [1, 0]], np.int64)}),
    "GridSample": ("GridSample", {"mode": "bilinear"}, PLANE, HALF, {"g": np.zeros((1, 6, 6, 2), "f")}),
    "ScatterND-add": (
        *("ScatterND", {"reduction": "add"}, [4, 4], [4, 4]),
        {"i": np.array([[0]], np.int64), "u": F((1, 4), "f")},
    ),
    "LayerNormalization": ("LayerNormalization", {"axis": 2}, ROWS, ROWS, {"w": F(8, "f")}),
    "Pow-real": ("Pow", {}, PLANE, PLANE, {"e": np.float32(2)}),
    "Pad": ("Pad", {"mode": "edge"}, PLANE, [1, 4, 10, 10], {"p": np.array([0, 0, 1, 1, 0, 0, 1, 1], np.int64)}),
    "Einsum-heads": (
        "Einsum",
        {"equation": "bnth,bnsh->bnts"},
        [1, 2, 4, 8],
        [1, 2, 4, 4],
        {"w": F((1, 2, 4, 8), "f")},
    ),
    "Einsum-batch": ("Einsum", {"equation": "b i j, b j k -> b i k"}, ROWS, ROWS, {"w": F((1, 8, 8), "f")}),
    "Einsum-position": ("Einsum", {"equation": "bhwc,hkc->bhwk"}, PLANE, PLANE, {"w": F((4, 8, 8), "f")}),
}


def with_attributes(folder: Path) -> dict[str, Path]:
    """A graph for each of `LEFT` and `TAKEN`, in opset 19: the first with `wrap` in Pad."""
    made: dict[str, Path] = {}
    for name, (op, attributes, of_x, of_y, constants) in {**LEFT, **TAKEN}.items():
        node = helper.make_node(op, ["x", *constants], ["y"], name=op, **attributes)
        made[name] = graph_of(folder / f"{name}.onnx", [node], {"x": of_x, "y": of_y}, opset=19, **constants)
    return made


@pytest.mark.slow
def test_the_attributes_that_the_compiler_leaves_are_named(tmp_path: Path) -> None:
    places = {name: only_place(path) for name, path in with_attributes(tmp_path).items()}
    assert {name for name, place in places.items() if place.runs_on is RunsOn.CPU} == set(LEFT)
    assert places["Einsum-broadcast"].found == "bij,jk->bik"
    assert places["MaxPool-dilated"].rule == "dilations must be 1"
    assert places["MaxPool-dilated"].found == "dilations [2, 2]"
    assert places["ScatterND-max"].rule == "reduction must be none or add or mul"


def test_outputs_beside_the_first_and_casts_to_int64_go_to_the_cpu(tmp_path: Path) -> None:
    pool = helper.make_node("MaxPool", ["x"], ["y", "where"], name="pool", kernel_shape=[3, 3])
    cast = helper.make_node("Cast", ["y"], ["z"], name="cast", to=TensorProto.INT64)
    path = graph_of(tmp_path / "m.onnx", [pool, cast], {"x": PLANE, "y": HALF})
    proto = onnx.load(path)
    proto.graph.output.extend(helper.make_tensor_value_info(name, TensorProto.INT64, HALF) for name in ("where", "z"))
    onnx.save(proto, path)
    found = {place.name: place.found for place in place_on_htp(open_model(path))}
    assert found == {"pool": "2 outputs", "cast": "float32 to int64"}


def test_quantizers_in_any_number_do_not_stop_the_search_for_a_gelu(tmp_path: Path) -> None:
    nodes = [helper.make_node("Erf", ["x"], ["v0"], name="erf")]
    for at in range(1500):
        nodes.append(helper.make_node("QuantizeLinear", [f"v{at}", "s", "z"], [f"q{at}"], name=f"q{at}"))
        nodes.append(helper.make_node("DequantizeLinear", [f"q{at}", "s", "z"], [f"v{at + 1}"], name=f"d{at}"))
    nodes.append(helper.make_node("Relu", ["v1500"], ["y"], name="relu"))
    path = graph_of(tmp_path / "m.onnx", nodes, {"x": [1, 2], "y": [1, 2]}, s=np.float32(1), z=np.uint8(0))
    assert {place.name: place.found for place in place_on_htp(open_model(path)) if place.found} == {
        "erf": "Erf on its own"
    }


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
    models = {**single_operators(tmp_path), **with_attributes(tmp_path)}
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


@pytest.mark.slow
@pytest.mark.usefixtures("_emulator")
@pytest.mark.parametrize("name", ["digits-cnn", "digits-transformer"])
def test_rules_and_compiler_agree_on_the_zoo(tmp_path: Path, name: str) -> None:
    assert agreement(zoo_model(name).model, Precision.FP16, tmp_path / "float") >= 0.95
    model = quantized(zoo_model(name).model, tmp_path / "q")
    assert agreement(model, Precision.A8W8, tmp_path / "o") >= 0.95


def _few(source: Path, folder: Path) -> list[dict[str, np.ndarray]]:
    return random_feeds(modern(source, folder), 2)
