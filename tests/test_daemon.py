"""Processes that die: clients and daemons, killed at every stage; nothing of them stays, and nobody else suffers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from device_tenant import Tenant
from npuops.errors import DeviceLostError, OptionError, UsageError
from npuops.vnpu.client import DeviceClient, DeviceProgram, connect
from npuops.vnpu.control_client import control
from npuops.vnpu.device_folder import device_folder
from npuops.vnpu.device_switch import down, up, up_private
from npuops.vnpu.numerics_worker import attempt
from npuops.vnpu.pacing import Pacing
from virtual_devices import (
    SPEC,
    X,
    Y,
    home,
    is_alive,
    kill,
    order,
    processes,
    program,
    relu_model,
    segments_of,
    wait_until,
)

__all__ = ["home"]

pytestmark = pytest.mark.usefixtures("home")

STAGES = ["connected", "loaded", "submitted", "unread"]


def used_bytes(name: str) -> int:
    with control(name) as control_client:
        return control_client.status().telemetry.memory_used_bytes


def tenants(name: str) -> int:
    with control(name) as control_client:
        return len(control_client.status().telemetry.contexts)


def use(client: DeviceClient, loaded: DeviceProgram | None, ticket: int | None) -> None:
    """Twice: what was answered before the end may still be read."""
    for _ in range(2):
        if loaded is not None and ticket is not None:
            loaded.wait(ticket, timeout_s=10)
            ticket = loaded.submit(0)
        else:
            client.status(timeout_s=10)


@pytest.mark.parametrize("stage", STAGES)
def test_a_client_that_is_killed_leaves_no_memory_no_context_and_no_segment(tmp_path: Path, stage: str) -> None:
    record = up(order(pacing=Pacing.FAST if stage == "unread" else Pacing.MANUAL))
    tenant = Tenant("npu0", stage, relu_model(tmp_path))
    try:
        assert tenant.reached() == stage
        if stage != "connected":
            assert used_bytes("npu0") >= 1 << 20
            assert segments_of(record.pid) == 1
    finally:
        tenant.end()
    wait_until(lambda: used_bytes("npu0") == 0 and tenants("npu0") == 0, "memory of a dead client")
    wait_until(lambda: segments_of(record.pid) == 0, "tensors of a dead client")
    with connect("npu0") as client:  # and the device still works
        loaded = client.load(program(), X, Y)
        ticket = loaded.submit(0)
        if stage != "unread":
            client.advance(10_000)
        assert loaded.wait(ticket).busy_us == 1_000


@pytest.mark.parametrize("stage", [*STAGES, "idle"])
def test_a_daemon_that_is_killed_is_a_clear_error_for_clients_and_gone_for_everybody_else(
    home: Path, tmp_path: Path, stage: str
) -> None:
    record = up(order(pacing=Pacing.MANUAL))
    client = connect("npu0") if stage != "idle" else None
    loaded = (
        None if stage == "connected" or client is None else client.load(program(), X, Y, model=relu_model(tmp_path))
    )
    ticket = loaded.submit(0) if stage in {"submitted", "unread"} and loaded is not None else None
    if stage == "unread" and client is not None:
        client.advance(10_000)
    kill(record.pid)

    if client is not None:
        with pytest.raises(DeviceLostError, match="npu0") as raised:
            use(client, loaded, ticket)
        assert "npuops device up" in raised.value.advice
        with pytest.raises(DeviceLostError, match="closed"):
            client.status()
    folder = device_folder("npu0")
    assert not folder.stays_up(5)
    wait_until(lambda: not folder.socket.exists(), "a socket of a dead daemon")
    wait_until(lambda: not folder.accel(record.number).exists(), "a tree of a dead daemon")
    wait_until(lambda: processes(home) == [], "a keeper without a daemon")
    assert "killed by SIGKILL" in folder.log.read_text(encoding="utf-8")
    with pytest.raises(DeviceLostError, match="its daemon died"):
        connect("npu0")

    again = up(order(pacing=Pacing.MANUAL))
    assert again.pid != record.pid
    assert used_bytes("npu0") == 0


def test_with_daemon_and_keeper_killed_the_lock_still_tells_and_up_replaces_what_is_left(home: Path) -> None:
    record = up(order())
    daemon_and_keeper = processes(home)
    assert len(daemon_and_keeper) == 2
    for pid in sorted(daemon_and_keeper, key=lambda pid: pid == record.pid):  # the keeper first
        os.kill(pid, signal.SIGKILL)
    wait_until(lambda: not processes(home), "killed processes")
    folder = device_folder("npu0")
    assert folder.socket.exists(), "nobody was left to remove it"
    assert not folder.stays_up(5)
    with pytest.raises(DeviceLostError, match="its daemon died"):
        connect("npu0")
    assert up(order()).number == record.number
    connect("npu0").close()


def test_two_devices_of_one_name_refuse_and_two_names_live_side_by_side() -> None:
    first = up(order())
    with pytest.raises(UsageError, match=f"npu0 is up already .process {first.pid}.") as raised:
        up(order())
    assert "npuops device down npu0" in raised.value.advice
    second = up(order("npu1"))
    assert {first.number, second.number} == {0, 1}
    assert down("npu0")
    assert up(order("npu2")).number == 0, "the lowest free number"
    connect("npu1").close()


def test_of_many_that_want_one_name_at_once_exactly_one_gets_it(home: Path) -> None:
    with ThreadPoolExecutor(4) as crowd:
        found = list(crowd.map(lambda _: attempt(0, lambda: up(order())), range(4)))
    assert sum(each.error is None for each in found) == 1
    assert {type(each.error) for each in found if each.error is not None} == {UsageError}
    wait_until(lambda: len(processes(home)) == 2, "those that lost")
    connect("npu0").close()


def test_a_daemon_that_is_stopped_answers_nobody_in_bounded_time_and_down_ends_it() -> None:
    record = up(order())
    client = connect("npu0")
    os.kill(record.pid, signal.SIGSTOP)
    started = time.monotonic()
    with pytest.raises(DeviceLostError, match="did not answer within"):
        client.status(timeout_s=0.2)
    with pytest.raises(DeviceLostError, match="did not answer within"):
        connect("npu0", timeout_s=0.2)
    assert time.monotonic() - started < 5
    assert down("npu0", timeout_s=0.5)
    assert not is_alive(record.pid)
    client.close()


def test_sigterm_ends_it_in_order_and_tells_its_clients() -> None:
    record = up(order(pacing=Pacing.MANUAL))
    client = connect("npu0")
    loaded = client.load(program(), X, Y)
    ticket = loaded.submit(0)
    os.kill(record.pid, signal.SIGTERM)
    with pytest.raises(DeviceLostError, match="taken down"):
        loaded.wait(ticket, timeout_s=10)
    wait_until(lambda: not is_alive(record.pid), "the daemon ignores SIGTERM")
    assert not device_folder("npu0").root.exists()
    assert "npu0 is down" in device_folder("npu0").log.read_text(encoding="utf-8")


def test_a_private_device_goes_with_its_block_and_with_a_killed_owner() -> None:
    with up_private(order("mine")) as record:
        connect("mine").close()
    wait_until(lambda: not is_alive(record.pid), "a private device outlives its block", limit_s=1)

    script = (
        "import sys, time\n"
        f"sys.path.insert(0, {str(Path(__file__).parent)!r})\n"
        "from virtual_devices import order\n"
        "from npuops.vnpu.device_switch import up_private\n"
        "with up_private(order('theirs')) as record:\n"
        "    print(record.pid, flush=True)\n"
        "    time.sleep(60)\n"
    )
    owner = subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE)
    assert owner.stdout is not None
    pid = int(owner.stdout.readline())
    assert is_alive(pid)
    owner.kill()
    owner.communicate()
    wait_until(lambda: not is_alive(pid), "a private device outlives its owner")


def test_several_processes_share_a_device_and_each_gets_its_own_answers(tmp_path: Path) -> None:
    up(order())
    model = relu_model(tmp_path)
    crew = [Tenant("npu0", "work", 50, model) for _ in range(3)]
    try:
        found = [json.loads(tenant.reached()) for tenant in crew]
    finally:
        for tenant in crew:
            tenant.end()
    assert [each["right"] for each in found] == [50] * 3
    assert [each["pid"] for each in found] == [tenant.pid for tenant in crew]
    assert [each["completions"] for each in found] == [50] * 3
    wait_until(lambda: used_bytes("npu0") == 0, "memory of clients that left")


def test_a_plan_that_is_wrong_and_a_death_at_the_start_are_told_by_up(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(OptionError, match="unknown kind 'hagn'"):
        up(order(plan='[[fault]]\nkind = "hagn"\nat_s = 1.0\n'))
    assert not device_folder("npu0").root.exists()
    monkeypatch.setenv("PYTHONPATH", "/nowhere")
    monkeypatch.setattr(sys, "executable", "/bin/false")
    with pytest.raises(Exception, match="died at its start; it said nothing"):
        up(order())


def test_a_plan_hangs_the_device_at_its_time_and_a_reset_brings_it_back() -> None:
    up(order(pacing=Pacing.MANUAL, plan='[[fault]]\nkind = "hang"\nat_s = 1.0\n'))
    with connect("npu0") as client:
        loaded = client.load(program(), X, Y)
        client.advance(2_000_000)
        assert client.status().telemetry.status == "hung"
        ticket = loaded.submit(0)
        client.advance(60_000_000)
        with pytest.raises(DeviceLostError, match="did not answer"):
            loaded.wait(ticket, timeout_s=0.05)
        client.reset()
        client.advance(SPEC.reset_us)
        ticket = loaded.submit(1)
        client.advance(10_000)
        assert loaded.wait(ticket).busy_us == 1_000
    np.testing.assert_equal(loaded.outputs[1]["y"], 0)
