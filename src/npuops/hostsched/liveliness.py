"""Whether it is worth to look often: somebody waits for answers, and something changed lately. Pure."""

from __future__ import annotations

from typing import Final

from npuops.hostsched.frame import Frame
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.plan import Orders

LATELY_US: Final = 1_000_000
"""So long after a change it may go on."""


class Liveliness:
    """Follows what was ordered from frame to frame."""

    def __init__(self) -> None:
        """Nothing was seen."""
        self._orders: Orders | None = None
        self._missed: list[int] = []
        self._changed_us: int | None = None

    def lively(self, frame: Frame, orders: Orders | None) -> bool:
        """As of this frame.

        Args:
            frame: the latest look.
            orders: what follows from it, the same object while nothing changes; None where nobody decides.
        """
        if orders is None:
            return False
        late = [hint.missed if hint is not None else 0 for hint in frame.hints]
        if orders is not self._orders or late != self._missed:
            self._orders, self._missed, self._changed_us = orders, late, frame.at_us
        present = any(map(_waits, frame.hints)) or any(each is not None for each in orders.tasks.values())
        present = present or any(nice is not None for nice in orders.groups.values())
        return present and self._changed_us is not None and frame.at_us - self._changed_us <= LATELY_US


def _waits(hint: Hint | None) -> bool:
    return hint is not None and hint.kind is Kind.LATENCY
