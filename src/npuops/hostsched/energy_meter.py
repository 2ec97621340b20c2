"""Energy of the machine over a span of time, in joules, from the one meter that fits best; or why there is none.

Units and files as the kernel documents them: RAPL in microjoules with wrap-around (`power/powercap/powercap.rst`),
hwmon in microjoules and microwatts (`hwmon/sysfs-interface.rst`), batteries in microwatt-hours, microampere-hours and
microvolts (`ABI/testing/sysfs-class-power`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Protocol

import msgspec

from npuops.clock import Clock

_SYS: Final = Path("/sys")
_ZONE: Final = re.compile(r"intel-rapl:\d+")
_JOULES_PER_UWH: Final = 3600e-6
_COULOMBS_PER_UAH: Final = 3600e-6
_LEAST_BETWEEN_US: Final = 1_000_000
_SOCKETS: Final = "amd_energy"
"""An energy counter of each core and each socket: the sockets hold the cores."""
NOT_MEASURED: Final = "joules were not measured"
_WHOLE: Final = re.compile(r"power_meter|fam15h_power|ina2\d\d|ltc29\d\d")
"""Power sensors of a processor or of a board's supply; of all others (graphics, disks) nobody knows what they leave
out."""


class Energy(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was used over a span.

    Attributes:
        joules: used; None: not measured.
        words: what measured it and how; where nothing did, why.
    """

    joules: float | None
    words: str

    def __str__(self) -> str:
        """`12.3 J (RAPL: package-0)` or `joules were not measured: no meter here`."""
        return f"{self.joules:.1f} J ({self.words})" if self.joules is not None else f"{NOT_MEASURED}: {self.words}"


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """One kind of meter, as found.

    Attributes:
        name: RAPL, hwmon or battery.
        gauge: reads it; None: it cannot be used.
        words: what it measures and how; where it cannot be used, why.
    """

    name: str
    gauge: Gauge | None
    words: str


class Gauge(Protocol):
    """Adds up what was used."""

    def used(self, now_us: int) -> float:
        """Joules since the call before; 0 at the first, with which it begins.

        Args:
            now_us: of a clock that never goes back.

        Raises:
            LookupError: this span is not measured, in these words.
            OSError: a file cannot be read.
            ValueError: likewise, a file holds no number.
        """
        ...


_Found = tuple[str, Sequence[Gauge], str]
"""Name of a kind, its gauges, and what they measure; where there are none, why."""


class EnergyMeter:
    """Of one span: made at its beginning, looked at now and then, asked at the end."""

    def __init__(self, clock: Clock, root: Path = _SYS) -> None:
        """Begins at once.

        Args:
            clock: for sensors that tell power, and so that nobody looks too often.
            root: where sysfs is.
        """
        found = energy_sources(root, clock.now_us())
        usable = next((source for source in found if source.gauge is not None), None)
        self._clock = clock
        self._gauge = None if usable is None else usable.gauge
        self._words = "; ".join(f"{each.name}: {each.words}" for each in found)
        if usable is not None:
            self._words = f"{usable.name}: {usable.words}"
        self._joules = 0.0
        self._next_us = clock.now_us() + _LEAST_BETWEEN_US

    def look(self) -> None:
        """Whenever there is time: once a second at most it reads. Never raises for what the meter does."""
        if self._gauge is not None and self._clock.now_us() >= self._next_us:
            self._add()

    def energy(self) -> Energy:
        """From the beginning until now."""
        self._add()
        return Energy(joules=None if self._gauge is None else self._joules, words=self._words)

    def _add(self) -> None:
        if self._gauge is None:
            return
        now_us = self._clock.now_us()
        self._next_us = now_us + _LEAST_BETWEEN_US
        try:
            self._joules += self._gauge.used(now_us)
        except (OSError, ValueError, LookupError) as error:
            self._words = f"{self._words}: {_why(error)}"
            self._gauge = None


def energy_sources(root: Path = _SYS, now_us: int = 0) -> tuple[Source, ...]:
    """All kinds, the best first: they measure the same energy, so that only one of them is ever taken.

    Args:
        root: where sysfs is.
        now_us: when their gauges begin.
    """
    return tuple(_source(*found, now_us) for found in (_rapl(root), _hwmon(root), _battery(root)))


def _rapl(root: Path) -> _Found:
    zones = [zone for zone in sorted(root.glob("class/powercap/intel-rapl:*")) if _ZONE.fullmatch(zone.name)]
    packages = {zone: name for zone in zones if (name := _text(zone / "name")).startswith("package-")}
    if not packages:
        return "RAPL", [], "no such counter here"
    counters = [_Counter(zone / "energy_uj", zone / "max_energy_range_uj") for zone in packages]
    return "RAPL", counters, ", ".join(packages.values()) + ", without memory and board"


