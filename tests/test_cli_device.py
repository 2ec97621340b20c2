from __future__ import annotations

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from command_line import npuops
from npuops.vnpu.client import connect
from npuops.vnpu.control_client import control
from npuops.vnpu.device_folder import device_folder
from virtual_devices import SPEC_FILE, X, Y, home, kill, program

__all__ = ["home"]

pytestmark = pytest.mark.usefixtures("home")


def said(*arguments: object, code: int = 0) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(npuops("device", *arguments, "--json", code=code))
    if code == 0:
        assert found["schema"] == "npuops.device/1"
    return found


@pytest.mark.slow
def test_the_life_of_a_device(home: Path) -> None:
    first = said("up", "--spec", SPEC_FILE, "--name", "npu0", "--pacing", "fast", "--seed", 3)
    assert (first["name"], first["state"], first["status"], first["root"]) == ("npu0", "up", "online", str(home))
    assert [each["name"] for each in said("list")["devices"]] == ["npu0"]
    with connect("npu0") as client:
        loaded = client.load(program(), X, Y)
        loaded.wait(loaded.submit(0))
        seen = said("status", "npu0")["telemetry"]
        assert [(each["pid"], each["completions"]) for each in seen["contexts"]] == [(os.getpid(), 1)]
        page = npuops("device", "status", "npu0")
    for words in ("toy-npu, online", "firmware 3.2.0", "1000 of 1000 MHz", "°C, cool", "(modelled)", "normal"):
        assert words in page
    assert "healthy" in npuops("devices", "--root", str(home))
    assert said("down", "npu0") == {"schema": "npuops.device/1", "name": "npu0", "was_up": True}
    assert said("list")["devices"] == []
    assert "no virtual device" in npuops("device", "list")


@pytest.mark.slow
def test_faults_and_resets_by_command() -> None:
    npuops("device", "up", "--spec", SPEC_FILE, "--pacing", "manual")
    assert said("inject", "npu0", "hang")["status"] == "hung"
    assert said("reset", "npu0")["status"] == "resetting"
    said("inject", "npu0", "slow_dma", "--factor", 3, "--for", 5)
    said("inject", "npu0", "--clear")
    assert said("inject", "npu0", "driver_crash")["status"] == "offline"
    assert said("status", "npu0")["telemetry"]["life"] == "gone", "a dead driver can still be asked by its maker"
    assert said("reset", "npu0")["status"] == "resetting"
    for arguments, words in (
        (("inject", "npu0", "hagn"), "did you mean 'hang'"),
        (("inject", "npu0", "slow_dma"), "needs factor"),
        (("inject", "npu0", "hang", "--share", 0.5), "takes no share"),
        (("inject", "npu0"), "either a fault or --clear"),
        (("inject", "npu0", "hang", "--clear"), "either a fault or --clear"),
        (("inject", "npu0", "ecc_corrected", "--count", 2**63), "count must be from 1"),
    ):
        assert words in npuops("device", *arguments, code=2)
    assert "64 bits" in npuops("device", "inject", "npu0", "ecc_corrected", "--count", 2**70, code=3)


@pytest.mark.slow
def test_firmware_is_attested_updated_and_refused(tmp_path: Path) -> None:
    npuops("device", "up", "--spec", SPEC_FILE, "--pacing", "fast")
    assert said("firmware", "npu0")["verified"] is True
    image = tmp_path / "new.bin"
    said("firmware", "npu0", "--make", image, "--version", "3.9.0")
    said("firmware", "npu0", "--update", image)
    assert "instead of" in npuops("device", "firmware", "npu0", code=1), "flashed, and not booted yet"
    npuops("device", "reset", "npu0")
    with connect("npu0") as client:  # its next answer is after the boot, in fast pacing
        loaded = client.load(program(), X, Y)
        loaded.wait(loaded.submit(0))
    assert said("firmware", "npu0")["version"] == "3.9.0"
    assert said("firmware", "npu0", "--expect", image)["verified"] is True

    tampered = tmp_path / "tampered.bin"
    data = bytearray(image.read_bytes())
    data[-70] ^= 1
    tampered.write_bytes(data)
    said("firmware", "npu0", "--update", tampered)
    npuops("device", "reset", "npu0")
    for _ in range(200):
        seen = said("status", "npu0")
        if seen["status"] != "resetting":
            break
    assert seen["status"] == "offline"
    assert "not signed by the vendor" in seen["telemetry"]["why"]
    assert "no firmware runs" in npuops("device", "firmware", "npu0", code=3)
    assert "no firmware image" in npuops("device", "firmware", "npu0", "--update", SPEC_FILE, code=1)
    assert "--make FILE goes with" in npuops("device", "firmware", "npu0", "--make", image, code=2)
    for arguments in (("--make", image, "--version", "1.0.0"), ("--update", image)):
        words = npuops("device", "firmware", "npu0", "--expect", image, *arguments, code=2)
        assert "give one of them" in words, "what was asked for is not left out in silence"


