"""`npuops devices --follow`: a line for everything that happens to a device, as it is seen."""

from __future__ import annotations

import select
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Final

from npuops.cli.json_line import print_json_line
from npuops.cli.show import console
from npuops.clock import SystemClock
from npuops.devices.health import Health
from npuops.devices.sampler import DevicesSampled, Sample, Sampler
from npuops.devices.sampling_worker import SamplingWorker
from npuops.devices.uevents import Missed, Uevent, UeventReader

if TYPE_CHECKING:
    from npuops.devices.tree import Tree
    from npuops.events import Event

SCHEMA: Final = "npuops.devices.event/1"

Plain = dict[str, object]


def follow(tree: Tree, interval: float, *, as_json: bool) -> None:
    """Print until interrupted.

    Raises:
        OptionError: the interval is too short.
        BrokenPipeError: nobody reads the lines any more.
    """
    clock, follower = SystemClock(), Follower(tree)

    def tell(event: Event) -> None:
        if isinstance(event, DevicesSampled):
            for happening in follower.happenings(event.samples):
                _print(happening, as_json=as_json)
            _must_have_reader()

    try:
        SamplingWorker(Sampler(tree, clock, tell), clock, period_s=interval).run()
    except KeyboardInterrupt:
        return  # the way a watch ends


def _must_have_reader() -> None:
    """A closed pipe fails a write; but it may be long until something happens that is written."""
    poll = select.poll()
    poll.register(sys.stdout.fileno(), 0)
    if any(state & select.POLLERR for _, state in poll.poll(0)):
        raise BrokenPipeError


class Follower:
    """Compares each look with the one before. For one thread."""

    def __init__(self, tree: Tree) -> None:
        self._reader = UeventReader(tree)
        self._before: dict[str, Sample] = {}

    def happenings(self, samples: tuple[Sample, ...]) -> Iterator[Plain]:
        """Uevents first, then what npuops makes of them: health and suspicions that changed, each a flat object."""
        present = [sample.device for sample in samples if sample.condition.health is not Health.GONE]
        for device, event in self._reader.poll(present):
            yield {"id": device.id, "name": device.name, **_uevent(event)}
        for sample in samples:
            before = self._before.get(sample.device.id)
            origin = {"id": sample.device.id, "name": sample.device.name}
            state, condition = before and before.condition.state, sample.condition
            if state is not condition.state:
                words = {"level": condition.health, "state": condition.state, "was": state, "why": condition.why}
                yield {**origin, "kind": "health", **words}
            known = {each.mode for each in before.suspected} if before else set()
            for each in sample.suspected:
                if each.mode not in known:
                    yield {
                        **origin,
                        "kind": "suspicion",
                        "mode": each.mode,
                        "what": each.name,
                        "evidence": each.evidence,
                    }
        self._before = {sample.device.id: sample for sample in samples}


def _uevent(event: Uevent | Missed) -> Plain:
    if isinstance(event, Missed):
        return {"kind": "missed", "count": event.count}
    seen = {"seqnum": event.seqnum, "at_us": event.at_us, "action": event.action, "fields": event.fields}
    return {"kind": "uevent", **seen}


def _print(happening: Plain, *, as_json: bool) -> None:
    now = datetime.now(UTC)
    if as_json:
        print_json_line({"schema": SCHEMA, "time": now, **happening})
    else:
        line = f"{now.astimezone():%H:%M:%S}  {happening['name']}  {_words(happening)}"
        console().print(line, soft_wrap=True)


def _words(happening: Plain) -> str:
    match happening:
        case {"kind": "uevent", "at_us": int(at_us), "action": action, "fields": dict(fields)}:
            return " ".join([f"{action} at {at_us / 1e6:.3f} s of its own time", *map("=".join, fields.items())])
        case {"kind": "missed", "count": count}:
            return f"{count} events were over before they were read: look more often"
        case {"kind": "health", "level": level, "state": state, "was": was, "why": why}:
            health = state if state == level else f"{state} ({level})"
            return f"{f'{was} → ' if was else ''}{health}: {why}"
        case {"mode": mode, "what": what, "evidence": tuple(evidence)}:
            return f"suspect {mode} {what}: {'; '.join(evidence)}"
    raise AssertionError(happening)
