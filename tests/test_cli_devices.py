from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

import device_trees
from command_line import npuops
from npuops.vnpu.device_folder import device_folder
from npuops.vnpu.device_switch import up
from virtual_devices import home, order, processes, wait_until  # noqa: F401 - a fixture


def answer(root: Path, *flags: str, code: int = 0) -> Any:
    return json.loads(npuops("devices", "--root", root, "--json", *flags, code=code))


def test_the_table_has_what_is_known_and_a_dash_for_what_is_not(tmp_path: Path) -> None:
    device_trees.apex(tmp_path)
    heading, row, _, reason, *past = npuops("devices", "--root", tmp_path).splitlines()
    assert heading.split() == [
        "name",
        "device",
        "driver",
        "firmware",
        "health",
        "busy",
        "memory",
        "clock",
        "temp",
        "power",
    ]
    assert row.split() == [
        "apex_0",
        "Google",
        "Coral",
        "Edge",
        "TPU",
        "apex",
        "1.0.2",
        "-",
        "healthy",
        "-",
        "-",
        "-",
        "51.3",
        "°C",
        "-",
    ]
    assert reason.rstrip().split(maxsplit=1) == ["apex_0", "nothing wrong in resets, temperature_celsius, status"]
    assert [line.strip() for line in past] == ["since its driver was loaded: 1 reset (F1 device offline)"]


def test_json_says_value_unit_kind_and_source_or_why_not(tmp_path: Path) -> None:
    device_trees.ivpu_old(tmp_path)
    found = answer(tmp_path)
    assert (found["schema"], found["root"]) == ("npuops.devices/1", str(tmp_path))
    device = found["devices"][0]
    assert device["values"]["busy_seconds"] == {
        "value": 5.0,
        "unit": "s",
        "kind": "counter",
        "source": "/sys/class/accel/accel0/device/npu_busy_time_us",
    }
    assert device["values"]["busy_ratio"]["value"] == 0.0
    assert device["absent"]["memory_used_bytes"] == "this kernel has no npu_memory_utilization"
    assert device["health"]["level"] == "unknown"
    assert device["interval_seconds"] > 0.5, "two looks"


def test_the_documented_keys_are_the_keys(tmp_path: Path) -> None:
    page = (Path(__file__).resolve().parent.parent / "docs" / "devices.md").read_text(encoding="utf-8")
    device_trees.vnpu(tmp_path)
    found = answer(tmp_path)
    device = found["devices"][0]
    assert "`[{" + ", ".join(device) + "}]`" in page
    assert "`[{" + ", ".join(suspect(tmp_path)) + "}]`" in page
    assert "`{" + ", ".join(device["health"]) + "}`" in page
    assert "`[{" + ", ".join(device["tenants"][0]) + "}]`" in page
    assert all(f"`{key}`" in page for key in found)


def suspect(root: Path) -> dict[str, Any]:
    device_trees.write(root / "class/accel/accel0/device", {"status": "offline"})
    (found,) = answer(root)["devices"][0]["suspected"]
    assert (found["mode"], found["name"], found["evidence"]) == ("F1", "device offline", ["the driver says 'offline'"])
    return dict(found)


def test_a_suspicion_is_shown_with_its_evidence_and_what_to_do_and_the_past_apart(tmp_path: Path) -> None:
    device = device_trees.vnpu(tmp_path)
    device_trees.write(device, {"status": "hung", "refused_memory_count": 2})
    words = npuops("devices", "--root", tmp_path)
    assert "suspect F1 device offline: the driver says 'hung'" in words
    assert "reset it" in words
    assert "since its driver was loaded: 2 refusals (F4 out of memory)" in words


def test_without_a_device_it_says_where_it_looked_and_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "sys").mkdir()
    words = npuops("devices", "--root", tmp_path)
    assert "no NPU found in /sys/class/accel" in words
    assert "driver" in words
    assert answer(tmp_path)["devices"] == []


def test_without_a_device_it_says_how_to_see_the_virtual_ones_or_to_get_one(home: Path, tmp_path: Path) -> None:  # noqa: F811
    (tmp_path / "sys").mkdir()
    assert "a virtual NPU does: npuops device up vnpu:rk3588 --name npu0" in npuops("devices", "--root", tmp_path)
    up(order())
    words = npuops("devices", "--root", tmp_path)
    assert f"Virtual NPUs are up (npu0): npuops devices --root {home}" in words
    home.chmod(0o755)
    assert "a virtual NPU does" in npuops("devices", "--root", tmp_path)
    home.chmod(0o700)


