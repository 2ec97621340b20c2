"""Who is next among the requests that wait for a model: strict classes, fair shares, order within a tenant.

- **Classes**: priority 0 goes first. While a lower class waits it is owed one row for every `GUARD_ROWS` rows that went
  before it, so it is never starved: it gets at least a tenth.
- **Tenants** of a class share by rows and weight, by start-time fair queueing (Goyal, Vin, Cheng 1996): of two tenants
  that wait all the time, neither gets ahead of the other by more than one of its largest requests and one of the
  other's, each divided by its weight. Who comes back from a pause has saved up `SAVED_ROWS` (queue_lanes.py) at most.
- **Within a tenant** first come, first served; a request whose deadline is earlier overtakes. One without a deadline
  counts as if it had `PATIENCE_US`, so that those with one cannot starve it.
- **A batch** is led by whose turn it is. What follows and has other shapes, or more rows than are left, is skipped and
  keeps its place and its tag, so it leads a later batch: each batch that its tenant leads takes away one of those
  before it. Those of other tenants who fill up in its stead get at most one batch ahead. At most `LOOK_AHEAD` are
  skipped for one batch, which bounds its cost.
"""

from __future__ import annotations

import heapq
from collections import deque
from collections.abc import Callable, Iterable
from math import inf
from typing import Final

from npuops.runtime.admission import Limits
from npuops.runtime.job import NO_DEADLINE, Job
from npuops.runtime.queue_lanes import Band, Lane
from npuops.runtime.signature import Shape

GUARD_ROWS: Final = 9
"""Rows of higher classes for which a waiting class is owed one."""

LOWEST_PRIORITY: Final = 9
"""A higher number counts as this one: the number of classes is bounded, whatever a request asks for."""

LOOK_AHEAD: Final = 32
"""Jobs that one batch may skip."""

_SWEEP: Final = 64
_IDLE_LANES: Final = 256
_EVICTIONS: Final = 64
"""Most requests that lose their place to one newcomer."""


def bytes_of(job: Job) -> int:
    """Bytes of its inputs, text included."""
    form = job.form
    if -1 not in form.sizes:
        return form.total_bytes
    texts = (part for part, size in zip(job.parts, form.sizes, strict=True) if size < 0)
    return form.total_bytes + sum(memoryview(part).nbytes for part in texts)


