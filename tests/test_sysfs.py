from __future__ import annotations

import resource
import shutil
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from npuops.devices.discovery import find_devices
from npuops.devices.tree import Tree
from npuops.devices.vnpu_tree import ALIVE_FILE, CONTEXT_FILES, FILES
from npuops.vnpu.life import Life
from npuops.vnpu.machine import Machine
from npuops.vnpu.sysfs import SysfsTree
from npuops.vnpu.tenancy import Priority
from virtual_devices import SPEC

EVENTS = "0 add SEQNUM=1 DRIVER=vnpu VNPU_NAME=npu0\n"
WHOLE = {file.path for file in FILES} | {ALIVE_FILE}


def written(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): path.read_text(encoding="utf-8") for path in folder.rglob("*") if path.is_file()
    }


def made(tmp_path: Path) -> tuple[Machine, SysfsTree, Path]:
    accel = tmp_path / "sys/class/accel/accel0"
    machine = Machine(SPEC)
    machine.advance(SPEC.boot_us)
    return machine, SysfsTree(accel, "npu0"), accel / "device"


def test_the_tree_is_the_one_that_the_readers_table_describes(tmp_path: Path) -> None:
    machine, tree, device = made(tmp_path)
    context = machine.open_context(77, Priority.FOCUS, SPEC.boot_us)
    tree.show(machine.telemetry(SPEC.boot_us), EVENTS)
    wanted = WHOLE | {f"contexts/{context}/{file.path}" for file in CONTEXT_FILES}
    found = written(device)
    assert set(found) == wanted
    units = {file.path: file.unit for file in FILES} | {
        f"contexts/{context}/{file.path}": file.unit for file in CONTEXT_FILES
    }
    assert all(found[path].strip().isdigit() for path, unit in units.items() if unit != "text")
    assert found[f"contexts/{context}/priority"] == "focus\n"
    assert found["uevents"] == EVENTS


def test_the_readers_of_real_devices_find_it(tmp_path: Path) -> None:
    machine, tree, _ = made(tmp_path)
    tree.show(machine.telemetry(SPEC.boot_us))
    (device,) = find_devices(Tree(tmp_path))
    assert (device.driver, device.address, device.model) == ("vnpu", "npu0", "toy-npu")
    assert (device.firmware, device.driver_version) == ("3.2.0", "1.0.0")


def test_only_what_changed_is_written_and_no_scratch_file_stays(tmp_path: Path) -> None:
    machine, tree, device = made(tmp_path)
    tree.show(machine.telemetry(SPEC.boot_us))
    before = {path: path.stat().st_ino for path in device.rglob("*") if path.is_file()}
    tree.show(machine.telemetry(SPEC.boot_us + 1_000_000))
    changed = {str(path.relative_to(device)) for path, number in before.items() if path.stat().st_ino != number}
    assert "energy_uj" in changed
    assert changed <= {"energy_uj", "hwmon/hwmon0/temp1_input"}
    assert set(written(device)) == WHOLE


def test_a_context_that_ends_takes_its_folder_and_a_dead_driver_everything(tmp_path: Path) -> None:
    machine, tree, device = made(tmp_path)
    context = machine.open_context(77, Priority.FOCUS, SPEC.boot_us)
    tree.show(machine.telemetry(SPEC.boot_us))
    machine.close_context(context, SPEC.boot_us)
    tree.show(machine.telemetry(SPEC.boot_us))
    assert list((device / "contexts").iterdir()) == []
    seen = machine.telemetry(SPEC.boot_us)
    tree.show(replace(seen, life=Life.GONE))
    assert not device.parent.exists()
    tree.show(seen)
    assert set(written(device)) == WHOLE


def test_a_folder_that_somebody_cleared_is_written_whole_again(tmp_path: Path) -> None:
    machine, tree, device = made(tmp_path)
    context = machine.open_context(77, Priority.FOCUS, SPEC.boot_us)
    seen = machine.telemetry(SPEC.boot_us)
    tree.show(seen, EVENTS)
    before = written(device)
    shutil.rmtree(device.parent)
    tree.show(seen, EVENTS)
    assert written(device) == before
    assert f"contexts/{context}/pid" in before


def test_the_tree_says_by_a_lock_that_somebody_writes_it(tmp_path: Path) -> None:
    machine, tree, device = made(tmp_path)
    onlooker, alive = Tree(tmp_path), device / ALIVE_FILE
    seen = machine.telemetry(SPEC.boot_us)
    tree.show(seen)
    assert onlooker.is_locked(alive) is True
    shutil.rmtree(device.parent)
    tree.show(seen)
    assert onlooker.is_locked(alive) is True
    shutil.copytree(device, copy := device.parent.with_name("accel1") / "device")
    assert onlooker.is_locked(copy / ALIVE_FILE) is False
    tree.remove()
    assert not list(device.parent.parent.glob("*accel0")), "no hidden folder stays"


@contextmanager
def disk_of(limit_bytes: int) -> Iterator[None]:
    """No file of this process may become larger: the kernel refuses to write the rest, as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


@pytest.mark.parametrize("limit_bytes", [0, 100])
def test_a_disk_that_is_full_shows_no_half_file_and_loses_no_event(limit_bytes: int, tmp_path: Path) -> None:
    machine, tree, device = made(tmp_path)
    tree.show(machine.telemetry(SPEC.boot_us), EVENTS)
    more = EVENTS + "9 change SEQNUM=2 CE=1 UE=0\n" * 20
    before = written(device)
    with disk_of(limit_bytes), pytest.raises(OSError, match=r"No space|too large"):
        tree.show(machine.telemetry(SPEC.boot_us + 10_000_000), more)
    assert set(written(device)) == set(before), "no scratch file stays"
    assert written(device)["uevents"] == EVENTS
    tree.show(machine.telemetry(SPEC.boot_us + 10_000_000), more)
    assert written(device)["uevents"] == more
