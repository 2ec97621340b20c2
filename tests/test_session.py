from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from manifest_examples import manifest
from npuops.artifacts.manifest import Artifact
from npuops.errors import (
    DataError,
    DeviceLostError,
    DeviceMemoryError,
    IncompatibleArtifactError,
    NpuopsError,
    RunError,
    UnsupportedModelError,
)
from npuops.models.model import TensorInfo
from npuops.vnpu.control_client import control
from npuops.vnpu.device_folder import all_folders
from npuops.vnpu.device_switch import down, up
from npuops.vnpu.pacing import Pacing
from npuops.vnpu.program_file import ENTRY, ProgramFile, encode_program
from npuops.vnpu.session import VnpuRunner
from virtual_devices import SPEC, home, order, program, relu_model, wait_until

__all__ = ["home"]

pytestmark = pytest.mark.usefixtures("home")

RUNNER = VnpuRunner(spec_of=lambda _: SPEC)


@pytest.fixture
def artifact(tmp_path: Path) -> Artifact:
    """Not sealed: sessions get artifacts that were verified before."""
    return built(tmp_path, "toy-npu")


def built(folder: Path, profile: str, *, batch: int | None = 4, compiler: str = "2.1.0") -> Artifact:
    relu_model(folder).rename(folder / "model.onnx")
    file = ProgramFile(profile=profile, compiler=compiler, program=program())
    (folder / ENTRY).write_bytes(encode_program(file))
    described = manifest(
        target=f"vnpu:{profile}",
        entry=ENTRY,
        inputs=(TensorInfo(name="x", dtype="float32", shape=(batch, 8)),),
        outputs=(TensorInfo(name="y", dtype="float32", shape=(batch, 8)),),
    )
    return Artifact(folder, described)


def x() -> np.ndarray:
    return np.linspace(-1, 1, 32, dtype=np.float32).reshape(4, 8)


def test_a_session_has_a_device_of_its_own_that_goes_with_it(artifact: Artifact) -> None:
    session = RUNNER.open(artifact)
    (own,) = all_folders()
    assert own.is_up()
    assert session.last is None
    outputs = session.run({"x": x()})
    np.testing.assert_array_equal(outputs["y"], np.maximum(x(), 0))
    assert session.last is not None
    assert session.last.busy_us == 1_000
    session.close()
    session.close()
    wait_until(lambda: all_folders() == (), "the device of a closed session")
    with pytest.raises(RunError, match="closed"):
        session.run({"x": x()})


def test_a_session_on_a_named_device_leaves_it_up_and_sees_it_die(artifact: Artifact) -> None:
    up(order("shared"))
    session = VnpuRunner(spec_of=lambda _: SPEC, device="shared").open(artifact)
    with pytest.raises(DataError, match="missing"):
        session.run({})
    session.run({"x": x()})
    session.close()
    again = VnpuRunner(spec_of=lambda _: SPEC, device="shared").open(artifact)
    down("shared")
    with pytest.raises(DeviceLostError):
        again.run({"x": x()})
    again.close()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("fault", "kind", "words"),
    [
        ({"kind": "offline"}, DeviceLostError, "shared: the device is off"),
        ({"kind": "driver_crash"}, DeviceLostError, "shared: the device is gone"),
        ({"kind": "hang"}, DeviceLostError, "shared: the device does not answer"),
        ({"kind": "oom_pressure", "share": 1.0}, DeviceMemoryError, "shared: out of device memory: asked for"),
        ({"kind": "unsupported_op", "op": "Relu"}, UnsupportedModelError, "shared: the device has no Relu"),
        (
            {"kind": "version_mismatch", "part": "firmware", "version": "1.0.0"},
            IncompatibleArtifactError,
            "shared: Incompatible FW JSM API version: 1.0.0",
        ),
    ],
)
def test_a_device_that_cannot_take_it_says_which_it_is_and_why(
    artifact: Artifact, fault: dict[str, Any], kind: type[NpuopsError], words: str
) -> None:
    up(order("shared"))
    with control("shared") as looker:
        looker.inject(fault)
        with pytest.raises(kind, match=words) as raised:
            VnpuRunner(spec_of=lambda _: SPEC, device="shared").open(artifact)
        assert raised.value.advice
        wait_until(lambda: looker.status().telemetry.contexts == (), "the context of a session that never was")


def test_a_device_whose_time_stands_still_is_told_from_one_that_hangs(artifact: Artifact) -> None:
    up(order("shared", pacing=Pacing.MANUAL))
    session = VnpuRunner(spec_of=lambda _: SPEC, device="shared", timeout_s=0.05).open(artifact)
    with pytest.raises(DeviceLostError, match="did not answer") as raised:
        session.run({"x": x()})
    assert "its pacing is manual" in raised.value.advice
    session.close()


def test_another_chip_compiler_or_shape_is_refused_and_nothing_stays_up(tmp_path: Path) -> None:
    up(order("shared"))
    for number, (changes, words) in enumerate(
        (
            ({"profile": "rk9999"}, "built for vnpu:rk9999, shared is a toy-npu"),
            ({"profile": "toy-npu", "compiler": "9.0"}, "NOT compatible"),
            ({"profile": "toy-npu", "batch": None}, "static shapes only"),
        )
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        with pytest.raises(IncompatibleArtifactError, match=words):
            VnpuRunner(spec_of=lambda _: SPEC, device="shared").open(built(folder, **changes))  # type: ignore[arg-type]
    folder = tmp_path / "own"
    folder.mkdir()
    with pytest.raises(IncompatibleArtifactError):
        RUNNER.open(built(folder, "toy-npu", compiler="9.0"))
    wait_until(lambda: [each.name for each in all_folders()] == ["shared"], "a device of a session that never was")
