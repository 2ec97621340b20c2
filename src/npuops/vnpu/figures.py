"""Figures that carry where they come from, and how tables of them are read from TOML. Pure.

A figure is written ``clock_mhz = { value = 1000, from = "trm" }``; ``trm`` is a key of the file's table ``[sources]``,
which says what it stands for. Two kinds of keys have a meaning of their own: ``memory`` (nobody looked it up) and
``derived`` or ``derived-…`` (computed or assumed, the text says how). All others name a document.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Final, Generic, TypeVar

from npuops.config import keys_of, read_options, refuse_unknown
from npuops.errors import OptionError, nearest

V = TypeVar("V")
T = TypeVar("T")

KEYS: Final = "docs/profiles.md lists the keys of a profile"
LARGEST: Final = 1e12
"""No figure of a chip is larger in its unit; arithmetic with more could end at infinity."""


class Origin(StrEnum):
    """How much a figure can be trusted."""

    DOCUMENT = "document"
    """A data sheet, a repository, a table that somebody published."""
    DERIVED = "derived"
    """Computed from other figures, or a stated assumption."""
    MEMORY = "memory"
    """From memory; nobody compared it with a document."""


@dataclass(frozen=True, slots=True)
class Figure(Generic[V]):
    """A value and where it comes from.

    Attributes:
        value: in the unit that the key's name ends in.
        key: of `[sources]`.
        source: its text.
    """

    value: V
    key: str
    source: str

    @property
    def origin(self) -> Origin:
        """What kind of source it is, by its key."""
        return origin_of(self.key)


def origin_of(key: str) -> Origin:
    """What kind of source a key of `[sources]` names."""
    if key == Origin.MEMORY:
        return Origin.MEMORY
    return Origin.DERIVED if key.partition("-")[0] == Origin.DERIVED else Origin.DOCUMENT


def read_section(kind: type[T], table: object, sources: Mapping[str, str], where: str) -> T:
    """A dataclass whose fields are figures, or mappings of figures, from a table.

    Args:
        kind: the dataclass; what it refuses in `__post_init__` as an OptionError is told with `where` before it.
        table: as tomllib gives it.
        sources: key → text.
        where: file and section, for errors.

    Raises:
        OptionError: an unknown or missing key, a figure without source or with one that is not listed, a wrong type,
            infinity, or an impossible value.
    """
    values = _table(table, where)
    refuse_unknown(values, keys_of(kind), where)
    figures = {key: _figures(value, sources, f"{where} {key}") for key, value in values.items()}
    return read_options(kind, figures, where=where, advice=KEYS)


def refuse_unless(holds: bool, key: str, rule: str, found: object) -> None:
    """For the dataclasses: `holds` is the rule.

    Raises:
        OptionError: it does not hold.
    """
    if not holds:
        raise OptionError(f"{key} {rule}, found {found!r}", advice="correct the profile of the chip")


def _figures(value: object, sources: Mapping[str, str], where: str) -> object:
    """One figure, or a table of them."""
    table = _table(value, f"{where}: no source;")
    if any(isinstance(inner, Mapping) for inner in table.values()):
        return {key: _figure(inner, sources, f"{where}.{key}") for key, inner in table.items()}
    return _figure(table, sources, where)


def _figure(found: object, sources: Mapping[str, str], where: str) -> dict[str, object]:
    table = _table(found, f"{where}: no source;")
    refuse_unknown(table, ["value", "from"], where)
    missing = [key for key in ("value", "from") if key not in table]
    if missing:
        raise OptionError(f"{where} has no {missing[0]!r}", advice=_SHAPE)
    value, key = table["value"], table["from"]
    if not isinstance(key, str) or key not in sources:
        raise OptionError(f"{where}: {key!r} is not in [sources]", advice=nearest(str(key), sources) or _SHAPE)
    numbers = value if isinstance(value, list) else [value]
    if any(isinstance(number, int | float) and not abs(number) <= LARGEST for number in numbers):
        raise OptionError(f"{where} must be at most {LARGEST:g}, found {value!r:.40}")
    return {"value": value, "key": key, "source": sources[key]}


def _table(value: object, where: str) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise OptionError(f"{where} expected a table, found {value!r}", advice=_SHAPE)
    return value


_SHAPE: Final = 'write a figure as { value = 1000, from = "trm" }, and say in [sources] what "trm" is'
