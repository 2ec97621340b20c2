"""Numbers that carry their unit and their origin, and how people read them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Basis(StrEnum):
    """Where a figure comes from. A table never mixes these unlabelled."""

    MEASURED = "measured"
    """A clock or a meter on the device that is named."""
    EMULATED = "emulated"
    """A clock around a vendor's emulator on this host: says nothing about silicon."""
    VENDOR_ESTIMATE = "vendor-estimate"
    """The vendor's own performance model (for example Vela's cycles)."""
    MODELLED = "modelled"
    """Our performance model."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """One inference, in microseconds, with an interval and an origin."""

    us: float
    low_us: float
    high_us: float
    basis: Basis
    source: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Energy:
    """One inference, in millijoules, with an origin."""

    mj: float
    basis: Basis
    source: str


def format_bytes(count: int) -> str:
    """`1536` → `1.5 KiB`; binary prefixes."""
    value = float(count)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024 or unit == "GiB":
            break
        value /= 1024
    return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"


def format_count(count: float) -> str:
    """`300800000` → `300.8 M`; decimal prefixes."""
    value = float(count)
    for unit in ("", "k", "M", "G", "T"):
        if abs(value) < 1000 or unit == "T":
            break
        value /= 1000
    return f"{value:.0f}" if unit == "" else f"{value:.1f} {unit}"


def format_us(us: float) -> str:
    """`1234.5` → `1.23 ms`."""
    if us < 1000:
        return f"{us:.0f} µs"
    if us < 1_000_000:
        return f"{us / 1000:.2f} ms"
    return f"{us / 1_000_000:.2f} s"
