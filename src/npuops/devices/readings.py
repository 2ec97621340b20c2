"""Everything that can be read of a device now, by its driver's table of probes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from npuops.devices.channels import read_channels
from npuops.devices.discovery import Device, first_words
from npuops.devices.pmt import read_pmt
from npuops.devices.probes import Place, Probe
from npuops.devices.quantities import Absent, Quantity, Reading, believed
from npuops.devices.raw_values import parse
from npuops.devices.tree import Tree


@dataclass(frozen=True, slots=True, kw_only=True)
class Readings:
    """What one look at a device gave.

    Attributes:
        values: in base units; a quantity without a value is not a key.
        absent: why a probe of this driver gave nothing.
        status: the driver's own word for the device's state, None where it has none.
        dead: why there is no device behind the files, which then are not read; None where there is one.
    """

    values: Mapping[Quantity, Reading]
    absent: Mapping[Quantity, str]
    status: str | None = None
    dead: str | None = None


NOTHING = Readings(values={}, absent={})


def read_device(tree: Tree, device: Device) -> Readings:
    """Try every probe; each file is read once, so two numbers of one file belong together."""
    if device.table.alive and tree.is_locked(device.places[Place.DEVICE] / device.table.alive) is False:
        return replace(NOTHING, dead=f"its process has ended and left its tree; npuops device down {device.address}")
    texts: dict[Path, str | Absent] = {}
    values: dict[Quantity, Reading] = {}
    absent: dict[Quantity, Absent] = {}
    for probe in device.table.probes:
        if probe.quantity not in values:
            _note(probe.quantity, _read_probe(tree, device, probe, texts), values, absent)
    more = read_pmt(tree) if device.table.pmt else {}
    if device.table.channels:
        more = {**more, **read_channels(tree, device.places[Place.MINOR])}
    for quantity, answer in more.items():
        _note(quantity, answer, values, absent)
    return Readings(
        values=values,
        absent={quantity: reason.why for quantity, reason in absent.items() if quantity not in values},
        status=first_words(tree, device.places, device.table.status),
    )


def _note(
    quantity: Quantity, answer: Reading | Absent, values: dict[Quantity, Reading], absent: dict[Quantity, Absent]
) -> None:
    """Of two reasons, that of a file which exists says more."""
    if isinstance(answer, Reading):
        values[quantity] = answer
    elif quantity not in absent or absent[quantity].missing:
        absent[quantity] = answer


def _read_probe(tree: Tree, device: Device, probe: Probe, texts: dict[Path, str | Absent]) -> Reading | Absent:
    folder = device.places.get(probe.place)
    paths = tree.matches(folder, probe.path) if folder else ()
    refused = Absent(f"this kernel has no {probe.path}", missing=True)
    for path in paths:
        if path not in texts:
            texts[path] = tree.text(path)
        text, source = texts[path], tree.shown(path)
        if isinstance(text, Absent):
            if not text.missing:
                refused = Absent(f"{source}: {text.why}")
            continue
        number = parse(text, probe.form, probe.raw)
        if isinstance(number, Absent):
            refused = Absent(f"{source}: {number.why}")
            continue
        answer = believed(probe.quantity, number, source)
        if isinstance(answer, Reading):
            return answer
        refused = answer
    return refused
