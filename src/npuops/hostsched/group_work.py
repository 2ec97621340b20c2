"""Who does the work of a group, by what its tasks did lately, those included that have ended.

A group is more than the tasks that a look finds: of a build, the compilers come and go, and between two of them `make`
is alone for a moment. What is decided for a group must not change with each of them.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from npuops.hostsched.frame import RUN_NS, Frame
from npuops.hostsched.process_stat import us_of_ticks
from npuops.hostsched.task_id import GroupId, TaskId

FADE_US: Final = 10_000_000
"""Work counts for a third after so long."""
YOUNG_US: Final = 1_000_000
"""Who was first seen less long ago, beside others known before, says nothing yet of what its group is there for,"""
LATELY_US: Final = 2_000_000
"""nor does who was lowered so short a time ago, and is not just now: it may only be tried, or have got too little."""
HOLD_US: Final = 500_000
"""A group counts as lowered for so long after somebody in it was: compilers come and go faster than looks."""
_LEAST_NS: Final = 1e6


@dataclass(slots=True)
class Work:
    """Of one group, CPU time in ns, the older the less.

    Attributes:
        ahead_ns: of those who are to be served first.
        lowered_ns: of those who are lowered, or were when they ended.
        neutral_ns: of those who are neither, and neither young nor lowered lately.
        undecided_ns: of the others.
        lowered_us: when somebody in it was lowered last; None: nobody was.
        nice: of the level that the last one had.
    """

    ahead_ns: float = 0.0
    lowered_ns: float = 0.0
    neutral_ns: float = 0.0
    undecided_ns: float = 0.0
    lowered_us: int | None = None
    nice: int = 0

    @property
    def total_ns(self) -> float:
        """All of it."""
        return self.ahead_ns + self.lowered_ns + self.neutral_ns + self.undecided_ns


@dataclass(slots=True)
class _Known:
    since_us: int
    is_first: bool
    counter_ns: int = 0
    lately_ns: float = 0.0
    group: GroupId | None = None
    nice: int = 0
    lowered_us: int | None = None

    def is_undecided(self, now_us: int) -> bool:
        if self.lowered_us is not None and now_us - self.lowered_us <= LATELY_US:
            return True
        return now_us - self.since_us < YOUNG_US and not self.is_first


class GroupWork:
    """Follows the tasks of frames; look by look, or whenever somebody came, went, or has another level."""

    def __init__(self) -> None:
        """Nobody was seen yet: all of the first frame count as known before."""
        self._known: dict[TaskId, _Known] = {}
        self._past: dict[GroupId, Work] = {}
        self._at_us: int | None = None

    def follow(self, frame: Frame, nices: Mapping[TaskId, int | None]) -> dict[GroupId, Work]:
        """The work of each group that has one of the frame's tasks.

        Args:
            frame: the latest look.
            nices: what each of its tasks deserves for its group: above 0 is lowered; None: its group does not count.
        """
        gone_us = 0 if self._at_us is None else max(frame.at_us - self._at_us, 0)
        is_first = self._at_us is None
        self._at_us = frame.at_us
        kept = math.exp(-gone_us / FADE_US)
        counters = frame.counters[:, RUN_NS].tolist()
        before, self._known = self._known, {}
        for task, counter_ns in zip(frame.tasks, counters, strict=True):
            known = before.pop(task.id, None)
            if known is None:
                known = _Known(frame.at_us, is_first, lately_ns=_lately(task.id, counter_ns, frame.at_us))
            else:
                known.lately_ns = known.lately_ns * kept + max(counter_ns - known.counter_ns, 0)
            nice = nices[task.id]
            known.counter_ns, known.group, known.nice = counter_ns, None if nice is None else task.group, nice or 0
            if known.nice > 0:
                known.lowered_us = frame.at_us
                if known.group is not None:
                    past = self._past.setdefault(known.group, Work())
                    past.lowered_us, past.nice = frame.at_us, known.nice
            self._known[task.id] = known
        self._fade(kept)
        for known in before.values():
            if known.group is not None:
                known.is_first = False  # who ends so soon was as young as those who come
                self._book(self._past.setdefault(known.group, Work()), known, known.lately_ns * kept, frame.at_us)
        return self._sums(frame.at_us)

    def _sums(self, now_us: int) -> dict[GroupId, Work]:
        found: dict[GroupId, Work] = {}
        for known in self._known.values():
            if known.group is None:
                continue
            work = found.get(known.group)
            if work is None:
                work = found[known.group] = replace(self._past.get(known.group) or Work())
            self._book(work, known, known.lately_ns, now_us)
        return found

    @staticmethod
    def _book(work: Work, known: _Known, ran_ns: float, now_us: int) -> None:
        if known.nice > 0:
            work.lowered_ns += ran_ns
        elif known.nice < 0:
            work.ahead_ns += ran_ns
        elif known.is_undecided(now_us):
            work.undecided_ns += ran_ns
        else:
            work.neutral_ns += ran_ns

    def _fade(self, kept: float) -> None:
        for work in self._past.values():
            work.ahead_ns *= kept
            work.lowered_ns *= kept
            work.neutral_ns *= kept
            work.undecided_ns *= kept
        here = {known.group for known in self._known.values()}
        self._past = {group: work for group, work in self._past.items() if group in here or work.total_ns > _LEAST_NS}


def _lately(task: TaskId, counter_ns: int, now_us: int) -> float:
    """Of all that a task did before it was seen; who is old did most of it long ago."""
    age_us = now_us - us_of_ticks(task.start_ticks)
    return counter_ns * min(FADE_US / max(age_us, 1), 1.0)