def test_a_narrow_screen_shows_every_figure_below_the_other(tmp_path: Path) -> None:
    device_trees.vnpu(tmp_path, number=0)
    device_trees.vnpu(tmp_path, number=1)
    lines = npuops("devices", "--root", tmp_path, COLUMNS="40").splitlines()
    assert max(map(len, lines)) <= 40
    words = [line.rstrip().split(maxsplit=1) for line in lines]
    assert words.count(["temp", "40.0 °C"]) == 2
    assert words.count(["memory", "12.0 MiB of 1.0 GiB"]) == 2
    assert words.count(["priority", "focus"]) == 2


def test_an_npu_without_a_driver_is_shown_with_the_cure(tmp_path: Path) -> None:
    device_trees.pci_device(tmp_path, None, "8086:643e", "0000:00:0b.0")
    assert "Lunar Lake NPU has no driver: modprobe intel_vpu" in npuops("devices", "--root", tmp_path)
    assert answer(tmp_path)["driverless"][0]["module"] == "intel_vpu"


def test_check_is_1_unless_there_is_a_device_and_all_are_healthy(tmp_path: Path) -> None:
    answer(tmp_path, "--check", code=1)
    device = device_trees.vnpu(tmp_path)
    answer(tmp_path, "--check", code=0)
    device_trees.write(device, {"status": "hung"})
    assert answer(tmp_path, "--check", code=1)["devices"][0]["health"]["why"] == "the driver says 'hung'"
    answer(tmp_path, code=0)


def test_of_a_device_whose_processes_were_all_killed_the_tree_is_not_believed(home: Path) -> None:  # noqa: F811
    up(order())
    assert answer(home, "--check")["devices"][0]["health"]["level"] == "healthy"
    for pid in processes(home):
        os.kill(pid, signal.SIGSTOP)  # so that the keeper does not sweep
    for pid in processes(home):
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not processes(home), "killed processes")
    assert (device_folder("npu0").accel(0) / "device/status").read_text() == "online\n"
    (device,) = answer(home, "--check", code=1)["devices"]
    reason = "its process has ended and left its tree; npuops device down npu0"
    assert (device["health"]["level"], device["health"]["why"]) == ("gone", reason)
    assert [(each["mode"], each["evidence"]) for each in device["suspected"]] == [("F1", [reason])]
    assert (device["values"], device["tenants"], device["earlier"]) == ({}, [], [])
    up(order())
    assert answer(home, "--check")["devices"][0]["health"]["level"] == "healthy"


def test_tenants_are_listed_below_the_devices(tmp_path: Path) -> None:
    device_trees.vnpu(tmp_path)
    last = npuops("devices", "--root", tmp_path).splitlines()[-1]
    assert last.split() == ["accel0", "4242", "-", "focus", "0%", "0.0", "s", "4.0", "KiB", "7", "0"]


@pytest.mark.parametrize(
    "flags",
    [
        ("--interval", "0.5"),
        ("--interval", "nan"),
        ("--follow", "--interval", "0.5"),
        ("--watch", "--check"),
        ("--watch", "--follow"),
        ("--follow", "--check"),
        ("--root", "/nowhere"),
    ],
)
def test_an_impossible_call_is_refused_with_advice(flags: tuple[str, ...]) -> None:
    assert "advice:" in npuops("devices", *flags, code=2)


def test_a_watch_prints_a_line_for_each_look_until_it_is_interrupted(tmp_path: Path) -> None:
    device = device_trees.vnpu(tmp_path)
    command = [sys.executable, "-c", "from npuops.cli.main import main; main()", "devices"]
    command += ["--root", str(tmp_path), "--watch", "--json"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as watch:
        assert watch.stdout is not None
        first = json.loads(watch.stdout.readline())
        device_trees.write(device, {"throttle_count": 4})
        second = json.loads(watch.stdout.readline())
        watch.send_signal(signal.SIGINT)
        watch.stdout.read()
    assert watch.returncode == 0
    assert [each["devices"][0]["health"]["level"] for each in (first, second)] == ["healthy", "degraded"]


def test_lines_of_json_are_utf_8_in_any_locale_and_a_name_that_is_no_text_is_an_error(tmp_path: Path) -> None:
    root = Path(f"{tmp_path}/\udcff")
    device_trees.vnpu(root)
    for flags in (("--watch",), ()):
        told = npuops("devices", "--root", root, "--json", *flags, code=2, PYTHONIOENCODING="ascii")
        assert json.loads(told)["error"] == "UsageError"


def test_names_from_a_hostile_tree_cannot_steer_the_terminal(tmp_path: Path) -> None:
    device = device_trees.vnpu(tmp_path)
    device_trees.write(device, {"vbnv": "\x1b[2J[red]evil[/red]", "uevent": "DRIVER=vnpu\nVNPU_NAME=\x1b]0;x\x07"})
    words = npuops("devices", "--root", tmp_path)
    assert "\x1b" not in words
    assert "[red]evil[/red]" in words