@pytest.mark.slow
def test_a_quote_in_a_file_is_verified_without_its_device(home: Path, tmp_path: Path) -> None:
    npuops("device", "up", "--spec", SPEC_FILE, "--pacing", "fast")
    nonce, file, key = "00112233" * 4, tmp_path / "quote.json", tmp_path / "device.pub"
    answer = said("quote", "npu0", "--nonce", nonce, "-o", file)
    assert (answer["nonce"], answer["quote"]) == (nonce, str(file))
    folder = home / "npu0"
    image, config = (sha256((folder / name).read_bytes()).hexdigest() for name in ("firmware.bin", "config"))
    key.write_bytes((folder / "device.pub").read_bytes())
    npuops("device", "up", "--spec", SPEC_FILE, "--name", "other")
    stranger = home / "other" / "device.pub"
    other_nonce = said("quote", "npu0")["nonce"]
    assert len(other_nonce) == 32, "fresh where none is given"
    npuops("device", "down", "npu0")

    def verified(code: int, **changed: object) -> str:
        given = {"key": key, "nonce": nonce, "image_sha256": image, "config_sha256": config, **changed}
        flags = [word for name, value in given.items() for word in (f"--{name.replace('_', '-')}", value)]
        return npuops("device", "verify", file, *flags, code=code)

    assert "verified: True" in verified(0)
    assert "not signed by this device" in verified(1, key=stranger)
    assert "another question" in verified(1, nonce=other_nonce)
    assert "firmware image" in verified(1, image_sha256="0" * 64)
    assert "configuration" in verified(1, config_sha256="0" * 64)
    assert "no nonce in hex" in verified(2, nonce="cafe?")
    assert "no SHA-256" in verified(2, config_sha256=config[:-1])
    assert "verified: True" in verified(0, image_sha256=image.upper())
    file.write_bytes(file.read_bytes().replace(image.encode(), b"0" * 64))
    assert "not signed" in verified(1, image_sha256="0" * 64)
    file.write_bytes(b"{")
    assert "no quote" in verified(1)


def test_a_plan_that_is_no_text_or_comes_through_a_link_is_answered(tmp_path: Path) -> None:
    plan = tmp_path / "plan.toml"
    plan.write_bytes(b"\xff\xfe")
    assert "no fault plan: 'utf-8'" in npuops("device", "up", "--spec", SPEC_FILE, "--plan", plan, code=2)
    plan.write_bytes(b"\n")
    assert "it is empty" in npuops("device", "up", "--spec", SPEC_FILE, "--plan", plan, code=2)
    plan.write_text('[[fault]]\nkind = "hang"\nat_s = 0.5\n', encoding="utf-8")
    link = tmp_path / "link.toml"
    link.symlink_to(plan)
    said("up", "--spec", SPEC_FILE, "--plan", link, "--pacing", "manual")
    with control("npu0") as client:
        client.advance(1_000_000)
        assert client.status().telemetry.status == "hung"


def test_the_air_around_a_device_is_where_its_temperature_begins() -> None:
    said("up", "--spec", SPEC_FILE, "--pacing", "manual", "--ambient", 41)
    assert said("status", "npu0")["telemetry"]["temperature_c"] == pytest.approx(41, abs=1)


def test_what_left_nothing_about_itself_is_listed_and_swept_up(home: Path) -> None:
    (home / "npu0").mkdir(parents=True)
    home.chmod(0o700)
    (home / "npu0" / "lock").touch()
    assert "npu0  gone  left nothing about itself" in npuops("device", "list")
    assert said("list")["devices"][0]["pid"] is None
    assert said("down", "npu0")["was_up"] is False
    assert said("list")["devices"] == []


@pytest.mark.slow
def test_a_killed_device_is_gone_in_the_list_and_down_sweeps_it_up() -> None:
    kill(said("up", "--spec", SPEC_FILE, "--pacing", "manual")["pid"])
    assert device_folder("npu0").stays_up(5) is False
    assert [each["state"] for each in said("list")["devices"]] == ["gone"]
    assert "its daemon died" in npuops("device", "status", "npu0", code=3)
    assert said("down", "npu0")["was_up"] is False
    assert "there is no device 'npu0'" in npuops("device", "down", "npu0", code=2)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("arguments", "words", "code"),
    [
        (("up",), "name one chip", 2),
        (("up", "vnpu:rk3588", "--spec", SPEC_FILE), "name one chip", 2),
        (("up", "vnpu:rk9999"), "'rk9999'", 2),
        (("up", "--spec", "none.toml"), "cannot read none.toml", 2),
        (("up", "--spec", SPEC_FILE, "--pacing", "slow"), "no pacing is called 'slow'", 2),
        (("up", "--spec", SPEC_FILE, "--plan", "none.toml"), "no fault plan", 2),
        (("up", "--spec", SPEC_FILE, "--plan", SPEC_FILE.parent), "no fault plan", 2),
        (("up", "--spec", SPEC_FILE, "--plan", "/dev/zero"), "not a regular file", 2),
        (("up", "--spec", SPEC_FILE, "--ambient", "200"), "ambient temperature of 200.0 °C", 2),
        (("up", "--spec", SPEC_FILE, "--ambient", "nan"), "ambient temperature of nan °C", 2),
        (("up", "--spec", SPEC_FILE, "--plan", SPEC_FILE), "unknown key", 2),
        (("up", "--spec", SPEC_FILE, "--name", "../x"), "no name of a device", 2),
        (("status", "npu9"), "no device of that name is up", 3),
        (("down", "npu9"), "there is no device 'npu9'", 2),
    ],
)
def test_wrong_use_is_said_and_starts_nothing(home: Path, arguments: tuple[object, ...], words: str, code: int) -> None:
    assert words in npuops("device", *arguments, code=code)
    assert list(home.glob("*/lock")) == []
