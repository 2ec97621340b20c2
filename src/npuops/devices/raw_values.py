"""What drivers write into their files, as numbers; garbage is absent, never 0."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from npuops.devices.quantities import Absent, Unit


class Raw(StrEnum):
    """The unit a driver writes."""

    US = "µs"
    BYTES = "bytes"
    MHZ = "MHz"
    HZ = "Hz"
    UW = "µW"
    MW = "mW"
    UJ = "µJ"
    MILLI_CELSIUS = "m°C"
    PERCENT = "%"
    COUNT = "count"


@dataclass(frozen=True, slots=True)
class Scale:
    """SI = raw × times / over; two whole numbers, so that 45123 m°C is 45.123 and not 45.1230…05."""

    unit: Unit
    times: int = 1
    over: int = 1


SCALES: Final[Mapping[Raw, Scale]] = {
    Raw.US: Scale(Unit.SECONDS, over=1_000_000),
    Raw.BYTES: Scale(Unit.BYTES),
    Raw.MHZ: Scale(Unit.HERTZ, times=1_000_000),
    Raw.HZ: Scale(Unit.HERTZ),
    Raw.UW: Scale(Unit.WATTS, over=1_000_000),
    Raw.MW: Scale(Unit.WATTS, over=1000),
    Raw.UJ: Scale(Unit.JOULES, over=1_000_000),
    Raw.MILLI_CELSIUS: Scale(Unit.CELSIUS, over=1000),
    Raw.PERCENT: Scale(Unit.RATIO, over=100),
    Raw.COUNT: Scale(Unit.COUNT),
}


class Form(StrEnum):
    """How a file's text holds its number."""

    NUMBER = "number"
    RKNPU_LOAD = "rknpu-load"
    VDMA_IN_USE = "vdma-in-use"
    VDMA_TOTAL = "vdma-total"


_INTEGER: Final = re.compile(r"[+-]?[0-9]{1,20}")
_LOAD: Final = re.compile(
    r"NPU load:\s*(?:(?P<one>[0-9]{1,3})%|(?P<cores>(?:Core[0-9]+:\s*[0-9]{1,3}%,?\s*)+)),?", re.IGNORECASE
)
_CORE: Final = re.compile(r"([0-9]+)%")
_VDMA: Final = re.compile(r"INUSE\s+TOTAL\s+([0-9]{1,20})\s+([0-9]{1,20})", re.IGNORECASE)


def _number(text: str) -> float | None:
    return int(text) if _INTEGER.fullmatch(text) else None


def _rknpu_load(text: str) -> float | None:
    """The mean of the cores: `NPU load:  Core0: 50%, Core1:  0%,` or, with one core, `NPU load:  12%`."""
    found = _LOAD.fullmatch(text)
    if found is None:
        return None
    if found["one"] is not None:
        return int(found["one"])
    cores = [int(percent) for percent in _CORE.findall(found["cores"])]
    return sum(cores) / len(cores)


def _vdma(column: int) -> Callable[[str], float | None]:
    """A column of Hailo's two (in use, total) below their headings; they count jiffies."""

    def parse(text: str) -> float | None:
        found = _VDMA.fullmatch(text)
        return int(found[column]) if found else None

    return parse


_PARSERS: Final[Mapping[Form, Callable[[str], float | None]]] = {
    Form.NUMBER: _number,
    Form.RKNPU_LOAD: _rknpu_load,
    Form.VDMA_IN_USE: _vdma(1),
    Form.VDMA_TOTAL: _vdma(2),
}


def parse(text: str, form: Form, raw: Raw) -> float | Absent:
    """The number in a file's text, in base units."""
    number = _PARSERS[form](text.strip())
    if number is None:
        shown = text.strip().encode("ascii", "backslashreplace").decode()
        return Absent(f"{shown[:40]!r} is not a {form}" if shown else "the file is empty")
    return number * SCALES[raw].times / SCALES[raw].over
