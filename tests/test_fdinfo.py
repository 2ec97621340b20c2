from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from device_trees import amd_fdinfo, process, write
from npuops.devices.fdinfo import FdinfoReader, parse_fdinfo
from npuops.devices.tree import Tree

ADDRESS = "0000:c5:00.1"


def test_engine_time_and_memory_in_use_are_read_and_nothing_is_counted_twice() -> None:
    found = parse_fdinfo(amd_fdinfo(3, 1_500_000_000))
    assert found is not None
    assert (found.address, found.client, found.engine_ns) == (ADDRESS, "3", 1_500_000_000)
    assert found.memory_bytes == 8 * 1024 + 1024 * 1024


@pytest.mark.parametrize(
    "text",
    [
        "",
        "pos: 0\nflags: 02",
        "drm-driver: i915\ndrm-pdev: 0000:00:02.0\ndrm-client-id: 1\ndrm-engine-render: 9 ns",
        "drm-driver: amdxdna_accel_driver\ndrm-client-id: 1",
    ],
)
def test_what_is_not_of_this_driver_is_nothing(text: str) -> None:
    assert parse_fdinfo(text) is None


def test_time_that_cannot_be_read_is_none_and_not_0() -> None:
    found = parse_fdinfo(amd_fdinfo(3, 5).replace("5 ns", "many ns"))
    assert found is not None
    assert found.engine_ns is None


def test_duplicated_and_forked_descriptors_are_one_tenant(tmp_path: Path) -> None:
    process(tmp_path, 100, {4: amd_fdinfo(1, 2_000_000_000), 5: amd_fdinfo(1, 2_100_000_000)})
    process(tmp_path, 101, {4: amd_fdinfo(1, 2_050_000_000)}, command="child")
    process(tmp_path, 102, {4: amd_fdinfo(2, 7)}, command="other")
    first, second = FdinfoReader(Tree(tmp_path)).tenants()[ADDRESS]
    assert (first.pid, first.command, first.busy_seconds) == (100, "worker", 2.1)
    assert (second.pid, second.client) == (102, "2")


def test_engine_time_never_goes_backwards(tmp_path: Path) -> None:
    process(tmp_path, 100, {4: amd_fdinfo(1, 2_000_000_000)})
    reader = FdinfoReader(Tree(tmp_path))
    assert reader.tenants()[ADDRESS][0].busy_seconds == 2.0
    write(tmp_path / "proc/100/fdinfo", {"4": amd_fdinfo(1, 1_900_000_000)})
    assert reader.tenants()[ADDRESS][0].busy_seconds == 2.0


def test_a_client_that_ended_is_forgotten(tmp_path: Path) -> None:
    process(tmp_path, 100, {4: amd_fdinfo(1, 2_000_000_000)})
    reader = FdinfoReader(Tree(tmp_path))
    reader.tenants()
    (tmp_path / "proc/100").rename(tmp_path / "proc/ended")
    assert reader.tenants() == {}
    (tmp_path / "proc/ended").rename(tmp_path / "proc/100")
    write(tmp_path / "proc/100/fdinfo", {"4": amd_fdinfo(1, 5_000_000)})
    assert reader.tenants()[ADDRESS][0].busy_seconds == 0.005


def test_only_descriptors_of_accelerators_are_opened(tmp_path: Path) -> None:
    process(tmp_path, 100, {4: amd_fdinfo(1, 1)})
    (tmp_path / "proc/100/fd/4").unlink()
    (tmp_path / "proc/100/fd/4").symlink_to("/tmp/somewhere")  # noqa: S108 - only a name
    (tmp_path / "proc/1x").mkdir()
    assert FdinfoReader(Tree(tmp_path)).tenants() == {}


@given(st.text(alphabet="drm-pdevclientngiamdx:0123456789 ns\n\tKiB"))
def test_garbage_never_raises(text: str) -> None:
    parse_fdinfo(text)
    parse_fdinfo(f"drm-driver: amdxdna\ndrm-pdev: a\ndrm-client-id: 1\n{text}")
