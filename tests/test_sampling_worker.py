from __future__ import annotations

import math
import threading
from pathlib import Path

import pytest

import device_trees
from npuops.clock import SystemClock
from npuops.devices.evidence import Canary, Verdict
from npuops.devices.health import State
from npuops.devices.sampler import DevicesSampled, Sampler
from npuops.devices.sampling_worker import SamplingWorker
from npuops.devices.tree import Tree
from npuops.errors import OptionError
from npuops.events import Event
from npuops.testing import EventLog, ManualClock
from virtual_devices import wait_until


@pytest.fixture
def tree(tmp_path: Path) -> Tree:
    device_trees.vnpu(tmp_path)
    return Tree(tmp_path)


def test_looks_are_one_period_apart(tree: Tree) -> None:
    clock, log = ManualClock(), EventLog()
    SamplingWorker(Sampler(tree, clock, log), clock, period_s=5.0).run(rounds=3)
    looks = [event.samples[0].taken_us for event in log.of(DevicesSampled)]
    assert looks == [0, 5_000_000, 10_000_000]


@pytest.mark.parametrize("period_s", [0.0, 0.999, -1.0, math.nan, math.inf])
def test_a_period_below_a_second_is_refused_with_the_reason(period_s: float, tree: Tree) -> None:
    clock = ManualClock()
    with pytest.raises(OptionError) as refused:
        SamplingWorker(Sampler(tree, clock), clock, period_s=period_s)
    assert "lock" in refused.value.advice


def test_latest_is_empty_before_the_first_look_and_then_shared(tree: Tree) -> None:
    clock = ManualClock()
    worker = SamplingWorker(Sampler(tree, clock), clock)
    assert worker.latest == ()
    worker.run(rounds=1)
    assert worker.latest is worker.latest
    assert worker.latest[0].device.name == "accel0"


def test_a_canary_reaches_the_next_look(tree: Tree) -> None:
    clock = ManualClock()
    worker = SamplingWorker(Sampler(tree, clock), clock)
    worker.report_canary("vnpu/npu0", Canary(Verdict.TIMED_OUT))
    worker.run(rounds=1)
    assert worker.latest[0].condition.state is State.HUNG


def test_stop_ends_the_thread_in_the_middle_of_a_period(tree: Tree) -> None:
    clock = SystemClock()
    looked: list[Event] = []
    worker = SamplingWorker(Sampler(tree, clock, looked.append), clock, period_s=3600.0)
    worker.start()
    while not looked:
        clock.sleep_until(clock.now_us() + 1000)
    worker.stop()
    wait_until(lambda: "npuops-devices" not in [each.name for each in threading.enumerate()], "the thread sleeps on")
    assert len(worker.latest) == 1


def test_an_observer_that_stops_the_loop_sees_no_further_look(tree: Tree) -> None:
    clock, log = ManualClock(), EventLog()

    def stop_at_two(event: Event) -> None:
        log(event)
        if len(log.of(DevicesSampled)) == 2:
            worker.stop()

    worker = SamplingWorker(Sampler(tree, clock, stop_at_two), clock)
    worker.run()
    assert len(log.of(DevicesSampled)) == 2
