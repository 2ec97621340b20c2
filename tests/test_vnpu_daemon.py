"""A daemon that is killed while it starts: at every single step on the file system, and what then cleans up."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from npuops.vnpu import daemon
from npuops.vnpu.device_folder import all_folders, claimed, device_folder
from npuops.vnpu.device_switch import down, up
from virtual_devices import home, order, wait_until

__all__ = ["home"]

STEPS = ("open", "os.", "shutil.", "socket.", "fcntl.")
ALLOWED = {"logs", "keys", "keys/vendor", "keys/vendor.pub", "sys", "sys/class", "sys/class/accel"}


def start_and_die(step: int) -> bool:
    """A daemon in a child process that kills itself before its so-manieth step; whether it was up before that."""
    ours, theirs = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(ours)
        kill_me_at(step)
        daemon._be(order(), device_folder("npu0"), daemon._Ready(theirs, keep=False))
    os.close(theirs)
    with open(ours, "rb") as said:  # noqa: PTH123 - a descriptor
        is_up = said.read() != b""
    if is_up:
        os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    assert os.WIFSIGNALED(status), "it was killed, and did not fail by itself"
    return is_up


def left(home: Path) -> set[str]:
    return {str(path.relative_to(home)) for path in home.rglob("*")}


@pytest.mark.slow
def test_a_daemon_killed_at_any_step_of_its_start_is_swept_up_by_its_keeper_by_down_or_by_the_next(home: Path) -> None:
    folder = device_folder("npu0")
    step, found, is_up = 0, set[str](), False
    while not is_up:
        step += 1
        is_up = start_and_die(step)
        found |= left(home)
        assert not folder.is_up()
        if step % 3 == 0:
            folder.bury()
            assert not folder.socket.exists()
            assert not list(home.glob("sys/class/accel/*"))
            assert [each.record() for each in all_folders()].count(None) == 0, "what is listed says what it was"
        if step % 3 == 1:
            with claimed(folder, profile="toy", pacing="fast") as number:
                assert number == 0
        elif folder.root.exists():
            assert down("npu0") is False
        assert left(home) - ALLOWED <= {"keys/unfinished", "keys/unfinished.pub"}
    assert {"npu0/socket", "npu0/device.json", "npu0/lock", "sys/class/accel/accel0"} <= found, "it died at each stage"
    assert up(order()).number == 0


@pytest.mark.slow
def test_who_is_killed_while_sweeping_up_leaves_it_to_the_next(home: Path) -> None:
    folder = device_folder("npu0")
    step, is_through = 0, False
    while not is_through:
        step += 1
        assert start_and_die(1_000_000), "up, and then killed"
        assert folder.socket.exists()
        is_through = died_at(step, folder.sweep) is False
        if step % 2:
            with claimed(folder, profile="toy", pacing="fast") as number:
                assert number == 0
        elif folder.root.exists():
            assert down("npu0") is False
        assert left(home) - ALLOWED == set()
    assert step > 5


def died_at(step: int, task: Callable[[], object]) -> bool:
    """In a child process that kills itself before its so-manieth step; False when it was through before."""
    child = os.fork()
    if child == 0:
        kill_me_at(step)
        task()
        os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def kill_me_at(step: int) -> None:
    steps_left = step

    def count(event: str, _: object) -> None:
        nonlocal steps_left
        steps_left -= event.startswith(STEPS)
        if not steps_left:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(count)


@pytest.mark.usefixtures("home")
def test_a_device_whose_folder_somebody_removed_ends_and_harms_no_later_one_of_its_name(home: Path) -> None:
    lost = up(order())
    (home / "npu0").rename(home / "away")
    again = up(order())
    assert again.pid != lost.pid
    wait_until(lambda: not Path(f"/proc/{lost.pid}").exists(), "a device that nobody can reach")
    folder = device_folder("npu0")
    assert folder.holder() == again.pid
    assert folder.socket.exists()
    down("away")
