"""The Ethos-U target on real models: writer, Vela, and two references that agree bit for bit."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import version_converter

from npuops.errors import (
    CompileError,
    IncompatibleArtifactError,
    OptionError,
    StorageError,
    ToolchainError,
    UnknownTargetError,
    UnsupportedModelError,
)
from npuops.models.open import open_model
from npuops.models.placement import RunsOn
from npuops.targets.conformance import Subject, as_artifact, check_all
from npuops.targets.ethos_u_configs import CONFIGURATIONS
from npuops.targets.ethos_u_reference import REFERENCES
from npuops.targets.protocol import CompileOptions, Precision
from npuops.targets.registry import open_target
from npuops.units import Basis
from qdq_nets import Array, Net, quantize, reference_artifact, run_qdq, run_reference

pytest.importorskip("ethosu", reason="extra ethos-u is not installed")
image = pytest.importorskip("PIL.Image", reason="extra images is not installed")

OPTIONS = CompileOptions(precision=Precision.A8W8)


def crops(folder: Path, size: int, count: int, seed: int) -> list[Array]:
    """Random crops of the photos in `folder`, f32[1,3,size,size] in -1..1."""
    random = np.random.default_rng(seed)
    photos = [np.asarray(image.open(path).convert("RGB")) for path in sorted(folder.iterdir())]
    made = []
    for index in range(count):
        photo = photos[index % len(photos)]
        side = int(min(photo.shape[:2]) * random.uniform(0.6, 1.0))
        top, left = (int(random.integers(0, size_ - side + 1)) for size_ in photo.shape[:2])
        cut = image.fromarray(photo[top : top + side, left : left + side]).resize((size, size))
        made.append((np.asarray(cut, dtype=np.float32) / 127.5 - 1).transpose(2, 0, 1)[None])
    return made


def small_net(folder: Path) -> tuple[Path, Net]:
    net = Net(seed=5)
    x = net.input("x", 1, 3, 12, 12)
    a = net.add("Relu", net.add("Conv", x, net.weight(8, 3, 3, 3), net.weight(8), pads=[1, 1, 1, 1]))
    b = net.add("Relu", net.add("Conv", a, net.weight(8, 1, 3, 3), net.weight(8), pads=[1, 1, 1, 1], group=8))
    c = net.add("Flatten", net.add("GlobalAveragePool", net.add("Add", a, b)))
    d = net.add("Softmax", net.add("Gemm", c, net.weight(8, 5), net.weight(5)))
    return quantize(net.model(d), net.samples(8), folder), net


def resnet_like(net: Net) -> onnx.ModelProto:
    """Stem, max pool, two residual blocks (one strided with a projection), mean, classifier."""
    x = net.input("x", 1, 3, 32, 32)
    y = net.add("Relu", net.add("Conv", x, net.weight(8, 3, 7, 7), net.weight(8), pads=[3, 3, 3, 3], strides=[2, 2]))
    y = net.add("MaxPool", y, kernel_shape=[3, 3], strides=[2, 2], pads=[1, 1, 1, 1])
    for stride, width, before in ((1, 8, 8), (2, 16, 8)):
        a = net.add(
            "Conv", y, net.weight(width, before, 3, 3), net.weight(width), pads=[1, 1, 1, 1], strides=[stride, stride]
        )
        a = net.add("Conv", net.add("Relu", a), net.weight(width, width, 3, 3), net.weight(width), pads=[1, 1, 1, 1])
        if stride > 1:
            y = net.add("Conv", y, net.weight(width, before, 1, 1), net.weight(width), strides=[stride, stride])
        y = net.add("Relu", net.add("Add", a, y))
    y = net.add("Flatten", net.add("GlobalAveragePool", y))
    return net.model(net.add("Gemm", y, net.weight(16, 10), net.weight(10)))


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["ethos-u55-128", "ethos-u85-256"])
def test_target_keeps_every_promise_of_the_seam(variant: str, tmp_path: Path) -> None:
    qdq, net = small_net(tmp_path)
    subject = Subject(
        target=open_target(f"ethos-u:{variant}"),
        model=open_model(qdq),
        precision=Precision.A8W8,
        inputs=net.samples(1, seed=3)[0],
        scratch=tmp_path / "scratch",
    )
    subject.scratch.mkdir()
    outcomes = check_all(subject)
    assert len(outcomes) == 6
    assert not [outcome for outcome in outcomes if outcome.skipped]


@pytest.mark.slow
def test_every_accelerator_compiles_and_larger_ones_need_fewer_cycles(tmp_path: Path) -> None:
    qdq, _ = small_net(tmp_path)
    cycles: dict[str, int] = {}
    for variant, row in CONFIGURATIONS.items():
        folder = tmp_path / variant
        folder.mkdir()
        made = open_target(f"ethos-u:{variant}").compile(open_model(qdq), OPTIONS, folder)
        assert made.notes["system_config"] == row.system_config
        assert made.notes["memory_mode"] == row.memory_mode
        assert set(made.reference_files) == set(made.files) - {made.entry}, "the device needs what Vela wrote alone"
        assert {place.runs_on for place in made.placement} == {RunsOn.NPU}
        cycles[variant] = int(made.notes["cycles_npu"])
    assert cycles["ethos-u55-32"] > cycles["ethos-u55-256"]
    assert cycles["ethos-u85-128"] > cycles["ethos-u85-2048"]


def test_profile_gives_cycles_of_each_layer_that_add_up_to_the_estimate(tmp_path: Path) -> None:
    qdq, net = small_net(tmp_path)
    target, model = open_target("ethos-u:ethos-u65-256"), open_model(qdq)
    made = target.compile(model, OPTIONS, tmp_path)
    inputs = net.samples(1)[0]
    subject = Subject(target=target, model=model, precision=Precision.A8W8, inputs=inputs, scratch=tmp_path)
    profile = target.profile(as_artifact(subject, made, tmp_path), inputs)
    assert (profile.basis, profile.unit) == (Basis.VENDOR_ESTIMATE, "cycles")
    named = {op.name for op in profile.ops}
    assert {"conv_0", "add_4"} <= named, "Vela reports in the node names of the ONNX graph"
    assert profile.total == pytest.approx(float(made.notes["cycles"]), rel=0.01)


@pytest.mark.slow
def test_mobilenet_v2_is_whole_on_the_npu_bit_exact_and_agrees_with_onnx_runtime(
    mobilenet: Path, shared_models: Path, tmp_path: Path
) -> None:
    photos = shared_models / "inputs" / "photos"
    qdq = quantize(mobilenet, [{"x": crop} for crop in crops(photos, 224, 24, 1)], tmp_path)
    tests = crops(photos, 224, 12, 2)
    artifact, _ = reference_artifact(qdq, {"x": tests[0]}, tmp_path)
    litert = REFERENCES["litert"].open(artifact)
    got = [litert.run({"x": crop}) for crop in tests]
    wanted = [run_qdq(qdq, {"x": crop}) for crop in tests]
    name = next(iter(got[0]))
    agreeing = [a[name].argmax() == b[name].argmax() for a, b in zip(got, wanted, strict=True)]
    assert np.mean(agreeing) >= 11 / 12
    assert np.mean([np.abs(a[name] - b[name]).max() for a, b in zip(got, wanted, strict=True)]) < 0.05
    for crop in tests[:3]:
        _, raw = run_reference("litert", artifact, {"x": crop})
        _, tosa = run_reference("tosa", artifact, {"x": crop})
        assert np.array_equal(raw[name], tosa[name])


@pytest.mark.slow
@pytest.mark.parametrize("variant", ["ethos-u55-128", "ethos-u85-256"])
@pytest.mark.parametrize(
    ("file", "name", "shape"),
    [
        ("vision/mobilenet_v2_1.0_224_fp32.onnx", "x", (1, 3, 224, 224)),
        ("vision/mobilenet_v1_0.25_128_fp32.onnx", "x", (1, 3, 128, 128)),
        ("vision/ultraface_rfb_320_fp32.onnx", "input", (1, 3, 240, 320)),
        ("vision/yunet_n_640_fp32.onnx", "input", (1, 3, 640, 640)),
        (None, "x", (1, 3, 32, 32)),
    ],
)
def test_check_foretells_what_vela_places(
    file: str | None, name: str, shape: tuple[int, ...], variant: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    if file is None:
        proto = resnet_like(Net(seed=8))
    else:
        shared: Path = request.getfixturevalue("shared_models")
        proto = version_converter.convert_version(onnx.load(shared / file), 17)
    random = np.random.default_rng(4)
    samples = [{name: random.uniform(-1, 1, size=shape).astype(np.float32)} for _ in range(2)]
    qdq = quantize(proto, samples, tmp_path)
    model, target = open_model(qdq), open_target(f"ethos-u:{variant}")
    foretold = [place for place in target.check(model).placement.nodes if place.runs_on is RunsOn.CPU]
    made = target.compile(model, OPTIONS, tmp_path)
    placed = [place for place in made.placement if place.runs_on is RunsOn.CPU]
    assert (foretold, placed) == ([], [])
    assert len(made.placement) > 10


def test_resize_by_three_is_foretold_for_the_cpu_of_u55_and_vela_says_why(tmp_path: Path) -> None:
    net = Net(seed=1)
    x = net.add("Conv", net.input("x", 1, 3, 5, 5), net.weight(4, 3, 1, 1), net.weight(4))
    size = net.constant(np.array([1, 4, 15, 15], np.int64))
    y = net.add("Resize", x, "", "", size, mode="nearest", coordinate_transformation_mode="half_pixel")
    qdq = quantize(net.model(y), net.samples(4), tmp_path)
    target = open_target("ethos-u:ethos-u55-128")
    foretold = [p for p in target.check(open_model(qdq)).placement.nodes if p.runs_on is RunsOn.CPU]
    made = target.compile(open_model(qdq), OPTIONS, tmp_path)
    placed = [p for p in made.placement if p.runs_on is RunsOn.CPU]
    assert [p.op for p in foretold] == ["Resize"]
    assert [p.name for p in placed] == [foretold[0].name]
    assert "scale-factor" in placed[0].rule


@pytest.mark.slow
def test_real_int8_tflite_goes_straight_to_vela_and_to_the_references(shared_models: Path, tmp_path: Path) -> None:
    model = open_model(shared_models / "tiny" / "ic_resnet8_int8.tflite")
    target = open_target("ethos-u:ethos-u55-128")
    made = target.compile(model, OPTIONS, tmp_path)
    assert {place.runs_on for place in made.placement} == {RunsOn.NPU}
    image_ = np.random.default_rng(1).integers(-128, 127, size=(1, 32, 32, 3)).astype(np.int8)
    feeds = {model.inputs[0].name: image_}
    subject = Subject(target=target, model=model, precision=Precision.A8W8, inputs=feeds, scratch=tmp_path)
    artifact = as_artifact(subject, made, tmp_path)
    litert, tosa = (run_reference(name, artifact, feeds)[0][model.outputs[0].name] for name in ("litert", "tosa"))
    assert litert.dtype == np.int8  # the source model takes and gives integers
    apart = np.abs(litert.astype(int) - tosa.astype(int)).max()
    assert apart <= 1, "its FULLY_CONNECTED is rounded once by LiteRT and twice by TOSA"


@pytest.mark.slow
def test_graph_that_the_tosa_converter_refuses_keeps_its_words(shared_models: Path, tmp_path: Path) -> None:
    model = open_model(shared_models / "vision" / "mobilenet_v2_1.0_224_int8.tflite")
    target = open_target("ethos-u:ethos-u85-256")
    made = target.compile(model, OPTIONS, tmp_path)
    feeds = {model.inputs[0].name: np.zeros((1, 224, 224, 3), np.uint8)}
    subject = Subject(target=target, model=model, precision=Precision.A8W8, inputs=feeds, scratch=tmp_path)
    with pytest.raises(ToolchainError, match=r"it said:\n.+"):
        REFERENCES["tosa"].open(as_artifact(subject, made, tmp_path))


def test_unknown_variants_options_and_precisions_are_refused_with_the_nearest(tmp_path: Path) -> None:
    with pytest.raises(UnknownTargetError) as unknown:
        open_target("ethos-u:ethos-u85-265")
    assert "ethos-u85-256" in unknown.value.advice
    with pytest.raises(UnknownTargetError, match="needs an accelerator"):
        open_target("ethos-u")
    qdq, _ = small_net(tmp_path)
    target, model = open_target("ethos-u:ethos-u55-128"), open_model(qdq)
    wrong = {"optimize": "Size"}, {"system-config": "Ethos_U85_SYS_DRAM_Mid"}, {"memory-mode": "Dedicated_Sram"}
    for vendor in wrong:
        with pytest.raises(OptionError):
            target.compile(model, CompileOptions(precision=Precision.A8W8, vendor=vendor), tmp_path)
    with pytest.raises(OptionError, match="fp32"):
        target.compile(model, CompileOptions(precision=Precision.FP32), tmp_path)


def test_operator_that_vela_cuts_into_commands_is_placed_once(tmp_path: Path) -> None:
    qdq, _ = small_net(tmp_path)
    made = open_target("ethos-u:ethos-u55-128").compile(open_model(qdq), OPTIONS, tmp_path)
    ops = [place.op for place in made.placement]
    assert (ops.count("Softmax"), ops.count("Mean")) == (1, 1)


def test_options_reach_vela(tmp_path: Path) -> None:
    qdq, _ = small_net(tmp_path)
    vendor = {"system-config": "Ethos_U55_Deep_Embedded", "memory-mode": "Sram_Only", "optimise": "Size"}
    options = CompileOptions(precision=Precision.A8W8, vendor=vendor)
    made = open_target("ethos-u:ethos-u55-32").compile(open_model(qdq), options, tmp_path)
    assert (made.notes["system_config"], made.notes["core_clock_hz"]) == ("Ethos_U55_Deep_Embedded", "200000000")
    assert made.notes["memory_mode"] == "Sram_Only"


def test_float_model_is_refused_with_every_node_named(tmp_path: Path) -> None:
    net = Net(seed=2)
    x = net.add("Conv", net.input("x", 1, 3, 8, 8), net.weight(4, 3, 3, 3), net.weight(4))
    onnx.save(net.model(net.add("Erf", x)), tmp_path / "float.onnx")
    with pytest.raises(UnsupportedModelError) as refused:
        open_target("ethos-u:ethos-u55-128").compile(open_model(tmp_path / "float.onnx"), OPTIONS, tmp_path)
    assert "conv_0" in refused.value.message
    assert "erf_1" in refused.value.message
    assert "quantize" in refused.value.advice


def test_float_tflite_is_refused(shared_models: Path, tmp_path: Path) -> None:
    model = open_model(shared_models / "tiny" / "ic_resnet8_fp32.tflite")
    with pytest.raises(CompileError, match="float TFLite"):
        open_target("ethos-u:ethos-u55-128").compile(model, OPTIONS, tmp_path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write anywhere")
def test_folder_without_permission_is_a_storage_error(tmp_path: Path) -> None:
    qdq, _ = small_net(tmp_path)
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o500)
    with pytest.raises(StorageError):
        open_target("ethos-u:ethos-u55-128").compile(open_model(qdq), OPTIONS, closed)


def test_absent_folder_is_a_storage_error(tmp_path: Path) -> None:
    qdq, _ = small_net(tmp_path)
    with pytest.raises(StorageError):
        open_target("ethos-u:ethos-u55-128").compile(open_model(qdq), OPTIONS, tmp_path / "gone")


def test_artifact_whose_files_are_not_ours_is_refused(tmp_path: Path) -> None:
    qdq, net = small_net(tmp_path)
    artifact, _ = reference_artifact(qdq, net.samples(1)[0], tmp_path)
    (tmp_path / "model.tflite").write_bytes((tmp_path / "model.tflite").read_bytes()[:200])
    for runner in REFERENCES.values():
        with pytest.raises((ToolchainError, IncompatibleArtifactError)):
            runner.open(artifact)
