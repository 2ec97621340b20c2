"""`npuops demo`, as a user starts it, with the virtual chip as the only target: the others have tests of their own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import ROOT
from npuops.cli.demo import DEVICE, PLAN
from virtual_devices import home_at, processes, wait_until

ONE_TARGET = "from npuops.cli import demo; demo.PLAN = (demo.DEVICE,)"
COOL = "from npuops.cli import demo_device as d; d.ENCLOSURE_C = -40.0; d.tell.__kwdefaults__['patience_s'] = 2"


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with home_at(tmp_path / "devices") as folder:
        yield folder


def started(folder: Path, *arguments: str, before: str = ONE_TARGET) -> subprocess.Popen[str]:
    clean = {name: value for name, value in os.environ.items() if name != "COLUMNS"}
    return subprocess.Popen(
        [sys.executable, "-c", f"{before}; from npuops.cli.main import main; main()", "demo", *arguments],
        cwd=folder,
        env={**clean, "NPUOPS_CACHE": str(folder / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def demo(folder: Path, *arguments: str, code: int = 0, before: str = ONE_TARGET) -> str:
    process = started(folder, *arguments, before=before)
    shown, said = process.communicate(timeout=120)
    assert process.returncode == code, shown + said
    return shown


def nothing_stays(home: Path) -> None:
    wait_until(lambda: processes(home) == [], "the demo's device lives on")
    assert list(home.glob("demo-*/socket")) == []
    assert list(home.glob("sys/class/accel/*")) == []


def test_the_device_is_one_of_the_targets() -> None:
    assert DEVICE in PLAN


@pytest.mark.slow
def test_a_user_sees_the_table_the_mistake_and_the_device(tmp_path: Path, home: Path) -> None:
    shown = demo(tmp_path)
    (row,) = [line.split() for line in shown.splitlines() if line.startswith(DEVICE[0]) and "modelled" in line]
    assert row[1:4] == ["a8w8", "100%", "0.9944"]
    assert row[-1] == "pass"
    assert "calibrated on blank inputs" in shown
    stages = [line for line in shown.splitlines() if "MHz" in line and "°C" in line]
    assert len(stages) == 4
    assert [line.split()[-1] for line in stages] == ["healthy", "healthy", "F2", "healthy"]
    assert "3 jobs on the cores were lost" in shown
    assert "THROTTLED_MHZ=" in shown
    assert "STATUS=resetting" in shown
    assert len(list((tmp_path / "demo-out").glob("*.report.html"))) == 2
    asked = [line.split() for line in shown.splitlines() if "/s" in line and " ms " in line and "MHz" not in line]
    assert [line[0] for line in asked] == ["alone", "worker", "version"]
    assert "lost     none of " in shown
    nothing_stays(home)


@pytest.mark.slow
def test_programs_get_the_same(tmp_path: Path, home: Path) -> None:
    answer = json.loads(demo(tmp_path, "--json"))
    assert answer["schema"] == "npuops.demo/1"
    (row,) = answer["rows"]
    assert [figure["basis"] for figure in row["latency"]] == ["modelled"]
    device = answer["device"]
    page = (ROOT / "docs" / "demo.md").read_text(encoding="utf-8")
    serving = answer["serving"]
    parts = (row, device, device["stages"][0], device["reset"], device["uevents"][0], serving, serving["stages"][0])
    for found in parts:
        assert "{" + ", ".join(found) + "}" in page
    assert all(f"`{key}`" in page for key in answer)
    assert serving["as_promised"]
    assert [stage["lost"] for stage in serving["stages"]] == [0, 0, 0]
    assert device["as_promised"]
    assert device["basis"] == "modelled"
    assert [stage["same_answers"] for stage in device["stages"]] == [360] * 4
    assert [stage["throttles"] > 0 for stage in device["stages"]] == [False, False, True, True]
    assert [stage["resets"] for stage in device["stages"]] == [0, 0, 0, 1]
    alone = device["stages"][0]
    assert row["latency"][0]["us"] == pytest.approx(alone["p50_us"], rel=0.01), "the prediction is what the device does"
    nothing_stays(home)


@pytest.mark.slow
def test_a_device_that_stays_cool_is_a_no(tmp_path: Path, home: Path) -> None:
    shown = demo(tmp_path, code=1, before=f"{ONE_TARGET}; {COOL}")
    assert "it did not throttle in" in shown
    assert "its trip point is at" in shown
    nothing_stays(home)


@pytest.mark.slow
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGKILL, -9)])
def test_however_it_is_ended_no_device_is_left(tmp_path: Path, home: Path, number: signal.Signals, code: int) -> None:
    process = started(tmp_path)
    # Two builds open devices of their own before; the demo's is the one with a name of its own.
    wait_until(lambda: any(home.glob("demo-*/socket")) or process.poll() is not None, "no device came up")
    process.send_signal(number)
    shown, said = process.communicate(timeout=120)
    assert process.returncode == code, shown + said
    nothing_stays(home)


def test_wrong_use_is_said_before_any_work(tmp_path: Path) -> None:
    assert demo(tmp_path, "digit", code=2) == ""
    assert list(tmp_path.iterdir()) == []
