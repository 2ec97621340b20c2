"""Devices are switched on and off from wherever the user happens to be, and whatever is in the way."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from dataclasses import replace
from pathlib import Path

import pytest

from command_line import npuops
from npuops.errors import DeviceError, StorageError, UsageError
from npuops.vnpu.client import connect
from npuops.vnpu.device_folder import all_folders, device_folder
from npuops.vnpu.device_switch import down, up, up_private
from npuops.vnpu.numerics_worker import attempt
from npuops.vnpu.pacing import Pacing
from virtual_devices import SPEC, SPEC_FILE, X, Y, descriptors_of, home, is_alive, order, processes, program, wait_until

__all__ = ["home"]

pytestmark = pytest.mark.usefixtures("home")


def test_up_gives_what_list_shows_and_down_leaves_only_the_log(home: Path) -> None:
    open_before = descriptors_of(os.getpid())
    record = up(order())
    folder = device_folder("npu0")
    assert record == folder.record()
    assert folder.holder() == record.pid
    assert [each.name for each in all_folders()] == ["npu0"]
    assert down("npu0") is True
    wait_until(lambda: not processes(home), "processes of a device that is down")
    assert not folder.root.exists()
    assert folder.log.is_file()
    with pytest.raises(UsageError, match="there is no device 'npu0'"):
        down("npu0")
    assert descriptors_of(os.getpid()) <= open_before


def test_modules_that_lie_in_the_users_folder_are_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("msgspec", "logging", "npuops", "numpy"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('not ours')\n", encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    up(order())
    connect("npu0").close()


@pytest.mark.slow
def test_a_home_with_a_path_too_long_for_a_socket_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for length in (90, 107, 108, 250):
        deep = tmp_path / ("x" * length)
        monkeypatch.setenv("NPUOPS_DEVICES", str(deep))
        record = up(order("a" * 32))
        with connect(record.name) as client:
            loaded = client.load(program(), X, Y)
            loaded.wait(loaded.submit(0))
        assert down(record.name)
        wait_until(lambda deep=deep: not processes(deep), "processes of a device that is down")  # type: ignore[misc]


@pytest.mark.slow
def test_without_room_for_its_files_nothing_comes_up_and_nothing_stays(home: Path) -> None:
    """A file may have so many bytes only, which fails as a full disk does; each limit stops it at another file."""
    script = (
        "import resource, sys; from npuops.cli.main import main;"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY)); main()"
    )
    seen = set[str]()
    for limit in (0, 10, 100, 115, 200):
        command = [sys.executable, "-c", script, str(limit), "device", "up", "--spec", str(SPEC_FILE)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stdout + done.stderr
        assert "File too large" in done.stderr
        seen.add(done.stderr.splitlines()[0].split(":")[1].rpartition("/")[2])
        assert all_folders() == ()
        assert not (home / "npu0").exists()
        assert not list(home.glob("sys/class/accel/*"))
        wait_until(lambda: not processes(home), "a daemon without room")
    assert len(seen) >= 3, f"it stopped at {seen}"
    up(order())


def test_what_is_in_the_way_of_a_device_is_named_and_stays(home: Path) -> None:
    up(order())
    (home / "npu1").write_text("mine", encoding="utf-8")
    with pytest.raises(StorageError, match="npu1: File exists"):
        up(order("npu1"))
    with pytest.raises(UsageError, match="there is no device 'npu1'"):
        down("npu1")
    assert (home / "npu1").read_text(encoding="utf-8") == "mine"
    assert [each.name for each in all_folders()] == ["npu0"]


def test_down_ends_a_device_whose_record_is_damaged() -> None:
    record = up(order())
    device_folder("npu0").record_file.write_bytes(b"{")
    assert down("npu0") is True
    assert not is_alive(record.pid)


def test_down_does_not_end_a_stranger_that_has_the_number_of_a_dead_daemon() -> None:
    record = up(order())
    os.kill(record.pid, signal.SIGKILL)
    folder = device_folder("npu0")
    wait_until(lambda: not folder.is_up(), "a killed daemon")
    folder.lock.write_text(str(os.getpid()), encoding="ascii")
    assert down("npu0") is False, "and this process is still here to say so"


def test_one_that_is_not_ready_in_time_is_an_error_and_ends_by_itself(home: Path) -> None:
    open_before = descriptors_of(os.getpid())
    with pytest.raises(DeviceError, match=r"did not come up within 0\.01 s"):
        up(replace(order(pacing=Pacing.REALTIME), spec=replace(SPEC, boot_us=2_000_000)), timeout_s=0.01)
    assert descriptors_of(os.getpid()) <= open_before
    wait_until(lambda: not processes(home), "a daemon that nobody waits for")
    assert all_folders() == ()


@pytest.mark.slow
def test_whoever_interrupts_up_leaves_no_device_behind(home: Path, tmp_path: Path) -> None:
    slow = tmp_path / "slow.toml"
    slow.write_text(SPEC_FILE.read_text(encoding="utf-8").replace("boot_us = 20000", "boot_us = 3000000"))
    command = [sys.executable, "-c", "from npuops.cli.main import main; main()", "device", "up", "--spec", str(slow)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as user:
        wait_until(device_folder("npu0").record_file.exists, "a daemon that starts")
        user.send_signal(signal.SIGINT)
    assert user.returncode != 0
    wait_until(lambda: not processes(home), "a daemon that nobody waits for")
    assert all_folders() == ()


def test_a_device_that_is_taken_down_while_it_starts_leaves_nothing(home: Path) -> None:
    started = threading.Thread(target=lambda: attempt(0, lambda: up(order())))
    started.start()
    folder = device_folder("npu0")
    wait_until(folder.root.is_dir, "a daemon that starts")
    down("npu0")
    started.join()
    wait_until(lambda: not processes(home), "a daemon that was taken down while it started")
    assert not folder.root.exists()
    assert not list(home.glob("sys/class/accel/*"))


def test_a_private_device_leaves_not_even_a_log(home: Path) -> None:
    for _ in range(2):
        with up_private(order("mine")):
            connect("mine").close()
        wait_until(lambda: not processes(home), "a private device outlives its block")
    assert not list((home / "logs").iterdir())
    with pytest.raises(RuntimeError, match="of the caller"), up_private(order("mine")):
        raise RuntimeError("of the caller")
    wait_until(lambda: not processes(home), "a private device outlives its block")


def test_down_while_clients_run_ends_every_wait(home: Path) -> None:
    up(order(pacing=Pacing.MANUAL))
    clients = [connect("npu0") for _ in range(5)]
    waits = []
    for client in clients:
        loaded = client.load(program(), X, Y)
        waits.append((loaded, loaded.submit(0)))
    assert down("npu0") is True
    for loaded, ticket in waits:
        with pytest.raises(DeviceError, match="taken down"):
            loaded.wait(ticket, timeout_s=10)
    wait_until(lambda: not processes(home), "a device that is down")


@pytest.mark.slow
@pytest.mark.skipif(os.getuid() != 0, reason="only root can make a folder that belongs to somebody else")
def test_the_home_of_another_user_is_refused_by_every_command(home: Path) -> None:
    home.mkdir(mode=0o700)
    os.chown(home, 12345, 12345)
    for arguments in (("up", "--spec", SPEC_FILE), ("list",), ("status", "npu0"), ("down", "npu0")):
        assert "belongs to you alone" in npuops("device", *arguments, code=2)
    os.chown(home, 0, 0)
