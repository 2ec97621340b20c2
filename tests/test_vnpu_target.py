from __future__ import annotations

import json
import re
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper, numpy_helper

from command_line import npuops
from onnx_models import save
from virtual_devices import home

__all__ = ["home"]
from npuops.artifacts.folder import open_artifact
from npuops.artifacts.latency_figures import latency_figures
from npuops.errors import CompileError, UnknownTargetError
from npuops.models.open import open_model
from npuops.models.placement import RunsOn
from npuops.models.zoo import zoo_model
from npuops.targets.protocol import CompileOptions, Precision
from npuops.targets.registry import open_target
from npuops.testing import check_target
from npuops.units import Basis
from npuops.vnpu.figures import Figure
from npuops.vnpu.profile import load_profile, profile_names
from npuops.vnpu.session import VnpuSession
from npuops.vnpu.target import VnpuTarget

CNN = zoo_model("digits-cnn")


@pytest.mark.slow
def test_the_target_keeps_the_promises_of_the_seam() -> None:
    kept = {outcome.promise for outcome in check_target("vnpu:rk3588", CNN.model) if not outcome.skipped}
    assert "sessions_obey" in kept


@pytest.mark.parametrize("name", profile_names())
def test_every_profile_tells_placement_fit_latency_and_energy_of_a_real_model(name: str) -> None:
    report = open_target(f"vnpu:{name}").check(open_model(CNN.model))
    assert report.latency is not None
    assert report.energy is not None
    assert report.latency.basis is Basis.MODELLED
    assert report.latency.low_us < report.latency.us < report.latency.high_us
    assert report.fits.ok
    assert {node.runs_on for node in report.placement.nodes} <= {RunsOn.NPU, RunsOn.CPU}


@pytest.mark.slow
def test_an_artifact_runs_on_a_device_with_the_quantized_graphs_numbers(tmp_path: Path) -> None:
    out = tmp_path / "digits.npuops"
    words = npuops(
        "build", "zoo:digits-cnn", "--target", "vnpu:rk3588", "-o", out, NPUOPS_CACHE=str(tmp_path / "cache")
    )
    assert "pass" in words
    artifact = open_artifact(out)
    session = open_target("vnpu:rk3588").runner.open(artifact)  # type: ignore[union-attr]
    try:
        assert isinstance(session, VnpuSession)
        image = np.zeros((1, 1, 8, 8), np.float32)
        logits = session.run({"image": image})["logits"]
        assert logits.shape == (1, 10)
        assert session.last is not None
        assert session.last.finished_us > session.last.started_us
    finally:
        session.close()


@pytest.mark.slow
def test_what_the_chip_would_take_is_told_as_modelled_beside_the_hosts_time(tmp_path: Path) -> None:
    out, feed = tmp_path / "digits.npuops", tmp_path / "zero.npy"
    npuops("build", "zoo:digits-cnn", "--target", "vnpu:rk3588", "-o", out, NPUOPS_CACHE=str(tmp_path / "cache"))
    np.save(feed, np.zeros((1, 1, 8, 8), np.float32))
    expected = open_target("vnpu:rk3588").check(open_model(CNN.model)).latency
    assert expected is not None
    (figure,) = latency_figures(open_artifact(out).manifest)
    assert figure.basis is Basis.MODELLED
    assert figure.us == pytest.approx(expected.us, rel=0.1)
    answer = json.loads(npuops("run", out, "--input", feed, "--json"))
    assert answer["latency"]["basis"] == "emulated"
    modelled = answer["modelled"]
    assert (modelled["basis"], modelled["latency_us"], modelled["wait_us"]) == ("modelled", figure.us, 0)
    assert modelled["energy_mj"] > 0
    assert modelled["temperature_c"] >= 40
    assert modelled["clock_mhz"] == 1000
    assert "the chip would take" in npuops("run", out, "--input", feed)


