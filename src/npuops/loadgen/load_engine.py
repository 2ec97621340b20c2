"""One stage in one process: requests leave as the plan says, and every end of one is noted.

Closed loop: each lane sends its next request when it has the answer to the last one. Open loop: requests are due at
scheduled instants, whatever the server does; latency counts from there, so a server that stalls cannot hide the
requests that wait behind the stall ("coordinated omission").
"""

from __future__ import annotations

import asyncio
import gc
import time
from array import array
from bisect import bisect_right
from collections import deque
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.loadgen.lane import Lane, MakeLane
from npuops.loadgen.outcomes import NO_SOCKET, TIMED_OUT, UNSENT, Outcomes
from npuops.loadgen.precise_timer import PreciseTimer
from npuops.loadgen.processor_time import ProcessorTime, processor_time

DEAD_S: Final = 5.0
CONNECTING: Final = 32
"""Connections that are being opened at a time: a burst beyond a server's backlog would wait a second in the kernel."""
BACK_OFF_S: Final = (0.01, 1.0)
"""A closed loop's lane that finds no server waits so long, then twice as long, up to the second."""
_MOST_DOUBLINGS: Final = 16
_AT_A_TIME: Final = 64
"""Requests that an open loop sends before it looks for answers: one that is behind must not stop reading."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StagePlan:
    """What one process does in one stage.

    Attributes:
        lanes: opened beforehand; in a closed loop also all there are.
        most_lanes: an open loop opens more when all are busy, up to these.
        due_s: when each request is due, since the stage began; None for a closed loop.
        kinds: of each request of an open loop; turns of a closed one, from the first again at the end.
        end_s: a closed loop sends nothing later.
        begin_s: the warm-up ends here.
        most_requests: a closed loop sends at most so many after the warm-up; None for no limit.
        timeout_s: for each request.
        dead_s: nobody is there any more, when requests failed for so long without an answer or a connection.
    """

    lanes: int
    most_lanes: int
    due_s: NDArray[np.float64] | None
    kinds: NDArray[np.int32]
    end_s: float
    begin_s: float
    most_requests: int | None
    timeout_s: float
    dead_s: float = DEAD_S


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class StageRecord:
    """What came of it.

    Attributes:
        stopped_s: when the last request was allowed to leave, since the stage began.
        spent: processor time of this process, from the first request to the last answer.
        wall_s: as above, by the clock.
        waited: requests that were due while no connection was free.
        unanswered: requests that the end of the stage cut off; nobody knows how long they would have taken.
        ended_early: why, or empty.
    """

    outcomes: Outcomes
    stopped_s: float
    spent: ProcessorTime
    wall_s: float
    reconnects: int
    received_bytes: int
    waited: int
    unanswered: int
    ended_early: str


class StageRun:
    """Runs one plan on lanes that `make` gives; `stop` ends it early, and keeps what was measured."""

    def __init__(self, plan: StagePlan, make: MakeLane) -> None:
        self._plan = plan
        self._make = make
        self._loop = asyncio.get_running_loop()
        self._done: asyncio.Future[None] = self._loop.create_future()
        self._lanes: list[Lane] = []
        self._started, self._latency, self._lag = array("d"), array("d"), array("d")
        self._codes, self._kinds = array("h"), array("i")
        self._zero = 0.0
        self._stopped_s: float | None = None
        self._dying_s: float | None = None
        self._swept = 0
        self._ended_early = ""
        self._stopped = False
        self._waited = self._unanswered = 0

    async def open(self) -> None:
        """Connect the lanes. What does not connect within the time limit of a request does when it has one to send."""
        self._lanes = [self._make(self._settled) for _ in range(self._plan.lanes)]
        opening = self._loop.create_task(self._connect(self._lanes))
        await asyncio.wait({opening, self._done}, timeout=self._plan.timeout_s, return_when=asyncio.FIRST_COMPLETED)
        if opening.done():
            opening.result()
        opening.cancel()

    async def _connect(self, lanes: list[Lane]) -> None:
        for first in range(0, len(lanes), CONNECTING):
            await asyncio.gather(*(lane.open() for lane in lanes[first : first + CONNECTING]))

    async def run(self, start_s: float = 0.0) -> StageRecord:
        """Run on the lanes, which are opened if they were not, wait for what is in flight, close.

        Args:
            start_s: the instant of `time.perf_counter` from which the stage counts; 0 for now.
        """
        if not self._lanes:
            await self.open()
        collecting = gc.isenabled()
        gc.collect()
        gc.disable()  # nothing in the loop makes cycles, and a collection would look like the server's pause
        sweep = None
        try:
            while (early_s := start_s - time.perf_counter()) > 0:  # a loop's timer may ring a moment too early
                await asyncio.sleep(early_s)
            self._zero = start_s or time.perf_counter()
            before = processor_time()
            sweep = self._loop.create_task(self._sweep())
            self._begin()
            await self._done
            wall_s, spent = time.perf_counter() - self._zero, processor_time().since(before)
            self._unanswered = self._cut_off() if self._stopped else 0
        finally:
            if sweep is not None:
                sweep.cancel()
            self._finish()
            if collecting:
                gc.enable()
        return StageRecord(
            outcomes=self._outcomes(),
            stopped_s=self._plan.end_s if self._stopped_s is None else self._stopped_s,
            spent=spent,
            wall_s=wall_s,
            reconnects=sum(lane.reconnects for lane in self._lanes),
            received_bytes=sum(lane.received_bytes for lane in self._lanes),
            waited=self._waited,
            unanswered=self._unanswered,
            ended_early=self._ended_early,
        )

    def stop(self, why: str = "") -> None:
        """Send nothing more, and forget what is in flight."""
        if not self._done.done():
            self._ended_early = why
            self._mark_end()
            self._stopped = True
            self._done.set_result(None)

    def _begin(self) -> None:
        raise NotImplementedError

    def _settled(self, lane: Lane, code: int) -> None:
        raise NotImplementedError

    def _overdue(self, now_s: float) -> None:
        """What else waits too long, besides the requests on lanes."""

    def _cut_off(self) -> int:
        """Requests without an end, now."""
        return sum(lane.busy for lane in self._lanes)

    def _finish(self) -> None:
        for lane in self._lanes:
            lane.close()

    def _mark_end(self) -> None:
        if self._stopped_s is None:
            began = self._zero > 0
            self._stopped_s = min(time.perf_counter() - self._zero, self._plan.end_s) if began else 0.0

    def _note(self, lane: Lane, code: int, now_s: float) -> None:
        self._started.append(lane.started_s)
        self._latency.append(now_s - lane.started_s)
        self._lag.append(lane.lag_s)
        self._codes.append(code)
        self._kinds.append(lane.kind)

    async def _sweep(self) -> None:
        """Time limits are looked at now and then: a timer for each request would cost more than the request."""
        pause_s = min(max(self._plan.timeout_s / 20, 0.005), 0.25)
        while True:
            await asyncio.sleep(pause_s)
            now_s = time.perf_counter()
            limit_s = now_s - self._plan.timeout_s
            for lane in self._lanes:
                if lane.busy and lane.started_s < limit_s:
                    lane.fail(TIMED_OUT)
            self._overdue(now_s)
            self._look_for_life(now_s)

    def _look_for_life(self, now_s: float) -> None:
        """A server may close each connection after its answer, or while nothing is due: only failures tell of death."""
        fresh, self._swept = self._swept, len(self._codes)
        if any(lane.is_open for lane in self._lanes) or max(self._codes[fresh:], default=0) > 0:
            self._dying_s = None
        elif self._dying_s is not None and now_s - self._dying_s > self._plan.dead_s:
            mine = "no descriptor or port is left on this machine"
            why = mine if self._codes and self._codes[-1] == NO_SOCKET else "the server is gone"
            self.stop(f"no connection for {self._plan.dead_s:g} s: {why}")
        elif self._dying_s is None and (fresh < self._swept or any(lane.busy for lane in self._lanes)):
            self._dying_s = now_s

    def _outcomes(self) -> Outcomes:
        return Outcomes(
            started_s=np.array(self._started, np.float64) - self._zero,
            latency_s=np.array(self._latency, np.float64),
            lag_s=np.array(self._lag, np.float64),
            code=np.array(self._codes, np.int16),
            kind=np.array(self._kinds, np.int32),
        )


class ClosedRun(StageRun):
    """As many requests in flight as there are lanes."""

    def _begin(self) -> None:
        plan = self._plan
        self._order: list[int] = plan.kinds.tolist()
        self._turn = 0
        self._end_s = self._zero + plan.end_s
        self._begin_s = self._zero + plan.begin_s
        self._left = plan.most_requests
        self._running = len(self._lanes)
        self._failures: dict[int, int] = {}
        for lane in list(self._lanes):
            self._next(lane, time.perf_counter())
        self._rest()

    def _next(self, lane: Lane, now_s: float) -> None:
        if now_s >= self._end_s or self._done.done():
            self._retire()
            return
        if self._left is not None and now_s >= self._begin_s:
            if self._left == 0:
                self._retire()
                return
            self._left -= 1
        turn = self._turn
        self._turn = turn + 1 if turn + 1 < len(self._order) else 0
        lane.started_s = now_s
        lane.send(self._order[turn])

    def _settled(self, lane: Lane, code: int) -> None:
        now_s = time.perf_counter()
        self._note(lane, code, now_s)
        if code > 0:
            if self._failures:
                self._failures.pop(id(lane), None)
            self._next(lane, now_s)
            return
        # No answer: at once again would be a storm of connections against a server that is down.
        failed = self._failures[id(lane)] = self._failures.get(id(lane), -1) + 1
        first_s, most_s = BACK_OFF_S
        self._loop.call_later(min(first_s * 2 ** min(failed, _MOST_DOUBLINGS), most_s), self._retry, lane)

    def _retry(self, lane: Lane) -> None:
        self._next(lane, time.perf_counter())

    def _retire(self) -> None:
        self._running -= 1
        self._rest()

    def _rest(self) -> None:
        if self._running <= 0 and not self._done.done():
            self._mark_end()
            self._done.set_result(None)


class OpenRun(StageRun):
    """Requests at scheduled instants, on whatever lane is free."""

    def __init__(self, plan: StagePlan, make: MakeLane) -> None:
        super().__init__(plan, make)
        # Here, because a long schedule takes longer than the first request may.
        self._due_s: list[float] = [] if plan.due_s is None else plan.due_s.tolist()
        self._order: list[int] = plan.kinds.tolist()
        self._turn = 0
        self._fresh: list[Lane] = []
        self._waiting: deque[tuple[int, float]] = deque()
        self._ended = 0

    def _begin(self) -> None:
        self._free = list(self._lanes)
        self._timer = PreciseTimer(self._loop, self._ring)
        self._timer.arm(self._zero + (self._due_s[0] if self._due_s else 0.0))

    def _ring(self) -> None:
        due, turn, zero, timeout_s = self._due_s, self._turn, self._zero, self._plan.timeout_s
        most = min(len(due), turn + _AT_A_TIME)
        while turn < most and (lag_s := time.perf_counter() - zero - due[turn]) >= 0:
            self._turn = turn + 1
            if lag_s > timeout_s:
                self._note_unsent(turn, lag_s, zero + due[turn] + lag_s, UNSENT)
            else:
                self._waiting.append((turn, lag_s))
                self._pump()
                self._waited += bool(self._waiting)
            turn += 1
        if turn < len(due):
            self._timer.arm(zero + due[turn])
        else:
            self._rest()

    def _pump(self) -> None:
        while self._waiting and (lane := self._lane()) is not None:
            self._send(lane, *self._waiting.popleft())

    def _lane(self) -> Lane | None:
        if self._free:
            return self._free.pop()
        if len(self._lanes) >= self._plan.most_lanes:
            return None
        if len(self._fresh) >= CONNECTING:
            self._fresh = [lane for lane in self._fresh if not lane.is_open]
            if len(self._fresh) >= CONNECTING:
                return None
        lane = self._make(self._settled)
        self._lanes.append(lane)
        self._fresh.append(lane)
        return lane

    def _send(self, lane: Lane, turn: int, lag_s: float) -> None:
        lane.started_s = self._zero + self._due_s[turn]
        lane.lag_s = lag_s  # without the time that no connection was free: that one is the server's
        lane.send(self._order[turn])

    def _settled(self, lane: Lane, code: int) -> None:
        self._note(lane, code, time.perf_counter())
        self._ended += 1
        if self._waiting:
            self._send(lane, *self._waiting.popleft())
        else:
            self._free.append(lane)
            if self._ended == len(self._due_s):
                self._rest()

    def _overdue(self, now_s: float) -> None:
        limit_s = now_s - self._zero - self._plan.timeout_s
        while self._waiting and self._due_s[self._waiting[0][0]] < limit_s:
            self._note_unsent(*self._waiting.popleft(), now_s, TIMED_OUT)
        self._rest()

    def _note_unsent(self, turn: int, lag_s: float, now_s: float, code: int) -> None:
        """Its time was over before there was a connection for it, or before the client came to it."""
        due_s = self._zero + self._due_s[turn]
        self._started.append(due_s)
        self._latency.append(now_s - due_s)
        self._lag.append(lag_s)
        self._codes.append(code)
        self._kinds.append(self._order[turn])
        self._ended += 1

    def _cut_off(self) -> int:
        return bisect_right(self._due_s, time.perf_counter() - self._zero) - self._ended if self._zero else 0

    def _rest(self) -> None:
        if self._ended >= len(self._due_s) and not self._done.done():
            self._done.set_result(None)

    def _finish(self) -> None:
        if hasattr(self, "_timer"):
            self._timer.close()
        super()._finish()


def stage_run(plan: StagePlan, make: MakeLane) -> StageRun:
    """The run that fits the plan; call it within the loop that it shall run in."""
    return ClosedRun(plan, make) if plan.due_s is None else OpenRun(plan, make)
