from __future__ import annotations

import platform
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from npuops.artifacts.manifest import Artifact
from npuops.errors import (
    CompileError,
    DataError,
    IncompatibleArtifactError,
    OptionError,
    RunError,
    ToolchainError,
    UnknownTargetError,
    UnsupportedModelError,
)
from npuops.evaluate.metrics import cosine, top1_agreement
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples
from npuops.models.open import open_model
from npuops.models.placement import RunsOn
from npuops.targets.ort_cpu import OrtCpuRunner, OrtCpuTarget, processor
from npuops.targets.protocol import CompileOptions, Precision
from npuops.targets.registry import open_target
from npuops.units import Basis
from onnx_models import mlp, save
from ort_targets import Feeds, build, embedding, photo_feeds, promises_kept, quantized, random_feeds, run_all

F32 = TensorProto.FLOAT


@pytest.fixture(scope="module")
def feeds(shared_models: Path) -> list[Feeds]:
    return photo_feeds(shared_models / "inputs" / "photos", pytest.importorskip("PIL.Image"))


@pytest.fixture(scope="module")
def int8_mobilenet(mobilenet: Path, shared_models: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    image = pytest.importorskip("PIL.Image")
    calibration = photo_feeds(shared_models / "inputs" / "photos", image, (0.0, 0.3, 0.5, 0.7, 1.0))
    return quantized(mobilenet, tmp_path_factory.mktemp("int8"), calibration)


def samples(feeds: list[Feeds]) -> Samples:
    return Samples(inputs=tuple(feeds), source="test", digest="")


def with_compatibility(artifact: Artifact, text: str) -> Artifact:
    return Artifact(artifact.root, replace(artifact.manifest, compatibility=text))


def test_it_keeps_every_promise_of_a_target(tmp_path: Path) -> None:
    outcomes = promises_kept("ort-cpu", mlp(tmp_path / "m.onnx"), Precision.FP32, tmp_path / "s")
    assert all(not outcome.skipped for outcome in outcomes)


@pytest.mark.parametrize("level", ["disabled", "basic", "extended", "all"])
def test_the_float_mobilenet_answers_like_the_reference_at_every_level(
    mobilenet: Path, feeds: list[Feeds], tmp_path: Path, level: str
) -> None:
    artifact = build("ort-cpu", mobilenet, Precision.FP32, tmp_path, {"graph_optimization_level": level})
    got = run_all(artifact, feeds[:2])
    wanted = run_reference(mobilenet, samples(feeds[:2]))
    for name, rows in wanted.items():
        for row, outputs in zip(rows, got, strict=True):
            np.testing.assert_allclose(outputs[name], row, atol=1e-4)


@pytest.mark.slow
def test_the_int8_mobilenet_sees_what_the_float_one_sees(
    mobilenet: Path, int8_mobilenet: Path, feeds: list[Feeds], tmp_path: Path
) -> None:
    artifact = build("ort-cpu", int8_mobilenet, Precision.A8W8, tmp_path)
    (name,) = (tensor.name for tensor in artifact.manifest.outputs)
    got = np.stack([outputs[name] for outputs in run_all(artifact, feeds)])
    assert (top1_agreement(got, run_reference(mobilenet, samples(feeds))[name]) or 0) >= 5 / 6
    assert (cosine(got, run_reference(int8_mobilenet, samples(feeds))[name]) or 0) > 0.99
    assert {node.op for node in artifact.manifest.placement.nodes} >= {"QLinearConv", "QLinearAdd"}
    assert {node.runs_on for node in artifact.manifest.placement.nodes} == {RunsOn.NPU}


def test_two_compilations_are_equal_byte_for_byte(int8_mobilenet: Path, tmp_path: Path) -> None:
    one, two = (build("ort-cpu", int8_mobilenet, Precision.A8W8, tmp_path / name) for name in "ab")
    assert one.entry.read_bytes() == two.entry.read_bytes()


def test_a_profile_names_every_kernel_with_its_microseconds(
    int8_mobilenet: Path, feeds: list[Feeds], tmp_path: Path
) -> None:
    artifact = build("ort-cpu", int8_mobilenet, Precision.A8W8, tmp_path)
    profile = OrtCpuTarget().profile(artifact, feeds[0])
    assert (profile.basis, profile.unit) == (Basis.MEASURED, "us")
    known = {node.name for node in artifact.manifest.placement.nodes}
    assert {cost.op for cost in profile.ops if cost.name not in known} <= {"Transpose", "ReorderInput", "ReorderOutput"}
    heavy = {node.name for node in artifact.manifest.placement.nodes if node.op == "QLinearConv"}
    assert heavy <= {cost.name for cost in profile.ops}
    assert profile.total > 0
    assert list(tmp_path.iterdir()) == [artifact.entry], "profiling leaves nothing beside the artifact"


def test_a_float_model_is_laid_out_for_the_processor_when_it_is_loaded(
    mobilenet: Path, feeds: list[Feeds], tmp_path: Path
) -> None:
    artifact = build("ort-cpu", mobilenet, Precision.FP32, tmp_path)
    profile = OrtCpuTarget().profile(artifact, feeds[0])
    assert "ReorderOutput" in {cost.op for cost in profile.ops}, "without it convolutions take 2.5 times as long"
    convolutions = {node.name for node in artifact.manifest.placement.nodes if node.op in {"Conv", "FusedConv"}}
    assert convolutions & {cost.name for cost in profile.ops} == convolutions


@pytest.mark.parametrize(
    "vendor",
    [{"graph_optimization_level": "extreme"}, {"intra_op_num_threads": "-1"}, {"intra_op_num_thread": "1"}],
)
def test_impossible_options_are_refused(tmp_path: Path, vendor: dict[str, str]) -> None:
    with pytest.raises(OptionError):
        build("ort-cpu", mlp(tmp_path / "m.onnx"), Precision.FP32, tmp_path / "o", vendor)


def test_precisions_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    with pytest.raises(OptionError, match="cannot do bf16"):
        build("ort-cpu", model, Precision.BF16, tmp_path / "o")
    with pytest.raises(UnsupportedModelError, match="needs a quantized graph"):
        build("ort-cpu", model, Precision.A8W8, tmp_path / "o")


def test_another_variant_does_not_exist() -> None:
    with pytest.raises(UnknownTargetError):
        open_target("ort-cpu:fast")


def test_a_tflite_model_is_refused_by_name(shared_models: Path) -> None:
    model = open_model(shared_models / "tiny" / "ic_resnet8_int8.tflite")
    with pytest.raises(UnsupportedModelError, match="takes ONNX"):
        OrtCpuTarget().check(model)


def test_a_graph_that_ort_refuses_is_a_compile_error_with_its_words(tmp_path: Path) -> None:
    node = helper.make_node("NoSuchOperator", ["x"], ["y"], name="odd", domain="acme")
    tensor = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1]) for name in "xy"]
    graph = helper.make_graph([node], "g", tensor[:1], tensor[1:])
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("acme", 1)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=9), tmp_path / "m.onnx")
    model = open_model(tmp_path / "m.onnx")
    assert OrtCpuTarget().check(model).placement.nodes[0].found == "domain acme"
    with pytest.raises(CompileError, match="NoSuchOperator"):
        OrtCpuTarget().compile(model, CompileOptions(precision=Precision.FP32), tmp_path)


