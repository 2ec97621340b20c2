"""`--dynamic-batch`: whose batch stays free, what it is proved by, and what the artifact can do then."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from npuops.artifacts.evidence import Verdict
from npuops.artifacts.folder import open_artifact
from npuops.artifacts.manifest import Manifest
from npuops.build.batch_step import keeps_batch
from npuops.build.options import BuildOptions
from npuops.build.parity import ROWS_ALONE
from npuops.build.pipeline import BuildRequest, build
from npuops.build.run import run_artifact
from npuops.errors import OptionError, UnsupportedModelError
from npuops.evaluate.sample_sources import random_samples
from npuops.models.batch_axis import with_rows
from npuops.models.open import open_model
from npuops.models.zoo import zoo_model
from npuops.report.profile import profile_artifact
from npuops.targets.protocol import Precision
from npuops.targets.registry import open_target
from onnx_models import mlp, save

ANY_BATCH = BuildOptions(precision=Precision.FP32, dynamic_batch=True)


def open_batch(source: Path, out: Path) -> Path:
    """The same model as an exporter with a dynamic axis writes it."""
    proto = onnx.load(source)
    for value in (*proto.graph.input, *proto.graph.output):
        value.type.tensor_type.shape.dim[0].dim_param = "N"
    del proto.graph.value_info[:]
    onnx.save(proto, out)
    return out


def rows_of(manifest: Manifest) -> tuple[str, int, float | None]:
    assert manifest.parity is not None
    (found,) = [one for one in manifest.parity.comparisons if one.reference == ROWS_ALONE]
    return found.engine, found.samples, found.outputs[0].cosine


@pytest.mark.slow
@pytest.mark.parametrize("target", ["ort-cpu", "openvino"])
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.A8W8])
def test_an_artifact_of_any_batch_runs_rows_together_as_it_runs_them_alone(
    tmp_path: Path, target: str, precision: Precision
) -> None:
    if not open_target(target).probe().available:
        pytest.skip(f"{target} is not installed")
    model = open_batch(mlp(tmp_path / "m.onnx"), tmp_path / "open.onnx")
    inputs = with_rows(open_model(model).inputs)
    request = BuildRequest(
        model=model,
        target=target,
        calibration=random_samples(inputs, 32, 1),
        evaluation=random_samples(inputs, 32, 2),
        options=BuildOptions(precision=precision),
    )
    build(request, tmp_path / "art")
    artifact = open_artifact(tmp_path / "art")
    manifest = artifact.manifest
    assert manifest.gate is not None
    assert manifest.gate.verdict is Verdict.PASS, manifest.gate
    assert [tensor.shape for tensor in (*manifest.inputs, *manifest.outputs)] == [("batch", 16), ("batch", 10)]
    engine, samples, cosine = rows_of(manifest)
    assert (engine, samples) == (f"{target} (3 rows)", 3)
    assert cosine == pytest.approx(1, abs=1e-4)
    assert manifest.model.macs == 16 * 32 + 32 * 10, "the manifest counts one inference"
    five = {"x": np.random.default_rng(3).normal(size=(5, 16)).astype(np.float32)}
    together = run_artifact(artifact, five).outputs["y"]
    alone = [run_artifact(artifact, {"x": five["x"][row : row + 1]}).outputs["y"] for row in (0, 4)]
    np.testing.assert_allclose(together[[0, 4]], np.concatenate(alone), atol=0.01)
    assert profile_artifact(artifact, {"x": five["x"][:1]}, timeout_s=60).ops


@pytest.mark.slow
def test_a_fixed_model_of_one_row_becomes_one_of_any_batch_when_asked(tmp_path: Path) -> None:
    zoo = zoo_model("digits-cnn")
    inputs = open_model(zoo.model).inputs
    request = BuildRequest(model=zoo.model, target="ort-cpu", evaluation=random_samples(inputs, 8, 0))
    fixed = build(replace(request, options=replace(ANY_BATCH, dynamic_batch=False)), tmp_path / "fixed")
    assert fixed.artifact.manifest.inputs[0].shape == (1, 1, 8, 8)
    free = build(replace(request, options=ANY_BATCH), tmp_path / "free")
    assert free.artifact.manifest.inputs[0].shape == ("batch", 1, 8, 8)
    assert free.artifact.manifest.outputs[0].shape == ("batch", 10)


@pytest.mark.slow
def test_too_few_samples_are_filled_up_so_that_mixed_rows_cannot_hide(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    one = random_samples(open_model(model).inputs, 1, 0)
    result = build(BuildRequest(model=model, target="ort-cpu", evaluation=one, options=ANY_BATCH), tmp_path / "art")
    assert rows_of(result.artifact.manifest)[1] == 3


def averaging(path: Path) -> Path:
    """Each row minus the mean of all: shapes say nothing against a batch."""
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["m"], axes=[0], keepdims=1),
        helper.make_node("Sub", ["twice", "m"], ["y"]),
        helper.make_node("Mul", ["x", "two"], ["twice"]),
    ]
    graph = helper.make_graph(
        [nodes[0], nodes[2], nodes[1]],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 16])],
        [numpy_helper.from_array(np.array(2, np.float32), "two")],
    )
    return save(graph, path)


@pytest.mark.slow
def test_rows_that_know_of_each_other_fail_the_gate_with_the_reason(tmp_path: Path) -> None:
    request = BuildRequest(model=averaging(tmp_path / "m.onnx"), target="ort-cpu", options=ANY_BATCH)
    manifest = build(request, tmp_path / "art").artifact.manifest
    assert manifest.gate is not None
    assert manifest.gate.verdict is Verdict.FAIL
    assert manifest.parity is not None
    assert "mixes the rows of a batch" in manifest.parity.reasons[-1]


def test_a_graph_that_holds_its_one_row_is_refused_and_leaves_nothing(tmp_path: Path) -> None:
    graph = helper.make_graph(
        [helper.make_node("Reshape", ["x", "s"], ["y"], name="flat")],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [16])],
        [numpy_helper.from_array(np.array([16], np.int64), "s")],
    )
    request = BuildRequest(model=save(graph, tmp_path / "m.onnx"), target="ort-cpu", options=ANY_BATCH)
    with pytest.raises(UnsupportedModelError, match="Reshape 'flat'"):
        build(request, tmp_path / "art")
    assert not (tmp_path / "art").exists()


def test_a_chip_with_fixed_shapes_refuses_it_before_it_works(tmp_path: Path) -> None:
    request = BuildRequest(model=mlp(tmp_path / "m.onnx"), target="toy", options=ANY_BATCH)
    with pytest.raises(OptionError, match="toy compiles fixed shapes only"):
        build(request, tmp_path / "art")


def test_what_the_model_leaves_open_stays_so_unless_a_shape_was_given(tmp_path: Path) -> None:
    model = open_batch(mlp(tmp_path / "m.onnx"), tmp_path / "open.onnx")
    target, plain = open_target("ort-cpu"), BuildOptions()
    assert keeps_batch(open_model(model), target, plain)
    assert not keeps_batch(open_model(model, shapes={"x": (4, 16)}), target, plain)
    assert not keeps_batch(open_model(model), open_target("toy"), plain)
    assert not keeps_batch(open_model(tmp_path / "m.onnx"), target, plain)
