"""The server's queue in simulated time: the same judges (admission, batcher, router), arrivals, and devices.

What is decided is decided by the functions that the server itself calls; only the event loop, the copies and the
processes are left out, so an answer is there when its run ends. One tenant, one row a request.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import inf
from typing import Final

from npuops.hostsched.serving_state import DeviceLoad, ServingFrame, ServingSetting
from npuops.runtime.admission import Limits, admit
from npuops.runtime.batch_curve import BatchCurve
from npuops.runtime.batcher import LEAD_US, rows_to_take
from npuops.runtime.fallback import Verdict
from npuops.runtime.job import NO_DEADLINE
from npuops.runtime.patience import followed, left_us, rested
from npuops.runtime.replica import CREDITS
from npuops.runtime.router import Candidate, choose, takes_part

TICK_US: Final = 20_000
"""`engine.TICK_S`."""
_CAUTION: Final = 1.05
"""The engine's, on a predicted wait."""
MAX_ROWS: Final = 1 << 20
REFUSED: Final = -1.0
"""Latency of a request that was sent away."""
PENDING: Final = -2.0
"""Latency of a request that has no answer yet."""
_NO_FALLBACK: Final = Verdict(False, "there is none")


@dataclass(frozen=True, slots=True, kw_only=True)
class SimulatedDevice:
    """One device of the simulated server.

    Attributes:
        name: of it.
        curve: of its runs; the server believes the same.
        slower: (from µs, times that its runs take longer from then on), rising: heat, or neighbours.
    """

    name: str
    curve: BatchCurve
    slower: tuple[tuple[int, float], ...] = ()

    def factor(self, at_us: float) -> float:
        """Times that a run takes longer which begins now."""
        found = 1.0
        for from_us, factor in self.slower:
            if from_us > at_us:
                break
            found = factor
        return found


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class ServingScene:
    """All that does not depend on what is decided.

    Attributes:
        arrivals_us: of each request, rising.
        slo_us: an answer after so long is a miss.
        devices: one at least.
        deadlines: requests carry the SLO as their deadline, as `[queue] default_timeout_ms` makes them.
        noise: factors on runs, taken in turn.
    """

    arrivals_us: Sequence[int]
    slo_us: int
    devices: tuple[SimulatedDevice, ...]
    deadlines: bool = True
    noise: Sequence[float] = (1.0,)


@dataclass(slots=True)
class _Run:
    requests: list[int]
    predicted_us: float


@dataclass(slots=True)
class _Device:
    spec: SimulatedDevice
    pace: float = 1.0
    began_us: float = 0.0
    ends_us: float = inf
    runs: deque[_Run] = field(default_factory=deque)

    def run_us(self, rows: int = 1) -> float:
        """As the server believes."""
        return self.spec.curve.us(rows) * self.pace


