from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import device_trees
from npuops.devices.discovery import find_devices
from npuops.devices.quantities import Quantity
from npuops.devices.readings import Readings, read_device
from npuops.devices.tree import Tree

Q = Quantity
WANTED: dict[str, dict[Quantity, float]] = {
    "ivpu_old": {Q.BUSY: 5.0},
    "ivpu_new": {
        Q.BUSY: 5.0,
        Q.MEMORY_USED: 104857600,
        Q.CLOCK: 0.0,
        Q.CLOCK_MAX: 1.95e9,
        Q.CLOCK_MIN: 7e8,
        Q.CLOCK_LIMIT: 1.5e9,
        Q.RESETS: 0,
        Q.SOFT_RESETS: 0,
        Q.ENERGY: 100.0,
        Q.TEMPERATURE: 47.0,
        Q.MEMORY_TRAFFIC: 2e9,
    },
    "amdxdna": {Q.POWER: 2.5, Q.TEMPERATURE: 45.123},
    "qaic": {
        Q.CORRECTED: 2,
        Q.UNCORRECTED: 0,
        Q.UNCORRECTED_NONFATAL: 0,
        Q.CHANNELS_ASSIGNED: 2,
        Q.CHANNELS_CRASHED: 0,
    },
    "habanalabs_new": {
        Q.RESETS: 0,
        Q.SOFT_RESETS: 1,
        Q.CLOCK: 1.35e9,
        Q.CLOCK_MAX: 1.7e9,
        Q.POWER_LIMIT: 350,
        Q.POWER: 96.0,
        Q.TEMPERATURE: 41.0,
    },
    "habanalabs_old": {Q.RESETS: 0, Q.SOFT_RESETS: 1, Q.CLOCK: 1.35e9, Q.CLOCK_MAX: 1.7e9, Q.POWER_LIMIT: 350},
    "apex": {Q.TEMPERATURE: 51.3, Q.TEMPERATURE_THROTTLE: 85.0, Q.RESETS: 1},
    "rknpu": {Q.BUSY_RATIO: 0.3, Q.CLOCK: 1e9, Q.CLOCK_MAX: 1e9, Q.CLOCK_MIN: 3e8, Q.TEMPERATURE: 43.461},
    "hailo8": {},
    "hailo10": {},
    "hailo15": {Q.BUSY_TICKS: 100, Q.TICKS: 1000},
    "rocket": {},
    "ethosu": {},
    "vnpu": {
        Q.BUSY: 0.0,
        Q.MEMORY_USED: 12 << 20,
        Q.MEMORY_TOTAL: 1 << 30,
        Q.CLOCK: 1e9,
        Q.CLOCK_MAX: 1e9,
        Q.CLOCK_MIN: 3e8,
        Q.CLOCK_LIMIT: 1e9,
        Q.RESETS: 0,
        Q.COMMANDED_RESETS: 0,
        Q.THROTTLES: 0,
        Q.TRIPS: 0,
        Q.INFERENCES: 0,
        Q.CANARIES: 0,
        Q.CANARY_FAILURES: 0,
        Q.REFUSED_MEMORY: 0,
        Q.REFUSED_OPERATOR: 0,
        Q.REFUSED_VERSION: 0,
        Q.CORRECTED: 0,
        Q.UNCORRECTED: 0,
        Q.ENERGY: 0.0,
        Q.TEMPERATURE: 40.0,
        Q.TEMPERATURE_THROTTLE: 85.0,
        Q.TEMPERATURE_CRITICAL: 115.0,
        Q.POWER: 1.5,
    },
}


def read(root: Path) -> Readings:
    tree = Tree(root)
    return read_device(tree, find_devices(tree)[0])


@pytest.mark.parametrize("name", device_trees.ALL)
def test_each_driver_gives_what_it_has_in_base_units_and_nothing_else(name: str, tmp_path: Path) -> None:
    device_trees.ALL[name](tmp_path)
    values = {quantity: reading.value for quantity, reading in read(tmp_path).values.items()}
    assert values == pytest.approx(WANTED[name])


def test_a_quantity_is_either_a_value_or_a_reason(tmp_path: Path) -> None:
    device_trees.ivpu_old(tmp_path)
    found = read(tmp_path)
    assert set(found.values) & set(found.absent) == set()
    assert found.absent[Q.MEMORY_USED] == "this kernel has no npu_memory_utilization"
    assert found.absent[Q.ENERGY] == "no Intel PMT on this machine"


def test_the_source_names_the_file_that_answered(tmp_path: Path) -> None:
    device = device_trees.ivpu_new(tmp_path)
    assert read(tmp_path).values[Q.CLOCK].source == "/sys/class/accel/accel0/device/freq/current_freq"
    (device / "freq/current_freq").unlink()
    assert read(tmp_path).values[Q.CLOCK].source.endswith("npu_current_frequency_mhz")


def test_a_channel_without_a_value_is_absent_and_never_0(tmp_path: Path) -> None:
    device_trees.amdxdna(tmp_path, values=False)
    found = read(tmp_path)
    assert found.values == {}
    assert "the file is empty" in found.absent[Q.POWER]


def test_a_single_core_chip_has_its_own_form_of_load(tmp_path: Path) -> None:
    device_trees.rknpu(tmp_path, address="fde40000.npu", soc="rk3568", cores=1)
    assert read(tmp_path).values[Q.BUSY_RATIO].value == pytest.approx(0.12)


def test_the_thermal_zone_is_found_by_type_and_not_by_number(tmp_path: Path) -> None:
    device_trees.rknpu(tmp_path)
    assert read(tmp_path).values[Q.TEMPERATURE].source.startswith("/sys/class/thermal/thermal_zone4")


def test_the_reason_of_a_file_that_exists_is_kept_over_one_that_does_not(tmp_path: Path) -> None:
    device = device_trees.ivpu_new(tmp_path)
    (device / "npu_max_frequency_mhz").unlink()
    device_trees.write(device, {"freq/hw_max_freq": "unsupported"})
    assert "'unsupported' is not a number" in read(tmp_path).absent[Q.CLOCK_MAX]


def test_status_is_the_drivers_own_word(tmp_path: Path) -> None:
    device_trees.habanalabs_old(tmp_path)
    assert read(tmp_path).status == "Operational"


def test_a_device_that_vanishes_between_finding_and_reading_has_no_values(tmp_path: Path) -> None:
    device_trees.vnpu(tmp_path)
    tree = Tree(tmp_path)
    device = find_devices(tree)[0]
    (tmp_path / "class").rename(tmp_path / "gone")
    assert read_device(tree, device).values == {}


GARBAGE = st.binary(max_size=60).map(lambda data: data + b"x")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(garbage=GARBAGE, name=st.sampled_from(sorted(device_trees.ALL)))
def test_garbage_in_every_file_never_raises_and_never_yields_a_number(
    garbage: bytes, name: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    root = tmp_path_factory.mktemp("tree")
    device_trees.ALL[name](root)
    for path in root.rglob("*"):
        if path.is_file() and path.name not in {"uevent", "guid"}:
            path.write_bytes(garbage)
    found = read(root)
    assert {reading for reading in found.values.values() if "intel_pmt" not in reading.source} == set()
