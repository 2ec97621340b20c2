"""The loop of one model version: requests in, runs on its devices, completions out; nothing is lost on the way.

What to do is decided by pure functions (`admission`, `fair_queue`, `batcher`, `routing`); this file acts. All of it
runs on one thread, the event loop's, so it needs no lock.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from typing import Final

from npuops.errors import DeviceMemoryError, NotReadyError, NpuopsError, TooLargeError
from npuops.runtime.admission import Refusal, admit
from npuops.runtime.batch_curve import measure_sizes
from npuops.runtime.delivery import Delivery
from npuops.runtime.dispatcher import Dispatcher
from npuops.runtime.engine_options import EngineOptions
from npuops.runtime.facts import ColdCause, ShedReason
from npuops.runtime.fair_queue import FairQueue, bytes_of
from npuops.runtime.inline import InlineSession, worth_it
from npuops.runtime.job import NO_DEADLINE, Job
from npuops.runtime.outage import Outage
from npuops.runtime.patience import rested
from npuops.runtime.recovery import Recovery
from npuops.runtime.replica import Answer, DeviceSpec, Replica, Reports, Run
from npuops.runtime.replicas import Listener, Preparation, Replicas, Services
from npuops.runtime.reporter import Reporter
from npuops.runtime.routing import Routing
from npuops.runtime.signature import Signature

TICK_S: Final = 0.02
"""How often waiting requests are looked at for their deadlines, and runs for hanging."""
_CAUTION: Final = 1.05
"""On a predicted wait. Who is let in and comes late was computed for nothing; who is sent away may ask elsewhere."""
_log: Final = logging.getLogger(__name__)


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
        self._options, self._loop, self._clock = options, services.loop, services.clock
        self._reporter = Reporter(model, version, services.observe)
        self._queue = FairQueue(weights)
        self._recovery = Recovery(self._queue, self._reporter)
        self._delivery = Delivery(signature, options.padding)
        self._replicas = Replicas(
            (model, version),
            signature,
            devices,
            Preparation(
                sizes=self._sizes,
                budget_ms=options.measure_ms,
                free_bytes=options.max_request_bytes,
                open_limit_s=options.open_limit_s,
                padding=options.padding,
            ),
            services,
            Listener(
                reports=Reports(ran=self._ran, failed=self._failed, ended=self._ended),
                changed=self._devices_changed,
                waiting=lambda: len(self._queue),
            ),
        )
        self._routing = Routing(options.fallback, options.shard, options.padding, options.spill_us)
        self._outage = Outage(model, self._replicas, options.patience_s)
        self._dispatcher = Dispatcher(
            model,
            signature,
            options,
            self._queue,
            self._recovery,
            self._replicas,
            self._routing,
            self._outage,
            self._reporter,
            services,
        )
        self._closed = ""
        self._tick: asyncio.TimerHandle | None = None
        self.last_used_us = self._clock.now_us()

    def submit(self, job: Job) -> None:
        """Take a request. Its receiver is called exactly once, perhaps at once, unless the job is cancelled."""
        if (self._closed or self._outage.since_us) and not self._may_wait(job):
            return
        queue, limits = self._queue, self._options.limits
        form = job.form
        nbytes = form.total_bytes if -1 not in form.sizes else bytes_of(job)
        # What `admit` would answer in the common case: calling it takes as long as all the rest of this method.
        has_room = queue.count < limits.max_queue_requests and queue.bytes + nbytes <= limits.max_queue_bytes
        if not (has_room and job.deadline_us == NO_DEADLINE) and not self._is_admitted(job, nbytes):
            return
        self.last_used_us = job.arrived_us
        queue.push(job)
        if not self._dispatcher.scheduled:
            self._dispatcher.soon()
        if self._tick is None:
            self._tick = self._loop.call_later(TICK_S, self._look_around)

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more: it leaves the queue; a run under way goes on, its answer is dropped."""
        if not job.cancelled:
            self._queue.withdraw(job)
            self._recovery.forget(job)
            self._reporter.shed(job, ShedReason.CANCELLED)
            self._dispatcher.look_idle()

    def reconfigure(self, options: EngineOptions) -> None:
        """Follow other options from now on; those that shape workers and slots have to be as before."""
        self._options = self._dispatcher.options = options
        self._routing.reconfigure(options.fallback, options.shard, options.spill_us)

    async def start(self, cause: ColdCause, *, background: bool = False) -> None:
        """Load and warm up on every device; in the background where other engines answer meanwhile.

        Raises:
            NpuopsError: no device came up; the first one's words.
        """
        await self._replicas.start(cause, background=background)
        await self._settle_inline()
        self._dispatcher.pump()

    async def drain(self, limit_s: float) -> bool:
        """Wait until nothing is waiting or under way; False where the time is over first. No new request comes."""
        self._outage.is_last = True
        return await self._dispatcher.idle(limit_s)

    async def close(self, why: str = "the model is being unloaded") -> None:
        """Refuse what still waits, or is under way and did not end in the time to drain; and end all workers."""
        self._closed = why
        self._recovery.refuse_all(
            [*self._recovery.drain(), *self._queue.drain()], NotReadyError(why, retry_after_s=0.5)
        )
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        self._dispatcher.close()
        await self._replicas.stop(why)
        self._dispatcher.look_idle()

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
        return len(self._queue) + len(self._recovery.alone)

    @property
    def queued_bytes(self) -> int:
        """Bytes of their inputs."""
        return self._queue.bytes

    @property
    def replicas(self) -> Replicas:
        """The devices, for whoever watches."""
        return self._replicas

    def _ran(self, replica: Replica, run: Run, answer: Answer) -> None:
        try:
            self._dispatcher.pump()  # before the answers are written: the worker must not wait for that
        finally:
            spec = replica.spec
            self._routing.ran(replica, run, answer)
            self._recovery.answered(run.jobs)
            self._delivery.hand_out(run, answer, replica.view, spec.name, fell_back=spec.fallback)
            self._reporter.ran(spec, run, answer, self._clock.now_us())
            self._dispatcher.look_idle()

    def _failed(self, replica: Replica, run: Run, error: NpuopsError, lost: bool) -> None:
        """The worker refused a run, or its device is lost."""
        replica.began_us = self._clock.now_us()
        if lost:
            self._replicas.give_up(replica, error.message)
            self._recovery.lost(replica, run.jobs, error)
        elif isinstance(error, DeviceMemoryError) and len(run.jobs) == 1 and self._may_go_elsewhere(replica, run):
            self._recovery.elsewhere(replica, run.jobs[0], error)
        else:
            if isinstance(error, TooLargeError):
                self._dispatcher.most_rows = max(1, run.rows // 2)
            self._recovery.failed(replica, run, error)
        self._dispatcher.pump()
        self._dispatcher.look_idle()

    def _may_go_elsewhere(self, replica: Replica, run: Run) -> bool:
        job, now_us = run.jobs[0], self._clock.now_us()
        return not job.avoid and bool(self._routing.others(self._replicas.all, replica.spec.name, job, now_us))

    def _ended(self, replica: Replica, runs: list[Run], why: str) -> None:
        """A worker is gone; what was under way runs again."""
        if self._closed:
            self._recovery.refuse_all(
                [job for run in runs for job in run.jobs], NotReadyError(self._closed, retry_after_s=0.5)
            )
        else:
            self._recovery.ended(replica, runs, why)
            self._keep_looking()
        self._dispatcher.soon()

    def _devices_changed(self) -> None:
        """A device is ready, or is not any more."""
        self._outage.look(self._clock.now_us())
        self._dispatcher.soon()

    def _keep_looking(self) -> None:
        if self._tick is None and not self._closed:
            self._tick = self._loop.call_later(TICK_S, self._look_around)

    def _look_around(self) -> None:
        """Deadlines of what waits or is under way, and runs that hang."""
        self._tick = None
        now_us = self._clock.now_us()
        late = self._queue.expire(now_us + int(self._routing.shortest_us(self._replicas.all)))
        self._recovery.refuse_late(
            [*late, *self._recovery.expire(now_us)], "the deadline passed while the request waited"
        )
        busy = False
        for replica in self._replicas.all:
            if replica.under_way:
                busy = True
                self._look_at(replica, now_us)
            else:
                replica.pace = rested(replica.pace)
        if self._queue or self._recovery.alone or busy:
            self._keep_looking()
            self._dispatcher.pump()
        self._dispatcher.look_idle()

    def _look_at(self, replica: Replica, now_us: int) -> None:
        """A device at work. Whoever waits for its answer in vain is told when the time is over, not when it ends."""
        if why := self._routing.hangs(self._replicas.all, replica, now_us, self._options.run_limit_s * 1e6):
            self._replicas.give_up(replica, why)
        late = [job for run in replica.under_way.values() for job in run.jobs if job.deadline_us <= now_us]
        late = [job for job in late if not job.cancelled]
        self._recovery.refuse_late(late, "the deadline passed before the answer")
        for job in late:
            job.cancelled = True

    def _sizes(self, spec: DeviceSpec) -> list[list[int]]:
        free = measure_sizes(self.signature.max_rows if self._options.batching else 1)
        return [list(free) if bucket.rows is None else [bucket.rows] for bucket in spec.buckets]

    def _may_wait(self, job: Job) -> bool:
        """False where it was refused: the version is closed, or has no device for too long."""
        if self._closed:
            self._reporter.refuse(job, NotReadyError(self._closed, retry_after_s=0.1), ShedReason.NOT_READY)
            return False
        if self._outage.is_hopeless(job.arrived_us) and not self._replicas.any_ready:
            self._reporter.refuse(job, self._outage.error(), ShedReason.NOT_READY)
            return False
        return True

    def _is_admitted(self, job: Job, nbytes: int) -> bool:
        """False where it was refused: it would come too late, or the queue is full."""
        refusal = admit(
            self._options.limits,
            len(self._queue),
            self._queue.bytes,
            nbytes,
            self._predicted_wait_us(job),
            job.deadline_us,
            job.arrived_us,
        )
        if refusal is None or self._makes_room(job, refusal):
            return True
        self._reporter.refuse(job, refusal.error(), refusal.reason)
        return False

    def _makes_room(self, job: Job, refusal: Refusal) -> bool:
        def evict(gone: Job) -> None:
            self._recovery.forget(gone)
            self._reporter.refuse(gone, refusal.error(), refusal.reason)

        is_full = refusal.reason is ShedReason.QUEUE_FULL
        return is_full and self._queue.make_room(job, self._options.limits, evict)

    def _predicted_wait_us(self, job: Job) -> float:
        return _CAUTION * self._routing.wait_us(self._replicas.all, job, self._queue.rows, self._options.budget_us)

    async def _settle_inline(self) -> None:
        replica = worth_it(self._replicas.all, self._options.inline, self.signature)
        if self._dispatcher.inline is not None or replica is None:
            return
        try:
            made = await asyncio.to_thread(InlineSession, replica, self.signature)
        except NpuopsError as error:
            _log.warning("%s is not computed inline: %s", self.model, error.message)
            return
        if self._closed:
            made.close()
        else:
            self._dispatcher.inline = made
