"""What needs OpenVINO's device is skipped with the probe's own words (the plugin offers its CPU on Intel only)."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper

from npuops.artifacts.manifest import Artifact
from npuops.build.metrics import cosine, top1_agreement
from npuops.build.reference import run_reference
from npuops.build.samples import Samples
from npuops.errors import IncompatibleArtifactError, MissingToolchainError, OptionError, UnknownTargetError
from npuops.models.open import open_model
from npuops.models.placement import RunsOn
from npuops.targets.child import call
from npuops.targets.openvino import OpenvinoRunner, OpenvinoTarget, engine_for, missing_device
from npuops.targets.protocol import CompileOptions, Precision
from npuops.targets.registry import open_target
from npuops.units import Basis
from onnx_models import mlp
from ort_targets import (
    Feeds,
    build,
    build_and_run,
    photo_feeds,
    profile_of,
    promises_kept,
    quantized,
    random_feeds,
)

CPU = OpenvinoTarget("cpu")
LIMIT_S = 240.0


@pytest.fixture
def _device() -> None:
    probe = CPU.probe()
    if not probe.available:
        pytest.skip(probe.why_not)


def built(
    model: Path, precision: Precision, folder: Path, feeds: list[Feeds], **vendor: str
) -> tuple[Artifact, list[Feeds]]:
    arguments = {"target": "openvino", "model": model, "precision": precision, "folder": folder, "feeds": feeds}
    artifact, rows = call(build_and_run, {**arguments, "vendor": vendor}, what="openvino", timeout_s=LIMIT_S).value
    return artifact, rows


def test_it_keeps_every_promise_of_a_target_or_says_why_it_cannot(tmp_path: Path) -> None:
    outcomes = promises_kept("openvino", mlp(tmp_path / "m.onnx"), Precision.FP32, tmp_path / "s")
    assert len(outcomes) == 6
    assert {outcome.skipped for outcome in outcomes} <= {"", CPU.probe().why_not}


@pytest.mark.usefixtures("_device")
def test_the_int8_mobilenet_runs_whole_and_sees_what_the_float_one_sees(
    mobilenet: Path, shared_models: Path, tmp_path: Path
) -> None:
    image, photos = pytest.importorskip("PIL.Image"), shared_models / "inputs" / "photos"
    model = quantized(mobilenet, tmp_path / "q", photo_feeds(photos, image, (0.0, 0.3, 0.5, 0.7, 1.0)))
    feeds = photo_feeds(photos, image)
    artifact, rows = built(model, Precision.A8W8, tmp_path / "o", feeds)
    assert {node.runs_on for node in artifact.manifest.placement.nodes} == {RunsOn.NPU}
    (name,) = (tensor.name for tensor in artifact.manifest.outputs)
    got, samples = np.stack([row[name] for row in rows]), Samples(inputs=tuple(feeds), source="photos", digest="")
    assert (top1_agreement(got, run_reference(mobilenet, samples)[name]) or 0) >= 5 / 6
    assert (cosine(got, run_reference(model, samples)[name]) or 0) > 0.97
    profile = call(profile_of, {"artifact": artifact, "feed": feeds[0]}, what="profile", timeout_s=LIMIT_S).value
    assert (profile.basis, profile.unit) == (Basis.MEASURED, "us")
    assert "Convolution" in {cost.op for cost in profile.ops}


@pytest.mark.usefixtures("_device")
def test_fp32_is_float32_although_openvino_would_choose_bf16_silently(mobilenet: Path, tmp_path: Path) -> None:
    feeds = random_feeds(mobilenet, 1)
    _, rows = built(mobilenet, Precision.FP32, tmp_path / "fp32", feeds)
    (wanted,) = run_reference(mobilenet, Samples(inputs=tuple(feeds), source="random", digest="")).values()
    (got,) = rows[0].values()
    np.testing.assert_allclose(got, wanted[0], atol=1e-4)


@pytest.mark.usefixtures("_device")
def test_an_artifact_of_another_instruction_set_is_refused(tmp_path: Path) -> None:
    artifact, _ = built(mlp(tmp_path / "m.onnx"), Precision.FP32, tmp_path / "o", [])
    words = json.loads(artifact.manifest.compatibility)
    words["ov_compat_string"] = "meta=1.0;ov=2019.1.0;isa=Quantum"
    other = Artifact(artifact.root, replace(artifact.manifest, compatibility=json.dumps(words)))
    with pytest.raises(IncompatibleArtifactError, match="cannot load"):
        OpenvinoRunner(CPU).open(other)


def test_without_a_device_compile_says_so_instead_of_running_elsewhere(tmp_path: Path) -> None:
    if CPU.probe().available:
        pytest.skip("the device is here")
    with pytest.raises(MissingToolchainError, match="offers no device"):
        built(mlp(tmp_path / "m.onnx"), Precision.FP32, tmp_path / "o", [])


@pytest.mark.parametrize(
    ("device", "precision", "hint"),
    [
        ("cpu", Precision.FP32, "f32"),
        ("cpu", Precision.A8W8, "f32"),
        ("cpu", Precision.BF16, "bf16"),
        ("npu", Precision.A8W8, "f16"),
        ("gpu", Precision.FP16, "f16"),
    ],
)
def test_the_precision_is_always_said(device: str, precision: Precision, hint: str) -> None:
    engine = engine_for(OpenvinoTarget(device), precision, {"num_streams": "2"})
    config = json.loads(engine.provider_options["load_config"])
    assert config == {device.upper(): {"INFERENCE_PRECISION_HINT": hint, "NUM_STREAMS": "2"}}
    assert engine.device == {"ov_device": device.upper()}


@pytest.mark.parametrize(
    ("vendor", "words"),
    [
        ({"num_streams": "0"}, "impossible"),
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


def test_precisions_follow_the_device(tmp_path: Path) -> None:
    for target, precision in (("openvino", Precision.FP16), ("openvino:npu", Precision.BF16)):
        with pytest.raises(OptionError, match=f"{target} cannot do {precision}"):
            build(target, mlp(tmp_path / "m.onnx"), precision, tmp_path / "o")


def test_names_round_trip_and_unknown_devices_are_named() -> None:
    assert [open_target(name).name for name in ("openvino", "openvino:cpu", "openvino:npu")] == [
        "openvino",
        "openvino",
        "openvino:npu",
    ]
    with pytest.raises(UnknownTargetError, match="tpu"):
        open_target("openvino:tpu")


def test_the_probe_knows_processors_and_devices_by_the_kernel_alone(tmp_path: Path) -> None:
    proc, sys = tmp_path / "proc", tmp_path / "sys"
    proc.mkdir()
    assert "unknown" in missing_device("cpu", proc=proc, sys=sys)
    (proc / "cpuinfo").write_text("processor\t: 0\nvendor_id\t: AuthenticAMD\n")
    assert "AuthenticAMD" in missing_device("cpu", proc=proc, sys=sys)
    (proc / "cpuinfo").write_text("processor\t: 0\nvendor_id\t: GenuineIntel\n")
    assert missing_device("cpu", proc=proc, sys=sys) == ""
    assert "offline" in missing_device("npu", proc=proc, sys=sys)
    for kind, folder in (("npu", "accel/accel0"), ("gpu", "drm/card0")):
        vendor = sys / "class" / folder / "device" / "vendor"
        vendor.parent.mkdir(parents=True)
        vendor.write_text("0x1002\n")
        assert missing_device(kind, proc=proc, sys=sys) != ""
        vendor.write_text("0x8086\n")
        assert missing_device(kind, proc=proc, sys=sys) == ""


def test_check_takes_the_mobilenet_whole_and_leaves_out_what_openvino_lacks(mobilenet: Path, tmp_path: Path) -> None:
    assert CPU.check(open_model(mobilenet)).placement.fallback_ratio.ops == 0
    node = helper.make_node("Det", ["x"], ["y"], name="det")
    values = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in (("x", [2, 2]), ("y", []))
    ]
    graph = helper.make_graph([node], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), tmp_path / "m.onnx")
    (place,) = CPU.check(open_model(tmp_path / "m.onnx")).placement.nodes
    assert (place.runs_on, place.found) == (RunsOn.CPU, "Det: not translated")
