"""One device, and tenants that send at random moments: the queue and the batcher under the engine's rules."""

from __future__ import annotations

import heapq
from collections import Counter, deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import accumulate
from math import inf
from random import Random

from npuops.runtime.batch_curve import BatchCurve
from npuops.runtime.batcher import LEAD_US, rows_to_take
from npuops.runtime.fair_queue import FairQueue
from npuops.runtime.job import Job
from npuops.runtime.signature import Form

FORM = Form(rows=1, shapes=((1, 4),), sizes=(16,), total_bytes=16, key=((4,),))
CREDITS = 2
PLACES = 1024
GAP_US = 100.0
"""Between a decision and the begin of a run on an idle device."""


@dataclass(slots=True)
class Outcome:
    """What the tenants saw."""

    waited_us: dict[str, list[float]]
    shed: Counter[str] = field(default_factory=Counter)


def simulate(curve: BatchCurve, budget_us: float, rates: Mapping[str, float], seconds: float) -> Outcome:
    """Tenants of equal weight send `rates` requests a second for some time."""
    chance = Random(1)  # noqa: S311 - arrivals, no secrets
    arrivals = deque(
        sorted(
            (moment_us, tenant)
            for tenant, rate in rates.items()
            for moment_us in accumulate(chance.expovariate(rate) * 1e6 for _ in range(int(rate * seconds)))
        )
    )
    outcome = Outcome({tenant: [] for tenant in rates})
    queue = FairQueue(_alike)
    runs: deque[tuple[float, list[Job]]] = deque()
    looks: list[float] = []
    while arrivals or runs:
        arrival_us = arrivals[0][0] if arrivals else inf
        end_us = runs[0][0] if runs else inf
        look_us = looks[0] if looks else inf
        now_us = min(arrival_us, end_us, look_us)
        if now_us == look_us:
            heapq.heappop(looks)
        elif now_us == end_us:
            for job in runs.popleft()[1]:
                outcome.waited_us[job.tenant].append(now_us - job.arrived_us)
        else:
            _arrive(queue, arrivals.popleft()[1], now_us, outcome)
        while (first := queue.next()) is not None:
            done_us = runs[-1][0] if runs else now_us
            rows = rows_to_take(
                queue.rows, 1, len(runs), CREDITS - len(runs), curve, budget_us, 32, remaining_us=done_us - now_us
            )
            if not rows:
                if len(runs) == 1 and not looks and done_us - now_us > LEAD_US:
                    heapq.heappush(looks, done_us - LEAD_US)
                break
            jobs = queue.take(rows, first.form.key)
            runs.append((max(now_us + GAP_US, done_us) + curve.us(len(jobs)), jobs))
    return outcome


def _arrive(queue: FairQueue, tenant: str, now_us: float, outcome: Outcome) -> None:
    job = Job(FORM, (bytes(16),), _ignore, int(now_us), tenant=tenant)
    if len(queue) >= PLACES:
        gone = queue.yield_to(job)
        outcome.shed[job.tenant if gone is None else gone.tenant] += 1
        if gone is None:
            return
    queue.push(job)


def _alike(tenant: str) -> float:
    del tenant
    return 1.0


def _ignore(job: Job, answer: object) -> None:
    del job, answer