class SimulatedServer:
    """One model version in one scene.

    Attributes:
        setting: in force.
        whole: admission counts the runs under way, and the whole run that a request will share; the server does not.
        latency_us: of each request; `REFUSED`, `PENDING`.
        now_us: the moment.
        runs: were begun.
        answered: requests, by device.
    """

    def __init__(self, scene: ServingScene, setting: ServingSetting, *, whole: bool = False) -> None:
        """At time 0, with an empty queue."""
        self.scene, self.setting, self.whole = scene, setting, whole
        self.latency_us = [PENDING] * len(scene.arrivals_us)
        self.now_us, self.runs = 0.0, 0
        self.answered = dict.fromkeys((spec.name for spec in scene.devices), 0)
        self._next = 0
        self._queue: deque[int] = deque()
        self._devices = [_Device(spec) for spec in scene.devices]
        self._later_us = inf
        self._tick_us = inf
        self._counts = [0, 0, 0, 0]
        self._looked_us = 0.0

    def fork(self, to_come_us: Sequence[int] | None = None) -> SimulatedServer:
        """The same moment again, for another future.

        Args:
            to_come_us: arrivals from now on, rising; None: those of the scene.
        """
        twin = object.__new__(SimulatedServer)
        twin.scene, twin.setting, twin.whole = self.scene, self.setting, self.whole
        twin.latency_us = self.latency_us.copy()
        if to_come_us is not None:
            twin.scene = replace(self.scene, arrivals_us=[*self.scene.arrivals_us[: self._next], *to_come_us])
            twin.latency_us[self._next :] = [PENDING] * len(to_come_us)
        twin.now_us, twin.runs, twin.answered = self.now_us, self.runs, self.answered.copy()
        twin._next = self._next
        twin._queue = self._queue.copy()
        twin._devices = [
            _Device(each.spec, each.pace, each.began_us, each.ends_us, each.runs.copy()) for each in self._devices
        ]
        twin._later_us, twin._tick_us = self._later_us, self._tick_us
        twin._counts, twin._looked_us = self._counts.copy(), self._looked_us
        return twin

    def run_until(self, until_us: float) -> None:
        """Everything that happens before."""
        arrivals = self.scene.arrivals_us
        while True:
            device = min(self._devices, key=lambda each: each.ends_us)
            comes_us = arrivals[self._next] if self._next < len(arrivals) else inf
            at_us = min(comes_us, device.ends_us, self._later_us, self._tick_us)
            if at_us >= until_us:
                self.now_us = until_us
                return
            self.now_us = at_us
            if at_us == device.ends_us:
                self._ended(device)
            elif at_us == comes_us:
                self._submit(self._next)
                self._next += 1
            elif at_us == self._later_us:
                self._later_us = inf
            else:
                self._look_around()
            self._pump()

    def frame(self) -> ServingFrame:
        """What the server could tell of itself now, since it was asked before."""
        arrived, in_time, late, refused = self._counts
        self._counts = [0, 0, 0, 0]
        seconds, self._looked_us = (self.now_us - self._looked_us) / 1e6, self.now_us
        return ServingFrame(
            at_us=int(self.now_us),
            seconds=seconds,
            slo_us=self.scene.slo_us,
            arrived=arrived,
            in_time=in_time,
            late=late,
            refused=refused,
            waiting=len(self._queue),
            devices=tuple(DeviceLoad(each.spec.curve, each.pace) for each in self._devices),
            setting=self.setting,
        )

    @property
    def waiting(self) -> int:
        """Requests in the queue."""
        return len(self._queue)

    def _submit(self, request: int) -> None:
        self._counts[0] += 1
        limits = Limits(max_queue_requests=self.setting.queue_requests)
        deadline_us = self._deadline_us(request)
        wait_us = self._predicted_wait_us() if deadline_us < NO_DEADLINE else 0.0
        now_us = int(self.now_us)
        if admit(limits, len(self._queue), len(self._queue), 1, wait_us, deadline_us, now_us) is not None:
            self._refuse(request)
            return
        self._queue.append(request)
        if self._tick_us == inf:
            self._tick_us = self.now_us + TICK_US

    def _deadline_us(self, request: int) -> int:
        return self.scene.arrivals_us[request] + self.scene.slo_us if self.scene.deadlines else NO_DEADLINE

    def _refuse(self, request: int) -> None:
        self._counts[3] += 1
        self.latency_us[request] = REFUSED

    def _predicted_wait_us(self) -> float:
        """`Routing.wait_us` without fallbacks."""
        rows, budget_us, rate = len(self._queue), self.setting.budget_us, 0.0
        best = min(self._devices, key=_Device.run_us)
        longest_us = best.run_us(best.spec.curve.best_rows(budget_us))
        taking = [each for each in self._devices if takes_part(each.run_us(), best.run_us(), longest_us, 0.0)]
        for each in taking:
            us = each.spec.curve.backlog_us(rows, budget_us) * each.pace
            rate += rows / us if us else 0.0
        if not self.whole:
            return _CAUTION * (best.run_us() + (rows / rate if rate else 0.0))
        full = sum(each.spec.curve.best_rows(budget_us) for each in taking)
        first_us = min(self._backlog_us(each) for each in taking)
        own_us = max(each.run_us(rows % each.spec.curve.best_rows(budget_us) + 1) for each in taking)
        return _CAUTION * (own_us + first_us + ((rows - rows % full) / rate if rate else 0.0))

    def _backlog_us(self, device: _Device) -> float:
        total, first = 0.0, True
        for run in device.runs:
            total += left_us(run.predicted_us, self.now_us - device.began_us) if first else run.predicted_us
            first = False
        return total

    def _pick(self, deadline_us: int) -> _Device | None:
        if len(self._devices) == 1:
            return self._devices[0] if len(self._devices[0].runs) < CREDITS else None
        rows, budget_us = len(self._queue), self.setting.budget_us
        candidates = [
            Candidate(
                device=each.spec.name,
                healthy=True,
                fallback=False,
                credits=CREDITS - len(each.runs),
                backlog_us=self._backlog_us(each),
                run_us=each.run_us(),
                batch_us=each.run_us(min(rows, each.spec.curve.best_rows(budget_us))),
                work_us=each.spec.curve.backlog_us(rows, budget_us) * each.pace,
            )
            for each in self._devices
        ]
        choice = choose(candidates, int(self.now_us), deadline_us, lambda: _NO_FALLBACK, spill_us=self.setting.spill_us)
        if choice.device is None or choice.wait:
            return None
        return next(each for each in self._devices if each.spec.name == choice.device)

    def _pump(self) -> None:
        queue = self._queue
        while queue:
            device = self._pick(self._deadline_us(queue[0]))
            if device is None:
                return
            remaining_us = self._backlog_us(device) if device.runs else 0.0
            rows = rows_to_take(
                len(queue),
                1,
                len(device.runs),
                CREDITS - len(device.runs),
                device.spec.curve,
                self.setting.budget_us,
                MAX_ROWS,
                remaining_us,
            )
            if not rows:
                if remaining_us > LEAD_US:
                    self._later_us = self.now_us + max(remaining_us - LEAD_US, 1.0)  # a timer never rings at once
                return
            self._dispatch(device, [queue.popleft() for _ in range(min(rows, len(queue)))])

    def _dispatch(self, device: _Device, requests: list[int]) -> None:
        soonest_us = self.now_us + device.spec.curve.us(1) * device.pace
        live = []
        for request in requests:
            if soonest_us > self._deadline_us(request):
                self._refuse(request)
            else:
                live.append(request)
        if not live:
            return
        device.runs.append(_Run(live, device.spec.curve.us(len(live)) * device.pace))
        if len(device.runs) == 1:
            self._begin(device)
        if self._tick_us == inf:
            self._tick_us = self.now_us + TICK_US

    def _begin(self, device: _Device) -> None:
        noise = self.scene.noise[self.runs % len(self.scene.noise)]
        self.runs += 1
        took_us = device.spec.curve.us(len(device.runs[0].requests)) * device.spec.factor(self.now_us) * noise
        device.began_us, device.ends_us = self.now_us, self.now_us + took_us

    def _ended(self, device: _Device) -> None:
        run = device.runs.popleft()
        device.pace = followed(device.pace, device.spec.curve.us(len(run.requests)), device.ends_us - device.began_us)
        self.answered[device.spec.name] += len(run.requests)
        for request in run.requests:
            latency_us = self.now_us - self.scene.arrivals_us[request]
            self.latency_us[request] = latency_us
            self._counts[1 if latency_us <= self.scene.slo_us else 2] += 1
        device.ends_us = inf
        if device.runs:
            self._begin(device)

    def _look_around(self) -> None:
        shortest_us = min(each.spec.curve.us(1) for each in self._devices)
        while self._queue and self._deadline_us(self._queue[0]) <= self.now_us + shortest_us:
            self._refuse(self._queue.popleft())
        busy = False
        for each in self._devices:
            busy = busy or bool(each.runs)
            if not each.runs:
                each.pace = rested(each.pace)
        self._tick_us = self.now_us + TICK_US if busy or self._queue else inf
