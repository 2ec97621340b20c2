"""The table of known-bad patterns: found where they are, silent where they are not, and documented."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto

from npuops.evaluate.equality import IDENTICAL, all_equal, compare
from npuops.evaluate.reference import run_reference
from npuops.models.onnx_file import write_onnx
from npuops.models.open import open_model
from npuops.models.placement import Placement, RunsOn
from npuops.rewrite.patterns import PATTERNS, Pattern
from npuops.rewrite.proof_samples import proof_samples
from npuops.rewrite.rewrite_graph import Graph
from npuops.rewrite.rewrite_table import REWRITES, rewrite_model
from npuops.targets.registry import open_target
from rewrite_cases import CASES, Builder, Shape, batchnorm, embedding, gelu, torch_layernorm

DOCS = Path(__file__).resolve().parent.parent / "docs" / "check.md"
BY_ID = {pattern.id: pattern for pattern in PATTERNS}


def found(proto: onnx.ModelProto) -> set[str]:
    graph = Graph(proto)
    return {pattern.id for pattern in PATTERNS if any(True for _ in pattern.find(graph))}


def one(op: str, shape: Shape = (1, 4), *, dtype: int = TensorProto.FLOAT, **attributes: object) -> onnx.ModelProto:
    b = Builder()
    b.add(op, "x", out="y", **attributes)
    return b.model({"x": shape}, {"y": shape}, dtypes={"x": dtype, "y": dtype})


def nncf_style() -> onnx.ModelProto:
    """Per-channel activation quantizers, a float bias, no quantized output."""
    b = Builder()
    steps = b.constant(np.full(3, 0.02, dtype=np.float32))
    zeros = b.constant(np.zeros(3, dtype=np.uint8))
    x = b.add("DequantizeLinear", b.add("QuantizeLinear", "x", steps, zeros, axis=1), steps, zeros, axis=1)
    levels = b.constant(np.ones((3, 1, 3, 3), dtype=np.int8))
    weights = b.add("DequantizeLinear", levels, b.constant(0.1), b.constant(np.array(0, dtype=np.int8)))
    b.add("Conv", x, weights, b.weights(3), group=3, out="y")
    return b.model({"x": [1, 3, 8, 8]}, {"y": [1, 3, 6, 6]})


def float_island() -> onnx.ModelProto:
    b = Builder()
    step, zero = b.constant(0.02), b.constant(np.array(128, dtype=np.uint8))
    x = b.add("DequantizeLinear", b.add("QuantizeLinear", "x", step, zero), step, zero)
    b.add("MatMul", b.add("Relu", x), b.weights(4, 4), out="y")
    return b.model({"x": [1, 4]}, {"y": [1, 4]})


def computed_clip() -> onnx.ModelProto:
    b = Builder()
    b.add("Clip", "x", "low", out="y")
    return b.model({"x": [1, 4], "low": []}, {"y": [1, 4]})


def huge_table() -> onnx.ModelProto:
    b = Builder()
    table = b.constant(np.zeros((50_000, 96), dtype=np.float32))
    b.add("Gather", table, "ids", out="y")
    return b.model({"ids": [1, 4]}, {"y": [1, 4, 96]}, dtypes={"ids": TensorProto.INT64})


def cubic() -> onnx.ModelProto:
    b = Builder()
    scales = b.constant(np.array([1, 1, 2, 2], dtype=np.float32))
    b.add("Resize", "x", "", scales, mode="cubic", out="y")
    return b.model({"x": [1, 1, 4, 4]}, {"y": [1, 1, 8, 8]})


def top_k() -> onnx.ModelProto:
    b = Builder()
    b.nodes.append(
        onnx.helper.make_node("TopK", ["x", b.constant(np.array([2], dtype=np.int64))], ["y", "i"], name="/k")
    )
    return b.model({"x": [1, 4]}, {"y": [1, 2], "i": [1, 2]}, dtypes={"i": TensorProto.INT64})


def outer_product() -> onnx.ModelProto:
    b = Builder()
    b.add("Einsum", "x", "x", equation="bi,bj->bij", out="y")
    return b.model({"x": [1, 4]}, {"y": [1, 4, 4]})


def recurrent() -> onnx.ModelProto:
    b = Builder()
    b.add("GRU", "x", b.weights(1, 12, 4), b.weights(1, 12, 4), hidden_size=4, out="y")
    return b.model({"x": [3, 1, 4]}, {"y": [3, 1, 1, 4]})


ADVICE_ONLY = {
    "per-channel-activations": nncf_style(),
    "float-bias-without-output-scale": nncf_style(),
    "float-island": float_island(),
    "dynamic-shape": one("Relu", ["batch", 4]),
    "lone-erf": one("Erf"),
    "odd-resize": cubic(),
    "computed-clip-bounds": computed_clip(),
    "float64": one("Relu", dtype=TensorProto.DOUBLE),
    "huge-embedding": huge_table(),
    "recurrent": recurrent(),
    "postprocessing": top_k(),
    "einsum-other": outer_product(),
}

ONLY_CLEAN = one("Relu")


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.id)
def test_a_pattern_is_found_where_it_is_and_not_in_a_clean_model(pattern: Pattern):
    cases = CASES[pattern.fix] if pattern.fix else [ADVICE_ONLY[pattern.id]]
    assert any(pattern.id in found(case) for case in cases)
    assert pattern.id not in found(ONLY_CLEAN)


def test_every_fix_exists_and_every_rewrite_cures_a_pattern():
    fixes = {pattern.fix for pattern in PATTERNS if pattern.fix}
    assert fixes == set(REWRITES)


def test_identifiers_are_unique():
    assert len(BY_ID) == len(PATTERNS)


def test_an_erf_inside_a_gelu_is_not_called_lonely():
    assert "lone-erf" not in found(gelu("erf-torch"))


def test_a_convolution_without_batch_normalization_and_a_small_table_are_fine():
    assert "separate-batchnorm" in found(batchnorm())
    assert "huge-embedding" not in found(embedding())


def test_a_normalization_over_channels_is_not_a_layernorm():
    b = Builder()
    centred = b.add("Sub", "x", b.add("ReduceMean", "x", axes=[1]))
    variance = b.add("ReduceMean", b.add("Pow", centred, b.constant(2.0)), axes=[1])
    b.add("Div", centred, b.add("Sqrt", b.add("Add", variance, b.constant(1e-5))), out="y")
    assert "decomposed-layernorm" not in found(b.model({"x": [1, 8, 4, 4]}, {"y": [1, 8, 4, 4]}))


def test_variance_around_another_mean_is_not_a_layernorm():
    b = Builder()
    centred = b.add("Sub", "x", b.add("ReduceMean", "z", axes=[-1]))
    variance = b.add("ReduceMean", b.add("Pow", centred, b.constant(2.0)), axes=[-1])
    b.add("Div", centred, b.add("Sqrt", b.add("Add", variance, b.constant(1e-5))), out="y")
    assert "decomposed-layernorm" not in found(b.model({"x": [2, 8], "z": [2, 8]}, {"y": [2, 8]}))


@pytest.mark.parametrize(("shape", "op"), [((4, 8), "Mul"), ((1, 4, 8), "Add"), ((2, 4, 8), "Mul")])
def test_a_constant_that_is_larger_than_a_gamma_stays_behind_the_layernorm(shape: tuple[int, ...], op: str):
    """Positions are added right behind a LayerNormalization."""
    b = Builder()
    centred = b.add("Sub", "x", b.add("ReduceMean", "x", axes=[-1]))
    variance = b.add("ReduceMean", b.add("Pow", centred, b.constant(2.0)), axes=[-1])
    normal = b.add("Div", centred, b.add("Sqrt", b.add("Add", variance, b.constant(1e-5))))
    b.add(op, b.add("Mul", normal, b.weights(8)) if op == "Add" else normal, b.weights(*shape), out="y")
    after, sites = rewrite_model(b.model({"x": [2, 4, 8]}, {"y": [2, 4, 8]}), REWRITES["fuse-layernorm"])
    assert len(sites) == 1
    assert [node.op_type for node in after.graph.node] == ["LayerNormalization", op]


@pytest.mark.parametrize(("clamp", "bound"), [("Min", 10.0), ("Min", 200.0), ("Max", -0.1)])
def test_a_clamp_behind_an_activation_is_not_melted_into_it(clamp: str, bound: float):
    b = Builder()
    swish = b.add("Mul", "x", b.add("HardSigmoid", "x", alpha=1 / 6, beta=0.5))
    b.add(clamp, swish, b.constant(bound), out="y")
    after, _ = rewrite_model(b.model({"x": [2, 8]}, {"y": [2, 8]}), REWRITES["fuse-hardswish"])
    assert [node.op_type for node in after.graph.node] == ["HardSwish", clamp]


@pytest.mark.parametrize("op", ["Min", "Max"])
def test_operators_of_any_number_of_inputs_may_have_one(op: str):
    b = Builder()
    one = b.add(op, b.add("Clip", b.add("Add", "x", b.constant(3.0)), b.constant(0.0), b.constant(6.0)))
    b.add("Mul", "x", one, out="y")
    assert "decomposed-hardswish" not in found(b.model({"x": [2, 8]}, {"y": [2, 8]}))


def test_an_attribute_that_is_no_text_is_no_pattern():
    b = Builder()
    b.add("Einsum", "x", equation=b"\xff,ij->j", out="y")
    assert "einsum" not in found(b.model({"x": [2, 8]}, {"y": [8]}))


def test_an_axis_beyond_the_rank_is_no_pattern():
    b = Builder()
    b.add("Softmax", "x", axis=7, out="y")
    assert "softmax-inner-axis" not in found(b.model({"x": [2, 8]}, {"y": [2, 8]}))


def test_a_mask_of_no_values_is_no_mask():
    b = Builder()
    empty = onnx.helper.make_tensor("v", TensorProto.FLOAT, [0], [])
    filled = b.add("ConstantOfShape", b.constant(np.array([2, 8])), value=empty)
    b.add("Softmax", b.add("Where", b.add("Less", "x", b.constant(0.0)), filled, "x"), out="y")
    assert "float-where-mask" not in found(b.model({"x": [2, 8]}, {"y": [2, 8]}))


@pytest.mark.parametrize(
    ("coordinates", "rounding", "factor", "same"),
    [
        ("half_pixel", "round_prefer_floor", 3, True),
        ("half_pixel", "ceil", 2, False),
        ("asymmetric", "round_prefer_floor", 2, True),
        ("asymmetric", "round_prefer_floor", 3, False),
        ("align_corners", "round_prefer_ceil", 2, True),
        ("align_corners", "floor", 2, False),
    ],
)
def test_a_nearest_resize_is_promised_a_cure_only_where_it_picks_the_same_pixels(
    coordinates: str, rounding: str, factor: int, same: bool
):
    b = Builder()
    scales = b.constant(np.array([1, 1, factor, factor], dtype=np.float32))
    b.add("Resize", "x", "", scales, coordinate_transformation_mode=coordinates, nearest_mode=rounding, out="y")
    proto = b.model({"x": [1, 2, 4, 4]}, {"y": [1, 2, 4 * factor, 4 * factor]})
    assert ("nearest-resize-mode" in found(proto)) is same
    if same:
        samples = proof_samples(proto)
        after, _ = rewrite_model(proto, REWRITES["nearest-resize"])
        assert all_equal(compare(run_reference(after, samples), run_reference(proto, samples), IDENTICAL))


def test_a_table_is_measured_in_its_own_dtype():
    b = Builder()
    table = b.constant(np.zeros((50_000, 96), dtype=np.int8))
    b.add("Gather", table, "ids", out="y")
    kinds = {"ids": TensorProto.INT64, "y": TensorProto.INT8}
    assert "huge-embedding" not in found(b.model({"ids": [1, 4]}, {"y": [1, 4, 96]}, dtypes=kinds))


def test_a_tanh_that_is_no_gelu_is_left_alone():
    b = Builder()
    tanh = b.add("Tanh", b.add("Mul", "x", b.constant(0.7)))
    b.add("Mul", b.add("Mul", "x", b.constant(0.5)), b.add("Add", tanh, b.constant(1.0)), out="y")
    assert "decomposed-gelu" not in found(b.model({"x": [2, 8]}, {"y": [2, 8]}))


def test_a_mask_constant_far_from_any_softmax_is_left_alone():
    b = Builder()
    b.add("Where", b.add("Less", "x", b.constant(0.0)), b.constant(-1e9), "x", out="y")
    assert "float-where-mask" not in found(b.model({"x": [2, 8]}, {"y": [2, 8]}))


def test_scope_and_placement_decide_to_whom_a_pattern_matters():
    htp, cpu, toy = (open_target(name) for name in ("qnn-htp:sm8650", "ort-cpu", "toy"))
    erf = Graph(ADVICE_ONLY["lone-erf"])
    names = [node.name for node in erf.nodes]
    away = {n: Placement(name=n, op="Erf", runs_on=RunsOn.CPU, rule="", found="Erf") for n in names}
    home = {n: Placement(name=n, op="Erf", runs_on=RunsOn.NPU, rule="") for n in names}
    lone = BY_ID["lone-erf"]
    assert lone.sites(erf, htp, away)
    assert not lone.sites(erf, htp, home)
    assert not lone.sites(erf, cpu, away)
    layernorm = Graph(torch_layernorm())
    assert BY_ID["decomposed-layernorm"].sites(layernorm, htp, {})
    assert not BY_ID["decomposed-layernorm"].sites(layernorm, toy, {})


def table_row(pattern: Pattern) -> str:
    where = f"{pattern.scope.words}, where a node falls to the CPU" if pattern.on_cpu_only else pattern.scope.words
    cure = f"`{pattern.fix}`" if pattern.fix else "–"
    return f"| `{pattern.id}` | {where} | {pattern.message} | {cure} |"


def test_the_documentation_shows_this_table():
    rows = [line for line in DOCS.read_text(encoding="utf-8").splitlines() if line.startswith("| `")]
    fixes = [f"| `{name}` | {rewrite.promise} |" for name, rewrite in REWRITES.items()]
    assert rows == [*fixes, *(table_row(pattern) for pattern in PATTERNS)]


@pytest.mark.parametrize(
    ("fix", "op"),
    [
        ("einsum-to-matmul", "Einsum"),
        ("plain-gemm", "Gemm"),
        ("square-to-mul", "Pow"),
        ("div-to-mul", "Div"),
        ("drop-leftovers", "Cast"),
        ("fuse-hardswish", "Div"),
    ],
)
def test_a_cure_brings_the_operator_back_to_the_npu_of_arm(fix: str, op: str, tmp_path: Path):
    target = open_target("ethos-u:ethos-u85-256")
    before = CASES[fix][-1]
    after, _ = rewrite_model(before, REWRITES[fix])
    away = []
    for index, proto in enumerate((before, after)):
        write_onnx(proto, tmp_path / f"{index}.onnx")
        nodes = target.check(open_model(tmp_path / f"{index}.onnx")).placement.nodes
        away.append({node.op for node in nodes if node.runs_on is RunsOn.CPU})
    assert away == [{op}, set()]
