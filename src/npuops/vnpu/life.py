"""The life of a virtual NPU as a table: (state, signal) → state. Pure; docs draw the same table.

What a signal does besides (fail jobs, forget programs) is the machine's business; whether it may happen is this one's.
"""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from npuops.errors import DeviceError


class Life(StrEnum):
    """Where a device is."""

    BOOTING = "booting"
    READY = "ready"
    HUNG = "hung"
    """Its jobs stand still, and it doesn't know."""
    RESETTING = "resetting"
    OFF = "off"
    """Without power, or its boot was refused; what it held in memory is lost."""
    GONE = "gone"
    """The driver is dead: nobody can see the device."""


class Signal(StrEnum):
    """What can happen to it."""

    BOOTED = "booted"
    REFUSED = "refused"
    """Its boot: a firmware that isn't the vendor's, or that the driver doesn't take."""
    HANG = "hang"
    RESET = "reset"
    """From outside, or its own after an uncorrectable error."""
    RESTORED = "restored"
    """Power, or the driver, is back."""
    TRIP = "trip"
    """The critical temperature."""
    OFFLINE = "offline"
    """Power is lost."""
    CRASH = "crash"
    """Of the driver."""


TABLE: Final = """
state      booted  refused  hang  reset      restored  trip  offline  crash
booting    ready   off      -     resetting  -         off   off      gone
ready      -       -        hung  resetting  -         off   off      gone
hung       -       -        -     resetting  -         off   off      gone
resetting  ready   off      -     resetting  -         off   off      gone
off        -       -        -     booting    booting   -     -        gone
gone       -       -        -     booting    booting   -     -        -
"""
"""`-`: no such pair. To reset a device that is off switches it on again; one that is gone gets its driver again."""


def _parsed(table: str) -> dict[tuple[Life, Signal], Life]:
    heading, *rows = (line.split() for line in table.strip().splitlines())
    signals = [Signal(word) for word in heading[1:]]
    return {
        (Life(row[0]), signal): Life(word)
        for row in rows
        for signal, word in zip(signals, row[1:], strict=True)
        if word != "-"
    }


NEXT: Final[Mapping[tuple[Life, Signal], Life]] = MappingProxyType(_parsed(TABLE))

STATUS: Final[Mapping[Life, str]] = MappingProxyType(
    {
        Life.BOOTING: "resetting",
        Life.READY: "online",
        Life.HUNG: "hung",
        Life.RESETTING: "resetting",
        Life.OFF: "offline",
        Life.GONE: "offline",
    }
)
"""The word in the tree's `status` file; of a device that is gone there is no tree, and `offline` is for its own log."""


def next_life(state: Life, signal: Signal) -> Life:
    """The table's answer.

    Raises:
        DeviceError: there is no such pair; nothing may happen.
    """
    if (state, signal) not in NEXT:
        raise DeviceError(f"a device that is {state} cannot take '{signal}'")
    return NEXT[state, signal]