@pytest.mark.slow
def test_time_spent_waiting_for_a_neighbour_is_not_the_models(tmp_path: Path, home: Path) -> None:
    del home
    out, feed = tmp_path / "digits.npuops", tmp_path / "zero.npy"
    npuops("build", "zoo:digits-cnn", "--target", "vnpu:rk3588", "-o", out, NPUOPS_CACHE=str(tmp_path / "cache"))
    (alone,) = latency_figures(open_artifact(out).manifest)
    np.save(feed, np.zeros((1, 1, 8, 8), np.float32))
    npuops("device", "up", "vnpu:rk3588", "--name", "npu0", "--pacing", "fast")
    npuops("device", "inject", "npu0", "noisy_neighbour", "--priority", "normal")
    found = json.loads(npuops("run", out, "--input", feed, "--json", NPUOPS_DEVICE="npu0"))["modelled"]
    npuops("device", "down", "npu0")
    assert found["wait_us"] > 0
    assert found["latency_us"] - found["wait_us"] == pytest.approx(alone.us, abs=0.01)


@pytest.mark.slow
def test_profile_shows_where_the_modelled_time_goes(tmp_path: Path) -> None:
    out = tmp_path / "digits.npuops"
    npuops("build", "zoo:digits-cnn", "--target", "vnpu:rk3588", "-o", out, NPUOPS_CACHE=str(tmp_path / "cache"))
    assert "us (modelled)" in npuops("profile", out)


def small(name: str, mib: float) -> VnpuTarget:
    """A chip with less memory than its data sheet says."""
    chip = load_profile(name)
    memory = replace(chip.memory, dram_mib=Figure(value=mib, key="test", source="a test"))
    return VnpuTarget(replace(chip, memory=memory))


def test_what_does_not_fit_is_not_said_to_fit_and_is_not_compiled(tmp_path: Path) -> None:
    target, model = small("rk3588", 0.01), open_model(CNN.model)
    fits = target.check(model).fits
    assert not fits.ok
    assert fits.weights_bytes + (fits.peak_activation_bytes or 0) > (fits.limit_bytes or 0)
    with pytest.raises(CompileError, match=r"cannot hold the model: DRAM would have to hold"):
        target.compile(model, CompileOptions(precision=Precision.A8W8), tmp_path)


@pytest.mark.slow
def test_check_tells_where_weights_and_activations_live_and_what_leaves_the_chip(tmp_path: Path) -> None:
    roomy = npuops("check", "zoo:digits-cnn", "--target", "vnpu:stm32n6")
    assert "fit       yes: weights" in roomy
    assert "in flash (61.0 MiB)" in roomy
    assert "activations: 6.0 KiB in chip memory (2.8 MiB)" in roomy
    text = files("npuops.vnpu").joinpath("profiles/stm32n6.toml").read_text(encoding="utf-8")
    tight = tmp_path / "tight.toml"
    tight.write_text(text.replace("pool_kib = { value = 2816", "pool_kib = { value = 4"), encoding="utf-8")
    fits = json.loads(npuops("check", "zoo:digits-cnn", "--target", f"vnpu:{tight}", "--json"))["fits"]
    assert fits["ok"]
    places = {(use["what"], use["where"]): use["bytes"] for use in fits["uses"]}
    assert places["activations", "chip memory"] + places["activations", "DRAM"] == fits["peak_activation_bytes"]
    assert places["weights", "flash"] == fits["weights_bytes"]
    tight.write_text(text.replace("flash_mib = { value = 61", "flash_mib = { value = 0.01"), encoding="utf-8")
    refused = npuops("check", "zoo:digits-cnn", "--target", f"vnpu:{tight}", code=1)
    assert "the model does not fit: flash would have to hold about 29" in refused


def test_a_model_without_fixed_sizes_is_not_said_to_fit_and_gets_no_latency(tmp_path: Path) -> None:
    shape, conv = ["batch", 3, 8, 8], helper.make_node("Conv", ["x", "w"], ["y"], name="conv")
    graph = helper.make_graph(
        [conv],
        "dynamic",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["batch", 4, 6, 6])],
        [numpy_helper.from_array(np.ones((4, 3, 3, 3), np.float32), "w")],
    )
    path = save(graph, tmp_path / "dynamic.onnx")
    loose = open_target("vnpu:rk3588").check(open_model(path))
    assert not loose.fits.ok
    assert "--shape" in loose.fits.note
    assert loose.latency is loose.energy is None
    fixed = open_target("vnpu:rk3588").check(open_model(path, shapes={"x": (1, 3, 8, 8)}))
    assert fixed.fits.ok
    assert fixed.latency is not None


