"""Whether forecasts come true, and whether acting is better than leaving things alone.

Both are counted in answers of applications that tell (`Hint.served`, `Hint.missed`); without any, nothing is known.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

from npuops.hostsched.frame import Frame, TaskId
from npuops.hostsched.guard_options import GuardOptions

_COMPARED = 10
"""Windows of comparison are rare, so their answers are remembered so many times longer than those of forecasts."""
_SETTLED = 0.25
"""Of a control window, at its beginning: these answers belong to what was before."""


@dataclass(slots=True)
class Tally:
    """Answers that fade.

    Attributes:
        served: how many.
        missed: of these.
        foreseen: how many of these a forecast expected to miss.
    """

    served: float = 0.0
    missed: float = 0.0
    foreseen: float = 0.0

    def fade(self, kept: float) -> None:
        """Forget a part."""
        self.served *= kept
        self.missed *= kept
        self.foreseen *= kept

    def add(self, served: float, missed: float, expected: float = 0.0) -> None:
        """More of them."""
        self.served += served
        self.missed += missed
        self.foreseen += served * expected

    @property
    def miss_share(self) -> float:
        """Of the served."""
        return self.missed / self.served if self.served else 0.0

    @property
    def foreseen_share(self) -> float:
        """As expected."""
        return self.foreseen / self.served if self.served else 0.0


class Drift:
    """Watches frame after frame."""

    def __init__(self, options: GuardOptions) -> None:
        self._options = options
        self._answers: dict[TaskId, tuple[int, int]] = {}
        self._at_us: int | None = None
        self._mode: str = ""
        self._since_us = 0
        self.acting, self.control, self.forecast = Tally(), Tally(), Tally()

    def watch(self, frame: Frame, mode: str, expected: float | None) -> str:
        """What became of the last decision; empty while all is well.

        Args:
            frame: the one that followed it.
            mode: `acting`, `control`, or anything else that says nothing of either.
            expected: share of misses, if the plan had a forecast and passed as it was.
        """
        window = 0 if self._at_us is None else max(frame.at_us - self._at_us, 0)
        self._at_us = frame.at_us
        if mode != self._mode:
            self._mode, self._since_us = mode, frame.at_us
        served, missed = self._news(frame)
        options = self._options
        kept = math.exp(-window / options.drift_us)
        self.forecast.fade(kept)
        for tally in (self.acting, self.control):
            tally.fade(kept ** (1 / _COMPARED))
        if frame.at_us - self._since_us >= _SETTLED * options.control_us:
            if mode == "acting":
                self.acting.add(served, missed)
                if expected is not None:
                    self.forecast.add(served, missed, expected)
            elif mode == "control":
                self.control.add(served, missed)
        return self._verdict()

    def forget(self) -> None:
        """Begin anew, as after a cool-down."""
        self.acting, self.control, self.forecast = Tally(), Tally(), Tally()

    def _news(self, frame: Frame) -> tuple[int, int]:
        served = missed = 0
        now: dict[TaskId, tuple[int, int]] = {}
        for task, hint in zip(frame.tasks, frame.hints, strict=True):
            if hint is None:
                continue
            now[task.id] = (hint.served, hint.missed)
            before = self._answers.get(task.id)
            if before is not None and hint.served >= before[0]:
                answers = hint.served - before[0]
                served += answers
                missed += min(max(hint.missed - before[1], 0), answers)
        self._answers = now
        return served, missed

    def _verdict(self) -> str:
        options, found = self._options, self.forecast
        if found.served >= options.drift_answers and found.miss_share - found.foreseen_share > options.drift:
            return f"{found.miss_share:.1%} of the answers were late, {found.foreseen_share:.1%} were foreseen"
        enough = min(self.acting.served, self.control.served) >= options.drift_answers
        if enough and self.acting.miss_share - self.control.miss_share > options.drift:
            return f"{self.acting.miss_share:.1%} were late while it acted, {self.control.miss_share:.1%} otherwise"
        return ""


def is_control(at_us: int, options: GuardOptions) -> bool:
    """Whether this moment lies in a control window: by seed and time alone, so that a replay agrees."""
    if options.control_share <= 0:
        return False
    place = f"{options.seed}:{at_us // options.control_us}".encode()
    drawn = int.from_bytes(hashlib.blake2b(place, digest_size=8).digest(), "big")
    return drawn < options.control_share * 2**64
