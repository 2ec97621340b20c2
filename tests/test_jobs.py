"""Tenants on one device: memory that comes back, turns that are taken, work that fails and is told."""

from __future__ import annotations

import pytest

from made_machine import MIB, SPEC, program
from npuops.errors import DeviceLostError, DeviceMemoryError, OptionError
from npuops.vnpu.device_events import DeviceEvent, Failure, JobFailed
from npuops.vnpu.jobs import Jobs
from npuops.vnpu.run_queue import STARVED_SLICES
from npuops.vnpu.tenancy import Pace, Priority

PACE = Pace(1.0, 1.0, 5.0)


@pytest.fixture
def told() -> list[DeviceEvent]:
    return []


@pytest.fixture
def jobs(told: list[DeviceEvent]) -> Jobs:
    return Jobs(SPEC, PACE, told.append)


def test_a_load_that_fails_halfway_leaves_nothing_behind(jobs: Jobs) -> None:
    context = jobs.open(1, Priority.NORMAL)
    with pytest.raises(DeviceMemoryError):
        jobs.load(context, program(weights_bytes=40 * MIB, activation_bytes=40 * MIB))
    assert jobs.memory.used_bytes == 0


def test_activations_that_fit_on_the_chip_take_no_device_memory(jobs: Jobs) -> None:
    context = jobs.open(1, Priority.NORMAL)
    jobs.load(context, program(weights_bytes=4 * MIB, activation_bytes=SPEC.sram_bytes))
    assert jobs.memory.owned_bytes(context.id) == 4 * MIB
    jobs.load(context, program(weights_bytes=0, activation_bytes=2 * SPEC.sram_bytes))
    assert jobs.memory.owned_bytes(context.id) == 4 * MIB + 2 * SPEC.sram_bytes


def test_buffers_live_from_submission_to_the_end(jobs: Jobs) -> None:
    context = jobs.open(1, Priority.NORMAL)
    handle = jobs.load(context, program(weights_bytes=0, activation_bytes=0))
    jobs.submit(context, handle, 0)
    jobs.dispatch(0)
    assert jobs.memory.used_bytes == 8192
    with pytest.raises(OptionError, match="not through"):
        jobs.unload(context, handle)
    stop = jobs.cores.next_stop()
    assert stop is not None
    assert jobs.stop(stop, stop.finish_ns) is not None
    assert jobs.memory.used_bytes == 0
    jobs.unload(context, handle)
    with pytest.raises(DeviceLostError, match="no program"):
        jobs.submit(context, handle, 0)


def test_no_room_for_buffers_is_an_error_of_the_tenant(jobs: Jobs) -> None:
    context = jobs.open(1, Priority.NORMAL)
    handle = jobs.load(context, program(input_bytes=100 * MIB))
    with pytest.raises(DeviceMemoryError):
        jobs.submit(context, handle, 0)
    assert (context.account.submissions, context.account.errors) == (1, 1)
    assert not context.queue


def test_a_tenant_that_goes_leaves_its_account_and_nothing_else(jobs: Jobs) -> None:
    context = jobs.open(1, Priority.NORMAL)
    handle = jobs.load(context, program())
    for _ in range(3):
        jobs.submit(context, handle, 0)
    jobs.dispatch(0)
    jobs.bill_waiting(0)
    waiting = jobs.open(2, Priority.IDLE)
    jobs.submit(waiting, jobs.load(waiting, program()), 0)
    jobs.bill_waiting(0)
    jobs.close(waiting, 700_000)
    assert jobs.departed.waited_ns == 700_000
    jobs.close(context, 1_000_000)
    assert jobs.memory.used_bytes == 0
    assert jobs.cores.running == []
    assert jobs.departed.busy_ns == 1_000_000
    assert jobs.departed.energy_mj == pytest.approx(1e-3 * PACE.core_w * 1e3)
    assert jobs.departed.submissions == 4
    with pytest.raises(DeviceLostError, match="no context"):
        jobs.context(context.id)


def test_what_is_forgotten_is_told_job_by_job(jobs: Jobs, told: list[DeviceEvent]) -> None:
    context = jobs.open(1, Priority.NORMAL)
    handle = jobs.load(context, program())
    numbers = [jobs.submit(context, handle, 0) for _ in range(3)]
    jobs.dispatch(0)
    jobs.forget(Failure.DEVICE_LOST, "power lost", 5000)
    assert [(event.job, event.failure, event.at_us) for event in told if isinstance(event, JobFailed)] == [
        (number, Failure.DEVICE_LOST, 5.0) for number in numbers
    ]
    assert context.account.errors == 3
    assert jobs.memory.used_bytes == 0
    assert context.loaded == {}
    assert context.id in jobs.contexts


def test_a_normal_tenant_is_protected_from_the_focus_that_it_overtakes_and_only_then(jobs: Jobs) -> None:
    due_ns = STARVED_SLICES * SPEC.time_slice_us * 1000
    alone = jobs.open(1, Priority.NORMAL)
    jobs.submit(alone, jobs.load(alone, program()), 0)
    jobs.dispatch(due_ns)
    assert not jobs.cores.running[0].claimed
    jobs.close(alone, due_ns)
    normal, above = jobs.open(1, Priority.NORMAL), jobs.open(2, Priority.FOCUS)
    jobs.submit(normal, jobs.load(normal, program()), due_ns)
    jobs.submit(above, jobs.load(above, program()), 2 * due_ns)
    jobs.dispatch(2 * due_ns)
    assert jobs.cores.running[0].job.context is normal
    assert jobs.cores.running[0].claimed


def test_a_tenant_with_a_deep_queue_does_not_count_as_waiting_while_it_is_served(jobs: Jobs) -> None:
    context = jobs.open(1, Priority.NORMAL)
    handle = jobs.load(context, program())
    for _ in range(2):
        jobs.submit(context, handle, 0)
    jobs.dispatch(0)
    end_ns = jobs.cores.running[0].finish_ns
    jobs.stop(jobs.cores.running[0], end_ns)
    assert context.waiting_since_ns == end_ns
