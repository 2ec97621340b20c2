"""The story of the demo's device: what it shows comes from a device that really did it, and nothing stays behind."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from npuops import app
from npuops.artifacts.manifest import Artifact
from npuops.build.options import BuildOptions
from npuops.cli.demo_device import FRAME_US, FRAMES, Story, enclosed, tell
from npuops.cli.demo_models import digits
from npuops.devices.failure_modes import Mode
from npuops.devices.uevents import Uevent
from npuops.errors import DeviceLostError
from npuops.events import Event, StepStarted, ignore
from npuops.targets.protocol import Precision
from npuops.vnpu.device_folder import all_folders
from npuops.vnpu.spec import MachineSpec
from virtual_devices import home_at, processes, wait_until

TARGET = "vnpu:rk3588"
DIGITS = digits()


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Artifact:
    folder = tmp_path_factory.mktemp("demo")
    request = DIGITS.request(TARGET, BuildOptions(precision=Precision.A8W8, use_cache=False))
    return app.run_request(request, folder / "digits.npuops", observe=ignore).artifact


@pytest.fixture(scope="module")
def story(artifact: Artifact, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Story]:
    with home_at(tmp_path_factory.mktemp("devices") / "home"):
        yield tell(artifact, DIGITS.evaluation, enclosed(TARGET), ignore)


@pytest.fixture
def home(tmp_path: Path) -> Iterator[Path]:
    with home_at(tmp_path / "devices") as folder:
        yield folder


def nothing_stays(home: Path) -> None:
    wait_until(lambda: processes(home) == [], "the demo's device lives on")
    assert list(home.glob("demo-*/socket")) == []
    assert list(home.glob("sys/class/accel/*")) == []


@pytest.fixture
def brief(monkeypatch: pytest.MonkeyPatch) -> MachineSpec:
    """For a story that is cut short or is not about figures: it has fewer frames, and throttles sooner."""
    monkeypatch.setattr("npuops.cli.demo_device.FRAMES", 20)
    return enclosed(TARGET).at_ambient(70.0)


def cooled_well(spec: MachineSpec) -> MachineSpec:
    return replace(spec, thermal=replace(spec.thermal, ambient_c=25.0, case_r_c_per_w=1.0))


@pytest.mark.slow
def test_neighbours_and_heat_cost_what_the_device_says_and_a_reset_brings_it_back(story: Story) -> None:
    alone, shared, hot, after = story.stages
    assert story.is_as_promised
    for percent in (50, 99):
        assert alone.percentile_us(percent) < shared.percentile_us(percent) < hot.percentile_us(percent)
    assert after.percentile_us(99) == pytest.approx(alone.percentile_us(99))
    assert hot.neighbours_per_s < shared.neighbours_per_s
    assert alone.busy < 0.01
    assert shared.busy > 0.99
    looked = [stage.looked for stage in story.stages]
    assert [look.condition.health for look in looked] == ["healthy", "healthy", "degraded", "healthy"]
    found = [{each.mode for each in look.suspected} for look in looked]
    assert found == [set(), set(), {Mode.THROTTLE}, set()], "an ordered reset is no failure"
    assert hot.seen.cap_mhz < hot.seen.max_mhz
    assert after.seen.cap_mhz == after.seen.max_mhz
    assert alone.seen.temperature_c < shared.seen.temperature_c < hot.seen.temperature_c > after.seen.temperature_c


def test_the_figures_agree_with_each_other_and_with_the_events(story: Story) -> None:
    hot, after = story.stages[-2:]
    events = [event for event in story.uevents if isinstance(event, Uevent)]
    assert [event.seqnum for event in events] == list(range(1, len(story.uevents) + 1))
    throttlings = [event for event in events if "THROTTLED_MHZ" in event.fields]
    assert len(throttlings) == after.seen.throttles == hot.seen.throttles
    assert story.heated_s is not None
    alone_s = FRAMES * FRAME_US / 1e6 + story.spec.boot_us / 1e6
    assert throttlings[0].at_us / 1e6 == pytest.approx(alone_s + story.heated_s, abs=0.3), (
        "full load began after `alone`"
    )
    assert float(throttlings[-1].fields["THROTTLED_MHZ"]) == hot.seen.cap_mhz
    resetting = next(index for index, event in enumerate(events) if event.fields.get("STATUS") == "resetting")
    assert events[resetting + 1].fields["STATUS"] == "online"
    assert events[resetting + 1].at_us - events[resetting].at_us == story.spec.reset_us == story.reset.away_us
    assert after.seen.resets == 1
    assert story.reset.jobs_lost == story.spec.cores
    assert story.reset.contexts == story.spec.cores + 1


def test_each_run_tells_the_same(story: Story, artifact: Artifact, home: Path) -> None:
    again = tell(artifact, DIGITS.evaluation, enclosed(TARGET), ignore)
    assert (again.heated_s, again.cooled_s, again.reset) == (story.heated_s, story.cooled_s, story.reset)
    for one, other in zip(story.stages, again.stages, strict=True):
        assert list(one.latencies_us) == list(other.latencies_us)
        assert one.seen.energy_uj == other.seen.energy_uj
    nothing_stays(home)


def test_a_device_that_does_not_throttle_is_not_said_to_have(
    artifact: Artifact, home: Path, brief: MachineSpec
) -> None:
    cool = tell(artifact, DIGITS.evaluation, cooled_well(brief), ignore, patience_s=5)
    assert cool.heated_s is None
    assert not cool.is_as_promised
    assert cool.stages[2].seen.throttles == 0
    assert cool.stages[2].looked.condition.health == "healthy"
    nothing_stays(home)


def test_an_answer_that_changes_breaks_the_promise(story: Story) -> None:
    stages = (*story.stages[:-1], replace(story.stages[-1], same=FRAMES - 1))
    assert not replace(story, stages=stages).is_as_promised


@pytest.mark.slow
@pytest.mark.parametrize("step", ["run", "heat", "reset", "cool"])
def test_a_device_that_is_killed_on_the_way_ends_the_story_and_leaves_nothing(
    artifact: Artifact, home: Path, brief: MachineSpec, step: str
) -> None:
    def kill(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == step:
            (folder,) = all_folders()
            record = folder.record()
            assert record is not None
            os.kill(record.pid, signal.SIGKILL)

    with pytest.raises(DeviceLostError):
        tell(artifact, DIGITS.evaluation, brief, kill)
    nothing_stays(home)


@pytest.mark.slow
@pytest.mark.parametrize("step", ["run", "heat", "reset"])
def test_an_interrupt_takes_the_device_down(artifact: Artifact, home: Path, brief: MachineSpec, step: str) -> None:
    def interrupt(event: Event) -> None:
        if isinstance(event, StepStarted) and event.step == step:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        tell(artifact, DIGITS.evaluation, brief, interrupt)
    nothing_stays(home)
