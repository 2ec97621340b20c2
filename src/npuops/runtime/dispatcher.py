"""Starts runs: takes requests from the queue, in batches, to the devices that take them now.

What to do is decided by pure functions (`fair_queue`, `batcher`, `routing`); this file acts.
"""

from __future__ import annotations

import asyncio
import logging
from typing import Final

from npuops.errors import NotReadyError, NpuopsError, RunError, TooLargeError
from npuops.runtime.batcher import LEAD_US, rows_to_take
from npuops.runtime.engine_options import EngineOptions
from npuops.runtime.fair_queue import FairQueue
from npuops.runtime.inline import InlineSession
from npuops.runtime.job import NO_DEADLINE, Job
from npuops.runtime.outage import Outage
from npuops.runtime.recovery import Recovery
from npuops.runtime.replica import Replica
from npuops.runtime.replicas import Replicas, Services
from npuops.runtime.reporter import Reporter
from npuops.runtime.routing import Routing
from npuops.runtime.signature import Signature

_INLINE_AT_ONCE: Final = 8
"""Requests computed in this process before the loop looks at its connections again."""
_PASSED: Final = 32
"""Requests that wait for devices of their own and are passed by others, at one look."""
_log: Final = logging.getLogger(__name__)


class Dispatcher:
    """Of one model version.

    Attributes:
        options: that hold now.
        scheduled: it will look at the queue in a moment.
        inline: computes lone requests in this process; None where nothing does.
        most_rows: of one run; fewer than the signature's once so many did not fit.
    """

    def __init__(  # noqa: PLR0913, PLR0917 - the parts of an engine
        self,
        model: str,
        signature: Signature,
        options: EngineOptions,
        queue: FairQueue,
        recovery: Recovery,
        replicas: Replicas,
        routing: Routing,
        outage: Outage,
        reporter: Reporter,
        services: Services,
    ) -> None:
        """The engine's parts."""
        self.options = options
        self.scheduled = False
        self.inline: InlineSession | None = None
        self.most_rows = signature.max_rows
        self._model, self._signature = model, signature
        self._queue, self._recovery, self._replicas, self._routing = queue, recovery, replicas, routing
        self._outage, self._reporter = outage, reporter
        self._loop, self._clock = services.loop, services.clock
        self._lone = any(port.dtype == "string" for port in signature.outputs)
        self._later: asyncio.TimerHandle | None = None
        self._later_us = 0.0
        self._idle: list[asyncio.Future[None]] = []
        self._closed = False
        self._computed = 0

    def soon(self) -> None:
        """Look at the queue when the loop comes round."""
        if not self.scheduled and not self._closed:
            self.scheduled = True
            self._loop.call_soon(self.pump)

    def close(self) -> None:
        """Start nothing any more."""
        self._closed = True
        if self._later is not None:
            self._later.cancel()
            self._later = None
        if self.inline is not None:
            self.inline.close()
            self.inline = None

    async def idle(self, limit_s: float) -> bool:
        """Wait until nothing is waiting or under way; False where the time is over first."""
        if self.is_idle():
            return True
        idle = self._loop.create_future()
        self._idle.append(idle)
        done, _ = await asyncio.wait([idle], timeout=limit_s)
        return bool(done)

    def pump(self) -> None:
        """Start as many runs as the devices take."""
        self.scheduled = False
        self._computed = 0
        if self._recovery.alone and not self._run_alone():
            return
        passed: list[Job] = []
        while (first := self._queue.next()) is not None and self._starts(first, passed):
            pass
        if passed:
            self._queue.push_front(passed)
        self.look_idle()

    def _starts(self, first: Job, passed: list[Job]) -> bool:
        """What becomes of the request whose turn it is; False where all wait. `passed`: who waits for its device."""
        queue, replicas, now_us = self._queue, self._replicas.all, self._clock.now_us()
        if self.inline is not None and self._run_inline(first, now_us):
            self._computed += 1
            if self._computed < _INLINE_AT_ONCE:
                return True
            self.soon()
            return False
        replica = self._routing.pick(replicas, first, now_us, queue.rows, self.options.budget_us)
        if replica is None:
            return self._turns_away(first, now_us) or self._passes(first, passed)
        if self._routing.bucket(replica, first.form, first.form.rows) is None:
            self._reporter.refuse_shape(queue.take(first.form.rows, first.form.key), replica)
            return True
        jobs = self._jobs_for(replica, first, now_us)
        if not jobs:
            return self._passes(first, passed)
        if len(replicas) > 1 and len(jobs) > 1:
            jobs, others = self._routing.companions(replicas, replica, jobs)
            queue.push_front(others)
        self._dispatch(replica, [job for job in jobs if not self._is_late(job, replica, now_us)], now_us)
        return True

    def _passes(self, job: Job, passed: list[Job]) -> bool:
        """Whether those behind a request that waits for its own device have their turn; it comes first again then."""
        replicas = self._replicas.all
        if len(replicas) == 1 or len(passed) >= _PASSED or not self._routing.is_particular(replicas, job):
            return False
        passed += self._queue.take(job.form.rows, job.form.key)
        return True

    def _turns_away(self, job: Job, now_us: int) -> bool:
        """Who waits for what will not come is told so; the others wait."""
        if not self._routing.takes(self._replicas.all, job.form):
            self._reporter.refuse_shape(self._queue.take(job.form.rows, job.form.key), self._replicas.all[0])
            return True
        error = self._why_never(job, now_us)
        if error is None:
            return False
        jobs = self._queue.take(job.form.rows, job.form.key)
        for each in jobs:
            self._routing.budget.refused(each.form.rows, now_us)
        self._recovery.refuse_all(jobs, error)
        return True

    def _why_never(self, job: Job, now_us: int) -> NotReadyError | None:
        """What to tell a request that no device takes now; None while it is worth waiting."""
        why = self._routing.why_not(self._replicas.all, job, now_us)
        if why:
            advice = "ask again, or let this model fall back"
            return NotReadyError(why, advice=advice) if self._outage.is_hopeless(now_us, restarts=False) else None
        if self._replicas.any_ready:
            return None  # the fallback is busy
        return self._outage.error() if self._outage.is_hopeless(now_us) else None

    def _jobs_for(self, replica: Replica, first: Job, now_us: int) -> list[Job]:
        """The next run's requests; none where waiting for more is better."""
        queue = self._queue
        if not self._signature.batched or self._lone or not self.options.batching:
            return queue.take(first.form.rows, first.form.key)
        left_us = self._routing.backlog_us(replica, now_us) if replica.under_way else 0.0
        rows = rows_to_take(
            queue.rows,
            first.form.rows,
            len(replica.under_way),
            replica.credits,
            self._routing.curve(replica, first.form),
            self.options.budget_us,
            self.most_rows,
            left_us,
        )
        if rows:
            return queue.take(rows, first.form.key)
        if left_us > LEAD_US:
            self._look_in(left_us - LEAD_US, now_us)
        return []

    def _look_in(self, us: float, now_us: int) -> None:
        """Look at the queue then, unless it is looked at sooner anyway: other devices may be done before."""
        if self._later is not None:
            if self._later_us <= now_us + us:
                return
            self._later.cancel()
        self._later_us = now_us + us
        self._later = self._loop.call_later(us / 1e6, self._look_now)

    def _look_now(self) -> None:
        self._later = None
        self.pump()

    def _dispatch(self, replica: Replica, jobs: list[Job], now_us: int) -> None:
        if not jobs:
            return
        rows = sum([job.form.rows for job in jobs])
        bucket = self._routing.bucket(replica, jobs[0].form, rows)
        assert bucket is not None  # noqa: S101 - a bucket that takes one of them takes all that `max_rows` allows
        try:
            replica.run(jobs, rows, bucket, now_us)
        except NpuopsError as error:
            self._not_gathered(replica, jobs, error)
        except Exception as error:  # noqa: BLE001 - nothing was sent; a defect must not take requests with it
            _log.exception("inputs of %s could not be copied", self._model)
            self._not_gathered(replica, jobs, RunError(f"{type(error).__name__}: {error}"))

    def _not_gathered(self, replica: Replica, jobs: list[Job], error: NpuopsError) -> None:
        """Several that do not fit into a slot together go in two parts; what one of them is to blame for, alone."""
        if len(jobs) == 1:
            self._reporter.fail(jobs[0], replica, error)
        elif isinstance(error, TooLargeError):
            self.most_rows = max(1, sum(job.form.rows for job in jobs) // 2)
            self._queue.push_front(jobs)
        else:
            self._recovery.alone.extend(jobs)
        self.soon()

    def _run_alone(self) -> bool:
        """Requests that failed among others; False while one of them waits, since what follows must not overtake it."""
        while (job := self._recovery.next_alone()) is not None:
            now_us = self._clock.now_us()
            replica = self._routing.pick(self._replicas.all, job, now_us)
            if replica is None:
                error = self._why_never(job, now_us)
                if error is None:
                    return False
                self._recovery.refuse_all([job], error)
            elif not self._is_late(job, replica, now_us):
                self._dispatch(replica, [job], now_us)
            self._recovery.alone.remove(job)
        return True

    def _run_inline(self, first: Job, now_us: int) -> bool:
        """At once and without a worker's two wake-ups: a lone request, or any where batches do not pay."""
        inline = self.inline
        if inline is None or inline.replica.under_way or self._routing.shard or not inline.takes(first.form):
            return False
        if len(self._queue) > 1:
            curve = self._routing.curve(inline.replica, first.form)
            if self.options.batching and curve.best_rows(self.options.budget_us) > first.form.rows:
                return False
        for job in self._queue.take(first.form.rows, first.form.key):
            inline.run(job, now_us, self._reporter)
            self._routing.budget.ran(job.form.rows, False, now_us)
            self._recovery.answered((job,))
        return True

    def _is_late(self, job: Job, replica: Replica, now_us: int) -> bool:
        """Drop what cannot be answered in time before it costs the device anything."""
        if job.deadline_us == NO_DEADLINE:
            return False
        if now_us + self._routing.run_us(replica, job.form, job.form.rows) <= job.deadline_us:
            return False
        self._recovery.refuse_late([job], "the deadline would pass before the answer")
        return True

    def is_idle(self) -> bool:
        """Nothing waits or is under way."""
        if self._queue or any(replica.under_way for replica in self._replicas.all):
            return False
        return self._recovery.next_alone() is None

    def look_idle(self) -> None:
        """Whoever waits for the end of all requests goes on."""
        if not self._idle or not self.is_idle():
            return
        waiting, self._idle = self._idle, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
