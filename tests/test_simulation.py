"""Faults on a device: each leaves a footprint in telemetry, and the guide's F1 to F8 can be told apart by it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from made_machine import COMPILER, SECOND, SPEC, THERMAL, Bench, program
from npuops.errors import DeviceLostError, NpuopsError
from npuops.vnpu.device_events import (
    ContextLost,
    Failure,
    FaultBegan,
    FaultEnded,
    FaultHadNoEffect,
    JobCompleted,
    JobFailed,
    LifeChanged,
    MemoryErrors,
)
from npuops.vnpu.device_telemetry import Refusal, Telemetry
from npuops.vnpu.fault_plan import FaultPlan
from npuops.vnpu.faults import Fault, Kind
from npuops.vnpu.life import Life
from npuops.vnpu.tenancy import Priority
from npuops.vnpu.thermal import Heat
from npuops.vnpu.versions import Part

FAULTS = {
    "offline": Fault(kind=Kind.OFFLINE),
    "hang": Fault(kind=Kind.HANG),
    "reset": Fault(kind=Kind.RESET),
    "driver_crash": Fault(kind=Kind.DRIVER_CRASH),
    "thermal_trip": Fault(kind=Kind.THERMAL_TRIP),
    "ecc_corrected": Fault(kind=Kind.ECC_CORRECTED, count=3),
    "ecc_uncorrected": Fault(kind=Kind.ECC_UNCORRECTED, count=1),
    "oom_pressure": Fault(kind=Kind.OOM_PRESSURE, share=0.95),
    "poor scales": Fault(kind=Kind.WRONG_OUTPUT, op="Conv", rate=1.0, bit=0),
    "firmware bug": Fault(kind=Kind.WRONG_OUTPUT, op="Conv", rate=0.2, bit=6),
    "slow_dma": Fault(kind=Kind.SLOW_DMA, factor=4.0),
    "unsupported_op": Fault(kind=Kind.UNSUPPORTED_OP, op="Conv"),
    "old firmware": Fault(kind=Kind.VERSION_MISMATCH, part=Part.FIRMWARE, version="2.0.0"),
    "new compiler": Fault(kind=Kind.VERSION_MISMATCH, part=Part.COMPILER, version="7.0.0"),
    "noisy_neighbour": Fault(kind=Kind.NOISY_NEIGHBOUR, priority=Priority.NORMAL),
}


def signs(before: Telemetry, after: Telemetry) -> set[str]:
    """What an onlooker concludes from two looks at a device; the table in faults.py in code."""
    runs, failures = after.canary_runs - before.canary_runs, after.canary_failures - before.canary_failures
    refused = {refusal for refusal in Refusal if after.refusals[refusal] > before.refusals[refusal]}
    busy_us, completed = after.busy_us - before.busy_us, done(after) - done(before)
    price_us = busy_us / completed if completed else 0.0
    slower = price_us > 1.2 * before.busy_us / done(before)
    throttled = after.throttles > before.throttles
    neighbour = max((each.busy_us for each in after.contexts if each.pid != 1), default=0.0)
    found = {
        "F1": not after.present
        or after.status != "online"
        or (after.resets, after.trips, after.ue_count) != (before.resets, before.trips, before.ue_count),
        "F2": throttled and after.cap_mhz < after.max_mhz and slower,
        "F3": runs > 0 and failures == runs,
        "F4": Refusal.MEMORY in refused and after.memory_used_bytes > 0.9 * after.memory_total_bytes,
        "F5": Refusal.OPERATOR in refused,
        "F6": Refusal.VERSION in refused,
        "F7": neighbour > 0.5 * (after.core_busy_us - before.core_busy_us),
        "F8": 0 < failures < runs,
        "slow memory": slower and not throttled and neighbour == 0 and after.status == "online",
        "wear": after.ce_count > before.ce_count,
    }
    return {name for name, seen in found.items() if seen}


def done(telemetry: Telemetry) -> int:
    return sum(each.completions for each in telemetry.contexts if each.pid == 1)


def watched(disturb: Callable[[Bench], None], bench: Bench | None = None) -> set[str]:
    """A tenant with a job every 40 ms, every fifth a canary, that loads a second program after a second."""
    bench = bench or Bench()
    tenant = bench.tenant(program(10_000, memory_us=9_000))

    def work(seconds: int) -> None:
        for number in range(seconds * 25):
            with suppress(DeviceLostError):
                bench.submit(tenant, canary=number % 5 == 0)
            bench.wait(40_000)

    work(2)
    before = bench.telemetry()
    disturb(bench)
    work(1)
    with suppress(NpuopsError):
        bench.machine.load(tenant[0], program(), COMPILER, bench.now_us)
    work(1)
    return signs(before, bench.telemetry())


@pytest.mark.parametrize(
    ("fault", "expected"),
    [
        ("offline", {"F1"}),
        ("hang", {"F1"}),
        ("reset", {"F1"}),
        ("driver_crash", {"F1"}),
        ("thermal_trip", {"F1"}),
        ("ecc_uncorrected", {"F1"}),
        ("poor scales", {"F3"}),
        ("oom_pressure", {"F4"}),
        ("unsupported_op", {"F5"}),
        ("old firmware", {"F6"}),
        ("new compiler", {"F6"}),
        ("noisy_neighbour", {"F7"}),
        ("firmware bug", {"F8"}),
        ("slow_dma", {"slow memory"}),
        ("ecc_corrected", {"wear"}),
    ],
)
def test_every_fault_is_recognised_by_telemetry_alone_and_taken_for_nothing_else(
    fault: str, expected: set[str]
) -> None:
    found = watched(lambda bench: bench.machine.inject(FAULTS[fault], bench.now_us))
    extra = {"F2"} if fault == "thermal_trip" else set()
    assert expected <= found <= expected | extra


def test_every_kind_of_fault_has_its_footprint_here() -> None:
    assert {fault.kind for fault in FAULTS.values()} == set(Kind)


def test_a_healthy_device_shows_no_sign() -> None:
    assert watched(lambda _: None) == set()


def test_heat_by_load_alone_is_recognised_as_throttling() -> None:
    bench = Bench(replace(SPEC, thermal=replace(THERMAL, ambient_c=74.0)))
    tenant = bench.tenant(program(50_000))
    before = None
    while before is None or bench.telemetry().cap_mhz == SPEC.top_mhz:
        bench.run(tenant)
        before = bench.telemetry() if bench.telemetry().throttles == 0 else before
    for _ in range(5):
        bench.run(tenant)
    assert signs(before, bench.telemetry()) == {"F2"}
    assert bench.telemetry().heat is Heat.THROTTLED


def test_offline_fails_everything_and_forgets_programs_until_power_is_back() -> None:
    bench = Bench()
    tenant = bench.tenant()
    jobs = [bench.submit(tenant), bench.submit(tenant)]
    bench.machine.inject(Fault(kind=Kind.OFFLINE, for_us=SECOND), bench.now_us)
    bench.wait(1)
    assert [event.job for event in bench.of(JobFailed)] == jobs
    off = bench.telemetry()
    assert (off.status, off.power_w, off.memory_used_bytes) == ("offline", 0.0, 0)
    with pytest.raises(DeviceLostError, match=r"off: fault: offline"):
        bench.submit(tenant)
    bench.wait(SECOND)
    assert bench.telemetry().life is Life.BOOTING
    bench.wait(SPEC.boot_us)
    with pytest.raises(DeviceLostError, match="no program"):
        bench.submit(tenant)
    again = bench.machine.load(tenant[0], program(), COMPILER, bench.now_us)
    assert bench.run((tenant[0], again)).busy_us == 10_000


def test_a_driver_crash_takes_the_contexts_and_a_reload_brings_the_device_back() -> None:
    bench = Bench()
    tenant = bench.tenant()
    bench.machine.inject(Fault(kind=Kind.DRIVER_CRASH), bench.now_us)
    bench.wait(SECOND)
    gone = bench.telemetry()
    assert (gone.present, gone.contexts, gone.power_w) == (False, (), SPEC.idle_w)
    assert [event.context for event in bench.of(ContextLost)] == [tenant[0]]
    bench.machine.reset(bench.now_us)
    bench.wait(SPEC.boot_us)
    assert bench.telemetry().status == "online"


def test_an_uncorrectable_error_kills_the_jobs_and_resets_the_device() -> None:
    bench = Bench()
    tenant = bench.tenant()
    bench.submit(tenant)
    bench.machine.inject(FAULTS["ecc_uncorrected"], bench.now_us)
    bench.wait(SECOND)
    assert [event.failure for event in bench.of(JobFailed)] == [Failure.MEMORY_ERROR]
    assert [event.uncorrected for event in bench.of(MemoryErrors)] == [1]
    after = bench.telemetry()
    assert (after.ue_count, after.resets, after.status) == (1, 1, "online")


def test_a_thermal_trip_switches_off_and_no_boot_succeeds_before_it_has_cooled() -> None:
    bench = Bench()
    bench.machine.inject(FAULTS["thermal_trip"], bench.now_us)
    assert bench.telemetry().life is Life.OFF
    assert bench.telemetry().trips == 1
    bench.machine.reset(bench.now_us)
    bench.wait(SPEC.boot_us)
    assert "too hot" in bench.telemetry().why
    bench.wait(30 * SECOND)
    bench.machine.reset(bench.now_us)
    bench.wait(SPEC.boot_us)
    assert bench.telemetry().life is Life.READY


def test_slow_transfers_end_with_the_fault() -> None:
    bench = Bench()
    tenant = bench.tenant(program(10_000, memory_us=10_000))
    bench.machine.inject(Fault(kind=Kind.SLOW_DMA, factor=3.0, for_us=SECOND), bench.now_us)
    assert bench.run(tenant).busy_us == 30_000
    bench.wait(SECOND)
    assert bench.run(tenant).busy_us == 10_000
    assert [event.kind for event in bench.of(FaultEnded)] == [Kind.SLOW_DMA]


def test_wrong_outputs_say_which_operator_bit_and_seed_and_spare_programs_without_it() -> None:
    bench = Bench()
    hit, spared = bench.tenant(), bench.tenant(program(ops=("MatMul",)))
    bench.machine.inject(FAULTS["firmware bug"], bench.now_us)
    corruptions = [bench.run(hit).corruption for _ in range(200)]
    found = [each for each in corruptions if each is not None]
    assert 20 < len(found) < 60
    assert {(each.op, each.bit) for each in found} == {("Conv", 6)}
    assert len({each.seed for each in found}) == len(found)
    assert all(bench.run(spared).corruption is None for _ in range(50))


def test_memory_pressure_takes_its_share_in_pieces_and_gives_it_back() -> None:
    bench = Bench()
    first, second, _ = (bench.tenant() for _ in range(3))
    bench.machine.close_context(second[0], bench.now_us)
    free_bytes = SPEC.dram_bytes - bench.telemetry().memory_used_bytes
    bench.machine.inject(Fault(kind=Kind.OOM_PRESSURE, share=1.0, for_us=SECOND), bench.now_us)
    assert bench.telemetry().largest_free_bytes == 0
    with pytest.raises(NpuopsError, match="out of device memory"):
        bench.submit(first)
    bench.wait(SECOND)
    assert SPEC.dram_bytes - bench.telemetry().memory_used_bytes == free_bytes


def test_a_neighbour_comes_back_after_a_crash_and_leaves_with_its_fault() -> None:
    bench = Bench()
    bench.machine.inject(replace(FAULTS["noisy_neighbour"], for_us=10 * SECOND), bench.now_us)
    bench.machine.inject(Fault(kind=Kind.DRIVER_CRASH, for_us=SECOND), bench.now_us)
    bench.wait(3 * SECOND)
    (neighbour,) = bench.telemetry().contexts
    assert (neighbour.pid, neighbour.running, neighbour.queued) == (0, 1, 0)
    bench.wait(10 * SECOND)
    assert bench.telemetry().contexts == ()
    assert bench.of(JobCompleted) == []
    assert bench.of(ContextLost) == [], "nobody waits for its jobs"


def test_a_fault_that_cannot_happen_now_is_reported_and_does_nothing() -> None:
    bench = Bench()
    for kind in (Kind.OFFLINE, Kind.HANG):
        bench.machine.inject(Fault(kind=kind), bench.now_us)
    bench.machine.inject(FAULTS["ecc_corrected"], bench.now_us)
    bench.wait(0)
    assert [(event.kind, event.why) for event in bench.of(FaultHadNoEffect)] == [
        (Kind.HANG, "the device is off"),
        (Kind.ECC_CORRECTED, "the device is off"),
    ]
    assert bench.telemetry().ce_count == 0


def test_clearing_ends_what_lasts_and_mends_nothing() -> None:
    bench = Bench()
    for name in ("slow_dma", "noisy_neighbour", "oom_pressure", "unsupported_op", "hang"):
        bench.machine.inject(FAULTS[name], bench.now_us)
    bench.machine.clear_faults(bench.now_us)
    bench.wait(0)
    assert len(bench.of(FaultBegan)) == 5
    assert len(bench.of(FaultEnded)) == 4
    after = bench.telemetry()
    assert (after.status, after.contexts, after.memory_used_bytes) == ("hung", (), 0)


def test_clearing_a_loss_of_power_switches_the_device_on_again() -> None:
    bench = Bench()
    bench.machine.inject(FAULTS["offline"], bench.now_us)
    bench.machine.clear_faults(bench.now_us)
    bench.wait(SPEC.boot_us)
    assert bench.telemetry().status == "online"


def test_a_plan_counts_from_the_moment_of_switching_on() -> None:
    plan = FaultPlan((Fault(kind=Kind.RESET, at_us=SECOND), Fault(kind=Kind.OFFLINE, at_us=0, for_us=SECOND // 2)))
    bench = Bench(boot=False, plan=plan, start_us=5 * SECOND)
    bench.to(10 * SECOND)
    assert [(event.at_us, event.after) for event in bench.of(LifeChanged)] == [
        (5.0 * SECOND, Life.OFF),
        (5.5 * SECOND, Life.BOOTING),
        (5.6 * SECOND, Life.READY),
        (6.0 * SECOND, Life.RESETTING),
        (6.05 * SECOND, Life.READY),
    ]


def test_a_device_that_was_reset_early_is_not_switched_on_twice() -> None:
    bench = Bench()
    bench.machine.inject(Fault(kind=Kind.OFFLINE, for_us=10 * SECOND), bench.now_us)
    bench.machine.reset(bench.now_us)
    bench.wait(20 * SECOND)
    assert [event.after for event in bench.of(LifeChanged)] == [Life.READY, Life.OFF, Life.BOOTING, Life.READY]


def test_power_that_returns_does_not_switch_on_what_is_off_for_another_reason() -> None:
    bench = Bench()
    bench.machine.inject(Fault(kind=Kind.OFFLINE, for_us=10 * SECOND), bench.now_us)
    bench.machine.reset(bench.now_us)
    bench.wait(SECOND)
    bench.machine.inject(FAULTS["thermal_trip"], bench.now_us)
    bench.wait(20 * SECOND)
    assert bench.telemetry().life is Life.OFF


def test_a_neighbour_has_one_job_for_each_core_whatever_the_others_do() -> None:
    bench = Bench(replace(SPEC, cores=2))
    tenant = bench.tenant()
    bench.machine.inject(FAULTS["noisy_neighbour"], bench.now_us)
    for _ in range(5):
        bench.submit(tenant)
    neighbour = next(each for each in bench.telemetry().contexts if each.pid == 0)
    assert neighbour.queued + neighbour.running == 2
