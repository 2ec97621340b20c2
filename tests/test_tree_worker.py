"""The thread between a device's loop and its onlookers: never in the loop's way, and no event lost."""

from __future__ import annotations

import logging
import threading
from pathlib import Path

import pytest

from npuops.vnpu.device_events import MemoryErrors
from npuops.vnpu.device_telemetry import Telemetry
from npuops.vnpu.machine import Machine
from npuops.vnpu.sysfs import SysfsTree
from npuops.vnpu.tree_worker import TreeWorker
from virtual_devices import SPEC, wait_until

SEEN = Machine(SPEC).telemetry(SPEC.boot_us)


def error_at(at_us: int) -> MemoryErrors:
    return MemoryErrors(at_us=at_us, corrected=1)


class StuckTree(SysfsTree):
    """A disk that does not answer until it is told to."""

    def __init__(self, accel: Path) -> None:
        super().__init__(accel, "npu0")
        self.entered, self.answer = threading.Event(), threading.Event()

    def show(self, seen: Telemetry, events: str = "") -> None:
        self.entered.set()
        self.answer.wait()
        super().show(seen, events)


def uevents(accel: Path) -> list[str]:
    try:
        return (accel / "device/uevents").read_text(encoding="utf-8").splitlines()
    except FileNotFoundError:
        return []


def test_a_stuck_disk_holds_nobody_up_and_what_happened_meanwhile_is_told_afterwards(tmp_path: Path) -> None:
    tree = StuckTree(tmp_path / "accel0")
    worker = TreeWorker(tree)
    for at_us in range(50):
        worker.show(SEEN, [error_at(at_us)])
        tree.entered.wait()
    tree.answer.set()
    wait_until(lambda: len(uevents(tmp_path / "accel0")) == 51, "one add and fifty errors")
    worker.close()
    assert not (tmp_path / "accel0").exists()


def test_what_a_disk_refused_is_written_when_it_takes_it_again_and_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    accel = tmp_path / "accel0"
    accel.write_text("in the way")
    worker = TreeWorker(SysfsTree(accel, "npu0"))
    with caplog.at_level(logging.WARNING):
        for at_us in range(20):
            worker.show(SEEN, [error_at(at_us)])
        wait_until(lambda: caplog.messages, "a warning")
        accel.unlink()
        worker.show(SEEN, [])
        wait_until(lambda: len(uevents(accel)) == 21, "all events")
        wait_until(lambda: len(caplog.messages) == 2, "that it is well again")
    assert caplog.messages[0].startswith("cannot write the tree")
    assert caplog.messages[1] == "the tree is written again"
    worker.close()


def test_a_tree_that_is_removed_stays_removed_after_close(tmp_path: Path) -> None:
    worker = TreeWorker(SysfsTree(tmp_path / "accel0", "npu0"))
    worker.show(SEEN, [])
    worker.close()
    worker.show(SEEN, [])
    assert list(tmp_path.iterdir()) == []