def test_a_refused_request_is_a_run_error_and_the_next_one_is_served(tmp_path: Path) -> None:
    artifact = build("ort-cpu", embedding(tmp_path / "e.onnx"), Precision.A8W8, tmp_path)
    session = OrtCpuRunner().open(artifact)
    good = {"ids": np.array([[1, 2, 3]], dtype=np.int32)}
    before = session.run(good)
    with pytest.raises(RunError, match="out of data bounds"):
        session.run({"ids": np.array([[1, 2, 99]], dtype=np.int32)})
    np.testing.assert_array_equal(session.run(good)["y"], before["y"])
    session.close()
    with pytest.raises(RunError, match="closed"):
        session.run(good)


def test_nan_passes_and_a_wrong_shape_does_not(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    session = OrtCpuRunner().open(build("ort-cpu", model, Precision.FP32, tmp_path))
    assert np.isnan(session.run({"x": np.full((1, 16), np.nan, dtype=np.float32)})["y"]).any()
    with pytest.raises(DataError):
        session.run({"x": np.zeros((2, 16), dtype=np.float32)})


def test_an_artifact_of_another_place_or_version_is_refused(tmp_path: Path) -> None:
    artifact = build("ort-cpu", mlp(tmp_path / "m.onnx"), Precision.FP32, tmp_path)
    runner, version = OrtCpuRunner(), artifact.manifest.toolchain["onnxruntime"]
    refused = {
        f"ort:{version}:all:riscv64": "optimized for riscv64",
        "ort:1.0.0:extended:x86_64": "onnxruntime 1.0.0",
        "ort:99.0.0:basic:any": "onnxruntime 99.0.0",
        "v2:6:2.51.0": "is not of ort-cpu",
        "": "is not of ort-cpu",
    }
    for text, words in refused.items():
        with pytest.raises(IncompatibleArtifactError, match=words):
            runner.open(with_compatibility(artifact, text))
    assert runner.open(with_compatibility(artifact, "ort:1.23.0:basic:any")) is not None
    with pytest.raises(IncompatibleArtifactError, match="built for toy"):
        runner.open(Artifact(artifact.root, replace(artifact.manifest, target="toy")))


def test_a_damaged_or_foreign_file_is_a_clear_error(tmp_path: Path) -> None:
    artifact = build("ort-cpu", mlp(tmp_path / "m.onnx"), Precision.FP32, tmp_path)
    whole = artifact.entry.read_bytes()
    for content in (b"", b"garbage", whole[: len(whole) // 2]):
        artifact.entry.write_bytes(content)
        with pytest.raises(ToolchainError, match="cannot load"):
            OrtCpuRunner().open(artifact)
    mlp(artifact.entry, inputs=4)
    other = replace(artifact.manifest, outputs=(replace(artifact.manifest.outputs[0], name="z"),))
    with pytest.raises(IncompatibleArtifactError, match="disagree on outputs"):
        OrtCpuRunner().open(Artifact(artifact.root, other))


def test_a_dynamic_model_runs_at_several_sizes(tmp_path: Path) -> None:
    node = helper.make_node("Relu", ["x"], ["y"], name="relu")
    tensors = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["n", 2]) for name in "xy"]
    graph = helper.make_graph([node], "g", tensors[:1], tensors[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    artifact = build("ort-cpu", tmp_path / "m.onnx", Precision.FP32, tmp_path)
    for rows, outputs in zip(
        (1, 5), run_all(artifact, [{"x": np.ones((n, 2), np.float32)} for n in (1, 5)]), strict=True
    ):
        assert outputs["y"].shape == (rows, 2)


def test_the_probe_names_the_processor_because_kernels_depend_on_it() -> None:
    assert OrtCpuTarget().probe().toolchain["processor"] == processor()
    assert processor().split("+")[0] == platform.machine()


def test_external_data_is_found_beside_the_model(tmp_path: Path) -> None:
    model = mlp(tmp_path / "plain.onnx", hidden=512)
    proto = onnx.load(model)
    onnx.save(proto, tmp_path / "ext.onnx", save_as_external_data=True, location="w.bin", size_threshold=64)
    feeds = random_feeds(model, 1)
    plain, external = (
        run_all(build("ort-cpu", tmp_path / name, Precision.FP32, tmp_path / f"o-{name}"), feeds)[0]["y"]
        for name in ("plain.onnx", "ext.onnx")
    )
    np.testing.assert_array_equal(plain, external)


def test_a_loop_is_one_operator_with_the_time_of_all_its_rounds_and_nodes_without_names_get_the_same_everywhere(
    tmp_path: Path,
) -> None:
    body_inputs = [
        helper.make_tensor_value_info(name, kind, shape)
        for name, kind, shape in (("i", TensorProto.INT64, []), ("on", TensorProto.BOOL, []), ("s", F32, [32, 32]))
    ]
    body_outputs = [
        helper.make_tensor_value_info("still", TensorProto.BOOL, []),
        helper.make_tensor_value_info("more", F32, [32, 32]),
    ]
    inner = [helper.make_node("Identity", ["on"], ["still"]), helper.make_node("MatMul", ["s", "w"], ["more"])]
    body = helper.make_graph(inner, "body", body_inputs, body_outputs)
    nodes = [
        helper.make_node("Loop", ["count", "always", "x"], ["looped"], name="loop", body=body),
        helper.make_node("Relu", ["looped"], ["y"]),
    ]
    tensors = [helper.make_tensor_value_info(name, F32, [32, 32]) for name in "xy"]
    constants = {"count": np.int64(50), "always": np.bool_(True), "w": np.eye(32, dtype=np.float32)}
    held = [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()]
    model = save(helper.make_graph(nodes, "g", tensors[:1], tensors[1:], held), tmp_path / "m.onnx")
    artifact = build("ort-cpu", model, Precision.FP32, tmp_path / "o")
    costs = OrtCpuTarget().profile(artifact, random_feeds(model, 1)[0]).ops
    assert [(cost.name, cost.op) for cost in costs] == [("loop", "Loop"), ("Relu_1", "Relu")]
    assert [node.name for node in artifact.manifest.placement.nodes] == ["loop", "Relu_1"]
    assert [node.name for node in OrtCpuTarget().check(open_model(model)).placement.nodes] == ["loop", "Relu_1"]
