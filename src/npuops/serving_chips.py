"""What the chips behind the served models say of themselves: temperature, clock, power, load.

Looked at in threads, about once a second, as the command `npuops devices` looks at them: a driver that does not answer
holds up a thread, and no request.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from npuops.clock import Clock
from npuops.devices.health import Health
from npuops.devices.quantities import Quantity
from npuops.devices.sampler import Sample, Sampler
from npuops.devices.sampling_worker import SamplingWorker
from npuops.devices.tree import Tree
from npuops.telemetry.serving_snapshot import ChipReading
from npuops.vnpu.device_folder import devices_home

VIRTUAL: Final = "vnpu"
_OWN: Final = re.compile(r"own-(\d+)-")
"""Of a virtual device that a session made for itself: the process, by the name that `vnpu.session` gives."""
_NUMBERED: Final = re.compile(r"(#\d+|\[\d+\])$")


@dataclass(frozen=True, slots=True)
class ChipUser:
    """One device of a served model version.

    Attributes:
        device: its name in the facts: the target, and the device after a slash where the options name one.
        pid: of its worker.
    """

    device: str
    pid: int


class Chips:
    """Reads the chips of this machine, and the virtual ones as soon as a model uses one."""

    def __init__(self, clock: Clock, root: Path = Path("/")) -> None:
        """`root`: a tree shaped like / or like /sys."""
        self._clock = clock
        self._real = self._look_at(root)
        self._virtual: SamplingWorker | None = None

    def readings(self, users: Sequence[ChipUser]) -> tuple[ChipReading, ...]:
        """As the last look found them; returns at once."""
        if self._virtual is None and any(user.device.startswith(f"{VIRTUAL}:") for user in users):
            self._virtual = self._look_at(devices_home())
        samples = self._real.latest
        if self._virtual is not None:
            samples += self._virtual.latest
        return tuple(chip_readings(samples, users))

    def close(self) -> None:
        """End the threads; takes two seconds at most where a driver does not answer."""
        self._real.stop()
        if self._virtual is not None:
            self._virtual.stop()

    def _look_at(self, root: Path) -> SamplingWorker:
        worker = SamplingWorker(Sampler(Tree(root), self._clock), self._clock)
        worker.start()
        return worker


def chip_readings(samples: Iterable[Sample], users: Sequence[ChipUser]) -> Iterable[ChipReading]:
    """All that are there, but for virtual devices that other programs made for themselves."""
    for sample in samples:
        name = _name(sample, users)
        if name is None or sample.condition.health is Health.GONE:
            continue
        device = sample.device
        yield ChipReading(
            device=name,
            label=" ".join(filter(None, (device.vendor, device.model))),
            basis="modelled" if device.driver == VIRTUAL else "measured",
            temperature_celsius=sample.value(Quantity.TEMPERATURE),
            clock_hertz=sample.value(Quantity.CLOCK),
            power_watts=sample.value(Quantity.POWER),
            busy_ratio=sample.value(Quantity.BUSY_RATIO),
        )


def _name(sample: Sample, users: Sequence[ChipUser]) -> str | None:
    device = sample.device
    if device.driver != VIRTUAL:
        return device.id
    address = device.address or ""
    own = _OWN.match(address)
    for user in users:
        base = _NUMBERED.sub("", user.device)
        if base.startswith(f"{VIRTUAL}:") and (base.endswith(f"/{address}") or (own and int(own[1]) == user.pid)):
            return base if own is None else user.device
    return None if own is not None else device.id
