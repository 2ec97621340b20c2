"""OpenVINO's CPU device runs on every x86-64 and arm64 machine: nothing here is skipped where the package is."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper

from npuops.artifacts.manifest import Artifact
from npuops.errors import (
    CompileError,
    DataError,
    IncompatibleArtifactError,
    MissingToolchainError,
    OptionError,
    RunError,
    StorageError,
    ToolchainError,
    UnknownTargetError,
    UnsupportedModelError,
)
from npuops.evaluate.metrics import cosine, top1_agreement
from npuops.evaluate.reference import run_reference
from npuops.evaluate.sample_sources import load_samples
from npuops.evaluate.samples import Samples
from npuops.models.open import open_model
from npuops.models.placement import RunsOn
from npuops.models.zoo import zoo_model
from npuops.quantize.quantize import QuantizeOptions, quantize
from npuops.targets.child import call
from npuops.targets.openvino import OpenvinoRunner, OpenvinoTarget, engine_for, missing_device
from npuops.targets.protocol import CompileOptions, Precision
from npuops.targets.registry import open_target
from npuops.testing import check_target
from npuops.units import Basis
from onnx_models import mlp, save
from ort_targets import Feeds, build, build_and_run, photo_feeds, profile_of, quantized, random_feeds, run_all

CPU = OpenvinoTarget("cpu")
LIMIT_S = 240.0


@pytest.fixture
def _installed() -> None:
    probe = CPU.probe()
    if not probe.available:
        pytest.skip(probe.why_not)


def built(
    model: Path, precision: Precision, folder: Path, feeds: list[Feeds], **vendor: str
) -> tuple[Artifact, list[Feeds]]:
    arguments = {"target": "openvino", "model": model, "precision": precision, "folder": folder, "feeds": feeds}
    artifact, rows = call(build_and_run, {**arguments, "vendor": vendor}, what="openvino", timeout_s=LIMIT_S).value
    return artifact, rows


def as_samples(feeds: list[Feeds]) -> Samples:
    return Samples(inputs=tuple(feeds), source="test", digest="")


def kernels(artifact: Artifact, feed: Feeds) -> set[str]:
    profile = call(profile_of, {"artifact": artifact, "feed": feed}, what="profile", timeout_s=LIMIT_S).value
    assert (profile.basis, profile.unit) == (Basis.MEASURED, "us")
    assert profile.source.startswith("openvino 2")
    assert profile.total > 0
    return {cost.op for cost in profile.ops}


@pytest.mark.slow
@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("precision", [Precision.FP32, Precision.A8W8])
def test_it_keeps_every_promise_of_a_target(tmp_path: Path, precision: Precision) -> None:
    model = mlp(tmp_path / "m.onnx")
    model = quantized(model, tmp_path / "q") if precision.is_quantized else model
    outcomes = check_target("openvino", model, precision=precision)
    assert [outcome.skipped for outcome in outcomes] == [""] * 6


@pytest.mark.slow
@pytest.mark.usefixtures("_installed")
def test_the_int8_mobilenet_runs_in_integers_and_sees_what_the_float_one_sees(
    mobilenet: Path, shared_models: Path, tmp_path: Path
) -> None:
    image, photos = pytest.importorskip("PIL.Image"), shared_models / "inputs" / "photos"
    model = quantized(mobilenet, tmp_path / "q", photo_feeds(photos, image, (0.0, 0.3, 0.5, 0.7, 1.0)))
    feeds = photo_feeds(photos, image)
    artifact, rows = built(model, Precision.A8W8, tmp_path / "o", feeds)
    placed = artifact.manifest.placement.nodes
    assert [node.name for node in placed] == [layer.name for layer in open_model(model).layers]
    assert {node.runs_on for node in placed} == {RunsOn.NPU}
    (name,) = (tensor.name for tensor in artifact.manifest.outputs)
    got = np.stack([row[name] for row in rows])
    assert (top1_agreement(got, run_reference(mobilenet, as_samples(feeds))[name]) or 0) >= 5 / 6
    assert (cosine(got, run_reference(model, as_samples(feeds))[name]) or 0) > 0.97
    convolutions = {op for op in kernels(artifact, feeds[0]) if op.startswith("Convolution")}
    # Intel's and AMD's kernels differ in name by instruction set, and all end in the type they compute in.
    assert convolutions
    assert all(op.lower().endswith("_i8]") for op in convolutions)


@pytest.mark.slow
@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("name", ["digits-cnn", "digits-transformer"])
@pytest.mark.parametrize("precision", [Precision.A8W8, Precision.A16W8])
def test_a_quantized_graph_answers_as_the_reference_does(name: str, precision: Precision, tmp_path: Path) -> None:
    # OpenVINO on its own drops 16-bit quantizers with the Relu in their range: cosine 0.35 on this very CNN.
    entry = zoo_model(name)
    inputs = open_model(entry.model).inputs
    calibration, held_out = (load_samples(str(path), inputs) for path in (entry.calibration, entry.evaluation))
    model = quantize(entry.model, calibration, QuantizeOptions(precision=precision), tmp_path / "q.onnx").path
    some = held_out.first(32)
    _, rows = built(model, precision, tmp_path / "o", list(some.inputs))
    got, wanted = np.stack([row["logits"] for row in rows]), run_reference(model, some)["logits"]
    assert (cosine(got, wanted) or 0) > 0.999
    assert (top1_agreement(got, wanted) or 0) > 0.95


@pytest.mark.slow
@pytest.mark.usefixtures("_installed")
def test_fp32_is_float32_although_openvino_would_choose_bf16_silently(mobilenet: Path, tmp_path: Path) -> None:
    feeds = random_feeds(mobilenet, 1)
    (wanted,) = run_reference(mobilenet, as_samples(feeds)).values()
    _, rows = built(mobilenet, Precision.FP32, tmp_path / "fp32", feeds)
    (got,) = rows[0].values()
    np.testing.assert_allclose(got, wanted[0], atol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("_installed")
def test_bf16_is_close_and_really_another_arithmetic(mobilenet: Path, tmp_path: Path) -> None:
    feeds = random_feeds(mobilenet, 1)
    (wanted,) = run_reference(mobilenet, as_samples(feeds)).values()
    try:
        _, rows = built(mobilenet, Precision.BF16, tmp_path / "bf16", feeds)
    except ToolchainError as error:
        assert "computes in float32, not in bf16" in error.message  # noqa: PT017 - a processor without bfloat16
        return
    (got,) = rows[0].values()
    assert (cosine(got[None], wanted) or 0) > 0.98
    assert np.abs(got - wanted[0]).max() > 1e-4


@pytest.mark.slow
@pytest.mark.usefixtures("_installed")
def test_the_same_model_gives_the_same_bytes_wherever_it_lies(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    models = [mlp(tmp_path / "m.onnx"), mlp(tmp_path / "elsewhere" / "other.onnx")]
    artifacts = [built(model, Precision.FP32, tmp_path / f"o{at}", [])[0] for at, model in enumerate(models)]
    first, second = (artifact.entry.read_bytes() for artifact in artifacts)
    assert first == second


@pytest.mark.usefixtures("_installed")
def test_a_session_survives_a_refused_input_and_its_outputs_stay_what_they_were(tmp_path: Path) -> None:
    model = mlp(tmp_path / "m.onnx")
    artifact, _ = built(model, Precision.FP32, tmp_path / "o", [])
    session = OpenvinoRunner(CPU).open(artifact)
    one, other = random_feeds(model, 2)
    kept = session.run(one)
    before = kept["y"].copy()
    session.run(other)
    np.testing.assert_array_equal(kept["y"], before)
    with pytest.raises(Exception, match="no input 'z'"):
        session.run({**one, "z": one["x"]})
    np.testing.assert_array_equal(session.run({"x": one["x"][:, ::-1][:, ::-1]})["y"], before)
    session.close()
    session.close()
    with pytest.raises(RunError, match="is closed"):
        session.run(one)


@pytest.mark.slow
@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize(
    "words", ["meta=1.0;ov=2019.1.0;isa=Intel AVX2", "meta=1.0;ov=2026.4.1;isa=Quantum", "", "nonsense"]
)
def test_an_artifact_of_another_openvino_or_instruction_set_is_refused(words: str, tmp_path: Path) -> None:
    artifact, _ = built(mlp(tmp_path / "m.onnx"), Precision.FP32, tmp_path / "o", [])
    other = Artifact(artifact.root, replace(artifact.manifest, compatibility=words))
    with pytest.raises(IncompatibleArtifactError, match="the blob was compiled for") as caught:
        OpenvinoRunner(CPU).open(other)
    assert "build it again" in caught.value.advice


@pytest.mark.slow
@pytest.mark.usefixtures("_installed")
def test_a_truncated_blob_is_a_clear_error(tmp_path: Path) -> None:
    artifact, _ = built(mlp(tmp_path / "m.onnx"), Precision.FP32, tmp_path / "o", [])
    blob = artifact.entry.read_bytes()
    for keep in (0, 100, 300, len(blob) // 2):
        artifact.entry.write_bytes(blob[:keep])
        with pytest.raises(ToolchainError, match=r"cannot load compiled\.blob"):
            call(run_all, {"artifact": artifact, "feeds": []}, what="openvino", timeout_s=LIMIT_S)
    artifact.entry.unlink()
    with pytest.raises(StorageError, match="cannot be read"):
        OpenvinoRunner(CPU).open(artifact)


@pytest.mark.usefixtures("_installed")
def test_a_blob_of_another_model_is_refused(tmp_path: Path) -> None:
    artifact, _ = built(mlp(tmp_path / "m.onnx"), Precision.FP32, tmp_path / "o", [])
    (tensor,) = artifact.manifest.outputs
    other = replace(artifact.manifest, outputs=(replace(tensor, name="elsewhere"),))
    with pytest.raises(IncompatibleArtifactError, match="disagree on outputs: elsewhere"):
        OpenvinoRunner(CPU).open(Artifact(artifact.root, other))


@pytest.mark.slow
@pytest.mark.usefixtures("_installed")
def test_an_input_that_nothing_reads_stays_one_of_the_models(tmp_path: Path) -> None:
    values = [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, 2]) for name in ("x", "unread", "y")]
    graph = helper.make_graph([helper.make_node("Relu", ["x"], ["y"])], "g", values[:2], values[2:])
    model = save(graph, tmp_path / "m.onnx")
    feeds = random_feeds(model, 1)
    _, rows = built(model, Precision.FP32, tmp_path / "o", feeds)
    np.testing.assert_array_equal(rows[0]["y"], np.maximum(feeds[0]["x"], 0))
    with pytest.raises(DataError, match="'unread' is missing"):
        built(model, Precision.FP32, tmp_path / "p", [{"x": feeds[0]["x"]}])


@pytest.mark.usefixtures("_installed")
def test_options_reach_openvino(tmp_path: Path) -> None:
    artifact, rows = built(
        mlp(tmp_path / "m.onnx"),
        Precision.FP32,
        tmp_path / "o",
        random_feeds(tmp_path / "m.onnx", 1),
        num_streams="2",
        performance_hint="THROUGHPUT",
        inference_num_threads="2",
    )
    assert rows[0]["y"].shape == (1, 10)
    assert artifact.manifest.compile.vendor_options["num_streams"] == "2"


@pytest.mark.usefixtures("_installed")
@pytest.mark.parametrize("device", ["npu", "gpu"])
def test_without_a_device_compile_says_so_instead_of_running_elsewhere(device: str, tmp_path: Path) -> None:
    target = OpenvinoTarget(device)
    if target.probe().available:
        pytest.skip("the device is here")
    arguments = {
        "target": target.name,
        "model": mlp(tmp_path / "m.onnx"),
        "precision": Precision.FP16,
        "folder": tmp_path / "o",
    }
    with pytest.raises(MissingToolchainError, match=f"offers no {device.upper()}"):
        call(build, arguments, what=target.name, timeout_s=LIMIT_S)


@pytest.mark.usefixtures("_installed")
def test_what_openvino_cannot_read_is_a_compile_error_in_its_words(tmp_path: Path) -> None:
    node = helper.make_node("Det", ["x"], ["y"], name="det")
    values = [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 2])]
    results = [helper.make_tensor_value_info("y", TensorProto.FLOAT, [])]
    path = save(helper.make_graph([node], "g", values, results), tmp_path / "m.onnx")
    with pytest.raises(CompileError, match="Det"):
        built(path, Precision.FP32, tmp_path / "o", [])


@pytest.mark.parametrize(
    ("device", "precision", "hint"),
    [
        ("cpu", Precision.FP32, "f32"),
        ("cpu", Precision.A8W8, "f32"),
        ("cpu", Precision.BF16, "bf16"),
        ("npu", Precision.A8W8, "f16"),
        ("gpu", Precision.FP32, "f32"),
        ("gpu", Precision.FP16, "f16"),
    ],
)
def test_the_precision_is_always_said(device: str, precision: Precision, hint: str) -> None:
    engine = engine_for(OpenvinoTarget(device), precision, {"performance_hint": "THROUGHPUT"})
    assert engine.device == device.upper()
    assert engine.config["INFERENCE_PRECISION_HINT"] == hint
    assert engine.config["PERFORMANCE_HINT"] == "THROUGHPUT"


@pytest.mark.parametrize(
    ("vendor", "words"),
    [
        ({"num_streams": "0"}, "impossible"),
        ({"inference_num_threads": "-1"}, "impossible"),
        ({"performance_hint": "latency"}, "impossible"),
        ({"num_threads": "2"}, "no option"),
        ({"inference_precision_hint": "bf16"}, "not yours"),
        ({"cache_dir": "/tmp"}, "not yours"),  # noqa: S108 - a value that is refused
    ],
)
def test_options_are_checked_before_the_vendor_sees_them(tmp_path: Path, vendor: dict[str, str], words: str) -> None:
    model = open_model(mlp(tmp_path / "m.onnx"))
    with pytest.raises(OptionError, match=words):
        CPU.compile(model, CompileOptions(precision=Precision.FP32, vendor=vendor), tmp_path)


def test_threads_are_an_option_of_the_cpu_alone(tmp_path: Path) -> None:
    options = CompileOptions(precision=Precision.FP16, vendor={"inference_num_threads": "2"})
    with pytest.raises(OptionError, match="openvino:npu has no option"):
        OpenvinoTarget("npu").compile(open_model(mlp(tmp_path / "m.onnx")), options, tmp_path)


def test_precisions_follow_the_device(tmp_path: Path) -> None:
    for target, precision in (("openvino", Precision.FP16), ("openvino:npu", Precision.BF16)):
        with pytest.raises(OptionError, match=f"{target} cannot do {precision}"):
            build(target, mlp(tmp_path / "m.onnx"), precision, tmp_path / "o")
    with pytest.raises(UnsupportedModelError, match="no quantizers"):
        build("openvino", mlp(tmp_path / "m.onnx"), Precision.A8W8, tmp_path / "o")


def test_names_round_trip_and_unknown_devices_are_named() -> None:
    names = [open_target(name).name for name in ("openvino", "openvino:cpu", "openvino:npu", "openvino:gpu")]
    assert names == ["openvino", "openvino", "openvino:npu", "openvino:gpu"]
    with pytest.raises(UnknownTargetError, match="tpu"):
        open_target("openvino:tpu")


def test_the_probe_knows_devices_by_the_kernel_alone(tmp_path: Path) -> None:
    kernel, dev = tmp_path / "sys", tmp_path / "dev"
    assert missing_device("cpu", machine="x86_64") == missing_device("cpu", machine="aarch64") == ""
    assert "no code for riscv64" in missing_device("cpu", machine="riscv64")
    assert "intel_vpu" in missing_device("npu", sys=kernel, dev=dev)
    for kind, folder, node in (("npu", "accel", "accel/accel0"), ("gpu", "drm", "dri/renderD128")):
        vendor = kernel / "class" / folder / Path(node).name / "device" / "vendor"
        vendor.parent.mkdir(parents=True)
        vendor.write_text("0x1002\n")
        assert f"no Intel {kind.upper()}" in missing_device(kind, sys=kernel, dev=dev)
        vendor.write_text("0x8086\n")
        assert "may not be opened by this user" in missing_device(kind, sys=kernel, dev=dev)
        (dev / node).parent.mkdir(parents=True)
        (dev / node).touch()
        assert missing_device(kind, sys=kernel, dev=dev) == ""


def test_a_probe_imports_nothing_of_openvino(tmp_path: Path) -> None:
    code = "import json, sys; from npuops.targets.registry import open_target\n"
    code += "p = [open_target(f'openvino:{d}').probe().available for d in ('cpu', 'npu', 'gpu')]\n"
    code += "print(json.dumps(['openvino' in sys.modules, len(p)]))"
    assert json.loads(_python(code, tmp_path)) == [False, 3]


def _python(code: str, folder: Path) -> str:
    return subprocess.run([sys.executable, "-c", code], cwd=folder, capture_output=True, text=True, check=True).stdout
