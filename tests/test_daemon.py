"""Processes that die: clients and daemons, killed at every stage; nothing of them stays, and nobody else suffers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median

import numpy as np
import pytest

from device_tenant import Tenant
from npuops.devices.vnpu_tree import ALIVE_FILE
from npuops.errors import DeviceLostError, DeviceMemoryError, OptionError, UsageError
from npuops.vnpu import wire
from npuops.vnpu.client import DeviceClient, DeviceProgram, connect
from npuops.vnpu.control_client import control
from npuops.vnpu.device_folder import device_folder
from npuops.vnpu.device_switch import down, up, up_private
from npuops.vnpu.line_client import Line, NoAnswerError
from npuops.vnpu.numerics_worker import attempt
from npuops.vnpu.pacing import Pacing
from npuops.vnpu.tenancy import Priority
from virtual_devices import (
    SPEC,
    X,
    Y,
    descriptors_of,
    home,
    is_alive,
    kill,
    order,
    processes,
    program,
    relu_model,
    segments_of,
    slow_model,
    wait_until,
)

__all__ = ["home"]

pytestmark = pytest.mark.usefixtures("home")


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


@pytest.mark.slow
@pytest.mark.parametrize(
    "stage", ["opening", "connected", "loading", "loaded", "computing", "submitted", "unread", "answering"]
)
def test_a_client_that_is_killed_leaves_no_memory_no_context_and_no_segment(tmp_path: Path, stage: str) -> None:
    record = up(order(pacing=Pacing.MANUAL if stage == "submitted" else Pacing.FAST))
    model = slow_model(tmp_path) if stage == "computing" else relu_model(tmp_path)
    alive = device_folder("npu0").accel(record.number) / "device" / ALIVE_FILE
    wait_until(alive.exists, "the lock of the tree")
    files = descriptors_of(record.pid)
    tenant = Tenant("npu0", stage, model)
    try:
        assert tenant.reached() == stage
        if stage in {"loaded", "computing", "submitted", "unread"}:
            assert used_bytes("npu0") >= 1 << 20
            assert segments_of(record.pid) == 1
    finally:
        tenant.end()
    wait_until(lambda: used_bytes("npu0") == 0 and tenants("npu0") == 0, "memory of a dead client")
    with connect("npu0") as client:  # and the device still works, at once
        loaded = client.load(program(), X, Y)
        ticket = loaded.submit(0)
        if stage == "submitted":
            client.advance(10_000)
        assert loaded.wait(ticket).busy_us == 1_000
    wait_until(lambda: segments_of(record.pid) == 0, "tensors of a dead client")
    wait_until(lambda: descriptors_of(record.pid) <= files, "open files for a dead client")


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["idle", "connected", "loaded", "submitted", "unread"])
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


@pytest.mark.parametrize("stage", ["opening", "loading", "computing"])
def test_a_daemon_that_is_killed_in_the_middle_of_a_request_ends_the_wait_for_it(tmp_path: Path, stage: str) -> None:
    record = up(order())
    os.kill(record.pid, signal.SIGSTOP if stage == "opening" else signal.SIGCONT)
    line = Line(device_folder("npu0"), 10)
    line.send(wire.Hello(id=1, version=wire.VERSION, priority="normal"))
    if stage != "opening":
        line.wait(1, wire.Welcome, 10)
        model = str(slow_model(tmp_path))
        line.send(wire.Load(id=2, program=program(), inputs=X, outputs=Y, slots=2, model=model))
    if stage == "computing":
        line.send(wire.Submit(id=3, handle=line.wait(2, wire.Loaded, 60).handle, slot=0))
        line.ask(wire.AskStatus(id=4), wire.Status, 10)
    kill(record.pid)
    with pytest.raises(DeviceLostError, match="its daemon died"):
        line.wait(3, wire.Done, 10)
    folder = device_folder("npu0")
    wait_until(lambda: not folder.socket.exists(), "a socket of a dead daemon")
    assert down("npu0") is False


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


@pytest.mark.slow
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


@pytest.mark.slow
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
    with pytest.raises(DeviceLostError, match="did not answer within"):
        client.status(timeout_s=0.2)
    with pytest.raises(DeviceLostError, match="did not answer within"):
        connect("npu0", timeout_s=0.2)
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


@pytest.mark.slow
def test_a_private_device_goes_with_its_block_and_with_a_killed_owner() -> None:
    with up_private(order("mine")) as record:
        connect("mine").close()
    wait_until(lambda: not is_alive(record.pid), "a private device outlives its block")

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


@pytest.mark.slow
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


def latency_us(client: DeviceClient, us: float, rounds: int) -> float:
    """What a tenant meets, in the device's own time: exact, however late the processes of this machine are."""
    loaded = client.load(program(us), X, Y)
    return median(loaded.wait(loaded.submit(0)).latency_us for _ in range(rounds))