def test_detections_of_unknown_number_are_left_out_and_the_source_says_so(shared_models: Path) -> None:
    report = open_target("vnpu:rk3588").check(
        open_model(shared_models / "vision" / "ssd_mobilenet_v1_300_uint8.tflite")
    )
    assert report.fits.ok
    assert report.fits.note == "not counted: tensors of unknown size on the host (4)"
    assert report.latency is not None
    assert report.latency.source.endswith("; layers of unknown size left out: 1")


def test_an_operator_whose_work_is_unknown_gets_no_latency(shared_models: Path) -> None:
    compiled = open_model(shared_models / "tiny" / "person_detect_vela.tflite")
    assert open_target("vnpu:rk3588").check(compiled).latency is None


@pytest.mark.slow
def test_a_profile_of_ones_own_builds_runs_and_prices_by_its_own_figures(tmp_path: Path) -> None:
    text = files("npuops.vnpu").joinpath("profiles/rk3588.toml").read_text(encoding="utf-8")
    mine, out, image = tmp_path / "mine.toml", tmp_path / "digits.npuops", tmp_path / "zero.npy"
    slow = re.sub(r'(?m)^"overhead.inference" = .*', '"overhead.inference" = 70000', text)
    mine.write_text(slow.replace('name = "rk3588"', 'name = "mine"'), encoding="utf-8")
    target = open_target(f"vnpu:{mine}")
    assert target.name == f"vnpu:{mine}"
    npuops("build", "zoo:digits-cnn", "--target", f"vnpu:{mine}", "-o", out, NPUOPS_CACHE=str(tmp_path / "cache"))
    np.save(image, np.zeros((1, 1, 8, 8), np.float32))
    assert "on vnpu:" in npuops("run", out, "--input", image)
    session = target.runner.open(open_artifact(out))  # type: ignore[union-attr]
    try:
        assert isinstance(session, VnpuSession)
        session.run({"image": np.zeros((1, 1, 8, 8), np.float32)})
        assert session.last is not None
        assert session.last.finished_us - session.last.started_us > 70_000
    finally:
        session.close()


def test_weights_count_as_the_chip_holds_them_not_as_the_file_does() -> None:
    model = open_model(CNN.model)
    fits = open_target("vnpu:rk3588").check(model).fits
    assert model.weight_bytes * 0.25 <= fits.weights_bytes < model.weight_bytes * 0.3


def test_a_precision_that_the_chip_lacks_is_refused(tmp_path: Path) -> None:
    options = CompileOptions(precision=Precision.A16W8)
    with pytest.raises(CompileError, match="has no a16w8"):
        open_target("vnpu:coral-edgetpu").compile(open_model(CNN.model), options, tmp_path)


def test_an_unknown_profile_names_the_nearest() -> None:
    with pytest.raises(UnknownTargetError) as raised:
        open_target("vnpu:rk3558")
    assert "rk3588" in raised.value.advice
    with pytest.raises(UnknownTargetError, match="needs a profile"):
        open_target("vnpu")


@pytest.mark.slow
@pytest.mark.usefixtures("home")
def test_an_artifact_runs_on_the_device_that_the_user_names_and_on_no_other(tmp_path: Path) -> None:
    out, image = tmp_path / "digits.npuops", tmp_path / "zero.npy"
    npuops("build", "zoo:digits-cnn", "--target", "vnpu:rk3588", "-o", out, NPUOPS_CACHE=str(tmp_path / "cache"))
    np.save(image, np.zeros((1, 1, 8, 8), np.float32))
    npuops("device", "up", "vnpu:rk3588", "--name", "npu0", "--pacing", "fast")
    npuops("device", "up", "vnpu:dpu-b4096", "--name", "other", "--pacing", "fast")
    before = busy_us("npu0")
    npuops("run", out, "--input", image, NPUOPS_DEVICE="npu0")
    assert busy_us("npu0") > before
    assert "other is a dpu-b4096" in npuops("run", out, "--input", image, NPUOPS_DEVICE="other", code=1)
    assert "gone" in npuops("run", out, "--input", image, NPUOPS_DEVICE="gone", code=3)


def busy_us(name: str) -> float:
    answer = json.loads(npuops("device", "status", name, "--json"))
    return float(answer["telemetry"]["busy_us"])
