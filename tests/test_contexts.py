from __future__ import annotations

from pathlib import Path

import pytest

import device_trees
from npuops.devices.contexts import context_tenants
from npuops.devices.discovery import find_devices
from npuops.devices.tenants import Tenant
from npuops.devices.tree import Tree


def tenants(root: Path) -> tuple[Tenant, ...]:
    tree = Tree(root)
    return context_tenants(tree, find_devices(tree)[0])


def test_each_context_is_a_tenant_with_its_accounts(tmp_path: Path) -> None:
    device = device_trees.vnpu(tmp_path)
    device_trees.write(device / "contexts/2", {**device_trees.VNPU_CONTEXT, "busy_time_us": 1_500_000})
    first, second = tenants(tmp_path)
    assert (first.client, first.pid, first.priority, first.memory_bytes) == ("1", 4242, "focus", 4096)
    assert (first.submissions, first.errors, first.preemptions) == (7, 0, 1)
    assert second.busy_seconds == 1.5


@pytest.mark.parametrize("garbage", ["", "-1", "many", "1.5", "\x00", "9" * 30])
def test_garbage_is_none_and_never_0(garbage: str, tmp_path: Path) -> None:
    device = device_trees.vnpu(tmp_path)
    device_trees.write(device / "contexts/1", dict.fromkeys(device_trees.VNPU_CONTEXT, garbage))
    assert tenants(tmp_path) == (Tenant(client="1"),)


def test_what_has_no_number_is_no_context(tmp_path: Path) -> None:
    device = device_trees.vnpu(tmp_path)
    device_trees.write(device / "contexts", {"pid": 1, "loop/pid": 2})
    assert [tenant.client for tenant in tenants(tmp_path)] == ["1"]


def test_a_context_that_ends_between_listing_and_reading_has_no_accounts(tmp_path: Path) -> None:
    device = device_trees.vnpu(tmp_path)
    (device / "contexts/9").symlink_to("gone")
    assert tenants(tmp_path)[1] == Tenant(client="9")
