"""Every failure mode, caused on a real virtual device and recognised from the files of its tree alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from npuops.devices.failure_modes import FAILURE_MODES, Mode
from npuops.devices.health import State
from npuops.devices.sampler import Sample, Sampler
from npuops.devices.tree import Tree
from npuops.errors import NpuopsError
from npuops.testing import ManualClock
from npuops.vnpu.client import connect
from npuops.vnpu.control_client import control
from npuops.vnpu.daemon import Order
from npuops.vnpu.device_folder import device_folder
from npuops.vnpu.device_switch import up
from npuops.vnpu.pacing import Pacing
from npuops.vnpu.spec import MachineSpec
from npuops.vnpu.sysfs import context_texts, device_texts
from npuops.vnpu.tenancy import Priority
from virtual_devices import SPEC, X, Y, home_at, program, wait_until

PAGE = Path(__file__).resolve().parent.parent / "docs" / "devices.md"
HOT_ROOM = replace(SPEC, thermal=replace(SPEC.thermal, ambient_c=76.0))


class Ward:
    """A device whose time the test moves, a tenant with a job every 40 ms, and an onlooker who reads files."""

    def __init__(self, root: Path, stack: ExitStack, spec: MachineSpec) -> None:
        self.name = up(Order(name="npu0", spec=spec, pacing=Pacing.MANUAL, seed=3)).name
        self.stack = stack
        self.control = stack.enter_context(control(self.name))
        self.client = stack.enter_context(connect(self.name))
        self.programs = [(self.client, self.client.load(program(10_000.0), X, Y))]
        self.accel = device_folder(self.name).accel(0)
        self.clock = ManualClock()
        self.sampler = Sampler(Tree(root), self.clock)
        self.jobs = 0

    def second(self, *, load: bool = False) -> Sample:
        """Work, perhaps bring another program, and look."""
        for _ in range(25):
            self.jobs += 1
            self.run(40_000, canary=self.jobs % 5 == 0)
        if load:
            with suppress(NpuopsError):
                self.client.load(program(weights_bytes=8 << 20), X, Y)
        return self.look()

    def run(self, us: int, *, canary: bool = False) -> None:
        """A job of every tenant, and so much time."""
        with suppress(NpuopsError):  # a device that is down has no answers; the onlooker does not ask it either
            tickets = []
            for client, loaded in self.programs:
                tickets.append((loaded, loaded.submit(0, canary=canary)))
                client.status()  # so that the device has the job before its time moves on
            self.control.advance(us)
            for loaded, ticket in tickets:
                loaded.wait(ticket, timeout_s=0.0)  # what is answered was answered before the advance was

    def look(self) -> Sample:
        """When the files say what the device says."""
        self.control.advance(1)
        wait_until(self.is_written, "the tree is behind")
        self.clock.advance(1_000_000)
        return self.sampler.sample()[0]

    def is_written(self) -> bool:
        seen = self.control.status().telemetry
        if not seen.present:
            return not self.accel.exists()
        wanted = device_texts(self.name, seen)
        for each in seen.contexts:
            wanted |= {f"contexts/{each.id}/{path}": text for path, text in context_texts(each).items()}
        return all(self._says(path) == text for path, text in wanted.items())

    def _says(self, path: str) -> str:
        try:
            return (self.accel / "device" / path).read_text(encoding="utf-8").removesuffix("\n")
        except OSError:
            return ""


@pytest.fixture
def ward(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Ward]:
    with home_at(tmp_path / "devices") as home, ExitStack() as stack:
        yield Ward(home, stack, getattr(request, "param", SPEC))


def modes(sample: Sample) -> list[Mode]:
    assert all(each.evidence for each in sample.suspected)
    return [each.mode for each in sample.suspected]


Cause = Callable[[Ward], object]


def fault(kind: str, **figures: Any) -> Cause:
    return lambda ward: ward.control.inject({"kind": kind, **figures})


def old_firmware(ward: Ward) -> None:
    ward.control.inject({"kind": "version_mismatch", "part": "firmware", "version": "2.0.0"})
    ward.control.reset()


CAUSES: Mapping[str, tuple[Cause, Mode, State]] = {
    "power is lost": (fault("offline"), Mode.OFFLINE, State.OFFLINE),
    "it hangs": (fault("hang"), Mode.OFFLINE, State.HUNG),
    "it resets itself": (fault("reset"), Mode.OFFLINE, State.RESETTING),
    "its driver crashes": (fault("driver_crash"), Mode.OFFLINE, State.GONE),
    "it trips": (fault("thermal_trip"), Mode.OFFLINE, State.OFFLINE),
    "an uncorrectable error": (fault("ecc_uncorrected", count=1), Mode.OFFLINE, State.UNCORRECTED),
    "poor scales": (fault("wrong_output", op="Relu", rate=1.0, bit=0), Mode.ACCURACY, State.WRONG),
    "its memory is full": (fault("oom_pressure", share=0.95), Mode.MEMORY, State.HEALTHY),
    "an operator it lacks": (fault("unsupported_op", op="Relu"), Mode.OPERATOR, State.HEALTHY),
    "a newer compiler": (
        fault("version_mismatch", part="compiler", version="9.0.0"),
        Mode.VERSION,
        State.HEALTHY,
    ),
    "firmware of another generation": (old_firmware, Mode.VERSION, State.OFFLINE),
    "a greedy neighbour": (fault("noisy_neighbour", priority="normal"), Mode.NEIGHBOUR, State.HEALTHY),
    "firmware with a bug": (fault("wrong_output", op="Relu", rate=0.3, bit=6), Mode.FIRMWARE, State.WRONG),
}


@pytest.mark.slow
@pytest.mark.parametrize("cause", CAUSES)
def test_each_is_recognised_from_the_tree_alone_and_taken_for_no_other(cause: str, ward: Ward) -> None:
    happens, mode, state = CAUSES[cause]
    for _ in range(3):
        assert modes(ward.second()) == []
    happens(ward)
    seen = [ward.second(load=True) for _ in range(5)]
    assert modes(seen[-1]) == [mode]
    assert state in {sample.condition.state for sample in seen}
    assert {each for sample in seen for each in modes(sample)} <= {mode, *AMBIGUOUS.get(mode, ())}


AMBIGUOUS = {Mode.ACCURACY: (Mode.FIRMWARE,), Mode.FIRMWARE: (Mode.ACCURACY,)}
"""With the first wrong canaries nobody can tell these two apart."""


@pytest.mark.parametrize("ward", [HOT_ROOM], indirect=True)
def test_load_in_a_hot_room_is_recognised_as_throttling(ward: Ward) -> None:
    assert modes(ward.look()) == []
    ward.programs = [(ward.client, ward.client.load(program(1_000_000.0, steps=100), X, Y))]
    for _ in range(20):
        ward.run(2_000_000)
    throttled = ward.look()
    assert modes(throttled) == [Mode.THROTTLE]
    assert throttled.condition.state is State.THROTTLED


def test_honest_tenants_on_a_healthy_device_are_suspected_of_nothing(ward: Ward) -> None:
    for priority in (Priority.FOCUS, Priority.NORMAL):
        client = ward.stack.enter_context(connect(ward.name, priority=priority))
        ward.programs.append((client, client.load(program(8_000.0), X, Y)))
    for _ in range(10):
        sample = ward.second()
        assert modes(sample) == []
        assert sample.condition.state is State.HEALTHY
    assert [tenant.completions for tenant in sample.tenants] == [250, 250, 250]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["hang", "reset", "ecc_uncorrected"])
def test_tenants_that_wait_for_a_device_that_is_down_do_not_accuse_each_other(kind: str, ward: Ward) -> None:
    for _ in range(2):
        client = ward.stack.enter_context(connect(ward.name))
        ward.programs.append((client, client.load(program(8_000.0), X, Y)))
    ward.second()
    for client, loaded in ward.programs:
        loaded.submit(0)
        client.status()
    ward.control.advance(1_000)
    figures = {"count": 1} if kind == "ecc_uncorrected" else {}
    ward.control.inject({"kind": kind, **figures})
    for _ in range(3):
        ward.control.advance(1_000_000)
        assert modes(ward.look()) == [Mode.OFFLINE]


def test_a_reset_that_somebody_ordered_is_no_failure_but_the_cure_of_a_hang_is(ward: Ward) -> None:
    ward.second()
    ward.control.reset()
    away = ward.look()
    assert (away.readings.status, modes(away)) == ("resetting", [])
    back = ward.second()
    assert (modes(back), back.earlier, back.condition.state) == ([], (), State.RESETTING)
    assert "1 reset since the last look, by command" in away.condition.why
    ward.control.inject({"kind": "hang"})
    ward.control.reset()
    ward.control.advance(SPEC.reset_us)
    cured = ward.look()
    assert [(each.mode, each.evidence) for each in cured.suspected] == [(Mode.OFFLINE, ("1 reset",))]


def test_tenants_that_wait_for_a_reset_do_not_accuse_each_other(ward: Ward) -> None:
    for _ in range(2):
        client = ward.stack.enter_context(connect(ward.name))
        ward.programs.append((client, client.load(program(8_000.0), X, Y)))
    ward.second()
    for client, loaded in ward.programs:
        loaded.submit(0)
        client.status()
    ward.control.reset()
    for _ in range(3):
        ward.control.advance(1_000_000)
        assert modes(ward.look()) == []


def test_every_mode_has_a_cause_here() -> None:
    assert {mode for _, mode, _ in CAUSES.values()} | {Mode.THROTTLE} == set(Mode) == set(FAILURE_MODES)


def test_the_page_shows_the_table() -> None:
    page = PAGE.read_text(encoding="utf-8")
    rows = [f"| {mode} | {row.name} | {row.signs} | {row.first} |" for mode, row in FAILURE_MODES.items()]
    assert [row for row in rows if row not in page] == []
