"""Figures of repeated plays as a report writes them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from npuops.schedlab.comparison import Estimate

NO_FIGURE: Final = "-"


def told(figure: Estimate | None, write: Callable[[float], str]) -> str:
    """`98.5 (97.9 to 98.8)`; one play has no interval."""
    if figure is None:
        return NO_FIGURE
    if figure.plays == 1:
        return write(figure.median)
    return f"{write(figure.median)} ({write(figure.low)} to {write(figure.high)})"


def in_percent(value: float) -> str:
    """Of a share from 0 to 1."""
    return f"{100 * value:.1f}"


def in_points(value: float) -> str:
    """Of a difference of shares, with its sign."""
    return f"{100 * value:+.1f}"


def in_fine_percent(value: float) -> str:
    """Of a small share, in percent."""
    return f"{100 * value:.2f}"


def in_ms(value_us: float) -> str:
    """Of microseconds."""
    ms = value_us / 1000
    return f"{ms:.0f}" if ms >= 100 else f"{ms:.2f}"


def as_ratio(value: float) -> str:
    """Of a ratio."""
    return f"{value:.2f}"


def as_count(value: float) -> str:
    """To the next whole number."""
    return f"{value:.0f}"
