from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from command_line import npuops
from virtual_devices import home

__all__ = ["home"]
from npuops.artifacts.folder import open_artifact
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
    with pytest.raises(CompileError, match=r"needs .* bytes"):
        target.compile(model, CompileOptions(precision=Precision.A8W8), tmp_path)


def test_weights_count_as_the_chip_holds_them_not_as_the_file_does() -> None:
    model = open_model(CNN.model)
    fits = open_target("vnpu:rk3588").check(model).fits
    assert model.weight_bytes * 0.2 < fits.weights_bytes < model.weight_bytes * 0.3


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
