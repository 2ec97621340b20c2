"""What can go wrong with a device, and which failure mode of the guide each fault produces. Pure.

What an onlooker sees of each mode is the table of `devices/failure_modes.py`.

==  ===========================================================================================================
F1  `offline`, `driver_crash`, `hang`, `reset`, `ecc_uncorrected`, `thermal_trip`
F2  load enough; no fault is needed
F3  `wrong_output` with rate 1 and a low bit: every answer is a little off, as with coarse scales. (The real cause
    is in the artifact, where its gate catches it; this is for rehearsing what comes after the gate.)
F4  `oom_pressure`, or programs enough
F5  `unsupported_op`
F6  `version_mismatch`
F7  `noisy_neighbour`, or a greedy tenant
F8  `wrong_output` with a rate below 1 and a high bit
==  ===========================================================================================================

Two have no number: slow memory, by `slow_dma` (a completion takes more busy time at an unchanged clock, and fewer bytes
a busy second move), and wear, by `ecc_corrected` (`ce_count` grows).
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from enum import StrEnum
from types import MappingProxyType
from typing import Final

from npuops.errors import OptionError
from npuops.vnpu.tenancy import Priority
from npuops.vnpu.versions import VERSION, Part


class Kind(StrEnum):
    """What can go wrong."""

    OFFLINE = "offline"
    """Power is lost; with a duration it comes back by itself, otherwise a reset brings it back."""
    HANG = "hang"
    """Jobs stand still until a reset; with a duration the driver's watchdog gives it after that time."""
    RESET = "reset"
    """The device resets itself."""
    DRIVER_CRASH = "driver_crash"
    """The device disappears; with a duration the driver is loaded again, otherwise a reset does it."""
    THERMAL_TRIP = "thermal_trip"
    """Something else heats the junction to the critical temperature."""
    ECC_CORRECTED = "ecc_corrected"
    """`count` errors that the memory repaired."""
    ECC_UNCORRECTED = "ecc_uncorrected"
    """`count` errors that it couldn't repair; the device resets itself, as qaic's does, and forgets all programs."""
    OOM_PRESSURE = "oom_pressure"
    """Something else takes `share` of the free memory."""
    WRONG_OUTPUT = "wrong_output"
    """Silent: `bit` flips in outputs of operators of class `op`, in a share `rate` of the jobs."""
    SLOW_DMA = "slow_dma"
    """Transfers take `factor` times as long."""
    UNSUPPORTED_OP = "unsupported_op"
    """No program with an operator of class `op` can be loaded."""
    VERSION_MISMATCH = "version_mismatch"
    """`part` has version `version`; of the compiler: that of every program which is loaded."""
    NOISY_NEIGHBOUR = "noisy_neighbour"
    """Another tenant with `priority` keeps every core busy."""


TAKES: Final[Mapping[Kind, frozenset[str]]] = MappingProxyType(
    {
        Kind.OFFLINE: frozenset({"for_us"}),
        Kind.HANG: frozenset({"for_us"}),
        Kind.RESET: frozenset(),
        Kind.DRIVER_CRASH: frozenset({"for_us"}),
        Kind.THERMAL_TRIP: frozenset(),
        Kind.ECC_CORRECTED: frozenset({"count"}),
        Kind.ECC_UNCORRECTED: frozenset({"count"}),
        Kind.OOM_PRESSURE: frozenset({"for_us", "share"}),
        Kind.WRONG_OUTPUT: frozenset({"for_us", "op", "rate", "bit"}),
        Kind.SLOW_DMA: frozenset({"for_us", "factor"}),
        Kind.UNSUPPORTED_OP: frozenset({"for_us", "op"}),
        Kind.VERSION_MISMATCH: frozenset({"for_us", "part", "version"}),
        Kind.NOISY_NEIGHBOUR: frozenset({"for_us", "priority"}),
    }
)
"""The figures of each kind. All are required but `for_us`; a kind without `for_us` is over at once."""

_WORD: Final = re.compile(r"[!-~]{1,64}")
"""An operator class: `Conv`, `CONV_2D`, `com.microsoft:Attention`."""

_RANGES: Final[Mapping[str, tuple[float, float]]] = MappingProxyType(
    {
        "at_us": (0, 2**53),
        "for_us": (1, 2**53),
        "count": (1, 2**31),
        "share": (0, 1),
        "rate": (0, 1),
        "bit": (0, 7),
        "factor": (1, 100_000),
    }
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong; the figures that its kind doesn't take are None.

    Attributes:
        at_us: when it begins, since the device was switched on; `Machine.inject` puts its own moment here.
        for_us: how long it lasts; None: until it is cleared.
    """

    kind: Kind
    at_us: int = 0
    for_us: int | None = None
    count: int | None = None
    share: float | None = None
    op: str | None = None
    rate: float | None = None
    bit: int | None = None
    factor: float | None = None
    part: Part | None = None
    version: str | None = None
    priority: Priority | None = None

    def __post_init__(self) -> None:
        """Refuse a fault that says too little, too much, or the impossible.

        Raises:
            OptionError: a figure that is missing, not of this kind, or out of range.
        """
        given = {field.name for field in fields(self) if getattr(self, field.name) is not None} - {"kind", "at_us"}
        takes = TAKES[self.kind]
        if given - takes:
            surplus = sorted(given - takes)[0]
            raise OptionError(f"{self.kind} takes no {_shown(surplus)}", advice=_takes(self.kind))
        if takes - given - {"for_us"}:
            lacking = sorted(takes - given - {"for_us"})[0]
            raise OptionError(f"{self.kind} needs {_shown(lacking)}", advice=_takes(self.kind))
        for name, (low, high) in _RANGES.items():
            value = getattr(self, name)
            if value is not None and not low <= value <= high:
                raise OptionError(f"{self.kind}: {name} must be from {low} to {high}, found {value}")
        for name, text, rule in (("op", self.op, _WORD), ("version", self.version, VERSION)):
            if text is not None and not rule.fullmatch(text):
                raise OptionError(f"{self.kind}: {name} must be a word of at most 64 characters, found {text!r}")

    @property
    def lasts(self) -> bool:
        """Whether it has an end of its own or waits to be cleared."""
        return "for_us" in TAKES[self.kind]

    @property
    def end_us(self) -> float:
        """When it is over: at once for a kind that doesn't last, endless for one that waits to be cleared."""
        if not self.lasts:
            return self.at_us
        return math.inf if self.for_us is None else self.at_us + self.for_us


def _takes(kind: Kind) -> str:
    takes = sorted(TAKES[kind])
    return f"it takes {', '.join(map(_shown, takes))}" if takes else "it takes nothing but its time"


def _shown(name: str) -> str:
    """As a plan writes it."""
    return "for_s" if name == "for_us" else name
