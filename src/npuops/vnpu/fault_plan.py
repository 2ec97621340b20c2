"""Plans of faults: which one when, from TOML, with what chance decides chosen by a seed. Pure.

Times count from the moment when the device is switched on::

    seed = 7
    [[fault]]
    kind = "slow_dma"
    at_s = 30.0
    jitter_s = 5.0      # it begins at a moment that the seed chooses, 30 s to 35 s
    for_s = 20.0        # without it the fault stays until it is cleared
    factor = 4.0
"""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final

from npuops.errors import OptionError, nearest
from npuops.vnpu.chance import chance
from npuops.vnpu.faults import Fault, Kind
from npuops.vnpu.tenancy import Priority
from npuops.vnpu.versions import Part


@dataclass(frozen=True, slots=True)
class FaultPlan:
    """Faults in the order of their time."""

    faults: tuple[Fault, ...] = ()

    def __post_init__(self) -> None:
        """Put them in order; of two at the same moment the one that was written first comes first."""
        object.__setattr__(self, "faults", tuple(sorted(self.faults, key=lambda fault: fault.at_us)))

    def active(self, now_us: float) -> tuple[Fault, ...]:
        """Lasting faults that have begun and are not over."""
        return tuple(fault for fault in self.faults if fault.at_us <= now_us < fault.end_us)

    def from_now(self, now_us: float) -> FaultPlan:
        """Without those that are over: a device that meets a fault a second for a month must not remember them all."""
        rest = tuple(fault for fault in self.faults if fault.end_us > now_us)
        return self if len(rest) == len(self.faults) else FaultPlan(rest)

    def next_us(self, after_us: float) -> float | None:
        """The next moment at which a fault begins or ends."""
        moments = (moment for fault in self.faults for moment in (fault.at_us, fault.end_us))
        return min((moment for moment in moments if after_us < moment < math.inf), default=None)

    def begun_at(self, moment_us: float) -> tuple[Fault, ...]:
        """Faults that begin at this very moment."""
        return tuple(fault for fault in self.faults if fault.at_us == moment_us)

    def over_at(self, moment_us: float) -> tuple[Fault, ...]:
        """Lasting faults that are over at this very moment."""
        return tuple(fault for fault in self.faults if fault.lasts and fault.end_us == moment_us)

    def with_fault(self, fault: Fault) -> FaultPlan:
        """One more."""
        return FaultPlan((*self.faults, fault))

    def without(self, cleared: tuple[Fault, ...]) -> FaultPlan:
        """All but these very objects; equal ones stay."""
        gone = {id(fault) for fault in cleared}
        return FaultPlan(tuple(fault for fault in self.faults if id(fault) not in gone))


def parse_plan(text: str, *, where: str = "fault plan") -> FaultPlan:
    """A plan from TOML.

    Raises:
        OptionError: not TOML, or as `read_plan`.
    """
    try:
        values = tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # also of numbers with thousands of digits
        raise OptionError(f"{where} is not TOML: {error}") from error
    return read_plan(values, where=where)


def read_plan(values: Mapping[str, Any], *, where: str = "fault plan") -> FaultPlan:
    """A plan from a mapping with `seed` and a list `fault`.

    Raises:
        OptionError: an unknown key (the nearest known one is named), a missing one, a wrong type, an impossible value.
    """
    _refuse_unknown(values, {"seed", "fault"}, where)
    seed, tables = values.get("seed", 0), values.get("fault", [])
    if type(seed) is not int or not isinstance(tables, list):
        raise OptionError(f"{where}: seed must be a whole number, and fault a list of tables ([[fault]])")
    return FaultPlan(tuple(_read_fault(table, seed, number, where) for number, table in enumerate(tables, 1)))


_TYPES: Final[Mapping[str, type]] = MappingProxyType(
    {
        "kind": str,
        "at_s": float,
        "jitter_s": float,
        "for_s": float,
        "count": int,
        "share": float,
        "op": str,
        "rate": float,
        "bit": int,
        "factor": float,
        "part": str,
        "version": str,
        "priority": str,
    }
)

_LARGEST: Final = 1e9
"""Seconds, thirty years; no other figure comes near."""

_NAMES: Final[Mapping[str, Mapping[str, object]]] = MappingProxyType(
    {
        "kind": {str(kind): kind for kind in Kind},
        "part": {str(part): part for part in Part},
        "priority": {level.word: level for level in Priority},
    }
)


def _read_fault(table: object, seed: int, number: int, where: str) -> Fault:
    here = f"{where}: fault {number}"
    if not isinstance(table, Mapping):
        raise OptionError(f"{here} is not a table")
    _refuse_unknown(table, set(_TYPES), here)
    values = {key: _typed(key, value, here) for key, value in table.items()}
    if not {"kind", "at_s"} <= set(values):
        raise OptionError(f"{here} needs kind and at_s")
    late_s = values.pop("jitter_s", 0.0) * chance(seed, number)
    values["at_us"] = round((values.pop("at_s") + late_s) * 1e6)
    if "for_s" in values:
        for_s = values.pop("for_s")
        values["for_us"] = round(for_s * 1e6)
        if not values["for_us"]:
            raise OptionError(f"{here}: for_s must be at least a microsecond, 1e-6, found {for_s}")
    for key, names in _NAMES.items():
        if key in values:
            values[key] = _named(values[key], names, key, here)
    try:
        return Fault(**values)
    except OptionError as error:
        raise OptionError(f"{here}: {error.message}", advice=error.advice) from error


def _typed(key: str, value: object, where: str) -> Any:
    wanted = _TYPES[key]
    if wanted is float and type(value) is int and abs(value) < 2**53:
        value = float(value)
    if type(value) is not wanted or (isinstance(value, float) and not 0 <= value <= _LARGEST):
        words = {str: "a text", int: "a whole number", float: f"a number from 0 to {_LARGEST:.0f}"}[wanted]
        raise OptionError(f"{where}: {key} must be {words}, found {value!r}")
    return value


def _named(value: str, names: Mapping[str, object], key: str, where: str) -> object:
    if value not in names:
        raise OptionError(f"{where}: unknown {key} {value!r}", advice=nearest(value, names))
    return names[value]


def _refuse_unknown(values: Mapping[str, Any], known: set[str], where: str) -> None:
    for key in values:
        if key not in known:
            raise OptionError(f"{where}: unknown key {key!r}", advice=nearest(key, known))