class FairQueue:
    """The requests that wait for one model version. `len()` counts them.

    Its owner marks a job that nobody waits for any more (`job.cancelled`); it is forgotten when its turn comes, or
    counts no longer at once after `withdraw`. A job's form, parts, tenant, priority and deadline must not change while
    it waits.

    Attributes:
        count: of those that wait, as `len()`, which costs the hot path too much.
        rows: of all that wait.
        bytes: of their inputs.
    """

    def __init__(self, weights: Callable[[str], float]) -> None:
        """`weights` gives the share of a tenant, above 0."""
        self.rows = 0
        self.bytes = 0
        self._weights = weights
        self.count = 0
        self._again: deque[Job] = deque()
        self._bands: dict[int, Band] = {}
        self._by_priority: list[Band] = []
        self._earliest_us = NO_DEADLINE
        self._sequence = 0
        self._withdrawn: set[Job] = set()

    def __len__(self) -> int:
        return self.count

    def push(self, job: Job) -> None:
        """It waits from now on."""
        form = job.form
        self.count += 1
        self.rows += form.rows
        self.bytes += form.total_bytes if -1 not in form.sizes else bytes_of(job)
        band = self._bands.get(job.priority)
        lane = None if band is None else band.lanes.get(job.tenant)
        if lane is None:
            lane = self._new_lane(job)
        fifo = lane.fifo
        deadline_us = job.deadline_us
        if not fifo or deadline_us >= fifo[-1].deadline_us:
            fifo.append(job)
        else:
            self._sequence += 1
            heapq.heappush(lane.early, (deadline_us, self._sequence, job))
        if deadline_us < self._earliest_us:  # noqa: PLR1730 - `min` would cost a third of this method
            self._earliest_us = deadline_us
        if not lane.active:
            lane.band.activate(lane)

    def push_front(self, jobs: Iterable[Job]) -> None:
        """They were taken before, and go again: before all others, in this order, and at no further charge."""
        jobs = list(jobs)
        for job in jobs:
            self.count += 1
            self.rows += job.form.rows
            self.bytes += bytes_of(job)
            self._earliest_us = min(self._earliest_us, job.deadline_us)
        self._again.extendleft(reversed(jobs))

    def next(self) -> Job | None:
        """Whose turn it is; it stays. None when nobody waits."""
        while self._again:
            if not self._again[0].cancelled:
                return self._again[0]
            self._forget(self._again.popleft())
        turn = self._turn()
        return None if turn is None else turn[1]

    def take(self, max_rows: int, key: tuple[Shape, ...]) -> list[Job]:
        """A batch, in turn.

        Call it with the key of `next()` and at least its rows: then that job leads the batch, and nobody starves.

        Args:
            max_rows: of all together.
            key: of their forms.
        """
        batch: list[Job] = []
        room = self._take_again(batch, max_rows, key) if self._again else max_rows
        busy = [band for band in self._by_priority if band.turns]
        if len(busy) == 1 and len(busy[0].turns) == 1:
            left, lane = room, busy[0].top()
            room = _take_alone(batch, room, key, lane)
            if room < left:  # for nothing it would get ahead of those who come later
                self._charge(busy[0], lane, left - room)
        if room > 0 and self.count > len(batch) + len(self._again):
            self._take_in_turn(batch, room, key, max_rows)
        for job in batch:
            form = job.form
            self.rows -= form.rows
            self.bytes -= form.total_bytes if -1 not in form.sizes else bytes_of(job)
        self.count -= len(batch)
        return batch

    def expire(self, now_us: int) -> list[Job]:
        """Remove and return those whose deadline is not after `now_us`.

        With the time that a run takes added to the clock these are those that could not be answered in time either.
        It costs next to nothing while no deadline has passed.
        """
        if now_us < self._earliest_us:
            return []
        late = [job for job in self._again if job.deadline_us <= now_us]
        if late:
            self._again = deque(job for job in self._again if job.deadline_us > now_us)
        lanes = self._lanes()
        for lane in lanes:
            late.extend(lane.pop_expired(now_us))
        deadlines = [job.deadline_us for job in self._again] + [lane.earliest_us() for lane in lanes]
        self._earliest_us = min(deadlines, default=NO_DEADLINE)
        for job in late:
            self._forget(job)
        return [job for job in late if not job.cancelled]

    def drain(self) -> list[Job]:
        """Remove and return all, the classes in order."""
        jobs = [*self._again, *(job for lane in self._lanes() for job in lane.jobs())]
        self._again.clear()
        self._bands.clear()
        self._by_priority.clear()
        self._withdrawn.clear()
        self.count = self.rows = self.bytes = 0
        self._earliest_us = NO_DEADLINE
        return [job for job in jobs if not job.cancelled]

    def withdraw(self, job: Job) -> bool:
        """Nobody waits for this job any more: it is marked, and if it is in the queue it counts no longer.

        What it holds is let go at its turn, or when there are more such jobs than others. False where it is not in the
        queue, or was withdrawn before. It looks through the jobs of its tenant.
        """
        job.cancelled = True
        if job in self._withdrawn:
            return False
        band = self._bands.get(min(max(job.priority, 0), LOWEST_PRIORITY))
        lane = None if band is None else band.lanes.get(job.tenant)
        if (lane is None or job not in lane) and job not in self._again:
            return False
        self._forget(job)
        self._withdrawn.add(job)
        if len(self._withdrawn) > max(_SWEEP, self.count):
            self._again = deque(each for each in self._again if each not in self._withdrawn)
            for each_lane in self._lanes():
                each_lane.keep(lambda each: each not in self._withdrawn)
            self._withdrawn.clear()
        return True

    def yield_to(self, job: Job) -> Job | None:
        """Who gives its place in a full queue to this newcomer: removed and returned. None: nobody has to.

        The lowest class gives first, but no class below a tenth of all places. Within the newcomer's class it is the
        last of the tenant with most places for its weight, if those are more than the newcomer's would be: who floods
        the queue loses its own requests, not the others'.
        """
        priority = min(max(job.priority, 0), LOWEST_PRIORITY)
        sizes = {band.priority: len(band) for band in self._by_priority}
        guarded = sum(sizes.values()) / (GUARD_ROWS + 1)
        for band in reversed(self._by_priority):
            if band.priority != priority and sizes[band.priority] <= guarded:
                continue
            if band.priority < priority and sizes.get(priority, 0) + 1 > guarded:
                return None
            loads = {lane: len(lane) / self._weights(lane.tenant) for lane in band.lanes.values() if lane}
            own = band.lanes.get(job.tenant) if band.priority == priority else None
            least = (len(own or ()) + 1) / self._weights(job.tenant) if band.priority == priority else 0.0
            fuller = [lane for lane in loads if loads[lane] > least]
            last = self._last_of(max(fuller, key=loads.__getitem__, default=None))
            if last is not None:
                return last
        return None

    def make_room(self, job: Job, limits: Limits, evict: Callable[[Job], None]) -> bool:
        """Who floods a full queue gives places to the others, as many as this newcomer needs; False: it stays full.

        Args:
            job: the newcomer.
            limits: of this queue.
            evict: is told of each job that lost its place.
        """
        for _ in range(_EVICTIONS):
            gone = self.yield_to(job)
            if gone is None:
                return False
            evict(gone)
            fits = not self.count or self.bytes + bytes_of(job) <= limits.max_queue_bytes
            if fits and self.count < limits.max_queue_requests:
                return True
        return False

    def _last_of(self, lane: Lane | None) -> Job | None:
        while lane:
            job = lane.pop_last()
            self._forget(job)
            if not job.cancelled:
                return job
        return None

    def _take_again(self, batch: list[Job], room: int, key: tuple[Shape, ...]) -> int:
        """From those that go again; gives the rows that are left."""
        rest: deque[Job] = deque()
        for job in self._again:
            if job.cancelled:
                self._forget(job)
            elif job.form.rows <= room and job.form.key == key:
                batch.append(job)
                room -= job.form.rows
            else:
                rest.append(job)
        self._again = rest
        return room

    def _take_in_turn(self, batch: list[Job], room: int, key: tuple[Shape, ...], max_rows: int) -> None:
        looked_into: list[Lane] = []
        looks = LOOK_AHEAD
        while room > 0 and looks > 0:
            turn = self._turn()
            if turn is None:
                break
            band, job = turn
            lane = band.top()
            if band.passed < inf and lane.start > band.passed + max_rows / self._weights(lane.tenant):
                band.leave_out()
            elif job.form.rows <= room and job.form.key == key:
                batch.append(lane.pop())
                room -= job.form.rows
                self._charge(band, lane, job.form.rows)
            else:
                if not lane.has_passed:
                    looked_into.append(lane)
                band.pass_by()
                looks -= 1
        for lane in looked_into:
            lane.restore()
        for band in self._by_priority:
            band.restore()

    def _charge(self, band: Band, lane: Lane, rows: int) -> None:
        band.charge(rows / self._weights(lane.tenant))
        if len(self._by_priority) == 1:
            return
        if any(each.turns for each in self._by_priority if each.priority < band.priority):  # the guard has paid
            band.owed = max(band.owed - rows, 0.0)
        for each in self._by_priority:
            if each.priority > band.priority and each.turns:
                each.owed += rows / GUARD_ROWS

    def _turn(self) -> tuple[Band, Job] | None:
        """The class whose turn it is, and the job on top of it."""
        first = None
        for band in self._by_priority:
            job = self._front(band)
            if job is None:
                continue
            if first is None:
                first = (band, job)
            elif band.owed >= job.form.rows:
                return band, job
        return first

    def _front(self, band: Band) -> Job | None:
        """The job on top of a class; what is in its way is cleared."""
        while band.turns:
            lane = band.top()
            job = lane.head()
            while job is not None and job.cancelled:
                self._forget(lane.pop())
                job = lane.head()
            if job is not None:
                return job
            if lane.has_passed:
                band.leave_out()
            else:
                band.leave()
        return None

    def _lanes(self) -> list[Lane]:
        return [lane for band in self._by_priority for lane in band.lanes.values()]

    def _new_lane(self, job: Job) -> Lane:
        priority = min(max(job.priority, 0), LOWEST_PRIORITY)
        band = self._bands.get(priority)
        if band is None:
            band = self._bands[priority] = Band(priority)
            self._by_priority = sorted(self._bands.values(), key=lambda each: each.priority)
        lane = band.lanes.get(job.tenant)
        if lane is None:
            if len(band.lanes) >= 2 * len(band.turns) + _IDLE_LANES:
                band.forget_idle()
            self._sequence += 1
            lane = band.lanes[job.tenant] = Lane(band, job.tenant, self._sequence)
        return lane

    def _forget(self, job: Job) -> None:
        """It is out of the queue, or counts no longer."""
        if job in self._withdrawn:
            self._withdrawn.remove(job)
            return
        self.count -= 1
        self.rows -= job.form.rows
        self.bytes -= bytes_of(job)


def _take_alone(batch: list[Job], room: int, key: tuple[Shape, ...], lane: Lane) -> int:
    """From the only tenant that waits, while it needs no tags and no skipping. Gives the rows that are left."""
    fifo = lane.fifo
    if lane.early:
        return room
    while fifo:
        job = fifo[0]
        form = job.form
        if form.rows > room or job.cancelled or (form.key is not key and form.key != key):
            break
        batch.append(fifo.popleft())
        room -= form.rows
    return room
