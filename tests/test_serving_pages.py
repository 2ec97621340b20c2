"""The live page of a real server under load, looked at in a real browser."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from live_browser import console, find_browser, is_hidden, part, visit
from npuops import app
from npuops.build.options import BuildOptions
from npuops.cli.demo_models import digits
from npuops.events import ignore
from npuops.targets.protocol import Precision
from npuops.vnpu.daemon import Order
from npuops.vnpu.device_spec import spec_of
from npuops.vnpu.device_switch import up
from npuops.vnpu.pacing import Pacing
from running_server import wait_for
from serve_process import Served, load, served
from virtual_devices import home_at

pytestmark = pytest.mark.slow
"""Whole servers and clients as processes: minutes together; CI runs them."""

CHIP = "vnpu:rk3588"
NPU = f"{CHIP}/npu0"
DIGITS = digits()
PICTURE: NDArray[Any] = np.asarray(DIGITS.evaluation.inputs[0]["image"])
OPTIONS = f"""fallback = "allow"
[[device]]
target = "{CHIP}"
name = "npu0"
[[device]]
target = "ort-cpu"
fallback = true
"""


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    """A model on a virtual NPU, with this processor to fall back on."""
    options = BuildOptions(precision=Precision.A8W8, use_cache=False)
    folder = tmp_path / "repo" / "digits"
    (folder / "1").mkdir(parents=True)
    for name, target in (("npu", CHIP), ("cpu", "ort-cpu")):
        app.run_request(DIGITS.request(target, options), folder / "1" / name, observe=ignore)
    (folder / "model.toml").write_text(OPTIONS)
    return tmp_path / "repo"


def figures(server: Served) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(server.http("GET", "/live.json")[1])
    return found


def figure(page: str, chart: str) -> str:
    """What a chart's label says, as a screen reader reads it."""
    match = re.search(rf'aria-label="({chart}: [^"]*)"', page)
    assert match, chart
    return match[1]


@pytest.mark.slow
def test_the_page_of_a_busy_server_shows_load_latency_queue_devices_and_heat(repository: Path, tmp_path: Path) -> None:
    browser = find_browser()
    with home_at(tmp_path / "devices"):
        up(Order(name="npu0", spec=spec_of(CHIP), pacing=Pacing.REALTIME))
        with served(repository, tmp_path / "tmp") as server:
            server.ready("digits")
            with load(server.http_port, "digits", PICTURE, clients=8, name="image") as told:
                wait_for(lambda: len([p for p in figures(server)["points"] if p["requests"]]) > 2, "no figures")
                wait_for(lambda: any(chip["temperature_celsius"] for chip in figures(server)["chips"]), "no heat")
                done = visit(browser, tmp_path, f"http://127.0.0.1:{server.http_port}/")
            assert server.end() == 0
    assert told.problems == []
    page = done.stdout
    assert console(done) == []
    assert part(page, "status") == "live"
    assert is_hidden(page, "notice")
    assert is_hidden(page, "empty")
    assert not is_hidden(page, "devices")
    assert re.search(r"answered [1-9]\d*", figure(page, "Requests per second"))
    assert re.search(r"p99 [\d.]+ (µs|ms|s)", figure(page, "Latency"))
    assert re.search(r"in flight \d+", figure(page, "Queue"))
    devices = part(page, "devices")
    assert NPU in devices
    assert "virtual rk3588 · modelled" in devices
    assert re.search(r"Temperature\s+[\d.]+ °C", devices)
    models = part(page, "models")
    assert f"digits / 1 / {NPU}" in models
    assert "digits / 1 / ort-cpu" in models
    assert models.count("ready") == 2
    assert "worker ready after" in page
