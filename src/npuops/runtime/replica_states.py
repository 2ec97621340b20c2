"""The life of a device of a model version: a table of (state, happening) → state, and nothing outside of it.

A pair that the table lacks is an error, and nothing happens.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Final


class State(StrEnum):
    """Where a device is; only `READY` takes new runs."""

    STOPPED = "stopped"
    """No worker, no memory."""
    STARTING = "starting"
    """A worker loads and warms up."""
    READY = "ready"
    SICK = "sick"
    """It failed; its runs went elsewhere, and it waits for its back-off."""
    PROBING = "probing"
    """It starts again, or answers a canary, after it was sick."""
    DRAINING = "draining"
    """It finishes what is under way."""


class Happening(StrEnum):
    """What becomes of a device."""

    STARTED = "started"
    """A worker, or a canary, is on its way."""
    OPENED = "opened"
    """The worker is loaded and warm, or the canary was answered right."""
    FAILED = "failed"
    """The start was refused, or the canary was answered wrong or not in time."""
    LOST = "lost"
    """The worker ended without being asked to, or the device does not answer."""
    SICKENED = "sickened"
    """The worker lives, but its device is not to be trusted: errors, or what its health says."""
    DRAINED = "drained"
    """Nobody may send to it any more."""
    STOPPED = "stopped"
    """The worker ended as it was asked to."""


TABLE: Final = """
state     started   opened    failed    lost      sickened  drained   stopped
stopped   starting  -         -         -         -         stopped   stopped
starting  -         ready     sick      sick      sick      draining  stopped
ready     -         -         -         sick      sick      draining  stopped
sick      probing   -         -         sick      sick      stopped   stopped
probing   -         ready     sick      sick      sick      draining  stopped
draining  -         draining  stopped   stopped   draining  draining  stopped
"""
"""`-`: no such pair. What was sick is ready again only through a probe, and what drains never takes runs again."""


def _parsed(table: str) -> dict[tuple[State, Happening], State]:
    heading, *rows = (line.split() for line in table.strip().splitlines())
    happenings = [Happening(word) for word in heading[1:]]
    return {
        (State(row[0]), happening): State(word)
        for row in rows
        for happening, word in zip(happenings, row[1:], strict=True)
        if word != "-"
    }


NEXT: Final[Mapping[tuple[State, Happening], State]] = _parsed(TABLE)


def after(state: State, happening: Happening) -> State:
    """The table's answer.

    Raises:
        LookupError: the table has no such pair.
    """
    if (state, happening) not in NEXT:
        raise LookupError(f"no way leads from {state} by {happening}")
    return NEXT[state, happening]
