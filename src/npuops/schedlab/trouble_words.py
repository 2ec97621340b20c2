"""What did not work in repeated plays, as a report tells it: the same for mixes and for real programs."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Protocol


class Troubled(Protocol):
    """One rival on one load."""

    @property
    def label(self) -> str:
        """Of the rival."""
        ...

    @property
    def skipped(self) -> str:
        """Why it was not played; "" if it was."""
        ...

    @property
    def failed(self) -> tuple[str, ...]:
        """Words of plays that broke off."""
        ...

    @property
    def stuck(self) -> int:
        """Things that an agent could not put back."""
        ...


def troubles(found: Sequence[tuple[str, Troubled]]) -> list[str]:
    """A line for each, of pairs of a load's name and a rival on it."""
    skipped: defaultdict[tuple[str, str], list[str]] = defaultdict(list)
    for load, one in found:
        if one.skipped:
            skipped[one.label, one.skipped].append(load)
    return [
        *(f"- {label} was left out on {', '.join(loads)}: {why}" for (label, why), loads in skipped.items()),
        *(f"- {one.label} on {load} broke off: {words}" for load, one in found for words in one.failed),
        *(f"- {one.label} on {load}: {one.stuck} things could not be put back" for load, one in found if one.stuck),
    ]