def test_processes_are_served_by_their_priority_as_ivpus_are_and_the_accounts_add_up() -> None:
    """A 10 ms job on one core, of each priority in turn, while another process keeps 400 ms of work in the queue."""
    up(order(pacing=Pacing.REALTIME))
    noise = Tenant("npu0", "noise", "NORMAL")
    found = {}
    try:
        assert noise.reached() == "noise"
        for priority in Priority:
            with connect("npu0", priority=priority) as client:
                if priority is not Priority.IDLE:
                    found[priority] = latency_us(client, 10_000.0, 5)
                    continue
                loaded = client.load(program(), X, Y)
                ticket = loaded.submit(0)
                with connect("npu0", priority=Priority.FOCUS) as other:
                    latency_us(other, 10_000.0, 5)
                with pytest.raises(NoAnswerError):
                    loaded.wait(ticket, timeout_s=0.0)
                (mine,) = [each for each in client.status().telemetry.contexts if each.id == client.context]
                assert (mine.priority, mine.queued, mine.busy_us) == ("idle", 1, 0), "not while anybody else wants it"
        assert found[Priority.NORMAL] > 17_000, "time slices in turn"
        assert found[Priority.FOCUS] <= 11_000, "its own 10 ms, and at most one step of the neighbour"
        assert found[Priority.REALTIME] <= 11_000
    finally:
        noise.end()
    wait_until(lambda: tenants("npu0") == 0, "contexts of tenants that left")
    with control("npu0") as client:
        seen = client.status().telemetry
    assert seen.busy_us == pytest.approx(seen.departed_busy_us, abs=1)
    assert seen.energy_uj / 1000 == pytest.approx(seen.departed_energy_mj + seen.idle_energy_uj / 1000)


@pytest.mark.slow
def test_what_tenants_are_charged_is_what_the_device_did(tmp_path: Path) -> None:
    up(order())
    crew = [Tenant("npu0", "work", 20, relu_model(tmp_path)) for _ in range(2)]
    with connect("npu0") as mine, connect("npu0", priority=Priority.FOCUS) as failing:
        loaded = mine.load(program(2_000.0), X, Y)
        energy_mj = sum(loaded.wait(loaded.submit(0)).energy_mj for _ in range(10))
        too_large = failing.load(program(), X, Y)
        failing.inject({"kind": "oom_pressure", "share": 1.0})
        with pytest.raises(DeviceMemoryError):
            too_large.wait(too_large.submit(0))
        failing.clear_faults()
        try:
            found = [json.loads(tenant.reached()) for tenant in crew]
        finally:
            for tenant in crew:
                tenant.end()
        wait_until(lambda: tenants("npu0") == 2, "contexts of tenants that left")
        seen = mine.status().telemetry
        accounts = {each.id: each for each in seen.contexts}
        ours, theirs = accounts[mine.context or 0], accounts[failing.context or 0]
    assert [each["completions"] for each in found] == [20, 20]
    assert (ours.submissions, ours.completions, ours.errors) == (10, 10, 0)
    assert (theirs.submissions, theirs.completions, theirs.errors) == (1, 0, 1)
    assert ours.busy_us == 10 * 2_000
    assert ours.energy_mj == pytest.approx(energy_mj)
    assert seen.departed_busy_us == 40 * 1_000
    assert seen.busy_us == ours.busy_us + seen.departed_busy_us
    assert seen.completions == 50
    assert seen.memory_used_bytes == ours.memory_bytes + theirs.memory_bytes
    charged_mj = ours.energy_mj + seen.departed_energy_mj
    assert seen.energy_uj / 1000 == pytest.approx(charged_mj + seen.idle_energy_uj / 1000)


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
