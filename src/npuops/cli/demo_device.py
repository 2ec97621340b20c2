"""The device's part of the demo: a virtual NPU that is shared, heated until it throttles, reset, and cooled.

Nothing is scripted: every figure is an answer of the device's own process, or was read from the tree that it
publishes. Its clock is moved by hand (manual pacing), so minutes of heat take a second, and each run shows the same.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.manifest import Artifact
from npuops.cli.demo_tenants import Camera, Neighbour, context_of, neighbours_program
from npuops.clock import SystemClock
from npuops.devices.discovery import Device, find_devices
from npuops.devices.quantities import Quantity
from npuops.devices.readings import Readings, read_device
from npuops.devices.sampler import Sample, Sampler
from npuops.devices.tree import Tree
from npuops.devices.uevents import Missed, Uevent, UeventReader
from npuops.errors import DeviceError, DeviceLostError
from npuops.evaluate.samples import Samples
from npuops.events import Observer, StepFinished, StepStarted
from npuops.vnpu.control_client import DeviceControl, control
from npuops.vnpu.daemon import Order
from npuops.vnpu.device_folder import DeviceFolder, device_folder
from npuops.vnpu.device_spec import spec_of
from npuops.vnpu.device_switch import up_private
from npuops.vnpu.device_telemetry import Telemetry
from npuops.vnpu.life import Life
from npuops.vnpu.pacing import Pacing
from npuops.vnpu.spec import MachineSpec
from npuops.vnpu.wire import Status

ENCLOSURE_C: Final = 55.0
"""Around the device: a closed case in the sun. In a cooler one, or with less load, it may never throttle."""
FRAMES: Final = 360
"""Inferences of ours in each stage."""
FRAME_US: Final = 33_000
"""From one to the next on average, as a camera sends them; device time."""
JITTER_US: Final = 3_000
"""Up to so much sooner or later: an even beat would meet the neighbours' layers at the same places again and again."""
TICK_US: Final = 100_000
"""Between two looks at a device that heats or cools; device time."""
PATIENCE_S: Final = 600
"""Device time after which it is said that the device did not throttle, or did not cool: five time constants of a
small heat sink."""
SETTLING_S: Final = 30
"""Device time from the first throttling to the stage that shows it: the clock goes down step by step."""
RESET_TICK_US: Final = 1000
ANSWER_LIMIT_US: Final = 60_000_000
"""Device time after which an answer is given up."""
TREE_LIMIT_US: Final = 10_000_000
"""Until the tree must show what the device says; this machine's time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Stage:
    """What a user saw in one part of the story.

    Attributes:
        title: what was going on.
        latencies_us: of our inferences, from submission to end; modelled.
        same: how many of our answers were those of the first stage, bit by bit.
        busy: share of the cores' time that was worked, 0 to 1.
        neighbours_per_s: pictures that the neighbours got through, per second of the device's time.
        seen: at the end.
        looked: by `npuops devices` at the end: health, with its reason, and the suspected failure modes.
    """

    title: str
    latencies_us: NDArray[np.float64]
    same: int
    busy: float
    neighbours_per_s: float
    seen: Telemetry
    looked: Sample

    def percentile_us(self, percent: float) -> float:
        """Of the latencies."""
        return float(np.percentile(self.latencies_us, percent))


@dataclass(frozen=True, slots=True, kw_only=True)
class Reset:
    """What a reset under full load did, as the device counts.

    Attributes:
        away_us: until the device was online again; its own time.
        jobs_lost: of all tenants.
        contexts: that were open.
        contexts_lost: of these.
        opened_again: whether we had to connect and load anew.
    """

    away_us: int
    jobs_lost: int
    contexts: int
    contexts_lost: int
    opened_again: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Story:
    """All of it; times are the device's.

    Attributes:
        heated_s: of full load until it throttled; None: it never did.
        cooled_s: from the end of the load until the full clock was allowed again; None: it never was.
        patience_s: how long either was waited for.
        uevents: of the device, oldest first.
    """

    spec: MachineSpec
    stages: tuple[Stage, ...]
    heated_s: float | None
    reset: Reset
    cooled_s: float | None
    patience_s: int
    uevents: tuple[Uevent | Missed, ...]

    @property
    def is_as_promised(self) -> bool:
        """It throttled, it recovered, and no answer changed on the way."""
        same = all(stage.same == len(stage.latencies_us) for stage in self.stages)
        return same and self.heated_s is not None and self.cooled_s is not None


def enclosed(target: str) -> MachineSpec:
    """The chip of a virtual target, where it is hot.

    Raises:
        UnknownTargetError: no such chip.
        OptionError: one that could not cool there.
    """
    return spec_of(target).at_ambient(ENCLOSURE_C)


def tell(
    artifact: Artifact, samples: Samples, spec: MachineSpec, observe: Observer, *, patience_s: int = PATIENCE_S
) -> Story:
    """Bring a device up, let its story happen, and take it down, however that ends.

    Args:
        artifact: built for the chip of `spec`.
        samples: what we run it on, in turn.
        spec: of the device.
        observe: gets the steps.
        patience_s: device time that it may take to throttle, and to cool.

    Raises:
        NpuopsError: a step failed, for example because the device went off.
    """
    name = f"demo-{os.getpid()}-{secrets.token_hex(4)}"
    with up_private(Order(name=name, spec=spec, pacing=Pacing.MANUAL)), control(name) as device:
        scene = _Scene(device, _Onlooker(device_folder(name)), artifact, samples, observe)
        try:
            return scene.play(spec, patience_s)
        finally:
            scene.close()


class _DeviceTime:
    """The clock of a device whose time is moved by hand, as it stood when it was asked last."""

    def __init__(self) -> None:
        self.us = 0

    def now_us(self) -> int:
        return self.us

    def sleep_until(self, moment_us: int) -> None:
        self.us = max(self.us, moment_us)


class _Onlooker:
    """`npuops devices` for one device, in its time: it knows only the tree that the device publishes."""

    def __init__(self, folder: DeviceFolder) -> None:
        self._folder, self._clock, self._tree = folder, SystemClock(), Tree(folder.home)
        self._time = _DeviceTime()
        self._sampler, self._reader = Sampler(self._tree, self._time), UeventReader(self._tree)
        self._reader.poll(())  # so that all of the device's events are news

    def look(self, status: Status) -> Sample:
        """Once the tree has caught up with what the device says."""
        seen = status.telemetry
        self._time.sleep_until(status.uptime_us)
        limit_us = self._clock.now_us() + TREE_LIMIT_US
        while (device := self._device()) is None or not _shows(read_device(self._tree, device), seen):
            if self._clock.now_us() > limit_us:
                raise DeviceError(f"{self._folder.name} publishes nothing", advice=f"its log is {self._folder.log}")
            self._clock.sleep_until(self._clock.now_us() + 5_000)
        return next(sample for sample in self._sampler.sample() if sample.device.id == device.id)

    def uevents(self) -> tuple[Uevent | Missed, ...]:
        device = self._device()
        return () if device is None else tuple(event for _, event in self._reader.poll([device]))

    def _device(self) -> Device | None:
        found = find_devices(self._tree)
        return next((device for device in found if device.id == f"vnpu/{self._folder.name}"), None)


def _shows(readings: Readings, seen: Telemetry) -> bool:
    energy = readings.values.get(Quantity.ENERGY)
    return energy is not None and round(energy.value * 1e6) == int(seen.energy_uj)


class _Scene:
    """The device, its tenants, and what it has answered so far."""

    def __init__(
        self, device: DeviceControl, onlooker: _Onlooker, artifact: Artifact, samples: Samples, observe: Observer
    ) -> None:
        self._device, self._onlooker, self._artifact = device, onlooker, artifact
        self._samples, self._observe = samples, observe
        self._neighbours: list[Neighbour] = []
        self._answers: dict[int, dict[str, NDArray[Any]]] = {}
        self._chance = np.random.default_rng(0)
        self._camera = self._open()

    def play(self, spec: MachineSpec, patience_s: int) -> Story:
        stages = [self._stage("alone", spec.cores)]
        file = neighbours_program(f"vnpu:{self._device.profile}")
        for _ in range(spec.cores):
            self._neighbours.append(Neighbour(self._device.device, file))
        begun_us = self._device.status().uptime_us
        stages.append(self._stage(f"{spec.cores} neighbours", spec.cores))
        heated_s = None
        if self._pass("heat", lambda seen: seen.throttles > 0, patience_s) is not None:
            heated_s = (self._device.status().uptime_us - begun_us) / 1e6
            self._pass("settle", lambda _: False, SETTLING_S)
        stages.append(self._stage("the same, hot", spec.cores))
        reset = self._reset()
        self._onlooker.look(self._device.status())
        self._send_neighbours_home()
        cooled_s = self._pass("cool", lambda seen: seen.cap_mhz == seen.max_mhz, patience_s)
        self._onlooker.look(self._device.status())
        stages.append(self._stage("alone, reset", spec.cores))
        return Story(
            spec=spec,
            stages=tuple(stages),
            heated_s=heated_s,
            reset=reset,
            cooled_s=cooled_s,
            patience_s=patience_s,
            uevents=self._onlooker.uevents(),
        )

    def close(self) -> None:
        self._send_neighbours_home()
        self._camera.client.close()

    def _open(self) -> Camera:
        return Camera(self._device.device, self._artifact, self._samples)

    def _send_neighbours_home(self) -> None:
        while self._neighbours:
            self._neighbours.pop().client.close()

    def _stage(self, title: str, cores: int) -> Stage:
        with self._timed("run", title):
            before = self._device.status()
            frames = []
            for number in range(FRAMES):
                self._feed_neighbours()
                frames.append(self._frame(number % len(self._samples.inputs)))
            after = self._device.status()
            looked = self._onlooker.look(after)
        passed_us = after.uptime_us - before.uptime_us
        worked_us = after.telemetry.core_busy_us - before.telemetry.core_busy_us
        pictures = self._neighbours_completed(after.telemetry) - self._neighbours_completed(before.telemetry)
        return Stage(
            title=title,
            latencies_us=np.array([latency_us for latency_us, _ in frames]),
            same=sum(same for _, same in frames),
            busy=worked_us / (passed_us * cores),
            neighbours_per_s=pictures / (passed_us / 1e6),
            seen=after.telemetry,
            looked=looked,
        )

    def _frame(self, picture: int) -> tuple[float, bool]:
        """Latency in µs, and whether the answer is the first one to this picture."""
        ticket = self._camera.submit(picture)
        self._device.advance(FRAME_US + int(self._chance.integers(-JITTER_US, JITTER_US, endpoint=True)))
        latency_us, answer = self._answer(ticket)
        first = self._answers.setdefault(picture, answer)
        return latency_us, all(array.tobytes() == first[name].tobytes() for name, array in answer.items())

    def _answer(self, ticket: int) -> tuple[float, dict[str, NDArray[Any]]]:
        for _ in range(ANSWER_LIMIT_US // FRAME_US):
            if not self._camera.waits(self._device.status().telemetry):
                return self._camera.answer(ticket)
            self._device.advance(FRAME_US)
        raise DeviceLostError(f"{self._device.device} did not answer within {ANSWER_LIMIT_US // 10**6} s of its time")

    def _feed_neighbours(self) -> None:
        if self._neighbours:
            seen = self._device.status().telemetry
            for neighbour in self._neighbours:
                neighbour.work_on(seen)

    def _neighbours_completed(self, seen: Telemetry) -> int:
        found = (context_of(seen, neighbour.client.context) for neighbour in self._neighbours)
        return sum(context.completions for context in found if context is not None)

    def _pass(self, step: str, holds: Callable[[Telemetry], bool], limit_s: int) -> float | None:
        """Let the device's time pass until something holds; how long that took in s, None if it never did."""
        with self._timed(step, "in the device's time"):
            for tick in range(limit_s * 10**6 // TICK_US):
                if holds(self._device.status().telemetry):
                    return tick * TICK_US / 1e6
                self._feed_neighbours()
                self._device.advance(TICK_US)
        return None

    def _reset(self) -> Reset:
        """In the middle of everybody's work, ours too."""
        with self._timed("reset", "in the middle of everybody's work"):
            self._feed_neighbours()
            ticket = self._camera.submit(0)
            before = self._device.status()
            self._device.reset()
            while (back := self._device.status()).telemetry.life is Life.RESETTING:
                self._device.advance(RESET_TICK_US)
            opened_again = self._recover(ticket)
        open_after = {context.id: context for context in back.telemetry.contexts}
        open_before = {context.id: context for context in before.telemetry.contexts}
        kept = open_before.keys() & open_after.keys()
        return Reset(
            away_us=back.uptime_us - before.uptime_us,
            jobs_lost=sum(open_after[number].errors - open_before[number].errors for number in kept),
            contexts=len(open_before),
            contexts_lost=len(open_before.keys() - kept),
            opened_again=opened_again,
        )

    def _recover(self, ticket: int) -> bool:
        """The job that was under way may be lost; whether another one needs another context."""
        with suppress(DeviceLostError):
            self._answer(ticket)
        try:
            self._frame(0)
        except DeviceLostError:
            self._camera.client.close()
            self._camera = self._open()
            return True
        return False

    @contextmanager
    def _timed(self, step: str, detail: str) -> Iterator[None]:
        clock = SystemClock()
        begun_us = clock.now_us()
        self._observe(StepStarted(step=step, detail=detail))
        yield
        self._observe(StepFinished(step=step, seconds=(clock.now_us() - begun_us) / 1e6, detail=detail))