def _hwmon(root: Path) -> _Found:
    chips = [(_text(chip / "name"), chip) for chip in sorted(root.glob("class/hwmon/hwmon*"))]
    sockets = [
        (label, _Counter(file, None))
        for name, chip in chips
        if name == _SOCKETS
        for file in sorted(chip.glob("energy*_input"))
        if (label := _text(file.with_name(file.name.replace("_input", "_label")))).startswith("Esocket")
    ]
    if sockets:
        return "hwmon", [counter for _, counter in sockets], ", ".join(label for label, _ in sockets)
    powers = [(name, file) for name, chip in chips for file in _power_files(chip)]
    whole = [(name, file) for name, file in powers if _WHOLE.fullmatch(name)]
    if len(whole) == 1:
        name, file = whole[0]
        return "hwmon", [_Power(file)], f"power of {name}, summed over time between looks"
    if whole:
        why = f"{len(whole)} power sensors, and what they measure together is not known"
    elif powers:
        others = ", ".join(sorted({name for name, _ in powers}))
        why = f"sensors of parts only, or of what is not known ({others})"
    else:
        why = "no sensor of energy or power here"
    return "hwmon", [], why


def _power_files(chip: Path) -> Iterator[Path]:
    """One for each sensor: what it is now, or where it does not tell, its average."""
    for number in range(1, 17):
        now, average = chip / f"power{number}_input", chip / f"power{number}_average"
        if now.exists() or average.exists():
            yield now if now.exists() else average


def _battery(root: Path) -> _Found:
    batteries = [
        _Battery(supply)
        for supply in sorted(root.glob("class/power_supply/*"))
        if _text(supply / "type") == "Battery" and _text(supply / "scope") != "Device"
    ]
    words = "the whole machine, by a coarse gauge, while it discharges" if batteries else "no battery here"
    return "battery", batteries, words


def _source(name: str, gauges: Sequence[Gauge], words: str, now_us: int) -> Source:
    """Usable if there are gauges and all of them can be read now."""
    gauge = _Sum(gauges)
    try:
        gauge.used(now_us)
    except (OSError, ValueError, LookupError) as error:
        return Source(name=name, gauge=None, words=_why(error))
    return Source(name=name, gauge=gauge if gauges else None, words=words)


class _Sum:
    """Of parts that do not overlap."""

    def __init__(self, parts: Sequence[Gauge]) -> None:
        self._parts = parts

    def used(self, now_us: int) -> float:
        return sum(part.used(now_us) for part in self._parts)


class _Counter:
    """Microjoules that only grow, until they begin again at 0 behind the end of their range."""

    def __init__(self, file: Path, end: Path | None) -> None:
        self._file = file
        self._end = end
        self._last: int | None = None

    def used(self, now_us: int) -> float:
        del now_us  # it adds up by itself
        count = _number(self._file)
        last = count if self._last is None else self._last
        self._last = count
        if count < last:
            if self._end is None:
                raise LookupError(f"{self._file} went back")
            last -= _number(self._end) + 1
        return (count - last) / 1e6


class _Power:
    """Microwatts as they are now: by the trapezoid between two looks."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._last: tuple[int, int] | None = None

    def used(self, now_us: int) -> float:
        uw = _number(self._file)
        before_us, before_uw = (now_us, uw) if self._last is None else self._last
        self._last = now_us, uw
        return (uw + before_uw) / 2e6 * (now_us - before_us) / 1e6


class _Battery:
    """What is left in it, as long as nobody charges it."""

    def __init__(self, supply: Path) -> None:
        self._supply = supply
        self._last: tuple[float, float] | None = None

    def used(self, now_us: int) -> float:
        del now_us  # likewise
        status = (self._supply / "status").read_text(encoding="ascii").strip()
        if status != "Discharging":
            raise LookupError(f"{self._supply.name} is not discharging ({status})")
        left, joules_per_unit = self._left()
        before, joules_per_unit_before = (left, joules_per_unit) if self._last is None else self._last
        self._last = left, joules_per_unit
        if left > before:
            raise LookupError(f"the gauge of {self._supply.name} went up while it discharged")
        return (before - left) * (joules_per_unit + joules_per_unit_before) / 2

    def _left(self) -> tuple[float, float]:
        """Of energy or charge, and joules of one unit of it."""
        if (energy := self._supply / "energy_now").exists():
            return _number(energy), _JOULES_PER_UWH
        return _number(self._supply / "charge_now"), _COULOMBS_PER_UAH * _number(self._supply / "voltage_now") / 1e6


def _number(file: Path) -> int:
    text = file.read_text(encoding="ascii").strip()
    if not text.isdecimal():
        raise ValueError(f"{file} holds no number: {text!r}")
    return int(text)


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="ascii", errors="replace").strip()
    except OSError:
        return ""


def _why(error: Exception) -> str:
    if isinstance(error, PermissionError):
        return f"only root may read {error.filename}"
    return f"{error.filename}: {error.strerror}" if isinstance(error, OSError) else str(error.args[0])
