"""Faults on a device: each leaves a footprint in telemetry, and the guide's F1 to F8 can be told apart by it."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import pytest

from made_machine import COMPILER, FAULTS, MIB, SECOND, SPEC, THERMAL, Bench, program
from npuops.devices.contexts import context_tenants
from npuops.devices.discovery import find_devices
from npuops.devices.readings import read_device
from npuops.devices.suspicions import Look, gone, suspicions
from npuops.devices.tree import Tree
from npuops.errors import DeviceError, DeviceLostError, NpuopsError
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
from npuops.vnpu.fault_plan import FaultPlan
from npuops.vnpu.faults import Fault, Kind
from npuops.vnpu.life import Life
from npuops.vnpu.profile import load_profile, machine_spec
from npuops.vnpu.sysfs import SysfsTree
from npuops.vnpu.tenancy import Priority
from npuops.vnpu.thermal import Heat


class Onlooker:
    """Whoever knows only the files of the device's tree."""

    def __init__(self, bench: Bench, root: Path) -> None:
        self._bench, self._tree = bench, Tree(root)
        self._files = SysfsTree(root / "class/accel/accel0", "bench")
        self._looks: list[Look] = []

    def look(self) -> None:
        self._files.show(self._bench.telemetry())
        devices = find_devices(self._tree)
        if not devices:
            self._looks.clear()
        for device in devices:
            readings, tenants = read_device(self._tree, device), context_tenants(self._tree, device)
            self._looks.append(Look(taken_us=self._bench.now_us, readings=readings, tenants=tenants))

    def modes(self) -> set[str]:
        found = suspicions(self._looks) if self._looks else gone("no folder")
        self._files.remove()
        return {each.mode.value for each in found}


def watched(disturb: Callable[[Bench], None], root: Path) -> set[str]:
    """A tenant with a job every 40 ms, every fifth a canary, that loads a second program after a second."""
    bench = Bench()
    tenant, onlooker = bench.tenant(program(10_000, memory_us=9_000)), Onlooker(bench, root)

    def work(seconds: int) -> None:
        for _ in range(seconds):
            for number in range(25):
                with suppress(DeviceLostError):
                    bench.submit(tenant, canary=number % 5 == 0)
                bench.wait(40_000)
            onlooker.look()

    work(2)
    disturb(bench)
    work(1)
    with suppress(NpuopsError):
        bench.machine.load(tenant[0], program(), COMPILER, bench.now_us)
    work(4)
    return onlooker.modes()


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
        ("slow_dma", set()),
        ("ecc_corrected", set()),
    ],
)
def test_every_failure_mode_is_recognised_by_the_tree_alone_and_nothing_is_taken_for_another(
    fault: str, expected: set[str], tmp_path: Path
) -> None:
    assert watched(lambda bench: bench.machine.inject(FAULTS[fault], bench.now_us), tmp_path) == expected


def test_every_kind_of_fault_has_its_footprint_here() -> None:
    assert {fault.kind for fault in FAULTS.values()} == set(Kind)


def test_a_healthy_device_shows_no_sign(tmp_path: Path) -> None:
    assert watched(lambda _: None, tmp_path) == set()


def test_heat_by_load_alone_is_recognised_as_throttling(tmp_path: Path) -> None:
    bench = Bench(replace(SPEC, thermal=replace(THERMAL, ambient_c=74.0)))
    tenant, onlooker = bench.tenant(program(50_000)), Onlooker(bench, tmp_path)
    onlooker.look()
    while bench.telemetry().cap_mhz == SPEC.top_mhz:
        bench.run(tenant)
    onlooker.look()
    assert onlooker.modes() == {"F2"}
    assert bench.telemetry().heat is Heat.THROTTLED


