from __future__ import annotations

from pathlib import Path

import pytest

import device_trees
from npuops.devices.channels import ChannelState
from npuops.devices.discovery import find_devices
from npuops.devices.quantities import Quantity
from npuops.devices.readings import Readings, read_device
from npuops.devices.tree import Tree

ASSIGNED, CRASHED = Quantity.CHANNELS_ASSIGNED, Quantity.CHANNELS_CRASHED


@pytest.fixture
def channels(tmp_path: Path) -> Path:
    """The folder of a card with sixteen channels, two of them with a workload (0 and 11)."""
    return device_trees.qaic(tmp_path) / "accel/accel0"


def read(tmp_path: Path) -> Readings:
    tree = Tree(tmp_path)
    return read_device(tree, find_devices(tree)[0])


def test_workloads_are_counted_and_none_has_crashed(tmp_path: Path, channels: Path) -> None:
    del channels
    found = read(tmp_path).values
    assert (found[ASSIGNED].value, found[CRASHED].value) == (2, 0)
    assert found[ASSIGNED].source == "/sys/class/accel/accel0/dbc[0-9]*_state"


@pytest.mark.parametrize(
    ("state", "assigned", "crashed"),
    [
        (ChannelState.IDLE, 1, 0),
        (ChannelState.ASSIGNED, 2, 0),
        (ChannelState.BEFORE_SHUTDOWN, 1, 1),
        (ChannelState.AFTER_SHUTDOWN, 1, 1),
        (ChannelState.BEFORE_POWER_UP, 1, 1),
        (ChannelState.AFTER_POWER_UP, 1, 0),
    ],
)
def test_a_crash_lasts_until_the_sub_system_has_power_again(
    state: ChannelState, assigned: int, crashed: int, tmp_path: Path, channels: Path
) -> None:
    device_trees.write(channels, {"dbc11_state": state.value})
    found = read(tmp_path).values
    assert (found[ASSIGNED].value, found[CRASHED].value) == (assigned, crashed)


def test_a_crash_is_named_by_its_file(tmp_path: Path, channels: Path) -> None:
    device_trees.write(channels, {"dbc0_state": 2, "dbc11_state": 3})
    assert read(tmp_path).values[CRASHED].source == "/sys/class/accel/accel0/dbc0_state, dbc11_state"


@pytest.mark.parametrize("garbage", ["", "6", "-1", "01", "1 2", "IDLE", "\x00"])
def test_a_channel_that_cannot_be_read_makes_the_counts_absent_and_never_lower(
    garbage: str, tmp_path: Path, channels: Path
) -> None:
    device_trees.write(channels, {"dbc3_state": garbage})
    found = read(tmp_path)
    assert ASSIGNED not in found.values
    assert CRASHED not in found.values
    assert "dbc3_state" in found.absent[ASSIGNED]


def test_a_crash_that_is_seen_is_told_whatever_another_channel_says(tmp_path: Path, channels: Path) -> None:
    device_trees.write(channels, {"dbc3_state": "junk", "dbc5_state": 3})
    found = read(tmp_path)
    assert found.values[CRASHED].value == 1
    assert ASSIGNED not in found.values


def test_a_kernel_before_6_19_has_no_channels(tmp_path: Path, channels: Path) -> None:
    for path in channels.glob("dbc*_state"):
        path.unlink()
    assert read(tmp_path).absent[CRASHED] == "this kernel has no dbc<N>_state"
