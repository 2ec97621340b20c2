"""The parts of a fair queue: the lane of a tenant, and the class in which the lanes take turns."""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterator
from math import inf
from typing import Final

from npuops.runtime.job import NO_DEADLINE, Job

PATIENCE_US: Final = 1_000_000
"""A request without a deadline competes with the deadlines of its own tenant as if it had this much time."""

SAVED_ROWS: Final = 8
"""Rows that a tenant that used less than its share may be ahead of the others when it comes back, for weight 1.

Requests come in bursts. Without it each one of a burst would wait for a turn of everybody who floods the queue: in a
simulation of four tenants, of which three use 60 % of their share and the fourth its own and then ten times as much,
the others' p99 grew by 57 % without and by 21 % with it; with four times the rows nothing more was gained.
"""


class Lane:
    """Those of one tenant and one class that wait.

    `fifo` has ascending deadlines (none counts as the latest); who would break that order waits in the heap `early`.
    So what has expired is always at the front of the one or on top of the other. A lane that ran empty keeps its place
    in its class until its turn comes: a lone tenant never touches the class's heap.

    Attributes:
        start: its start tag, in rows for weight 1.
        active: it has its entry among the turns of its class, or was left out there for a moment.
    """

    __slots__ = ("_passed", "_passed_early", "active", "band", "early", "fifo", "index", "start", "tenant")

    def __init__(self, band: Band, tenant: str, index: int) -> None:
        self.band = band
        self.tenant = tenant
        self.index = index
        self.fifo: deque[Job] = deque()
        self.early: list[tuple[int, int, Job]] = []
        self.start = band.virtual
        self.active = False
        self._passed: list[Job] = []
        self._passed_early: list[tuple[int, int, Job]] = []

    def __len__(self) -> int:
        return len(self.fifo) + len(self.early)

    def __contains__(self, job: Job) -> bool:
        return job in self.fifo or any(each is job for _, _, each in self.early)

    @property
    def has_passed(self) -> bool:
        """Somebody is laid aside."""
        return bool(self._passed or self._passed_early)

    def head(self) -> Job | None:
        """Whose turn it is in this lane."""
        if not self.early:
            return self.fifo[0] if self.fifo else None
        return self.early[0][2] if self._early_leads() else self.fifo[0]

    def pop(self) -> Job:
        """Remove the head."""
        return heapq.heappop(self.early)[2] if self._early_leads() else self.fifo.popleft()

    def pop_last(self) -> Job:
        """Remove who would come last."""
        if self.fifo:
            return self.fifo.pop()
        last = max(self.early)
        self.early.remove(last)
        heapq.heapify(self.early)
        return last[2]

    def pass_by(self) -> None:
        """Lay the head aside until `restore`."""
        if self._early_leads():
            self._passed_early.append(heapq.heappop(self.early))
        else:
            self._passed.append(self.fifo.popleft())

    def restore(self) -> None:
        """Put what was passed by back in its place."""
        self.fifo.extendleft(reversed(self._passed))
        for entry in self._passed_early:
            heapq.heappush(self.early, entry)
        self._passed.clear()
        self._passed_early.clear()

    def jobs(self) -> Iterator[Job]:
        """All of them; those with the early deadlines last."""
        yield from self.fifo
        yield from (job for _, _, job in self.early)

    def keep(self, wanted: Callable[[Job], bool]) -> None:
        """Forget the others."""
        self.fifo = deque(job for job in self.fifo if wanted(job))
        self.early = [entry for entry in self.early if wanted(entry[2])]
        heapq.heapify(self.early)

    def pop_expired(self, now_us: int) -> Iterator[Job]:
        """Remove those whose deadline is not after `now_us`."""
        while self.fifo and self.fifo[0].deadline_us <= now_us:
            yield self.fifo.popleft()
        while self.early and self.early[0][0] <= now_us:
            yield heapq.heappop(self.early)[2]

    def earliest_us(self) -> int:
        """The first deadline in it."""
        fifo_us = self.fifo[0].deadline_us if self.fifo else NO_DEADLINE
        return min(fifo_us, self.early[0][0]) if self.early else fifo_us

    def _early_leads(self) -> bool:
        if not self.early or not self.fifo:
            return bool(self.early)
        first = self.fifo[0]
        due_us = first.deadline_us if first.deadline_us < NO_DEADLINE else first.arrived_us + PATIENCE_US
        return self.early[0][0] < due_us


class Band:
    """A class of priority: its lanes in the order of their start tags.

    Attributes:
        turns: heap of (start tag, index, lane).
        virtual: the class's time, in rows for weight 1: the start tag of whom it served last.
        owed: rows that the guard owes it.
        passed: the least start tag of whom the batch that is being made passed by; infinite where nobody.
    """

    __slots__ = ("_last", "_left_out", "lanes", "owed", "passed", "priority", "turns", "virtual")

    def __init__(self, priority: int) -> None:
        self.priority = priority
        self.lanes: dict[str, Lane] = {}
        self.turns: list[tuple[float, int, Lane]] = []
        self.virtual = 0.0
        self.owed = 0.0
        self.passed = inf
        self._last = 0.0
        self._left_out: list[Lane] = []

    def __len__(self) -> int:
        return sum(map(len, self.lanes.values()))

    def activate(self, lane: Lane) -> None:
        """Somebody waits in it. A lane that comes back has saved up little, and has not lost its debt either."""
        lane.active = True
        lane.start = max(lane.start, self.virtual - SAVED_ROWS)
        self._last = max(self._last, lane.start)
        heapq.heappush(self.turns, (lane.start, lane.index, lane))

    def top(self) -> Lane:
        """The lane whose turn it is."""
        return self.turns[0][2]

    def charge(self, cost: float) -> None:
        """The lane on top was served; `cost` is rows divided by weight."""
        _, _, lane = self.turns[0]
        self.virtual = lane.start
        lane.start += cost
        self._last = max(self._last, lane.start)
        heapq.heapreplace(self.turns, (lane.start, lane.index, lane))

    def leave(self) -> None:
        """In the lane on top nobody waits."""
        lane = heapq.heappop(self.turns)[2]
        lane.active = False
        if not self.turns and not self._left_out:  # nobody waits, so nobody is ahead of anybody any more
            self.virtual = self._last
            self.owed = 0.0

    def pass_by(self) -> None:
        """Whose turn it is has no place in the batch that is being made."""
        lane = self.turns[0][2]
        self.passed = min(self.passed, lane.start)
        lane.pass_by()

    def leave_out(self) -> None:
        """The lane on top has nobody more for the batch that is being made."""
        self._left_out.append(heapq.heappop(self.turns)[2])

    def restore(self) -> None:
        """The batch is made: those left out are back in their places."""
        for lane in self._left_out:
            heapq.heappush(self.turns, (lane.start, lane.index, lane))
        self._left_out.clear()
        self.passed = inf

    def forget_idle(self) -> None:
        """Forget the lanes in which nobody waits and which are owed nothing and owe nothing."""
        self.lanes = {tenant: lane for tenant, lane in self.lanes.items() if lane.active or lane.start > self.virtual}
