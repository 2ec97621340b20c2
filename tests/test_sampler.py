from __future__ import annotations

from pathlib import Path

import pytest

import device_trees
from npuops.devices.evidence import Canary, Verdict
from npuops.devices.failure_modes import Mode
from npuops.devices.health import Health, State
from npuops.devices.quantities import Quantity
from npuops.devices.sampler import DevicesSampled, HealthChanged, Sample, Sampler
from npuops.devices.tree import Tree
from npuops.testing import EventLog, ManualClock


class Bench:
    """A machine with one virtual NPU, a clock that the test moves, and everything that is reported."""

    def __init__(self, root: Path) -> None:
        self.device = device_trees.vnpu(root)
        self.clock, self.log = ManualClock(), EventLog()
        self.sampler = Sampler(Tree(root), self.clock, self.log)

    def look(self, *, after_s: float = 1.0, **files: object) -> Sample:
        device_trees.write(self.device, {name.replace("__", "/"): text for name, text in files.items()})
        self.clock.advance(round(after_s * 1e6))
        return self.sampler.sample()[0]

    def seen(self) -> list[str]:
        return [f"{event.before.state} → {event.now.state}" for event in self.log.of(HealthChanged)]


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


def test_the_first_look_has_values_but_no_rates(bench: Bench) -> None:
    sample = bench.look()
    assert sample.value(Quantity.TEMPERATURE) == 40.0
    assert (sample.interval_s, sample.value(Quantity.BUSY_RATIO)) == (None, None)


def test_rates_follow_the_clock_and_not_the_period(bench: Bench) -> None:
    bench.look(npu_busy_time_us=0)
    assert bench.look(after_s=4.0, npu_busy_time_us=1_000_000).value(Quantity.BUSY_RATIO) == 0.25
    assert bench.look(after_s=1.0, npu_busy_time_us=1_500_000).value(Quantity.BUSY_RATIO) == 0.5


def test_hailos_ratio_appears_with_the_second_look(tmp_path: Path) -> None:
    folder = device_trees.hailo15(tmp_path)
    clock = ManualClock()
    sampler = Sampler(Tree(tmp_path), clock)
    assert sampler.sample()[0].value(Quantity.BUSY_RATIO) is None
    device_trees.write(folder, {"vdma_monitor": "INUSE\tTOTAL\n150\t1250"})
    clock.advance(1_000_000)
    assert sampler.sample()[0].value(Quantity.BUSY_RATIO) == 0.2


def test_throttling_resets_and_errors_are_seen_from_the_outside(bench: Bench) -> None:
    bench.look()
    assert bench.look(throttle_count=2).condition.state is State.THROTTLED
    assert bench.look(reset_counter=1).condition.state is State.RESETTING
    found = bench.look(ue_count=1)
    assert (found.condition.state, found.condition.health) == (State.UNCORRECTED, Health.UNHEALTHY)
    assert found.condition.why == "1 uncorrected error since the last look"


def test_heat_beyond_the_critical_point_and_back(bench: Bench) -> None:
    bench.look()
    assert bench.look(hwmon__hwmon0__temp1_input=116_000).condition.state is State.OVERHEATED
    assert bench.look(hwmon__hwmon0__temp1_input=113_000).condition.state is State.OVERHEATED
    assert bench.look(hwmon__hwmon0__temp1_input=100_000).condition.state is State.THROTTLED
    assert bench.look(hwmon__hwmon0__temp1_input=70_000).condition.state is State.THROTTLED
    assert bench.look(after_s=10.0).condition.state is State.HEALTHY
    assert bench.seen() == [
        "healthy → overheated",
        "overheated → throttled",
        "throttled → healthy",
    ]


def test_a_device_that_leaves_is_gone_and_one_that_returns_must_settle(bench: Bench) -> None:
    bench.look(npu_busy_time_us=9_000_000)
    aside = bench.device.parent.rename(bench.device.parent.with_name("aside"))
    bench.clock.advance(1_000_000)
    gone = bench.sampler.sample()[0]
    assert (gone.condition.health, gone.values, gone.device.model) == (Health.GONE, {}, "rk3588")
    aside.rename(bench.device.parent)
    back = bench.look(npu_busy_time_us=0)
    assert (back.condition.state, back.interval_s) == (State.RESETTING, None)
    bench.look()
    assert bench.look(after_s=10.0).condition.state is State.HEALTHY


def test_a_silent_wrong_answer_is_known_by_the_canary_alone(bench: Bench) -> None:
    key = bench.look().device.id
    bench.sampler.report_canary(key, Canary(Verdict.WRONG, "class 3, wanted 7"))
    assert bench.look().condition.state is State.WRONG
    assert bench.look().condition.state is State.WRONG
    for after_s in (1.0, 60.0):
        assert bench.look().condition.state is State.WRONG
        bench.sampler.report_canary(key, Canary(Verdict.PASSED))
        healed = bench.look(after_s=after_s)
    assert healed.condition.state is State.HEALTHY


