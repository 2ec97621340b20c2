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

from npuops import app
from npuops.artifacts.manifest import Artifact
from npuops.build.options import BuildOptions
from npuops.cli.demo_models import digits
from npuops.clock import SystemClock
from npuops.events import ignore
from npuops.serving_chips import Chips, ChipUser
from npuops.targets.protocol import Precision
from npuops.vnpu.daemon import Order
from npuops.vnpu.device_spec import spec_of
from npuops.vnpu.device_switch import up
from npuops.vnpu.pacing import Pacing
from running_server import wait_for
from serve_process import infer_request, served
from virtual_devices import home_at

pytestmark = pytest.mark.slow
"""Whole servers and clients as processes: minutes together; CI runs them."""

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


def switch_on(name: str) -> None:
    up(Order(name=name, spec=spec_of(CHIP), pacing=Pacing.FAST))


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
