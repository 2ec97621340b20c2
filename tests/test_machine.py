"""The truths that a machine must hold: determinism, conservation, heat, neighbours, lives, refusals."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import replace
from itertools import pairwise
from statistics import median

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from made_machine import COMPILER, FAULTS, MIB, SECOND, SPEC, Bench, program
from npuops.artifacts.keys import Algorithm, new_key
from npuops.errors import (
    DeviceLostError,
    DeviceMemoryError,
    IncompatibleArtifactError,
    NpuopsError,
    OptionError,
    UnsupportedModelError,
)
from npuops.vnpu.device_events import ClockChanged, DeviceEvent, Failure, JobCompleted, JobFailed, LifeChanged
from npuops.vnpu.device_telemetry import Refusal, Telemetry
from npuops.vnpu.fault_plan import FaultPlan
from npuops.vnpu.faults import Fault, Kind
from npuops.vnpu.firmware import BootRom, Header, make_image
from npuops.vnpu.life import Life
from npuops.vnpu.machine import Machine
from npuops.vnpu.tenancy import Priority
from npuops.vnpu.versions import Part

PLAN = FaultPlan(
    (
        Fault(kind=Kind.SLOW_DMA, at_us=SECOND, for_us=SECOND, factor=3.0),
        Fault(kind=Kind.NOISY_NEIGHBOUR, at_us=2 * SECOND, for_us=SECOND, priority=Priority.NORMAL),
        Fault(kind=Kind.WRONG_OUTPUT, at_us=2 * SECOND, for_us=2 * SECOND, op="Conv", rate=0.3, bit=6),
        Fault(kind=Kind.ECC_UNCORRECTED, at_us=4 * SECOND, count=1),
        Fault(kind=Kind.THERMAL_TRIP, at_us=5 * SECOND),
    )
)

Script = list[tuple[str, int]]
CALLS = (*("normal", "focus", "load", "reset") * 4, *("unload", "close", "clear") * 2, *FAULTS)
scripts = st.lists(st.tuples(st.sampled_from(CALLS), st.integers(0, 400_000)), max_size=40)


def played(
    script: Script, *, looks: int = 0, seed: int = 5, seen: list[Telemetry] | None = None
) -> tuple[list[DeviceEvent], Telemetry]:
    """What came of (call, µs to wait before it) on two cores under PLAN; with `looks` in each wait, kept in `seen`."""
    bench = Bench(replace(SPEC, cores=2), seed=seed, plan=PLAN)
    tenants = {
        "normal": bench.tenant(program(30_000, memory_us=20_000)),
        "focus": bench.tenant(program(5_000), Priority.FOCUS),
    }
    loaded: list[tuple[int, int]] = []
    for call, wait_us in script:
        before_us = bench.now_us
        for look in range(looks):
            bench.to(before_us + wait_us * look // looks)
            bench.machine.next_event_us()
            found = bench.telemetry()
            if seen is not None:
                seen.append(found)
        bench.to(before_us + wait_us)
        with suppress(NpuopsError):  # off, full, at work, incompatible: part of the script
            if call in tenants:
                bench.submit(tenants[call])
            elif call == "load":  # also what a client does whose programs the device forgot
                made, (context, _) = program(20_000, weights_bytes=(3 + len(loaded) % 5) * MIB), tenants["normal"]
                if all(each.id != context for each in bench.telemetry().contexts):
                    context = bench.machine.open_context(1, Priority.NORMAL, bench.now_us)
                tenants["normal"] = (context, bench.machine.load(context, made, COMPILER, bench.now_us))
                loaded.append(tenants["normal"])
            elif call == "unload" and loaded:
                bench.machine.unload(*loaded.pop(0), bench.now_us)
            elif call == "close":
                bench.machine.close_context(tenants["focus"][0], bench.now_us)
            elif call == "reset":
                bench.machine.reset(bench.now_us)
            elif call == "clear":
                bench.machine.clear_faults(bench.now_us)
            elif call in FAULTS:
                bench.machine.inject(FAULTS[call], bench.now_us)
    bench.wait(0)  # what the last call has caused
    return bench.events, bench.telemetry()


@settings(max_examples=40, deadline=None)
@given(scripts)
def test_the_same_calls_have_the_same_outcome_however_often_somebody_looks(script: Script) -> None:
    assert played(script) == played(script) == played(script, looks=7)


def test_another_seed_hits_other_jobs() -> None:
    script = [("normal", 60_000)] * 60
    hit = [
        [event.job for event in played(script, seed=seed)[0] if isinstance(event, JobCompleted) and event.corruption]
        for seed in (1, 2)
    ]
    assert hit[0] != hit[1]
    assert all(hit)


@settings(max_examples=40, deadline=None)
@given(scripts)
def test_time_energy_jobs_and_memory_are_conserved(script: Script) -> None:
    events, after = played(script)
    tenants = after.contexts
    spent_us = sum(each.busy_us for each in tenants) + after.departed_busy_us
    spent_mj = sum(each.energy_mj for each in tenants) + after.departed_energy_mj
    wall_us = sum(wait_us for _, wait_us in script) + SPEC.boot_us
    assert after.busy_us <= wall_us
    assert after.busy_us <= after.core_busy_us <= 2 * after.busy_us
    assert spent_us == pytest.approx(after.core_busy_us, rel=1e-12, abs=1e-6)
    assert spent_mj * 1000 + after.idle_energy_uj == pytest.approx(after.energy_uj, rel=1e-9, abs=1e-3)
    assert after.idle_energy_uj <= SPEC.idle_w * wall_us * (1 + 1e-12)
    for each in tenants:
        assert each.submissions == each.completions + each.errors + each.queued + each.running
        ended = sum(getattr(event, "context", None) == each.id for event in events)
        assert each.pid == 0 or ended == each.completions + each.errors


@settings(max_examples=40, deadline=None)
@given(scripts)
def test_the_sums_are_right_at_every_moment_and_counters_only_grow(script: Script) -> None:
    seen: list[Telemetry] = []
    played(script, looks=5, seen=seen)
    for look in seen:
        spent_us = sum(each.busy_us for each in look.contexts) + look.departed_busy_us
        spent_uj = (sum(each.energy_mj for each in look.contexts) + look.departed_energy_mj) * 1000
        assert spent_us == pytest.approx(look.core_busy_us, rel=1e-12, abs=1e-6)
        assert spent_uj + look.idle_energy_uj == pytest.approx(look.energy_uj, rel=1e-9, abs=1e-3)
        assert look.memory_used_bytes >= sum(each.memory_bytes for each in look.contexts), "the rest is under pressure"
        assert look.largest_free_bytes <= look.memory_total_bytes - look.memory_used_bytes
        assert sum(each.running for each in look.contexts) <= 2
        assert look.power_w == 0 if look.life is Life.OFF else look.power_w >= SPEC.idle_w
    for before, after in pairwise(seen):
        for counter in ("busy_us", "core_busy_us", "energy_uj", "idle_energy_uj", "dram_bytes", "resets", "ue_count"):
            assert getattr(before, counter) <= getattr(after, counter), counter
        earlier = {each.id: each for each in before.contexts}
        for each in after.contexts:
            known = earlier.get(each.id, each)
            for counter in ("busy_us", "wait_us", "energy_mj", "submissions", "completions", "errors", "preemptions"):
                assert getattr(known, counter) <= getattr(each, counter), counter


@pytest.mark.parametrize("seconds", [7, 300])
def test_energy_is_the_integral_of_power(seconds: int) -> None:
    """Every change of power is an event, so power times time between events adds up; PLAN ends in a thermal trip."""
    bench = Bench(boot=False, plan=PLAN if seconds == 7 else FaultPlan())
    tenant, integral_uj = None, 0.0
    while bench.now_us < seconds * SECOND:
        ready = bench.telemetry().life is Life.READY
        if tenant is None and ready:
            tenant = bench.tenant(program(50_000, memory_us=30_000))
        if tenant is not None and ready and not bench.telemetry().contexts[0].queued:
            with suppress(DeviceLostError):  # PLAN's memory error has cost it the program
                bench.submit(tenant)
        due_us = bench.machine.next_event_us()
        target_us = min(due_us or seconds * SECOND, seconds * SECOND)
        power_w, before_us = bench.telemetry().power_w, bench.now_us
        bench.to(target_us)
        integral_uj += power_w * (target_us - before_us)
    after = bench.telemetry()
    assert after.energy_uj == pytest.approx(integral_uj, rel=1e-6)
    assert (after.trips, after.throttles > 5) == ((1, False) if seconds == 7 else (0, True))


def test_memory_returns_to_zero_and_bytes_moved_are_those_of_the_plan() -> None:
    bench = Bench()
    made = program(steps=7)
    tenants = [bench.tenant(made, pid=pid) for pid in (1, 2, 3)]
    for tenant in tenants * 4:
        bench.submit(tenant)
    bench.wait(SECOND)
    assert len(bench.of(JobCompleted)) == 12
    assert bench.telemetry().dram_bytes == 12 * sum(step.dram_bytes for step in made.steps)
    assert bench.telemetry().memory_used_bytes == 3 * 4 * MIB
    bench.machine.unload(*tenants[0], bench.now_us)
    for context, _ in tenants:
        bench.machine.close_context(context, bench.now_us)
    assert bench.telemetry().memory_used_bytes == 0
    assert bench.telemetry().largest_free_bytes == bench.telemetry().memory_total_bytes


def test_a_killed_client_frees_its_core_at_once() -> None:
    bench = Bench()
    greedy, other = bench.tenant(program(10 * SECOND, steps=1)), bench.tenant(pid=2)
    bench.submit(greedy)
    bench.wait(1000)
    bench.submit(other)
    bench.machine.close_context(greedy[0], bench.now_us)
    bench.wait(10_000)
    assert bench.latencies_us(other) == [10_000]
    assert bench.telemetry().departed_busy_us == 1000


def test_cores_work_side_by_side() -> None:
    bench = Bench(replace(SPEC, cores=3))
    tenant = bench.tenant()
    for _ in range(6):
        bench.submit(tenant)
    bench.wait(SECOND)
    assert bench.latencies_us(tenant) == [10_000] * 3 + [20_000] * 3
    assert bench.telemetry().busy_us == 20_000
    assert bench.telemetry().core_busy_us == 60_000


def test_a_higher_priority_takes_over_at_the_next_edge_between_steps() -> None:
    bench = Bench()
    slow, urgent = bench.tenant(program(100_000, steps=10)), bench.tenant(program(5_000), Priority.REALTIME)
    bench.submit(slow)
    bench.wait(13_000)
    bench.submit(urgent)
    bench.wait(SECOND)
    first, second = bench.of(JobCompleted)
    assert (first.context, first.at_us - first.submitted_us) == (urgent[0], 7_000 + 5_000)
    assert (second.preemptions, second.busy_us, second.at_us - second.submitted_us) == (1, 100_000, 105_000)
    assert bench.context(slow).preemptions == 1


def latency_beside_a_neighbour(mine: Priority, its: Priority | None) -> float:
    """Median latency of a 10 ms job every 40 ms, in units of itself alone."""
    bench = Bench()
    tenant = bench.tenant(priority=mine)
    if its is not None:
        bench.machine.inject(Fault(kind=Kind.NOISY_NEIGHBOUR, priority=its), bench.now_us)
    bench.every(tenant, 40_000, bench.now_us + 4 * SECOND)
    return median(bench.latencies_us(tenant)) / 10_000


def test_a_noisy_neighbour_hurts_its_equals_and_not_those_above_it() -> None:
    assert latency_beside_a_neighbour(Priority.NORMAL, None) == 1.0
    assert 1.7 < latency_beside_a_neighbour(Priority.NORMAL, Priority.NORMAL) < 2.4
    assert latency_beside_a_neighbour(Priority.FOCUS, Priority.NORMAL) < 1.1
    assert latency_beside_a_neighbour(Priority.NORMAL, Priority.IDLE) < 1.1


def shares(*levels: Priority) -> list[float]:
    """Of the core, for tenants that always have a job."""
    bench = Bench()
    tenants = [bench.tenant(priority=level) for level in levels]
    bench.saturate(tenants, bench.now_us + 10 * SECOND)
    return [bench.context(tenant).busy_us / bench.telemetry().core_busy_us for tenant in tenants]


def test_normal_has_a_tenth_beside_focus_however_many_they_are_and_idle_waits() -> None:
    focus, normal, idle = shares(Priority.FOCUS, Priority.NORMAL, Priority.IDLE)
    assert focus > 0.87
    assert 0.08 < normal < 0.11, "2 ms in every 20"
    assert idle == 0
    assert 0.08 < sum(shares(Priority.FOCUS, *[Priority.NORMAL] * 5)[1:]) < 0.11
    assert min(shares(Priority.FOCUS, *[Priority.NORMAL] * 5)[1:]) > 0.01, "and they share it"


def test_nobody_interrupts_realtime() -> None:
    assert shares(Priority.REALTIME, Priority.FOCUS, Priority.NORMAL) == [1.0, 0.0, 0.0]


def test_equals_share_evenly_however_long_their_jobs_are() -> None:
    bench = Bench()
    tenants = [bench.tenant(program(duration_us, steps=50)) for duration_us in (5_000, 25_000, 100_000)]
    bench.saturate(tenants, bench.now_us + 10 * SECOND)
    busy_us = [bench.context(tenant).busy_us for tenant in tenants]
    assert max(busy_us) < 1.1 * min(busy_us)


def test_sustained_load_throttles_by_itself_lengthens_the_tail_and_cooling_recovers() -> None:
    bench = Bench()
    tenant = bench.tenant(program(50_000))
    bench.saturate([tenant], 60 * SECOND)
    cold = bench.latencies_us(tenant)
    assert set(cold) == {50_000}
    assert bench.telemetry().throttles == 0
    bench.saturate([tenant], 400 * SECOND)
    hot = sorted(bench.latencies_us(tenant)[-1000:])
    assert bench.telemetry().throttles > 10
    assert hot[990] > 1.6 * 2 * 50_000, "two jobs of the tenant wait in turn, at 600 of 1000 MHz"
    assert {event.after_mhz for event in bench.of(ClockChanged)} == {600.0, 1000.0}
    assert max(event.temperature_c for event in bench.of(ClockChanged)) == pytest.approx(85, abs=0.5)
    bench.machine.close_context(tenant[0], bench.now_us)
    bench.wait(600 * SECOND)
    again = bench.tenant(program(50_000))
    assert bench.run(again).busy_us == 50_000
    assert bench.telemetry().temperature_c < 40


@pytest.mark.slow
def test_a_day_at_a_job_a_second() -> None:
    bench = Bench()
    tenant = bench.tenant(program(10_000, steps=50))
    machine, completed = bench.machine, 0
    for second in range(1, 86_401):
        machine.submit(*tenant, second * SECOND)
        completed += len(machine.advance(second * SECOND + SECOND // 2))
    after = machine.telemetry(86_401 * SECOND)
    assert completed == 86_400
    assert after.busy_us == 86_400 * 10_000
    assert after.energy_uj == pytest.approx((86_401 * 0.5 + 86_400 * 0.01 * 5.5) * 1e6, rel=1e-9)
    assert after.temperature_c == pytest.approx(25 + 14 * (0.5 + 0.055), abs=0.1)


@pytest.mark.parametrize("pieces", [10, 997])
def test_heat_is_the_same_to_the_last_bit_in_one_piece_or_in_many(pieces: int) -> None:
    seen = []
    for count in (1, pieces):
        bench = Bench(replace(SPEC, cores=2))
        bench.machine.inject(FAULTS["noisy_neighbour"], bench.now_us)
        for piece in range(1, count + 1):
            bench.to(SPEC.boot_us + 1200 * SECOND * piece // count)
        seen.append((bench.events, bench.telemetry()))
    assert seen[0] == seen[1]
    assert seen[0][1].throttles > 100


def test_a_reset_fails_what_runs_and_keeps_queues_programs_and_accounts() -> None:
    bench = Bench()
    tenant = bench.tenant()
    lost, kept = bench.submit(tenant), bench.submit(tenant)
    bench.wait(5_000)
    bench.machine.reset(bench.now_us)
    assert bench.telemetry().status == "resetting"
    bench.wait(SECOND)
    assert [(event.job, event.failure) for event in bench.of(JobFailed)] == [(lost, Failure.DEVICE_LOST)]
    assert [event.job for event in bench.of(JobCompleted)] == [kept]
    mine = bench.context(tenant)
    assert (mine.submissions, mine.completions, mine.errors, mine.busy_us) == (2, 1, 1, 15_000)
    assert bench.telemetry().resets == 1


def test_a_queue_waits_for_a_reset_as_for_a_neighbour_and_what_was_counted_stays() -> None:
    bench = Bench()
    runs, waits = bench.tenant(program(SECOND, steps=1)), bench.tenant(pid=2)
    bench.submit(runs)
    bench.wait(1_000)
    bench.submit(waits)
    bench.wait(10_000)
    bench.machine.inject(Fault(kind=Kind.HANG), bench.now_us)
    bench.wait(10_000)
    bench.machine.reset(bench.now_us)
    bench.wait(SPEC.reset_us // 2)
    assert bench.context(waits).wait_us == 20_000 + SPEC.reset_us // 2
    assert bench.context(runs).wait_us == 0, "its job was lost, it has none in the queue"
    bench.machine.inject(Fault(kind=Kind.OFFLINE), bench.now_us)
    bench.wait(SECOND)
    assert bench.context(waits).wait_us == 20_000 + SPEC.reset_us // 2, "its job failed when the power went"


def test_memory_in_pieces_is_refused_though_there_would_be_enough_of_it() -> None:
    bench = Bench()
    blocks = [bench.tenant(program(weights_bytes=15 * MIB)) for _ in range(4)]
    for tenant in (blocks[0], blocks[2]):
        bench.machine.unload(*tenant, bench.now_us)
    seen = bench.telemetry()
    assert seen.memory_total_bytes - seen.memory_used_bytes == 34 * MIB
    assert seen.largest_free_bytes == 15 * MIB
    with pytest.raises(DeviceMemoryError, match=r"in pieces\), largest free block 15728640, total 67108864"):
        bench.machine.load(blocks[0][0], program(weights_bytes=20 * MIB), COMPILER, bench.now_us)
    bench.machine.unload(*blocks[1], bench.now_us)
    bench.machine.load(blocks[0][0], program(weights_bytes=45 * MIB), COMPILER, bench.now_us)


def test_a_hung_device_takes_jobs_and_completes_none_until_it_is_reset() -> None:
    bench = Bench()
    tenant = bench.tenant()
    bench.submit(tenant)
    bench.wait(5_000)
    bench.machine.inject(Fault(kind=Kind.HANG), bench.now_us)
    before = bench.telemetry()
    later = bench.submit(tenant)
    bench.wait(3600 * SECOND)
    stuck = bench.telemetry()
    assert (stuck.status, stuck.power_w, stuck.current_mhz) == ("hung", SPEC.idle_w, 0.0)
    assert stuck.busy_us - before.busy_us == 3600 * SECOND, "busy, and nothing comes out"
    assert bench.of(JobCompleted) == []
    with pytest.raises(DeviceLostError, match="does not answer"):
        bench.machine.load(tenant[0], program(), COMPILER, bench.now_us)
    bench.machine.reset(bench.now_us)
    bench.wait(SECOND)
    assert [event.job for event in bench.of(JobCompleted)] == [later]


def test_jobs_of_a_booting_device_wait_for_it() -> None:
    bench = Bench(boot=False)
    tenant = bench.tenant()
    bench.submit(tenant)
    bench.wait(SECOND)
    assert bench.latencies_us(tenant) == [SPEC.boot_us + 10_000]


def test_what_does_not_fit_or_does_not_belong_is_refused_and_counted() -> None:
    bench = Bench()
    context, _ = bench.tenant()
    with pytest.raises(DeviceMemoryError, match="largest free block"):
        bench.machine.load(context, program(weights_bytes=61 * MIB), COMPILER, bench.now_us)
    with pytest.raises(IncompatibleArtifactError, match=r"Expected: 6\.x vs received: 7\.0\.0"):
        bench.machine.load(context, program(), "7.0.0", bench.now_us)
    bench.machine.load(context, program(), "5.2.0", bench.now_us)
    bench.machine.inject(Fault(kind=Kind.UNSUPPORTED_OP, op="Resize"), bench.now_us)
    with pytest.raises(UnsupportedModelError, match="no Resize"):
        bench.machine.load(context, program(ops=("Conv", "Resize")), COMPILER, bench.now_us)
    bench.machine.load(context, program(), COMPILER, bench.now_us)
    assert bench.telemetry().refusals == {Refusal.MEMORY: 1, Refusal.OPERATOR: 1, Refusal.VERSION: 1}


def test_time_does_not_go_back() -> None:
    machine = Machine(SPEC)
    machine.advance(10)
    with pytest.raises(OptionError, match="time goes back"):
        machine.submit(1, 1, 9)


def test_next_event_is_when_something_happens_and_not_later() -> None:
    machine = Machine(SPEC, start_us=1_000_000)
    assert machine.next_event_us() == 1_000_000 + SPEC.boot_us
    assert machine.advance(1_000_000 + SPEC.boot_us - 1) == ()
    (booted,) = machine.advance(1_000_000 + SPEC.boot_us)
    assert isinstance(booted, LifeChanged)
    assert machine.next_event_us() is None


VENDOR = new_key(Algorithm.ED25519)


def image(version: str, security: int = 1) -> bytes:
    return make_image(Header(version=version, api="3.0", build="1", security=security), b"instructions", VENDOR)


def test_a_boot_is_measured_and_a_tampered_image_does_not_start_the_device() -> None:
    rom = BootRom(vendor=VENDOR.public, image=image("3.5.0"))
    bench = Bench(rom=rom)
    assert bench.telemetry().measurements == rom.measured()
    assert bench.telemetry().versions.firmware == "3.5.0"
    bench.machine.flash(rom.image[:-1] + b"?", bench.now_us)
    assert bench.telemetry().life is Life.READY, "what runs goes on until the next reset"
    bench.machine.reset(bench.now_us)
    bench.wait(SECOND)
    refused = bench.telemetry()
    assert (refused.status, refused.measurements) == ("offline", None)
    assert "not signed by the vendor" in refused.why
    with pytest.raises(DeviceLostError, match="not signed"):
        bench.tenant()
    bench.machine.flash(rom.image, bench.now_us)
    bench.machine.reset(bench.now_us)
    bench.wait(SECOND)
    assert bench.telemetry().life is Life.READY


def test_a_firmware_is_rolled_back_unless_its_security_version_is_below_what_has_booted() -> None:
    bench = Bench(rom=BootRom(vendor=VENDOR.public, image=image("3.5.0")))
    outcomes = []
    for version, security in (
        ("4.0.0", 9),  # the driver refuses it: it must not lock out the others
        ("3.6.0", 2),
        ("3.4.0", 2),  # a bug is got rid of
        ("3.7.0", 1),  # the known hole is not brought back
        ("3.7.0", 3),
    ):
        bench.machine.flash(image(version, security), bench.now_us)
        bench.machine.reset(bench.now_us)
        bench.wait(SPEC.boot_us)
        seen = bench.telemetry()
        outcomes.append((seen.life, seen.measurements is not None))
    assert outcomes == [
        (Life.OFF, False),
        (Life.READY, True),
        (Life.READY, True),
        (Life.OFF, False),
        (Life.READY, True),
    ]
    assert bench.telemetry().versions.firmware == "3.7.0"
    refused = [event.why for event in bench.of(LifeChanged) if event.after is Life.OFF]
    assert "upgrade the kernel driver" in refused[0]
    assert "rollback refused: firmware 3.7.0 has security version 1" in refused[1]


def test_only_a_device_that_runs_says_what_it_runs() -> None:
    bench = Bench(rom=BootRom(vendor=VENDOR.public, image=image("3.5.0")))
    measured = bench.telemetry().measurements
    assert measured is not None
    for fault, then in ((Kind.HANG, measured), (Kind.RESET, None), (Kind.OFFLINE, None)):
        bench.machine.inject(Fault(kind=fault), bench.now_us)
        assert bench.telemetry().measurements == then
    bench.machine.reset(bench.now_us)
    assert bench.telemetry().measurements is None, "it boots"
    bench.wait(SPEC.boot_us)
    assert bench.telemetry().measurements == measured


def test_power_that_is_lost_after_an_update_leaves_what_was_flashed() -> None:
    bench = Bench(rom=BootRom(vendor=VENDOR.public, image=image("3.5.0")))
    bench.machine.flash(image("3.6.0"), bench.now_us)
    bench.machine.inject(Fault(kind=Kind.OFFLINE, for_us=SECOND), bench.now_us)
    bench.wait(SECOND + SPEC.boot_us)
    assert bench.telemetry().versions.firmware == "3.6.0"


def test_a_firmware_that_the_driver_does_not_take_says_which_side_to_upgrade_first() -> None:
    bench = Bench(rom=BootRom(vendor=VENDOR.public, image=image("2.0.0")))
    refused = bench.telemetry()
    assert refused.status == "offline"
    assert "Incompatible FW JSM API version: 2.0.0, required 3.0 or later" in refused.why
    assert "upgrade the firmware" in refused.why
    with pytest.raises(OptionError, match="no firmware image"):
        Machine(SPEC).flash(b"", 0)


def test_a_compiler_that_was_upgraded_first_is_refused_until_the_fault_is_cleared() -> None:
    bench = Bench()
    context, _ = bench.tenant()
    bench.machine.inject(Fault(kind=Kind.VERSION_MISMATCH, part=Part.COMPILER, version="7.0.0"), bench.now_us)
    with pytest.raises(IncompatibleArtifactError) as caught:
        bench.machine.load(context, program(), COMPILER, bench.now_us)
    assert "upgrade kernel and firmware first" in caught.value.advice
    bench.machine.clear_faults(bench.now_us)
    bench.machine.load(context, program(), COMPILER, bench.now_us)