def test_canaries_tell_accuracy_from_firmware_on_a_driver_that_counts_none(tmp_path: Path) -> None:
    device_trees.ivpu_new(tmp_path)
    clock = ManualClock()
    sampler = Sampler(Tree(tmp_path), clock)
    key = sampler.sample()[0].device.id

    def modes(*verdicts: Verdict) -> list[Mode]:
        for verdict in verdicts:
            sampler.report_canary(key, Canary(verdict))
            clock.advance(1_000_000)
            sample = sampler.sample()[0]
        assert Quantity.CANARIES not in sample.values
        return [each.mode for each in sample.suspected]

    assert modes(Verdict.PASSED, Verdict.TIMED_OUT, Verdict.PASSED) == []
    assert modes(Verdict.WRONG) == [Mode.ACCURACY, Mode.FIRMWARE]
    assert modes(Verdict.WRONG, Verdict.WRONG) == [Mode.ACCURACY]
    clock.advance(100_000_000)
    sampler.sample()
    assert modes(Verdict.PASSED, Verdict.WRONG, Verdict.PASSED) == [Mode.FIRMWARE]


def test_a_canary_for_a_device_that_is_not_here_is_not_kept_for_one_that_comes_later(bench: Bench) -> None:
    bench.sampler.report_canary("vnpu/npu1", Canary(Verdict.WRONG))
    bench.look()
    device_trees.vnpu(bench.device.parents[3], number=1)
    assert [sample.condition.state for sample in bench.sampler.sample()] == [State.HEALTHY, State.HEALTHY]


def test_a_device_that_has_been_gone_for_ten_minutes_is_forgotten(bench: Bench) -> None:
    bench.look()
    bench.device.parent.rename(bench.device.parent.with_name("aside"))
    bench.clock.advance(1_000_000)
    assert [sample.condition.state for sample in bench.sampler.sample()] == [State.GONE]
    bench.clock.advance(600_000_000)
    assert [sample.suspected[0].mode for sample in bench.sampler.sample()] == [Mode.OFFLINE]
    bench.clock.advance(1_000_000)
    assert bench.sampler.sample() == ()


def test_a_sign_is_kept_in_mind_for_a_minute_and_then_is_history(bench: Bench) -> None:
    bench.look()
    seen = bench.look(refused_memory_count=2)
    assert [(each.mode, each.evidence[0]) for each in seen.suspected] == [(Mode.MEMORY, "2 refusals")]
    assert seen.condition.health is Health.HEALTHY, "a device that refuses is well"
    assert [each.mode for each in bench.look(after_s=58.0).suspected] == [Mode.MEMORY]
    later = bench.look(after_s=2.0)
    later = bench.look(after_s=2.0)
    assert later.suspected == ()
    assert [(each.mode, each.evidence) for each in later.earlier] == [(Mode.MEMORY, ("2 refusals",))]


def test_the_driver_says_hung_and_only_a_reset_cures_it(bench: Bench) -> None:
    bench.look()
    assert bench.look(status="hung").condition.state is State.HUNG
    assert bench.look(status="online").condition.state is State.HUNG
    assert bench.look(reset_counter=1).condition.state is State.RESETTING


def test_tenants_of_a_virtual_npu_have_their_share(bench: Bench) -> None:
    bench.look()
    tenant = bench.look(contexts__1__busy_time_us=250_000).tenants[0]
    assert (tenant.pid, tenant.busy_ratio) == (4242, 0.25)


def test_tenants_of_an_amd_npu_come_from_fdinfo(tmp_path: Path) -> None:
    device_trees.amdxdna(tmp_path)
    device_trees.process(tmp_path, 77, {3: device_trees.amd_fdinfo(1, 1_000_000_000)})
    clock = ManualClock()
    sampler = Sampler(Tree(tmp_path), clock)
    sampler.sample()
    device_trees.write(tmp_path / "proc/77/fdinfo", {"3": device_trees.amd_fdinfo(1, 1_500_000_000)})
    clock.advance(1_000_000)
    sample = sampler.sample()[0]
    assert [(tenant.pid, tenant.busy_ratio) for tenant in sample.tenants] == [(77, 0.5)]
    assert sample.value(Quantity.ENERGY) == 2.5


def test_every_look_is_reported_whole(bench: Bench) -> None:
    bench.look()
    bench.look()
    assert [len(event.samples) for event in bench.log.of(DevicesSampled)] == [1, 1]


@pytest.mark.parametrize("name", device_trees.ALL)
def test_a_machine_at_rest_is_healthy_or_says_why_it_is_unknown(name: str, tmp_path: Path) -> None:
    device_trees.ALL[name](tmp_path)
    clock = ManualClock()
    sampler = Sampler(Tree(tmp_path), clock)
    for _ in range(3):
        clock.advance(1_000_000)
        condition = sampler.sample()[0].condition
        assert condition.health in {Health.HEALTHY, Health.UNKNOWN}
        assert condition.why
