"""The loop of one model version: requests in, runs on its devices, completions out; nothing is lost on the way.

What to do is decided by pure functions (`admission`, `fair_queue`, `batcher`, `routing`); this file acts. All of it
runs on one thread, the event loop's, so it needs no lock.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from typing import Final

from npuops.errors import DeadlineError, NotReadyError, NpuopsError, RunError, TooLargeError
from npuops.runtime.admission import Refusal, admit
from npuops.runtime.batch_curve import measure_sizes
from npuops.runtime.batcher import LEAD_US, rows_to_take
from npuops.runtime.delivery import Delivery, refuse
from npuops.runtime.engine_options import EngineOptions
from npuops.runtime.facts import ColdCause, ShedReason
from npuops.runtime.fair_queue import FairQueue, bytes_of
from npuops.runtime.inline import InlineSession, worth_it
from npuops.runtime.job import NO_DEADLINE, Job
from npuops.runtime.replica import Answer, DeviceSpec, Replica, Reports, Run
from npuops.runtime.replicas import Measuring, Replicas, Services
from npuops.runtime.reporter import Reporter
from npuops.runtime.restart_policy import KILLS, Suspects
from npuops.runtime.routing import Routing
from npuops.runtime.signature import Signature

TICK_S: Final = 0.02
"""How often waiting requests are looked at for their deadlines, and runs for hanging."""
ATTEMPTS: Final = 2
"""Devices that a request may lose; then its client is told."""


class Engine:
    """One model version being served.

    Attributes:
        model, version: as in the repository.
        signature: what requests must look like.
        last_used_us: when the last request came.
    """

    def __init__(
        self,
        model: str,
        version: str,
        signature: Signature,
        devices: Sequence[DeviceSpec],
        options: EngineOptions,
        services: Services,
        weights: Callable[[str], float],
    ) -> None:
        """Nothing runs yet: `start` brings the workers to life."""
        self.model, self.version, self.signature = model, version, signature
        self._options, self._services = options, services
        self._loop, self._clock, self._observe = services.loop, services.clock, services.observe
        self._reporter = Reporter(model, version, services.observe)
        self._queue = FairQueue(weights)
        self._suspects: deque[Job] = deque()
        self._blamed = Suspects()
        self._delivery = Delivery(batched=signature.batched)
        self._lone = any(port.dtype == "string" for port in signature.outputs)
        self._replicas = Replicas(
            (model, version),
            signature,
            devices,
            Measuring(sizes=self._sizes, budget_ms=options.measure_ms, free_bytes=options.max_request_bytes),
            services,
            Reports(ran=self._ran, failed=self._failed, ended=self._ended),
            lambda: len(self._queue),
        )
        self._routing = Routing(options.fallback, options.shard, options.padding)
        self._inline: InlineSession | None = None
        self._scheduled = False
        self._closed = ""
        self._tick: asyncio.TimerHandle | None = None
        self._idle: list[asyncio.Future[None]] = []
        self.last_used_us = self._clock.now_us()

    def submit(self, job: Job) -> None:
        """Take a request. Its receiver is called exactly once, perhaps at once, unless the job is cancelled."""
        queue = self._queue
        if self._closed:
            self._reporter.refuse(job, NotReadyError(self._closed, retry_after_s=0.1), ShedReason.NOT_READY)
            return
        refusal = admit(
            self._options.limits,
            len(queue),
            queue.bytes,
            bytes_of(job),
            self._predicted_wait_us(job) if job.deadline_us != NO_DEADLINE or self._is_full() else 0.0,
            job.deadline_us,
            job.arrived_us,
        )
        if refusal is not None and not self._makes_room(job, refusal):
            self._reporter.refuse(job, refusal.error(), refusal.reason)
            return
        self.last_used_us = job.arrived_us
        queue.push(job)
        if not self._scheduled:
            self._scheduled = True
            self._loop.call_soon(self._pump)
        if self._tick is None:
            self._tick = self._loop.call_later(TICK_S, self._look_around)

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more: it leaves the queue; a run under way goes on, its answer is dropped."""
        if not job.cancelled:
            self._queue.withdraw(job)
            self._reporter.shed(job, ShedReason.CANCELLED)

    async def start(self, cause: ColdCause) -> None:
        """Load and warm up on every device.

        Raises:
            NpuopsError: no device came up; the first one's words.
        """
        await self._replicas.start(cause)
        self._settle_inline()
        self._pump()

    async def drain(self, limit_s: float) -> bool:
        """Wait until nothing is waiting or under way; False where the time is over first."""
        if self._is_idle():
            return True
        idle = self._loop.create_future()
        self._idle.append(idle)
        done, _ = await asyncio.wait([idle], timeout=limit_s)
        return bool(done)

    async def close(self, why: str = "the model is being unloaded") -> None:
        """Refuse what still waits, and end all workers."""
        self._closed = why
        for job in [*self._suspects, *self._queue.drain()]:
            self._reporter.refuse(job, NotReadyError(why, retry_after_s=0.5), ShedReason.NOT_READY)
        self._suspects.clear()
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        self._drop_inline()
        await self._replicas.stop()

    @property
    def is_ready(self) -> bool:
        """A device takes requests."""
        return not self._closed and self._replicas.any_ready

    @property
    def in_flight(self) -> int:
        """Requests that are not answered, those that wait included."""
        runs = (run for replica in self._replicas.all for run in replica.under_way.values())
        return self.queued + sum(len(run.jobs) for run in runs)

    @property
    def queued(self) -> int:
        """Requests that wait."""
        return len(self._queue) + len(self._suspects)

    @property
    def queued_bytes(self) -> int:
        """Bytes of their inputs."""
        return self._queue.bytes

    @property
    def replicas(self) -> Replicas:
        """The devices, for whoever watches."""
        return self._replicas

    def _pump(self) -> None:
        """Start as many runs as the devices take."""
        self._scheduled = False
        while self._suspects and self._run_suspect():
            pass
        if self._suspects:
            return  # a device must become idle for the next one; more work would keep it busy for ever
        queue = self._queue
        while (first := queue.next()) is not None:
            now_us = self._clock.now_us()
            if self._inline is not None and len(queue) == 1 and self._run_inline(first, now_us):
                return
            replica = self._routing.pick(self._replicas.all, first, now_us)
            if replica is None:
                if not self._turn_away(first, now_us):
                    return
                continue
            if self._routing.bucket(replica, first.form, first.form.rows) is None:
                self._refuse_shape(queue.take(first.form.rows, first.form.key), replica)
                continue
            jobs = self._jobs_for(replica, first, now_us)
            if not jobs:
                return
            self._dispatch(replica, [job for job in jobs if not self._is_late(job, replica, now_us)], now_us)

    def _turn_away(self, job: Job, now_us: int) -> bool:
        """Who waits for nothing but the fallback, and may not have it, is told so; the others wait."""
        why = self._routing.why_not(self._replicas.all, job, now_us)
        if not why or not any(replica.ready for replica in self._replicas.all):
            return False
        error = NotReadyError(why, advice="ask again, or let this model fall back")
        for refused in self._queue.take(job.form.rows, job.form.key):
            self._routing.budget.refused(refused.form.rows, now_us)
            self._reporter.refuse(refused, error, ShedReason.NOT_READY)
        return True

    def _jobs_for(self, replica: Replica, first: Job, now_us: int) -> list[Job]:
        """The next run's requests; none where waiting for more is better."""
        queue = self._queue
        if not self.signature.batched or self._lone or not self._options.batching:
            return queue.take(first.form.rows, first.form.key)
        left_us = self._routing.backlog_us(replica, now_us) if replica.under_way else 0.0
        rows = rows_to_take(
            queue.rows,
            first.form.rows,
            len(replica.under_way),
            replica.credits,
            self._routing.curve(replica, first.form),
            self._options.budget_us,
            self.signature.max_rows,
            left_us,
        )
        if rows:
            return queue.take(rows, first.form.key)
        if left_us > LEAD_US and not self._scheduled:
            self._scheduled = True
            self._loop.call_later((left_us - LEAD_US) / 1e6, self._pump)
        return []

    def _dispatch(self, replica: Replica, jobs: list[Job], now_us: int) -> None:
        if not jobs:
            return
        rows = sum([job.form.rows for job in jobs])
        bucket = self._routing.bucket(replica, jobs[0].form, rows)
        assert bucket is not None  # noqa: S101 - a bucket that takes one of them takes all that `max_rows` allows
        try:
            replica.run(jobs, rows, bucket, now_us)
        except TooLargeError as error:
            for job in jobs:
                refuse(job, error)

    def _run_suspect(self) -> bool:
        """A request that failed among others, alone on an idle device."""
        job = self._suspects[0]
        if job.cancelled:
            self._suspects.popleft()
            return True
        replica = self._routing.pick(self._replicas.all, job, self._clock.now_us())
        if replica is None or replica.under_way:
            return False
        self._suspects.popleft()
        self._dispatch(replica, [job], self._clock.now_us())
        return False

    def _run_inline(self, first: Job, now_us: int) -> bool:
        """A lone request on an idle model, at once and without a worker's two wake-ups."""
        inline = self._inline
        if inline is None or inline.replica.under_way or not inline.takes(first.form):
            return False
        for job in self._queue.take(first.form.rows, first.form.key):
            inline.run(job, now_us, self._observe)
        return True

    def _ran(self, replica: Replica, run: Run, answer: Answer) -> None:
        self._pump()  # before the answers are written: the worker must not wait for that
        spec = replica.spec
        self._routing.budget.ran(run.rows, spec.fallback, run.dispatched_us)
        if self._blamed:
            self._blamed.answered(run.jobs)
        self._delivery.hand_out(
            run.jobs, replica.view, answer.places, answer.tensors, spec.name, fell_back=spec.fallback
        )
        self._reporter.ran(spec, run, answer, self._clock.now_us())
        if self._idle and self._is_idle():
            self._wake_drainers()

    def _failed(self, replica: Replica, run: Run, error: NpuopsError, lost: bool) -> None:
        """The worker refused a run, or its device is lost."""
        if lost:
            self._replicas.give_up(replica, error.message)
            self._again(replica, run.jobs, error)
        elif len(run.jobs) > 1:
            self._suspects.extend(run.jobs)  # one of them is bad; the others must not pay for it
        else:
            self._reporter.fail(run.jobs[0], replica, error)
        self._pump()

    def _ended(self, replica: Replica, runs: list[Run], why: str) -> None:
        """A worker is gone; what was under way runs again."""
        if not runs:
            return
        prepared = [job for run in runs[1:] for job in run.jobs]
        replay = self._blamed.ended(runs[0].jobs, prepared)
        error = RunError(
            f"the worker ended {KILLS} times while it ran this input alone ({why})",
            advice="`npuops run` with the same input may tell why",
        )
        for job in replay.failed:
            self._reporter.fail(job, replica, error)
        self._suspects.extend(replay.alone)
        self._queue.push_front(replay.together)
        self._reporter.retried(replica, len(replay.alone) + len(replay.together), why)
        self._pump()

    def _again(self, replica: Replica, jobs: list[Job], error: NpuopsError) -> None:
        """Once more, elsewhere or after the device's restart; a second loss is told to the client."""
        back = []
        for job in jobs:
            job.attempts += 1
            if job.attempts < ATTEMPTS:
                back.append(job)
            else:
                self._reporter.fail(job, replica, error)
        self._queue.push_front(back)
        self._reporter.retried(replica, len(back), error.message)

    def _look_around(self) -> None:
        """Deadlines of what waits, and runs that hang."""
        self._tick = None
        now_us = self._clock.now_us()
        for job in self._queue.expire(now_us + int(self._routing.shortest_us(self._replicas.all))):
            self._reporter.refuse(
                job, DeadlineError("the deadline passed while the request waited"), ShedReason.DEADLINE
            )
        limit_us = self._options.run_limit_s * 1e6
        busy = False
        for replica in self._replicas.all:
            oldest = next(iter(replica.under_way.values()), None)
            busy = busy or oldest is not None
            if oldest is not None and now_us - oldest.dispatched_us > limit_us:
                self._replicas.give_up(replica, f"a run took longer than {self._options.run_limit_s:g} s")
        if self._queue or self._suspects or busy:
            self._tick = self._loop.call_later(TICK_S, self._look_around)
            self._pump()

    def _sizes(self, spec: DeviceSpec) -> list[list[int]]:
        free = measure_sizes(self.signature.max_rows if self._options.batching else 1)
        return [list(free) if bucket.rows is None else [bucket.rows] for bucket in spec.buckets]

    def _makes_room(self, job: Job, refusal: Refusal) -> bool:
        """Who floods a full queue gives a place to the others."""
        if refusal.reason is not ShedReason.QUEUE_FULL:
            return False
        gone = self._queue.yield_to(job)
        if gone is None:
            return False
        self._reporter.refuse(gone, refusal.error(), refusal.reason)
        return True

    def _is_full(self) -> bool:
        limits = self._options.limits
        return len(self._queue) >= limits.max_queue_requests or self._queue.bytes >= limits.max_queue_bytes

    def _predicted_wait_us(self, job: Job) -> float:
        return self._routing.wait_us(self._replicas.all, job.form, self._queue.rows, self._options.budget_us)

    def _is_late(self, job: Job, replica: Replica, now_us: int) -> bool:
        """Drop what cannot be answered in time before it costs the device anything."""
        if job.deadline_us == NO_DEADLINE:
            return False
        if now_us + self._routing.run_us(replica, job.form, job.form.rows) <= job.deadline_us:
            return False
        self._reporter.refuse(job, DeadlineError("the deadline would pass before the answer"), ShedReason.DEADLINE)
        return True

    def _settle_inline(self) -> None:
        if self._inline is None:
            replica = worth_it(self._replicas.all, self._options.inline, self.signature)
            if replica is not None:
                self._inline = InlineSession((self.model, self.version), replica, self.signature)

    def _drop_inline(self) -> None:
        if self._inline is not None:
            self._inline.close()
            self._inline = None

    def _refuse_shape(self, jobs: list[Job], replica: Replica) -> None:
        for job in jobs:
            shapes = ", ".join(str(list(shape)) for shape in job.form.shapes)
            self._reporter.fail(job, replica, RunError(f"no artifact of {self.model} takes shapes {shapes}"))

    def _is_idle(self) -> bool:
        return not self._queue and not self._suspects and not any(r.under_way for r in self._replicas.all)

    def _wake_drainers(self) -> None:
        waiting, self._idle = self._idle, []
        for future in waiting:
            if not future.done():
                future.set_result(None)