def test_an_rk3588_in_a_warm_case_throttles_by_load_its_tail_grows_and_cooling_gives_it_back() -> None:
    bench = Bench(machine_spec(load_profile("rk3588")))
    tenant = bench.tenant(program(10_000, memory_us=4_000))

    def latencies_ms(seconds: int) -> list[float]:
        before = len(bench.latencies_us(tenant))
        bench.every(tenant, 33_000, bench.now_us + seconds * SECOND)
        return sorted(latency_us / 1000 for latency_us in bench.latencies_us(tenant)[before:])

    alone = latencies_ms(10)
    assert set(alone) == {10.0}
    bench.machine.inject(Fault(kind=Kind.NOISY_NEIGHBOUR, priority=Priority.IDLE), bench.now_us)
    cold = latencies_ms(10)
    assert cold[-1] < 10.6, "whoever is below waits at the next edge"
    bench.wait(900 * SECOND)
    hot = latencies_ms(10)
    seen = bench.telemetry()
    assert seen.throttles > 0
    assert 79 < seen.temperature_c < 87
    assert hot[int(0.99 * len(hot))] > 1.08 * cold[int(0.99 * len(cold))]
    assert hot[len(hot) // 2] > 1.04 * cold[len(cold) // 2]
    bench.machine.clear_faults(bench.now_us)
    bench.wait(120 * SECOND)
    assert set(latencies_ms(10)) == {10.0}
    assert bench.telemetry().throttles == seen.throttles


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


def test_an_uncorrectable_error_resets_the_device_and_nothing_in_its_memory_is_trusted_again() -> None:
    bench = Bench()
    tenant = bench.tenant()
    for _ in range(2):  # one on the core, one in the queue
        bench.submit(tenant)
    bench.machine.inject(FAULTS["ecc_uncorrected"], bench.now_us)
    bench.wait(SECOND)
    assert [event.failure for event in bench.of(JobFailed)] == [Failure.MEMORY_ERROR] * 2
    assert [event.uncorrected for event in bench.of(MemoryErrors)] == [1]
    after = bench.telemetry()
    assert (after.ue_count, after.resets, after.status) == (1, 1, "online")
    assert after.memory_used_bytes == 0
    with pytest.raises(DeviceLostError, match="no program"):
        bench.submit(tenant)
    again = bench.machine.load(tenant[0], program(), COMPILER, bench.now_us)
    assert bench.run((tenant[0], again)).busy_us == 10_000


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


@pytest.mark.parametrize("down", [Kind.OFFLINE, Kind.DRIVER_CRASH])
def test_what_needs_a_device_that_runs_is_refused_and_reported_by_one_that_is_down(down: Kind) -> None:
    bench = Bench()
    bench.machine.inject(Fault(kind=down), bench.now_us)
    before = bench.telemetry()
    names = ("hang", "reset", "thermal_trip", "ecc_corrected", "ecc_uncorrected")
    for name in names:
        with pytest.raises(DeviceError, match=f"{name} has no effect: the device is {before.life}"):
            bench.machine.inject(FAULTS[name], bench.now_us)
    bench.wait(SECOND)
    assert [event.kind for event in bench.of(FaultHadNoEffect)] == [FAULTS[name].kind for name in names]
    after = bench.telemetry()
    assert (after.life, after.resets, after.ce_count, after.ue_count, after.trips) == (before.life, 0, 0, 0, 0)


def test_a_planned_fault_that_cannot_happen_is_reported_and_the_plan_goes_on() -> None:
    plan = FaultPlan(
        (
            Fault(kind=Kind.OFFLINE, at_us=SECOND, for_us=SECOND),
            Fault(kind=Kind.ECC_UNCORRECTED, at_us=SECOND, count=1),
            Fault(kind=Kind.ECC_CORRECTED, at_us=3 * SECOND, count=1),
        )
    )
    bench = Bench(plan=plan)
    bench.wait(4 * SECOND)
    assert [event.why for event in bench.of(FaultHadNoEffect)] == ["the device is off"]
    assert (bench.telemetry().ue_count, bench.telemetry().ce_count) == (0, 1)


def test_clearing_ends_what_lasts_and_gives_no_lost_job_back() -> None:
    bench = Bench()
    tenant = bench.tenant()
    bench.submit(tenant)
    for name in ("slow_dma", "noisy_neighbour", "oom_pressure", "unsupported_op", "hang"):
        bench.machine.inject(FAULTS[name], bench.now_us)
    bench.machine.clear_faults(bench.now_us)
    bench.wait(0)
    assert [event.kind for event in bench.of(FaultEnded)] == [event.kind for event in bench.of(FaultBegan)]
    assert len(bench.of(FaultEnded)) == 5
    after = bench.telemetry()
    assert (after.status, len(after.contexts), after.memory_used_bytes) == ("resetting", 1, 4 * MIB)
    bench.wait(SPEC.reset_us)
    assert bench.run(tenant).busy_us == 10_000
    assert len(bench.of(JobFailed)) == 1


def test_a_hang_with_a_duration_ends_by_the_watchdogs_reset() -> None:
    bench = Bench()
    tenant = bench.tenant()
    lost, kept = bench.submit(tenant), bench.submit(tenant)
    bench.wait(5_000)
    bench.machine.inject(Fault(kind=Kind.HANG, for_us=2 * SECOND), bench.now_us)
    bench.wait(2 * SECOND - 1)
    assert (bench.telemetry().status, bench.telemetry().resets) == ("hung", 0)
    bench.wait(1)
    assert (bench.telemetry().status, bench.telemetry().resets) == ("resetting", 1)
    assert "watchdog" in bench.telemetry().why
    bench.wait(SECOND)
    assert [(event.job, event.failure) for event in bench.of(JobFailed)] == [(lost, Failure.DEVICE_LOST)]
    assert [event.job for event in bench.of(JobCompleted)] == [kept]


def test_a_hang_that_somebody_ended_by_a_reset_is_not_reset_again() -> None:
    bench = Bench()
    bench.machine.inject(Fault(kind=Kind.HANG, for_us=2 * SECOND), bench.now_us)
    bench.wait(SECOND)
    bench.machine.reset(bench.now_us)
    bench.wait(5 * SECOND)
    assert bench.telemetry().resets == 1


@pytest.mark.parametrize("second", [Kind.OFFLINE, Kind.DRIVER_CRASH])
@pytest.mark.parametrize(("for_s", "over_s"), [(10, 15), (1, 10)])
def test_of_two_outages_the_one_that_ends_last_counts(second: Kind, for_s: int, over_s: int) -> None:
    bench = Bench()
    bench.machine.inject(Fault(kind=Kind.HANG, for_us=100 * SECOND), bench.now_us)
    start_us = bench.now_us
    bench.machine.inject(Fault(kind=Kind.OFFLINE, for_us=10 * SECOND), start_us)
    bench.wait(5 * SECOND)
    bench.machine.inject(Fault(kind=second, for_us=for_s * SECOND), bench.now_us)
    bench.to(start_us + over_s * SECOND - 1)
    assert bench.telemetry().life is (Life.OFF if second is Kind.OFFLINE else Life.GONE)
    bench.to(start_us + over_s * SECOND)
    assert bench.telemetry().life is Life.BOOTING


def test_a_fault_at_the_moment_at_which_a_job_ends_comes_first() -> None:
    bench = Bench()
    tenant = bench.tenant()
    job = bench.submit(tenant)
    bench.wait(9_999)
    bench.machine.inject(Fault(kind=Kind.HANG), bench.now_us)
    bench.machine.reset(bench.now_us)
    plan = FaultPlan((Fault(kind=Kind.RESET, at_us=SPEC.boot_us + 10_000),))
    planned = Bench(plan=plan)
    other = planned.submit(planned.tenant())
    for each, number in ((bench, job), (planned, other)):
        each.wait(SECOND)
        assert [event.job for event in each.of(JobFailed)] == [number]
        assert each.of(JobCompleted) == []
        mine = each.telemetry().contexts[0]
        assert mine.submissions == mine.completions + mine.errors + mine.queued + mine.running == 1


def test_a_fault_in_a_boot_delays_it_or_ends_it_and_a_hang_needs_something_that_runs() -> None:
    for kind, then in ((Kind.RESET, Life.RESETTING), (Kind.OFFLINE, Life.OFF), (Kind.DRIVER_CRASH, Life.GONE)):
        bench = Bench(boot=False)
        bench.to(SPEC.boot_us // 2)
        bench.machine.inject(Fault(kind=kind), bench.now_us)
        assert bench.telemetry().life is then
        bench.wait(SPEC.boot_us)
        assert (bench.telemetry().life is Life.READY) == (kind is Kind.RESET)
    bench = Bench(boot=False)
    with pytest.raises(DeviceError, match="the device is booting"):
        bench.machine.inject(Fault(kind=Kind.HANG), 0)
    bench.to(SPEC.boot_us)
    assert [event.kind for event in bench.of(FaultHadNoEffect)] == [Kind.HANG]
    assert bench.telemetry().life is Life.READY


def test_two_bugs_hit_each_its_own_jobs() -> None:
    bench = Bench()
    tenant = bench.tenant(program(ops=("Conv", "MatMul")))
    for op in ("Conv", "MatMul"):
        bench.machine.inject(Fault(kind=Kind.WRONG_OUTPUT, op=op, rate=0.3, bit=6), bench.now_us)
    hit = [found.op for found in (bench.run(tenant).corruption for _ in range(300)) if found is not None]
    assert 60 < hit.count("Conv") < 120, "three in ten"
    assert 35 < hit.count("MatMul") < 95, "three in ten of the rest"


def test_a_device_that_meets_a_fault_a_second_remembers_counts_and_not_faults() -> None:
    bench = Bench()
    for _ in range(5_000):
        bench.machine.inject(Fault(kind=Kind.ECC_CORRECTED, count=2), bench.now_us)
        bench.machine.inject(Fault(kind=Kind.SLOW_DMA, factor=2.0, for_us=SECOND // 2), bench.now_us)
        bench.wait(SECOND)
    assert bench.machine._simulation._plan.faults == ()
    assert bench.telemetry().ce_count == 10_000
    assert len(bench.of(FaultEnded)) == 5_000


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
