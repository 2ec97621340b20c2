from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from npuops.devices.discovery import find_devices
from npuops.devices.tree import Tree
from npuops.devices.vnpu_tree import CONTEXT_FILES, FILES
from npuops.vnpu.device_events import ClockChanged, FaultBegan, LifeChanged, MemoryErrors
from npuops.vnpu.faults import Kind
from npuops.vnpu.life import Life
from npuops.vnpu.machine import Machine
from npuops.vnpu.sysfs import SysfsTree, uevent
from npuops.vnpu.tenancy import Priority
from virtual_devices import SPEC


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
    tree.show(machine.telemetry(SPEC.boot_us))
    wanted = {file.path for file in FILES} | {f"contexts/{context}/{file.path}" for file in CONTEXT_FILES}
    found = written(device)
    assert set(found) == wanted
    units = {file.path: file.unit for file in FILES} | {
        f"contexts/{context}/{file.path}": file.unit for file in CONTEXT_FILES
    }
    assert all(found[path].strip().isdigit() for path, unit in units.items() if unit != "text")
    assert found[f"contexts/{context}/priority"] == "focus\n"
    assert found["uevents"] == "0 add DRIVER=vnpu VNPU_NAME=npu0\n"


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
    assert set(written(device)) == {file.path for file in FILES}


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
    assert set(written(device)) == {file.path for file in FILES}


def test_what_an_onlooker_can_see_becomes_a_line_and_the_fault_behind_it_does_not() -> None:
    reset = LifeChanged(at_us=7.4, before=Life.READY, after=Life.RESETTING, why="reset by command")
    assert uevent(reset) == "7 change STATUS=resetting WHY=reset_by_command"
    online = LifeChanged(at_us=8, before=Life.RESETTING, after=Life.READY, why="booted")
    assert uevent(online) == "8 online STATUS=online WHY=booted"
    slower = ClockChanged(at_us=9, before_mhz=1000, after_mhz=700, temperature_c=85.5)
    assert uevent(slower) == "9 change THROTTLED_MHZ=700 TEMP=85500"
    assert uevent(replace(slower, after_mhz=1200)) is None
    assert uevent(MemoryErrors(at_us=9, corrected=3)) == "9 change CE=3 UE=0"
    assert uevent(FaultBegan(at_us=9, kind=Kind.SLOW_DMA)) is None
