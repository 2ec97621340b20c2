"""One look at all devices: found, read, compared with the look before, judged."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from npuops.clock import Clock
from npuops.devices.contexts import context_tenants
from npuops.devices.discovery import Device, find_devices
from npuops.devices.evidence import ABSENCE, Canary, evidence
from npuops.devices.fdinfo import FdinfoReader
from npuops.devices.health import Condition, State, step
from npuops.devices.quantities import Quantity, Reading
from npuops.devices.rates import derived
from npuops.devices.readings import NOTHING, Readings, read_device
from npuops.devices.tenants import Tenant, with_ratios
from npuops.devices.tree import Tree
from npuops.events import Event, Observer, ignore


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
    """

    device: Device
    taken_us: int
    interval_s: float | None
    readings: Readings
    values: Mapping[Quantity, Reading]
    condition: Condition
    tenants: tuple[Tenant, ...] = ()

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


class Sampler:
    """Remembers the last look at each device. Not for several threads: `SamplingWorker` shares one."""

    def __init__(self, tree: Tree, clock: Clock, observe: Observer = ignore) -> None:
        self._tree = tree
        self._clock = clock
        self._observe = observe
        self._fdinfo = FdinfoReader(tree)
        self._last: dict[str, Sample] = {}
        self._canaries: dict[str, Canary] = {}

    def report_canary(self, device_id: str, canary: Canary) -> None:
        """Hand in the result of an inference with a known answer; the next look judges it."""
        self._canaries[device_id] = canary

    def sample(self) -> tuple[Sample, ...]:
        """Look at every device that is here, and remember those that were."""
        devices = find_devices(self._tree)
        shared = self._fdinfo.tenants() if any(device.driver == "amdxdna" for device in devices) else {}
        present = [self._look(device, shared) for device in devices]
        here = {sample.device.id for sample in present}
        samples = (*present, *(self._missing(last) for key, last in self._last.items() if key not in here))
        self._last = {sample.device.id: sample for sample in samples}
        self._observe(DevicesSampled(samples=samples))
        return samples

    def _look(self, device: Device, shared: Mapping[str, tuple[Tenant, ...]]) -> Sample:
        taken_us = self._clock.now_us()
        last = self._last.get(device.id)
        readings = read_device(self._tree, device)
        was_here = last is not None and last.condition.state is not State.GONE
        before = last.readings if last is not None and was_here else None
        interval_s = (taken_us - last.taken_us) / 1e6 if last is not None and was_here else None
        state = last.condition.state if last is not None else State.UNKNOWN
        observed = evidence(state, before, readings, canary=self._canaries.pop(device.id, None))
        start = Condition(state=state, why="not looked at yet", since_us=taken_us)
        condition = step(last.condition if last is not None else start, observed, taken_us)
        extra: dict[Quantity, Reading] = {}
        tenants = shared.get(device.address or "", ())
        if device.driver == "vnpu":
            tenants = context_tenants(self._tree, device)
        if last is not None and interval_s is not None:
            extra = derived(last.values, readings.values, interval_s)
            tenants = with_ratios(tenants, {tenant.client: tenant for tenant in last.tenants}, interval_s)
        return self._told(
            last,
            Sample(
                device=device,
                taken_us=taken_us,
                interval_s=interval_s,
                readings=readings,
                values={**readings.values, **extra},
                condition=condition,
                tenants=tenants,
            ),
        )

    def _missing(self, last: Sample) -> Sample:
        now_us = self._clock.now_us()
        condition = step(last.condition, ABSENCE, now_us)
        gone = Sample(
            device=last.device, taken_us=now_us, interval_s=None, readings=NOTHING, values={}, condition=condition
        )
        return self._told(last, gone)

    def _told(self, last: Sample | None, now: Sample) -> Sample:
        if last is not None and last.condition.state is not now.condition.state:
            self._observe(HealthChanged(device=now.device, before=last.condition, now=now.condition))
        return now
