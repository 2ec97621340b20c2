from __future__ import annotations

from pathlib import Path

import pytest

import device_trees
from npuops.devices.discovery import find_devices, find_driverless, looked_in
from npuops.devices.probes import Place
from npuops.devices.tree import Tree

WANTED = {
    "ivpu_old": ("accel0", "Intel", "Meteor Lake NPU", "ivpu", None, "0000:00:0b.0", "/dev/accel/accel0"),
    "ivpu_new": ("accel0", "Intel", "Lunar Lake NPU", "ivpu", "vpu_4000 1.2", "0000:00:0b.0", "/dev/accel/accel0"),
    "amdxdna": ("accel0", "AMD", "NPU Strix", "amdxdna", "1.0.0.166", "0000:c5:00.1", "/dev/accel/accel0"),
    "qaic": ("accel0", "Qualcomm", "Cloud AI 100", "qaic", None, "0000:41:00.0", "/dev/accel/accel0"),
    "habanalabs_new": (
        *("accel0", "Intel Habana", "GAUDI2", "habanalabs", "hl-gaudi2-1.11", "0000:19:00.0", "/dev/accel/accel0"),
    ),
    "habanalabs_old": ("hl0", "Intel Habana", "GAUDI", "habanalabs", "hl-gaudi2-1.11", "0000:19:00.0", "/dev/hl0"),
    "apex": ("apex_0", "Google Coral", "Edge TPU", "apex", None, "0000:03:00.0", "/dev/apex_0"),
    "rknpu": ("rknpu0", "Rockchip", "RK3588", "rknpu", None, "fdab0000.npu", "/dev/dri/renderD129"),
    "hailo8": ("hailo0", "Hailo", "Hailo-8", "hailo", None, "0001:01:00.0", "/dev/hailo0"),
    "hailo10": ("hailo0", "Hailo", "Hailo-10H", "hailo", None, "0001:01:00.0", "/dev/hailo0"),
    "hailo15": ("h1x", "Hailo", None, "hailo", None, None, None),
    "rocket": ("accel0", "Rockchip", "RK3588", "rocket", None, "fdab0000.npu", None),
    "ethosu": ("accel0", "Arm", "Ethos-U85", "ethosu", None, None, "/dev/accel/accel0"),
    "vnpu": ("accel0", "virtual", "rk3588", "vnpu", "1.4.2", "npu0", None),
}


@pytest.mark.parametrize("name", device_trees.ALL)
def test_each_machine_has_one_device_with_its_names(name: str, tmp_path: Path) -> None:
    device_trees.ALL[name](tmp_path)
    found = find_devices(Tree(tmp_path))
    assert [
        (each.name, each.vendor, each.model, each.driver, each.firmware, each.address, each.node) for each in found
    ] == [WANTED[name]]


def test_the_id_of_a_device_survives_a_new_number(tmp_path: Path) -> None:
    device_trees.pci_accel(tmp_path / "a", "intel_vpu", "8086:7e4c", name="accel0")
    device_trees.pci_accel(tmp_path / "b", "intel_vpu", "8086:7e4c", name="accel1")
    assert {find_devices(Tree(tmp_path / root))[0].id for root in "ab"} == {"ivpu/0000:00:0b.0"}


def test_two_minors_of_one_address_are_two_devices(tmp_path: Path) -> None:
    for number in (0, 1):
        device = device_trees.vnpu(tmp_path, number=number)
        device_trees.write(device, {"uevent": "DRIVER=vnpu\nVNPU_NAME=same"})
    assert [device.id for device in find_devices(Tree(tmp_path))] == ["vnpu/same/accel0", "vnpu/same/accel1"]


def test_several_devices_come_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 0, 2):
        device_trees.vnpu(tmp_path, number=number)
    assert [device.name for device in find_devices(Tree(tmp_path))] == ["accel0", "accel2", "accel10"]


def test_driver_and_version_come_from_the_module(tmp_path: Path) -> None:
    device = device_trees.ivpu_old(tmp_path)
    device_trees.write(device / "driver/module", {"version": "1.0.0"})
    assert find_devices(Tree(tmp_path))[0].driver_version == "1.0.0"
    device_trees.rknpu(tmp_path / "rk")
    assert find_devices(Tree(tmp_path / "rk"))[0].driver_version == "v0.9.8"


def test_a_driver_without_a_table_is_shown_by_its_own_name(tmp_path: Path) -> None:
    device_trees.pci_accel(tmp_path, "newvendor", "abcd:0001")
    device = find_devices(Tree(tmp_path))[0]
    assert (device.driver, device.vendor, device.model) == ("newvendor", "unknown", "abcd:0001")
    assert device.table.probes == ()


def test_an_rknpu_is_found_by_devfreq_or_by_debugfs_alone(tmp_path: Path) -> None:
    device_trees.write(tmp_path / "a/sys/class/devfreq/fde40000.npu", {"cur_freq": 600_000_000})
    device_trees.write(tmp_path / "b/sys/kernel/debug/rknpu", {"load": "NPU load:  0%"})
    by_devfreq, by_debugfs = (find_devices(Tree(tmp_path / root))[0] for root in "ab")
    assert (by_devfreq.id, by_debugfs.id) == ("rknpu/fde40000.npu", "rknpu/rknpu0")
    assert Place.DEVFREQ in by_devfreq.places


def test_rocket_on_the_same_chip_is_not_found_twice(tmp_path: Path) -> None:
    device_trees.rocket(tmp_path)
    device_trees.write(tmp_path / "sys/class/devfreq/fdab0000.npu", {"cur_freq": 1})
    assert [device.driver for device in find_devices(Tree(tmp_path))] == ["rocket"]


def test_an_npu_without_a_driver_is_named_with_the_module_to_load(tmp_path: Path) -> None:
    device_trees.pci_device(tmp_path, None, "8086:b03e", "0000:00:0b.0")
    device_trees.pci_device(tmp_path, None, "1234:5678", "0000:00:0c.0")
    found = find_driverless(Tree(tmp_path))
    assert [(each.pci_id, each.model, each.module) for each in found] == [
        ("8086:b03e", "Panther Lake NPU", "intel_vpu"),
        ("1234:5678", None, ""),
    ]
    assert find_devices(Tree(tmp_path)) == ()


def test_a_device_with_a_driver_is_not_driverless(tmp_path: Path) -> None:
    device_trees.ivpu_old(tmp_path)
    assert find_driverless(Tree(tmp_path)) == ()


def test_an_empty_machine_has_none_and_says_where_it_looked(tmp_path: Path) -> None:
    (tmp_path / "sys").mkdir()
    assert find_devices(Tree(tmp_path)) == ()
    assert "/sys/class/accel" in looked_in(Tree(tmp_path))


def test_a_circle_of_links_in_the_class_does_not_hang(tmp_path: Path) -> None:
    folder = tmp_path / "sys/class/accel"
    folder.mkdir(parents=True)
    (folder / "accel0").symlink_to("accel1")
    (folder / "accel1").symlink_to("accel0")
    assert find_devices(Tree(tmp_path)) == ()


def test_an_entry_that_comes_or_goes_just_now_is_no_device(tmp_path: Path) -> None:
    device = device_trees.vnpu(tmp_path)
    (device.parent.with_name("accel1")).mkdir()
    (device.parent.with_name("accel2") / "device").mkdir(parents=True)
    assert [each.name for each in find_devices(Tree(tmp_path))] == ["accel0"]
