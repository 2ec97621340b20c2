"""Reservations that their tasks use up: such a one holds its task back, for the kernel lets it have no more than that.

Pure: what is remembered is by the frames' own time.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from npuops.eevdf.setting import SchedPolicy
from npuops.hostsched.features import TASK_FEATURES, State
from npuops.hostsched.frame import TaskId

FULL: Final = 0.95
"""Used up to this part, a reservation holds its task back more than it helps."""
BARRED_US: Final = 1_000_000
"""So long such a reservation is not given to its task again."""
_RUN_50: Final = TASK_FEATURES.index("run_50ms")


class Outgrown:
    """Remembers who outgrew what."""

    def __init__(self) -> None:
        self._barred: dict[TaskId, tuple[float, int]] = {}

    def update(self, state: State) -> Mapping[TaskId, float]:
        """Of each task that has outgrown a reservation lately: its share of a CPU; no smaller one will do either."""
        frame = state.frame
        self._barred = {task: one for task, one in self._barred.items() if one[1] > frame.at_us}
        for row, setting in enumerate(frame.settings):
            if setting.policy is SchedPolicy.DEADLINE and state.tasks[row, _RUN_50] >= FULL * setting.share:
                self._barred[frame.tasks[row].id] = (setting.share, frame.at_us + BARRED_US)
        return {task: share for task, (share, _) in self._barred.items()}
