"""What tests of npuops, and of targets in other packages, need: public and supported.

`ManualClock` is time that a test moves, `EventLog` an observer that remembers, `check_target` the
conformance suite of targets.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TypeVar

from npuops.evaluate.sample_sources import random_samples
from npuops.events import Event
from npuops.models.open import open_model
from npuops.targets.conformance import BrokenPromiseError, Outcome, Subject, check_all
from npuops.targets.protocol import Precision
from npuops.targets.registry import open_target

__all__ = ["BrokenPromiseError", "EventLog", "ManualClock", "Outcome", "check_target", "random_samples"]

E = TypeVar("E", bound=Event)


class ManualClock:
    """A clock that stands still until it is told to move."""

    def __init__(self, now_us: int = 0) -> None:
        self._now_us = now_us

    def now_us(self) -> int:
        """Where the test put the clock."""
        return self._now_us

    def sleep_until(self, moment_us: int) -> None:
        """Jump there at once; never back."""
        self._now_us = max(self._now_us, moment_us)

    def advance(self, us: int) -> None:
        """Let time pass."""
        self._now_us += us


class EventLog:
    """An observer that keeps every event, in order."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def __call__(self, event: Event) -> None:
        """Remember it."""
        self.events.append(event)

    def of(self, kind: type[E]) -> list[E]:
        """The events of one kind, in order."""
        return [event for event in self.events if isinstance(event, kind)]


def check_target(name: str, model: Path, *, precision: Precision | None = None, seed: int = 0) -> tuple[Outcome, ...]:
    """Hold a target against every promise of the seam.

    Args:
        name: as `open_target` takes it.
        model: an ONNX file that the target should take whole, in the form that `precision` means.
        precision: the target's default when None.
        seed: of the random input.

    Returns:
        One outcome for each promise; those that need a missing toolchain carry the probe's reason.

    Raises:
        BrokenPromiseError: the first promise that does not hold.
    """
    target = open_target(name)
    opened = open_model(model)
    inputs = random_samples(opened.inputs, 1, seed).inputs[0]
    with tempfile.TemporaryDirectory(prefix="npuops-conformance-") as scratch:
        subject = Subject(
            target=target,
            model=opened,
            precision=precision or target.traits.default_precision,
            inputs=inputs,
            scratch=Path(scratch),
        )
        return check_all(subject)
