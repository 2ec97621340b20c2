"""What the chips behind the served models say of themselves: health, temperature, clock, power, load.

Looked at in threads, about once a second, as the command `npuops devices` looks at them: a driver that does not answer
holds up a thread, and no request.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from npuops.clock import Clock
from npuops.devices.health import Health, State
from npuops.devices.quantities import Quantity
from npuops.devices.sampler import Sample, Sampler
from npuops.devices.sampling_worker import SamplingWorker
from npuops.devices.tree import Tree
from npuops.runtime.ailment import Ailment
from npuops.telemetry.serving_snapshot import ChipReading
from npuops.vnpu.device_folder import devices_home

VIRTUAL: Final = "vnpu"
_OWN: Final = re.compile(r"own-(\d+)-")
"""Of a virtual device that a session made for itself: the process, by the name that `vnpu.session` gives."""
_NUMBERED: Final = re.compile(r"(#\d+)?(\[\d+\])?$")
SOLE: Final[Mapping[str, str]] = {"openvino:npu": "ivpu"}
"""Targets of real chips, and the driver of the chip: it is theirs where the machine has just one."""
OLD_US: Final = 10_000_000
"""A look that is older says nothing any more: the driver does not answer, and the workers will notice why."""

COUNTED: Final = (
    Quantity.RESETS,
    Quantity.THROTTLES,
    Quantity.CORRECTED,
    Quantity.UNCORRECTED,
    Quantity.REFUSED_MEMORY,
    Quantity.REFUSED_VERSION,
)
"""Troubles that are told as counters, as far as a driver counts them."""

AILING: Final[Mapping[State, Ailment]] = {
    State.OFFLINE: Ailment(why="offline", answers=False),
    State.HUNG: Ailment(why="hung", answers=False),
    State.GONE: Ailment(why="gone", answers=False),
    State.OVERHEATED: Ailment(why="overheated", answers=True),
    State.WRONG: Ailment(why="answers wrong", answers=True),
    State.UNCORRECTED: Ailment(why="uncorrected errors", answers=True, is_doubt=True),
}
"""States in which a device should not work. One that is throttled is slow, which the router sees from its runs; one
that was reset is proved by its next start."""


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
        return tuple(chip_readings(self._samples(users), users))

    def _samples(self, users: Sequence[ChipUser]) -> tuple[Sample, ...]:
        if self._virtual is None and any(user.device.startswith(f"{VIRTUAL}:") for user in users):
            self._virtual = self._look_at(devices_home())
        samples = self._real.latest
        if self._virtual is not None:
            samples += self._virtual.latest
        return samples

    def ailments(self, users: Sequence[ChipUser]) -> Mapping[ChipUser, Ailment]:
        """Whose chips should not work now, as the last look found them; returns at once."""
        oldest_us = self._clock.now_us() - OLD_US
        return ailments([sample for sample in self._samples(users) if sample.taken_us >= oldest_us], users)

    def close(self) -> None:
        """End the threads; takes two seconds at most where a driver does not answer."""
        self._real.stop()
        if self._virtual is not None:
            self._virtual.stop()

    def _look_at(self, root: Path) -> SamplingWorker:
        worker = SamplingWorker(Sampler(Tree(root), self._clock), self._clock)
        worker.start()
        return worker


def chip_readings(samples: Sequence[Sample], users: Sequence[ChipUser]) -> Iterable[ChipReading]:
    """All that are there, or missed by a model; but not the virtual ones that other programs made for themselves."""
    drivers = Counter(sample.device.driver for sample in samples)
    for sample in samples:
        device = sample.device
        user = next((user for user in users if _uses(user, sample, drivers)), None)
        is_own = _own_pid(sample) is not None
        is_gone = sample.condition.health is Health.GONE
        if (is_own and is_gone) or (user is None and (is_own or is_gone)):
            continue
        yield ChipReading(
            device=device.id if user is None else user.device if is_own else _NUMBERED.sub("", user.device),
            label=" ".join(filter(None, (device.vendor, device.model))),
            basis="modelled" if device.driver == VIRTUAL else "measured",
            health=sample.condition.health.value,
            state=sample.condition.state.value,
            why=sample.condition.why,
            temperature_celsius=sample.value(Quantity.TEMPERATURE),
            clock_hertz=sample.value(Quantity.CLOCK),
            power_watts=sample.value(Quantity.POWER),
            busy_ratio=sample.value(Quantity.BUSY_RATIO),
            memory_used_bytes=sample.value(Quantity.MEMORY_USED),
            memory_total_bytes=sample.value(Quantity.MEMORY_TOTAL),
            energy_joules=sample.value(Quantity.ENERGY),
            counters={each.value: value for each in COUNTED if (value := sample.value(each)) is not None},
        )


def ailments(samples: Sequence[Sample], users: Sequence[ChipUser]) -> dict[ChipUser, Ailment]:
    """Who uses a chip that should not work, and why it should not."""
    drivers = Counter(sample.device.driver for sample in samples)
    found: dict[ChipUser, Ailment] = {}
    for sample in samples:
        condition = sample.condition
        ailment = AILING.get(condition.state)
        # A device of a session's own goes with its worker: that it is gone is no reason not to make another.
        if ailment is None or (condition.health is Health.GONE and _own_pid(sample) is not None):
            continue
        words = replace(ailment, why=f"the device is {ailment.why}: {condition.why}")
        found |= {user: words for user in users if _uses(user, sample, drivers)}
    return found


def _own_pid(sample: Sample) -> int | None:
    """Whose it is, where a session made the virtual device for itself."""
    own = _OWN.match(sample.device.address or "") if sample.device.driver == VIRTUAL else None
    return None if own is None else int(own[1])


def _uses(user: ChipUser, sample: Sample, drivers: Mapping[str | None, int]) -> bool:
    device, base = sample.device, _NUMBERED.sub("", user.device)
    if device.driver != VIRTUAL:
        return device.driver is not None and SOLE.get(base) == device.driver and drivers[device.driver] == 1
    if not base.startswith(f"{VIRTUAL}:"):
        return False
    own = _own_pid(sample)
    return base.endswith(f"/{device.address}") if own is None else own == user.pid
