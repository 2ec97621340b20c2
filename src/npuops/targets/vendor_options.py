"""Vendor options as a table that we check: the vendors themselves accept unknown names and nonsense values silently."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from npuops.errors import OptionError, nearest


@dataclass(frozen=True, slots=True, kw_only=True)
class VendorOption:
    """One option: either a choice of words, or a whole number in a range."""

    name: str
    meaning: str
    choices: tuple[str, ...] = ()
    low: int = 0
    high: int = 0

    def fault(self, value: str) -> str:
        """What is wrong with `value`, with the remedy, or ""."""
        if self.choices:
            return "" if value in self.choices else nearest(value, self.choices)
        whole = value.isascii() and value.isdigit()
        return "" if whole and self.low <= int(value) <= self.high else f"a whole number, {self.low} to {self.high}"


def checked_options(
    target: str, given: Mapping[str, str], known: tuple[VendorOption, ...], *, reserved: Mapping[str, str]
) -> dict[str, str]:
    """The given options in order of name, if all are known and possible.

    Args:
        target: the target's name, for messages.
        given: name → value, as the user wrote them.
        known: the options that exist.
        reserved: options of the vendor that npuops sets itself → what to use instead.

    Raises:
        OptionError: an unknown or reserved name (the nearest known one is named), or an impossible value.
    """
    table = {option.name: option for option in known}
    for name, value in given.items():
        if name in reserved:
            raise OptionError(f"{target}: option {name!r} is not yours to set", advice=reserved[name])
        if name not in table:
            advice = nearest(name, table) if table else "its compiler has none: leave --set away"
            raise OptionError(f"{target} has no option {name!r}", advice=advice)
        fault = table[name].fault(value)
        if fault:
            raise OptionError(f"{target}: {name}={value} is impossible ({table[name].meaning})", advice=fault)
    return dict(sorted(given.items()))
