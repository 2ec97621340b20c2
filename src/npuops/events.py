"""Facts that the core reports while it works. It never sees a metric, a log or a progress bar.

An `Observer` is anything that can be called with an event: the command line draws
progress with one, the tests collect them with `npuops.testing.EventLog`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Event:
    """Base of all facts."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepStarted(Event):
    """A named step of a longer job began (`check`, `quantize`, `compile`, `parity`, …)."""

    step: str
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProgressed(Event):
    """`done` of `total` units of the step are through; `total` is None when it is unknown."""

    step: str
    done: int
    total: int | None = None
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepFinished(Event):
    """The step ended well; `detail` is its result in a few words."""

    step: str
    seconds: float
    detail: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class Warned(Event):
    """Something is off but work goes on; `advice` says what a user may want to do."""

    step: str
    message: str
    advice: str = ""


Observer = Callable[[Event], None]


def ignore(event: Event) -> None:
    """The observer that does nothing."""
    del event
