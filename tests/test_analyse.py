"""Advice beside the target's own check."""

from __future__ import annotations

import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import onnx
import pytest

from npuops.models.onnx_file import write_onnx
from npuops.models.open import open_model
from npuops.rewrite.analyse import analyse, graph_of
from npuops.rewrite.rewrite_table import REWRITES
from npuops.targets.protocol import Target
from npuops.targets.registry import open_target
from npuops.targets.report import Advice
from npuops.targets.toy import ToyTarget
from rewrite_cases import Builder, attention, batchnorm, gelu, quantized_layernorm, torch_layernorm


@pytest.fixture(scope="module")
def htp() -> Target:
    return open_target("qnn-htp:sm8650")


def advice(proto: onnx.ModelProto, folder: Path, target: Target) -> dict[str, list[Advice]]:
    write_onnx(proto, folder / "model.onnx")
    found: dict[str, list[Advice]] = {}
    for entry in analyse(open_model(folder / "model.onnx"), target).advice:
        found.setdefault(entry.pattern, []).append(entry)
    return found


@pytest.mark.parametrize(
    ("proto", "pattern", "fix"),
    [
        (attention("where-mask"), "float-where-mask", "additive-mask"),
        (attention("constant"), "huge-constant-mask", "additive-mask"),
        (attention("scaled"), "huge-scaled-mask", "additive-mask"),
        (torch_layernorm(), "decomposed-layernorm", "fuse-layernorm"),
        (gelu("erf-torch"), "decomposed-gelu", "fuse-gelu"),
        (quantized_layernorm(per_channel=False), "layernorm-gamma", "layernorm-gamma-uint8"),
        (batchnorm(), "separate-batchnorm", "fold-batchnorm"),
    ],
)
def test_a_known_bad_pattern_comes_with_its_nodes_and_cure(
    proto: onnx.ModelProto, pattern: str, fix: str, tmp_path: Path, htp: Target
):
    [entry] = advice(proto, tmp_path, htp)[pattern]
    assert entry.fix == fix
    assert set(entry.nodes) <= {node.name for node in proto.graph.node}
    assert entry.nodes


def test_every_fix_that_is_advised_can_be_applied(tmp_path: Path, htp: Target):
    for proto in (attention("where-scores"), quantized_layernorm(per_channel=True), gelu("tanh-pow")):
        fixes = {entry.fix for entries in advice(proto, tmp_path, htp).values() for entry in entries}
        assert fixes - {""} <= set(REWRITES)


def test_transformers_are_told_about_sixteen_bits_and_cnns_about_channels(tmp_path: Path, htp: Target):
    transformer = " ".join(entry.message for entry in advice(torch_and_attention(), tmp_path, htp)["precision"])
    cnn = " ".join(entry.message for entry in advice(batchnorm(), tmp_path, htp)["precision"])
    assert "a16w8" in transformer
    assert "per-channel" in cnn
    assert "a16w8" not in cnn


def torch_and_attention() -> onnx.ModelProto:
    b = Builder()
    x = b.add("LayerNormalization", "x", b.weights(8))
    for _ in range(4):
        x = b.add("Softmax", b.add("MatMul", x, b.weights(8, 8)))
    b.add("Relu", x, out="y")
    return b.model({"x": [1, 8]}, {"y": [1, 8]})


def test_a_quantized_model_needs_no_precision_advice(tmp_path: Path, htp: Target):
    assert "precision" not in advice(quantized_layernorm(per_channel=False), tmp_path, htp)


def test_the_host_engine_gets_no_advice_about_npus(tmp_path: Path):
    assert set(advice(attention("where-scores"), tmp_path, open_target("ort-cpu"))) <= {"dynamic-shape"}


class Talkative(ToyTarget):
    def check(self, model):
        report = super().check(model)
        own = tuple(Advice(pattern=name, nodes=(), message="own") for name in ("dynamic-shape", "toy-only"))
        return replace(report, advice=own)


def test_the_targets_own_advice_stays_unless_the_graph_says_it_better(tmp_path: Path):
    b = Builder()
    b.add("Relu", "x", out="y")
    found = advice(b.model({"x": ["batch", 4]}, {"y": ["batch", 4]}), tmp_path, Talkative())
    assert [entry.message for entry in found["toy-only"]] == ["own"]
    assert [entry.message == "own" for entry in found["dynamic-shape"]] == [False]


def test_fixed_shapes_are_not_called_dynamic(tmp_path: Path, htp: Target):
    b = Builder()
    b.add("Relu", "x", out="y")
    path = tmp_path / "m.onnx"
    write_onnx(b.model({"x": ["batch", 4]}, {"y": ["batch", 4]}), path)
    shapes = {"x": (2, 4)}
    report = analyse(open_model(path, shapes=shapes), htp, proto=graph_of(path, shapes))
    assert "dynamic-shape" not in {entry.pattern for entry in report.advice}
    assert "dynamic-shape" in {entry.pattern for entry in analyse(open_model(path), htp).advice}


def test_a_model_without_weights_is_judged_by_its_structure(shared_models: Path, htp: Target):
    report = analyse(open_model(shared_models / "graphs/resnet18_v1_noweights.onnx"), htp)
    assert report.placement.fallback_ratio.ops == 0.0


def test_judging_loads_no_engine():
    code = "import sys, npuops.rewrite.analyse; print('onnxruntime' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"


def test_a_chip_with_floats_that_npuops_does_not_build_for_is_not_said_to_lack_them(tmp_path: Path):
    def words(name: str) -> str:
        found = advice(torch_and_attention(), tmp_path, open_target(name))
        return " ".join(entry.message for entry in found["precision"])

    assert "the chip has fp16, too, which npuops does not build for it" in words("vnpu:rk3588")
    assert "does not build for this target (the chip has fp16, fp32)" in words("vnpu:bm1684x")
    assert "the chip has" not in words("vnpu:coral-edgetpu")
    assert "which this target does not have" in words("vnpu:coral-edgetpu")
