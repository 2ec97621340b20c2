"""Jobs on cores: pauses, other paces and hangs lose and invent no time."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from made_machine import program
from npuops.vnpu.cores import Cores
from npuops.vnpu.tenancy import Context, Job, Loaded, Pace, Priority

FAST = Pace(1.0, 1.0, 5.0)
SLOW = Pace(0.5, 1.0, 1.0)


def job(duration_us: float = 100.0, steps: int = 10, memory_us: float = 0.0) -> Job:
    context = Context(id=1, pid=1, priority=Priority.NORMAL)
    loaded = Loaded(program(duration_us, steps=steps, memory_us=memory_us), ())
    return Job(id=1, context=context, loaded=loaded, submitted_ns=0, canary=False, buffers=None)


def finish_ns(cores: Cores, now_ns: int) -> int:
    cores.plan([], math.inf, now_ns)
    stop = cores.next_stop()
    assert stop is not None
    assert stop.stop_ns is not None
    return stop.stop_ns


def test_a_slower_clock_stretches_what_is_left_of_a_job() -> None:
    cores = Cores(1, 1000, FAST)
    cores.start(job(), 0, claimed=False)
    cores.set_pace(SLOW, 45_000)  # in the middle of the fifth step
    assert finish_ns(cores, 45_000) == 45_000 + 2 * 55_000
    cores.set_pace(FAST, 65_000)
    assert finish_ns(cores, 65_000) == 65_000 + 45_000


def test_slow_transfers_lengthen_what_waits_for_them_and_the_clock_does_not() -> None:
    cores = Cores(1, 1000, FAST)
    cores.start(job(memory_us=100.0), 0, claimed=False)
    assert finish_ns(cores, 0) == 100_000
    cores.set_pace(Pace(1.0, 3.0, 5.0), 0)
    assert finish_ns(cores, 0) == 300_000


@given(st.lists(st.integers(1, 9), max_size=8), st.lists(st.integers(0, 3000), max_size=8))
def test_a_job_that_pauses_at_edges_takes_as_long_as_one_that_does_not(edges: list[int], pauses: list[int]) -> None:
    cores, made, now_ns = Cores(1, 1000, FAST), job(), 0
    for edge, pause_ns in zip(sorted(edges), pauses, strict=False):
        if edge <= made.step:
            continue
        cores.start(made, now_ns, claimed=False)
        now_ns += (edge - made.step) * 10_000
        cores.leave(cores.running[0], now_ns)
        assert made.step == edge
        now_ns += pause_ns
    cores.start(made, now_ns, claimed=False)
    end_ns = finish_ns(cores, now_ns)
    cores.leave(cores.running[0], end_ns)
    assert made.busy_ns == 100_000
    assert made.energy_mj == pytest.approx(100e-6 * 5.0 * 1e3)
    assert cores.busy_ns(end_ns) == cores.core_busy_ns(end_ns) == 100_000
    assert cores.dram_bytes == 10 * 1000


def test_an_equal_makes_it_leave_at_the_first_edge_after_its_slice() -> None:
    cores = Cores(1, 25_000, FAST)
    cores.start(job(), 0, claimed=False)
    cores.plan([Context(id=2, pid=2, priority=Priority.NORMAL)], math.inf, 0)
    stop = cores.next_stop()
    assert stop is not None
    assert stop.stop_ns == 30_000


def test_a_job_that_has_not_begun_leaves_at_once_for_a_higher_one() -> None:
    cores = Cores(1, 25_000, FAST)
    cores.start(job(), 5000, claimed=False)
    cores.plan([Context(id=2, pid=2, priority=Priority.FOCUS)], math.inf, 5000)
    assert cores.running[0].stop_ns == 5000
    cores.plan([Context(id=2, pid=2, priority=Priority.FOCUS)], math.inf, 5001)
    assert cores.running[0].stop_ns == 15_000


def test_a_hang_takes_time_and_no_energy_and_does_not_end() -> None:
    cores, made = Cores(1, 1000, FAST), job()
    cores.start(made, 0, claimed=False)
    cores.freeze(20_000)
    cores.plan([], math.inf, 20_000)
    assert cores.next_stop() is None
    assert cores.working == 0
    cores.leave(cores.running[0], 500_000)
    assert (made.step, made.busy_ns) == (2, 500_000)
    assert cores.dram_bytes == 2 * 1000, "of the two steps that were over before"
    assert made.energy_mj == pytest.approx(20e-6 * 5.0 * 1e3)
    assert not cores.free
    cores.thaw()
    assert cores.free
