"""The chips behind the served models: found, matched with the models' devices, and shown."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from device_trees import amdxdna, ivpu_new, vnpu, write
from npuops import app
from npuops.artifacts.manifest import Artifact
from npuops.build.options import BuildOptions
from npuops.cli.demo_models import digits
from npuops.clock import SystemClock
from npuops.devices.sampler import Sample, Sampler
from npuops.devices.tree import Tree
from npuops.events import ignore
from npuops.serving_chips import OLD_US, Chips, ChipUser, ailments, chip_readings
from npuops.targets.protocol import Precision
from npuops.testing import ManualClock
from npuops.vnpu.control_client import control
from npuops.vnpu.daemon import Order
from npuops.vnpu.device_spec import spec_of
from npuops.vnpu.device_switch import up
from npuops.vnpu.pacing import Pacing
from running_server import Running, repository, serving, wait_for
from serve_process import infer_request, served
from virtual_devices import home_at

CHIP = "vnpu:rk3588"
DIGITS = digits()
PICTURE: NDArray[Any] = DIGITS.evaluation.inputs[0]["image"]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    options = BuildOptions(precision=Precision.A8W8, use_cache=False)
    return app.run_request(
        DIGITS.request(CHIP, options), tmp_path_factory.mktemp("built") / "npu", observe=ignore
    ).artifact


@pytest.fixture(autouse=True)
def _home(tmp_path: Path) -> Iterator[None]:
    with home_at(tmp_path / "devices"):
        yield


@pytest.fixture
def empty(tmp_path: Path) -> Path:
    """A machine without an NPU."""
    (tmp_path / "machine").mkdir()
    return tmp_path / "machine"


class Looks:
    """Looks at a tree, a second apart."""

    def __init__(self, root: Path) -> None:
        self.clock = ManualClock()
        self._sampler = Sampler(Tree(root), self.clock)

    def again(self, seconds: int = 1) -> tuple[Sample, ...]:
        self.clock.advance(seconds * 1_000_000)
        return self._sampler.sample()


NAMED = ChipUser(f"{CHIP}/npu0", 2)
CPU = ChipUser("ort-cpu", 1)


@pytest.mark.parametrize(
    ("files", "why", "answers"),
    [
        ({"status": "offline"}, "offline", False),
        ({"status": "hung"}, "hung", False),
        ({"hwmon/hwmon0/temp1_input": 119_000}, "overheated", True),
        ({"canary_fail_count": 1, "canary_count": 2}, "answers wrong", True),
        ({"ue_count": 1}, "uncorrected", True),
    ],
)
def test_a_chip_that_says_it_is_not_well_ails_those_who_use_it(
    tmp_path: Path, files: dict[str, object], why: str, answers: bool
) -> None:
    device = write(vnpu(tmp_path), {"canary_fail_count": 0, "canary_count": 1, "ue_count": 0})
    write(device, {"hwmon/hwmon0/temp1_crit": 115_000})
    looks = Looks(tmp_path)
    second = ChipUser(f"{CHIP}/npu0#2[1]", 3)
    assert ailments(looks.again(), [CPU, NAMED, second]) == {}
    write(device, files)
    found = ailments(looks.again(), [CPU, NAMED, second, ChipUser(f"{CHIP}/npu1", 4)])
    assert set(found) == {NAMED, second}
    assert found[NAMED].why.startswith(f"the device is {why}")
    assert found[NAMED].answers == answers
    assert found[NAMED].is_doubt == (why == "uncorrected")


@pytest.mark.parametrize("files", [{"throttle_count": 9}, {"reset_counter": 7}, {"ce_count": 99}])
def test_a_chip_that_is_slow_or_was_reset_goes_on(tmp_path: Path, files: dict[str, object]) -> None:
    device = vnpu(tmp_path)
    looks = Looks(tmp_path)
    looks.again()
    write(device, files)
    samples = looks.again()
    assert ailments(samples, [NAMED]) == {}
    [reading] = chip_readings(samples, [NAMED])
    assert reading.health in {"degraded", "unhealthy"}
    assert "since the last look" in reading.why
    assert reading.counters.keys() >= {"resets", "throttles", "corrected_errors", "refused_for_version"}


def test_a_chip_that_is_gone_is_missed_by_who_uses_it_and_comes_back(tmp_path: Path) -> None:
    vnpu(tmp_path / "tree")
    looks = Looks(tmp_path / "tree")
    looks.again()
    shutil.rmtree(tmp_path / "tree" / "class")
    samples = looks.again()
    assert "gone" in ailments(samples, [NAMED])[NAMED].why
    [reading] = chip_readings(samples, [NAMED])
    assert (reading.health, reading.temperature_celsius) == ("gone", None)
    assert list(chip_readings(samples, [CPU])) == []
    vnpu(tmp_path / "tree")
    assert ailments(looks.again(), [NAMED]) == {}


def test_a_device_of_a_sessions_own_that_went_with_its_worker_ails_nobody(tmp_path: Path) -> None:
    device = write(vnpu(tmp_path / "tree"), {"uevent": "DRIVER=vnpu\nVNPU_NAME=own-4711-abcd"})
    user = ChipUser(f"{CHIP}[1]", 4711)
    looks = Looks(tmp_path / "tree")
    looks.again()
    write(device, {"status": "offline"})
    samples = looks.again()
    assert set(ailments(samples, [user, ChipUser(f"{CHIP}[0]", 4710)])) == {user}
    shutil.rmtree(tmp_path / "tree" / "class")
    samples = looks.again()
    assert ailments(samples, [user]) == {}
    assert list(chip_readings(samples, [user])) == []


def test_the_only_chip_of_its_driver_is_that_of_its_target(tmp_path: Path) -> None:
    ivpu_new(tmp_path)
    user = ChipUser("openvino:npu", 5)
    looks = Looks(tmp_path)
    [reading] = chip_readings(looks.again(), [CPU, user])
    assert (reading.device, reading.basis) == ("openvino:npu", "measured")
    shutil.rmtree(tmp_path / "sys/class/accel")
    assert "gone" in ailments(looks.again(), [CPU, user])[user].why


def test_a_chip_that_no_target_is_known_for_is_nobodys(tmp_path: Path) -> None:
    amdxdna(tmp_path)
    [reading] = chip_readings(Looks(tmp_path).again(), [CPU, NAMED])
    assert reading.device == "amdxdna/0000:c5:00.1"


def test_an_old_look_says_nothing(tmp_path: Path, empty: Path) -> None:
    del tmp_path
    write(vnpu(empty), {"status": "offline"})
    clock = ManualClock()
    chips = Chips(clock, empty)
    try:
        wait_for(lambda: chips.ailments([NAMED]), "it is not seen")
        chips.close()
        clock.advance(OLD_US + 1)
        assert chips.ailments([NAMED]) == {}
        assert chips.readings([NAMED]), "the page shows it all the same"
    finally:
        chips.close()


def switch_on(name: str) -> None:
    up(Order(name=name, spec=spec_of(CHIP), pacing=Pacing.FAST))


@pytest.mark.slow
def test_virtual_devices_are_looked_for_only_when_a_model_uses_one(empty: Path) -> None:
    switch_on("npu0")
    chips = Chips(SystemClock(), empty)
    try:
        assert chips.readings([ChipUser("ort-cpu", 1)]) == ()
        users = [ChipUser("ort-cpu", 1), ChipUser(f"{CHIP}/npu0", 2), ChipUser(f"{CHIP}/npu0[1]", 3)]
        wait_for(lambda: any(chip.temperature_celsius for chip in chips.readings(users)), "the device is not found")
        [chip] = chips.readings(users)
        assert (chip.device, chip.basis) == (f"{CHIP}/npu0", "modelled")
        assert "rk3588" in chip.label
    finally:
        chips.close()


@pytest.mark.slow
def test_devices_that_no_model_uses_go_by_their_own_name_and_other_programs_private_ones_are_left_out(
    empty: Path,
) -> None:
    switch_on("spare")
    switch_on("own-99999-abcd")
    switch_on("own-4711-abcd")
    chips = Chips(SystemClock(), empty)
    try:
        users = [ChipUser(CHIP, 4711)]
        wait_for(lambda: len(chips.readings(users)) == 2, "the devices are not found")
        assert sorted(chip.device for chip in chips.readings(users)) == ["vnpu/spare", CHIP]
    finally:
        chips.close()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["npu0", ""], ids=["named device", "device of the session's own"])
def test_a_served_models_chip_is_in_the_live_figures(artifact: Artifact, tmp_path: Path, name: str) -> None:
    if name:
        switch_on(name)
    shutil.copytree(artifact.root, tmp_path / "repo" / "digits" / "1")
    device = f'name = "{name}"\n' if name else ""
    (tmp_path / "repo" / "digits" / "model.toml").write_text(f'[[device]]\ntarget = "{CHIP}"\n{device}')
    called = f"{CHIP}/{name}" if name else CHIP
    with served(tmp_path / "repo", tmp_path / "tmp") as server:
        server.ready("digits")
        body, headers = infer_request(np.asarray(PICTURE), "image")
        assert server.http("POST", "/v2/models/digits/infer", body, headers)[0] == 200

        def latest() -> dict[str, Any]:
            figures: dict[str, Any] = json.loads(server.http("GET", "/live.json")[1])
            return figures

        wait_for(lambda: any(chip["temperature_celsius"] for chip in latest()["chips"]), "no heat on the page")
        [chip] = [chip for chip in latest()["chips"] if chip["basis"] == "modelled"]
        assert chip["device"] == called
        assert server.end() == 0


def chip_on_page(server: Running) -> dict[str, Any]:
    figures = json.loads(server.http("GET", "/live.json")[2])
    return next((chip for chip in figures["chips"] if chip["device"] == f"{CHIP}/npu0"), {})


@pytest.mark.slow
def test_a_device_that_nobody_asks_is_drained_when_it_is_off_and_used_again_when_it_is_back(
    artifact: Artifact, tmp_path: Path
) -> None:
    switch_on("npu0")
    cpu = app.run_request(
        DIGITS.request("ort-cpu", BuildOptions(precision=Precision.A8W8, use_cache=False)),
        tmp_path / "cpu",
        observe=ignore,
    ).artifact
    devices = f'[[device]]\ntarget = "{CHIP}"\nname = "npu0"\n[[device]]\ntarget = "ort-cpu"\nfallback = true\n'
    options = f'fallback = "allow"\n{devices}'
    with serving(repository(tmp_path / "repo", "digits", {"npu": artifact, "cpu": cpu}, options)) as server:
        assert server.settled("digits") == ""
        wait_for(lambda: chip_on_page(server).get("health") == "healthy", "its health is not on the page")
        with control("npu0") as device:
            device.inject({"kind": "offline"})
            wait_for(lambda: server.states("digits")[f"{CHIP}/npu0"] == "sick", "nobody has noticed that it is off")
            wait_for(lambda: chip_on_page(server)["health"] == "unhealthy", "the page does not say it")
            answer = server.ask("digits", {"image": PICTURE})
            assert (answer.status, answer.device) == (200, "ort-cpu")
            metrics = server.http("GET", "/metrics")[2].decode()
            assert f'npu_health{{basis="modelled",device="{CHIP}/npu0",health="unhealthy"}} 1.0' in metrics
            device.clear_faults()
            device.reset()
        wait_for(lambda: server.states("digits")[f"{CHIP}/npu0"] == "ready", "it is not used again")
        answer = server.ask("digits", {"image": PICTURE})
        assert (answer.status, answer.device) == (200, f"{CHIP}/npu0")
