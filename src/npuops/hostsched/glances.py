"""States for whoever looks at frames alone: the features, which cost more than the look itself, are left out."""

from __future__ import annotations

from typing import Final

import numpy as np

from npuops.hostsched.features import FRAMES, HISTORY, HOST_FEATURES, RATES, TASK_FEATURES, Features, State
from npuops.hostsched.frame import Frame
from npuops.hostsched.plan import Policy
from npuops.hostsched.roster import Roster

MANY: Final = 1000
"""`State.seen` counts on for so long after tasks came or went, which is all that a guard may ask for."""
_NO_RATES: Final = np.zeros((0, len(RATES)))
_NO_TASKS: Final = np.zeros((0, len(TASK_FEATURES)), np.float32)
_NO_HISTORY: Final = np.zeros((0, FRAMES, len(HISTORY)), np.float32)
_NO_HOST: Final = np.zeros((len(HOST_FEATURES),), np.float32)


class Glances:
    """Makes states of frames, as `Features` does, but without features: those arrays have no rows."""

    def __init__(self) -> None:
        """Nothing seen yet."""
        self._roster = Roster()
        self._seen = np.zeros(0, np.int32)
        self._alike = 0
        self._at_us: int | None = None

    def update(self, frame: Frame) -> State:
        """The state after one more look: frame, window and seen."""
        window_us = max(frame.at_us - self._at_us, 0) if self._at_us is not None else 0
        self._at_us = frame.at_us
        rows = self._roster.moved(frame.tasks)
        if rows is not None:
            seen = np.zeros(len(rows), np.int32)
            seen[rows >= 0] = self._seen[rows[rows >= 0]]
            self._seen = seen
            self._alike = 0
        if self._alike < MANY:  # one more or less says nothing then
            self._alike, self._seen = self._alike + 1, self._seen + np.int32(1)
        return State(frame, window_us, _NO_RATES, _NO_TASKS, _NO_HISTORY, _NO_HOST, self._seen)


def sums_for(policy: Policy | None) -> Features | Glances:
    """Features, unless nobody looks at them: nobody decides, or a policy that says `frames_alone`."""
    if policy is None or getattr(policy, "frames_alone", False):
        return Glances()
    return Features()
