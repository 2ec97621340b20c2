"""One look at all devices: found, read, compared with the look before, judged."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Final

from npuops.clock import Clock
from npuops.devices.contexts import context_tenants
from npuops.devices.discovery import Device, find_devices
from npuops.devices.evidence import ABSENCE, Canary, Verdict, evidence
from npuops.devices.fdinfo import FdinfoReader
from npuops.devices.health import Condition, State, step
from npuops.devices.quantities import Quantity, Reading
from npuops.devices.rates import derived
from npuops.devices.readings import NOTHING, Readings, read_device
from npuops.devices.suspicions import WINDOW_S, Look, Suspicion, gone, history, suspicions
from npuops.devices.tenants import Tenant, with_ratios
from npuops.devices.tree import Tree
from npuops.events import Event, Observer, ignore

GONE_KEPT_S: Final = 600.0
"""How long a device that is gone is still spoken of: virtual ones come and go with every build."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sample:
    """One device at one moment.

    Attributes:
        device: what it is; of a device that is gone, what it was.
        taken_us: by the sampler's clock, right before its files were read.
        interval_s: since the look before; None at the first, then nothing is derived.
        readings: what was read, with the reasons for what wasn't.
        values: what was read and what was derived; the one to show and to export.
        condition: its health, with the reason.
        tenants: who uses it, where the driver says.
        suspected: failure modes that the looks of the last `WINDOW_S` speak for.
        earlier: failure modes that its counters speak of since its driver was loaded, the last `WINDOW_S` included.
    """

    device: Device
    taken_us: int
    interval_s: float | None
    readings: Readings
    values: Mapping[Quantity, Reading]
    condition: Condition
    tenants: tuple[Tenant, ...] = ()
    suspected: tuple[Suspicion, ...] = ()
    earlier: tuple[Suspicion, ...] = ()

    def value(self, quantity: Quantity) -> float | None:
        """In the quantity's base unit; None where it is unknown."""
        reading = self.values.get(quantity)
        return None if reading is None else reading.value


@dataclass(frozen=True, slots=True, kw_only=True)
class DevicesSampled(Event):
    """A look at all devices is complete."""

    samples: tuple[Sample, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class HealthChanged(Event):
    """A device entered another state."""

    device: Device
    before: Condition
    now: Condition


@dataclass(slots=True)
class _Memory:
    """Of one device.

    Attributes:
        last: its last sample.
        looks: of the window, oldest first; none while it is gone.
    """

    last: Sample
    looks: deque[Look] = field(default_factory=deque)


class Sampler:
    """Remembers the last looks at each device. Not for several threads: `SamplingWorker` shares one."""

    def __init__(self, tree: Tree, clock: Clock, observe: Observer = ignore) -> None:
        self._tree = tree
        self._clock = clock
        self._observe = observe
        self._fdinfo = FdinfoReader(tree)
        self._memories: dict[str, _Memory] = {}
        self._canaries: dict[str, Canary] = {}

    def report_canary(self, device_id: str, canary: Canary) -> None:
        """Hand in the result of an inference with a known answer; the next look judges it, if it finds the device."""
        self._canaries[device_id] = canary

    def sample(self) -> tuple[Sample, ...]:
        """Look at every device that is here, and remember those that were."""
        devices = find_devices(self._tree)
        shared = self._fdinfo.tenants() if any(device.driver == "amdxdna" for device in devices) else {}
        present = [self._look(device, shared) for device in devices]
        self._canaries.clear()
        here = {sample.device.id for sample in present}
        missing = [self._missing(memory) for key, memory in self._memories.items() if key not in here]
        samples = (*present, *(sample for sample in missing if sample is not None))
        kept = {sample.device.id for sample in samples}
        self._memories = {key: memory for key, memory in self._memories.items() if key in kept}
        self._observe(DevicesSampled(samples=samples))
        return samples

    def _look(self, device: Device, shared: Mapping[str, tuple[Tenant, ...]]) -> Sample:
        taken_us = self._clock.now_us()
        memory = self._memories.get(device.id)
        readings = read_device(self._tree, device)
        last = memory.last if memory is not None else None
        before = memory.looks[-1] if memory is not None and memory.looks else None
        interval_s = (taken_us - before.taken_us) / 1e6 if before is not None else None
        start = Condition(state=State.UNKNOWN, why="not looked at yet", since_us=taken_us)
        condition = last.condition if last is not None else start
        seen = before.readings if before is not None else None
        canary = self._canaries.get(device.id)
        observed = evidence(condition.state, seen, readings, canary=canary)
        extra: dict[Quantity, Reading] = {}
        tenants = shared.get(device.address or "", ())
        if device.driver == "vnpu" and readings.dead is None:
            tenants = context_tenants(self._tree, device)
        if last is not None and interval_s is not None:
            extra = derived(last.values, readings.values, interval_s)
            tenants = with_ratios(tenants, {tenant.client: tenant for tenant in last.tenants}, interval_s)
        look = Look(taken_us=taken_us, readings=readings, tenants=tenants)
        looks = _window(memory, replace(look, readings=_with_canaries(readings, seen, canary)))
        sample = Sample(
            device=device,
            taken_us=taken_us,
            interval_s=interval_s,
            readings=readings,
            values={**readings.values, **extra},
            condition=step(condition, observed, taken_us),
            tenants=tenants,
            suspected=suspicions(looks),
            earlier=history(look),
        )
        self._memories[device.id] = _Memory(sample, looks)
        return self._told(last, sample)

    def _missing(self, memory: _Memory) -> Sample | None:
        """None when it has been gone for so long that nobody asks any more."""
        last, now_us = memory.last, self._clock.now_us()
        condition = step(last.condition, ABSENCE, now_us)
        if now_us - condition.since_us > GONE_KEPT_S * 1e6:
            return None
        sample = Sample(
            device=last.device,
            taken_us=now_us,
            interval_s=None,
            readings=NOTHING,
            values={},
            condition=condition,
            suspected=gone(condition.why),
        )
        memory.last = sample
        memory.looks.clear()
        return self._told(last, sample)

    def _told(self, last: Sample | None, now: Sample) -> Sample:
        if last is not None and last.condition.state is not now.condition.state:
            self._observe(HealthChanged(device=now.device, before=last.condition, now=now.condition))
        return now


def _with_canaries(now: Readings, before: Readings | None, canary: Canary | None) -> Readings:
    """For a driver that counts no canaries itself: those that were handed in since npuops looks, as counters."""
    if Quantity.CANARIES in now.values:
        return now
    verdict = None if canary is None else canary.verdict
    counts = {
        Quantity.CANARIES: verdict in {Verdict.PASSED, Verdict.WRONG},
        Quantity.CANARY_FAILURES: verdict is Verdict.WRONG,
    }
    so_far = before.values if before is not None else {}
    values = {
        quantity: Reading(one + (so_far[quantity].value if quantity in so_far else 0.0), "handed in")
        for quantity, one in counts.items()
    }
    return replace(now, values={**now.values, **values})


def _window(memory: _Memory | None, now: Look) -> deque[Look]:
    looks = deque(memory.looks) if memory is not None else deque()
    while looks and now.taken_us - looks[0].taken_us > WINDOW_S * 1e6 and len(looks) > 1:
        looks.popleft()
    looks.append(now)
    return looks
