"""What happened to a virtual NPU, line by line, as its `uevents` file tells it; the reader never misses a gap.

The file is a ring that is replaced whole, so every look reads all of it and keeps what is new by its SEQNUM. Other
programs may write such a file less carefully: a line without its end is left for the next look, a line that is no
uevent is skipped. Real drivers broadcast theirs over netlink, which npuops does not listen to.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from npuops.devices.discovery import Device
from npuops.devices.probes import Place
from npuops.devices.quantities import Absent
from npuops.devices.tree import Tree
from npuops.devices.vnpu_tree import EVENT_LIMIT, EVENTS_KEPT

_LINE: Final = re.compile(r"([0-9]{1,20}) ([a-z]{1,20})((?: [A-Z_]{1,40}=\S*)*)")
_FILE: Final = "uevents"
_REMEMBERED: Final = 256
"""Devices that are away: one that comes back is followed from where it left."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Uevent:
    """One line.

    Attributes:
        seqnum: its number on this device, from 1.
        at_us: by the device's clock, whose zero is when it was switched on.
        action: the kernel's words: `add`, `remove`, `change`, `online`, `offline`.
        fields: what else it says, in its order; without SEQNUM.
    """

    seqnum: int
    at_us: int
    action: str
    fields: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class Missed:
    """So many lines were over before anybody read them."""

    count: int


def parse_uevent(line: str) -> Uevent | None:
    """A line without its end; None for what is no uevent, or has no number."""
    found = _LINE.fullmatch("".join(char if char.isprintable() else "?" for char in line))
    if found is None:
        return None
    fields = dict(pair.split("=", 1) for pair in found[3].split())
    number = fields.pop("SEQNUM", "")
    if not (number.isascii() and number.isdigit()) or len(number) > 20:
        return None
    return Uevent(seqnum=int(number), at_us=int(found[1]), action=found[2], fields=fields)


class UeventReader:
    """Follows the uevents of devices. For one thread.

    What was there before a device's first look is its past, and not told; of a device that comes later all is told.
    """

    def __init__(self, tree: Tree) -> None:
        self._tree = tree
        self._last: dict[str, Uevent] = {}  # the one looked at last stands last
        self._begun = False

    def poll(self, devices: Iterable[Device]) -> list[tuple[Device, Uevent | Missed]]:
        """What is new since the last call, for each device in its order.

        Args:
            devices: those that are here; a real one has no such file.
        """
        found: list[tuple[Device, Uevent | Missed]] = []
        away = dict.fromkeys(self._last)
        for device in devices:
            away.pop(device.id, None)
            lines = self._lines(device) if device.driver == "vnpu" else []
            last = self._last.pop(device.id, None)
            if last is not None or self._begun:
                found += [(device, each) for each in _news(last, lines)]
            newest = lines[-1] if lines else last
            if newest is not None:
                self._last[device.id] = newest
        for forgotten in list(away)[:-_REMEMBERED]:
            del self._last[forgotten]
        self._begun = True
        return found

    def _lines(self, device: Device) -> list[Uevent]:
        data = self._tree.data(device.places[Place.DEVICE] / _FILE, EVENTS_KEPT * EVENT_LIMIT)
        if isinstance(data, Absent):
            return []
        whole = data[: data.rfind(b"\n") + 1].decode("utf-8", "replace").split("\n")
        return [event for event in map(parse_uevent, whole) if event is not None]


def _news(last: Uevent | None, lines: list[Uevent]) -> list[Uevent | Missed]:
    """Those after the last one that was read, or all if the numbers began anew; and how many are missing between."""
    known = {event.seqnum: event for event in lines}
    if last is not None and lines and (lines[-1].seqnum < last.seqnum or known.get(last.seqnum, last) != last):
        last = None  # another daemon has taken the device's place
    found: list[Uevent | Missed] = []
    due = 1 if last is None else last.seqnum + 1
    for event in lines:
        if event.seqnum > due:
            found.append(Missed(count=event.seqnum - due))
        if event.seqnum >= due:
            found.append(event)
            due = event.seqnum + 1
    return found
