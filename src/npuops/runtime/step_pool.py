"""A small pool of processes that turn pictures into tensors, so that neither the event loop nor a device waits for it.

Strangers' pictures are decoded here and nowhere else in a server: a decoder that crashes or hangs costs one process,
which is replaced, and one picture. Who is next is decided as for a device: by class, then by shares of the tenants.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

from npuops.clock import Clock
from npuops.errors import DataError, DeadlineError, NotReadyError, NpuopsError
from npuops.events import Observer
from npuops.models.steps import PreStep
from npuops.runtime.admission import Limits, Refusal, admit
from npuops.runtime.doorbell import Told, raised
from npuops.runtime.facts import ShedReason
from npuops.runtime.fair_queue import FairQueue
from npuops.runtime.job import DEFAULT_TENANT, NO_DEADLINE, Bytes, Completion, Job
from npuops.runtime.signature import Form
from npuops.runtime.step_facts import StepProcessEnded
from npuops.runtime.step_process import ERROR
from npuops.runtime.step_worker import StepWorker

ATTEMPTS: Final = 2
"""Processes that a picture may cost: the first may have been ended by somebody else."""
STARTS: Final = 3
"""Processes that may fail to start for one picture, which no picture is to blame for."""
TICK_S: Final = 0.02
"""How often those that wait are looked at for their deadlines."""
_FORM: Final = Form(rows=1, shapes=((1,),), sizes=(-1,), total_bytes=0, key=((),))
"""Of every picture: to the queue they are all alike."""
_FIRST_US: Final = 4_000.0
"""Taken for the time of a picture before one was measured."""
_NEWEST: Final = 0.1
"""Weight of the newest picture in the mean."""
_OUTLIER: Final = 4.0
"""Times the mean: a picture counts for no more, so that a huge one says little of the next ones."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """How pictures are prepared.

    Attributes:
        processes: None: half of the processor's cores, at least one.
        limit_s: for one picture; then its process is replaced.
        waiting: what may wait, of all models and tenants together; beyond, whoever has most loses its newest.
    """

    processes: int | None = None
    limit_s: float = 5.0
    waiting: Limits = field(default_factory=lambda: Limits(max_queue_requests=256))


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """A picture that became a tensor.

    Attributes:
        tensor: its bytes, in the dtype and layout that the steps say.
        arrived_us: it came here.
        started_us: a process took it.
        ended_us: it was done.
    """

    tensor: bytearray
    arrived_us: int
    started_us: int
    ended_us: int


@dataclass(slots=True)
class _Task:
    steps: bytes
    answer: asyncio.Future[Prepared]
    attempts: int = 0
    starts: int = 0


class StepPool:
    """Give it pictures from the event loop's thread; it answers with futures.

    Attributes:
        pids: of its processes.
        idle: places whose process waits for a picture.
    """

    def __init__(
        self, options: StepOptions, clock: Clock, observe: Observer, weights: Callable[[str], float] = lambda _: 1.0
    ) -> None:
        """No process runs before `start`. `weights` gives the share of a tenant, above 0."""
        self._options, self._clock, self._observe = options, clock, observe
        self._queue = FairQueue(weights)
        self._arrival = asyncio.Event()
        self._starting: asyncio.Task[None] | None = None
        self._places: list[asyncio.Task[None]] = []
        self._tick: asyncio.TimerHandle | None = None
        self._mean_us = _FIRST_US
        self._closed = False
        self.pids: set[int] = set()
        self.idle = 0

    async def start(self) -> None:
        """Start the processes; they are ready when this returns. A second call does nothing.

        Raises:
            RunError: the system does not start a process, or it does not come up.
            StorageError: there is no shared memory for it.
            NotReadyError: the pool was closed.
        """
        if self._closed:
            raise NotReadyError("the server stops")
        if self._starting is None:
            self._starting = asyncio.create_task(self._start())
        # A caller that is cancelled leaves the others, and the processes that were begun, alone.
        await asyncio.shield(self._starting)

    def submit(
        self,
        steps: Sequence[PreStep],
        data: Bytes,
        *,
        tenant: str = DEFAULT_TENANT,
        priority: int = 0,
        deadline_us: int = NO_DEADLINE,
    ) -> asyncio.Future[Prepared]:
        """Prepare one picture. Cancelling the future takes it back.

        Args:
            steps: of a pipeline.
            data: the encoded picture; must stay as it is until the future is done.
            tenant: whose share it uses.
            priority: 0 first.
            deadline_us: on the pool's clock; what waits longer is dropped.

        Returns:
            A future. It fails with DataError (no readable picture), DeadlineError, OverloadedError (too many wait),
            NotReadyError (the pool is closed), or RunError.
        """
        answer: asyncio.Future[Prepared] = asyncio.get_running_loop().create_future()
        if self._closed or not self._places:
            answer.set_exception(NotReadyError("the preparation of pictures is not running"))
            return answer
        now_us = self._clock.now_us()
        task = _Task(steps=_encoded(tuple(steps)), answer=answer)
        job = Job(_FORM, [data], _answered, now_us, task, tenant, priority, deadline_us)
        queue = self._queue
        refusal = admit(self._options.waiting, len(queue), queue.bytes, len(data), self._wait_us(), deadline_us, now_us)
        if refusal is not None and not self._makes_room(job, refusal):
            _fail(job, refusal.error())
            return answer
        queue.push(job)
        answer.add_done_callback(lambda _: queue.withdraw(job) if answer.cancelled() else None)
        self._arrival.set()
        if self._tick is None and deadline_us < NO_DEADLINE:
            self._tick = asyncio.get_running_loop().call_later(TICK_S, self._drop_late)
        return answer

    @property
    def is_started(self) -> bool:
        """It has processes, or makes new ones."""
        return bool(self._places)

    @property
    def waiting(self) -> int:
        """Pictures that no process has begun."""
        return len(self._queue)

    async def close(self) -> None:
        """End all processes; whoever still waits gets NotReadyError. A second call does nothing."""
        self._closed = True
        if self._tick is not None:
            self._tick.cancel()
            self._tick = None
        if self._starting is not None:
            await asyncio.gather(self._starting, return_exceptions=True)
        places, self._places = self._places, []
        for place in places:
            place.cancel()
        await asyncio.gather(*places, return_exceptions=True)
        for job in self._queue.drain():
            _fail(job, NotReadyError("the server stops"))

    def _wait_us(self) -> float:
        """Until a picture that comes now would be done.

        0 where a process has nothing to do: a mean that slow pictures left behind would otherwise refuse everybody who
        has a deadline, and without a picture that is let through it would never change.
        """
        if self.idle and not self._queue:
            return 0.0
        return self._mean_us * (1 + len(self._queue) / len(self._places))

    def _makes_room(self, job: Job, refusal: Refusal) -> bool:
        is_full = refusal.reason is ShedReason.QUEUE_FULL
        return is_full and self._queue.make_room(job, self._options.waiting, lambda gone: _fail(gone, refusal.error()))

    async def _start(self) -> None:
        count = self._options.processes or max(1, len(os.sched_getaffinity(0)) // 2)
        found = await asyncio.gather(*(self._new() for _ in range(count)), return_exceptions=True)
        workers = [worker for worker in found if isinstance(worker, StepWorker)]
        failed = next((error for error in found if isinstance(error, BaseException)), None)
        if failed is not None:
            self._starting = None
            await asyncio.gather(*(self._end(worker) for worker in workers))
            raise failed
        self._places = [asyncio.create_task(self._serve(worker)) for worker in workers]

    async def _new(self) -> StepWorker:
        worker = await StepWorker.started()
        self.pids.add(worker.pid)
        return worker

    async def _end(self, worker: StepWorker) -> str:
        self.pids.discard(worker.pid)
        return await worker.end()

    async def _next(self) -> Job:
        """Whose turn it is, as soon as there is somebody."""
        while (first := self._queue.next()) is None:
            self._arrival.clear()
            self.idle += 1
            try:
                await self._arrival.wait()
            finally:
                self.idle -= 1
        (job,) = self._queue.take(first.form.rows, first.form.key)
        return job

    async def _serve(self, worker: StepWorker | None) -> None:
        """One place in the pool: a process, and after its end another."""
        job: Job | None = None
        try:
            while True:
                # A picture whose process died is tried once more on a fresh one, which nobody can have ended before.
                if job is None or job.context.answer.done():
                    job = await self._next()
                if self._is_over(job):
                    continue
                if worker is None:
                    worker = await self._revived(job)
                elif not await self._try(worker, job):
                    lost, worker = worker, None
                    self._observe(StepProcessEnded(pid=lost.pid, why=await self._end(lost)))
        finally:
            if job is not None:
                _fail(job, NotReadyError("the server stops"))
            if worker is not None:
                await self._end(worker)

    async def _revived(self, job: Job) -> StepWorker | None:
        try:
            return await self._new()
        except NpuopsError as error:  # killed while it started, no memory, no descriptor left: no end of the place
            task: _Task = job.context
            task.starts += 1
            if task.starts == STARTS:
                _fail(job, error)
            return None

    def _is_over(self, job: Job) -> bool:
        if self._clock.now_us() > job.deadline_us:
            _fail(job, DeadlineError("the deadline passed before the picture was prepared"))
        return bool(job.context.answer.done())

    async def _try(self, worker: StepWorker, job: Job) -> bool:
        """Whether the process lives on."""
        task: _Task = job.context
        task.attempts += 1
        limit_s, started_us = self._options.limit_s, self._clock.now_us()
        try:
            kind, payload = await asyncio.wait_for(worker.ask(task.steps, job.parts[0], limit_s), limit_s)
        except TimeoutError:
            words = f"the picture takes longer than {limit_s:g} s to prepare"
            _fail(job, DataError(words, advice="send it smaller"))
            return False
        except (OSError, EOFError):
            if task.attempts == ATTEMPTS:
                _fail(job, DataError("the picture ended the process that decoded it, twice"))
            return False
        ended_us = self._clock.now_us()
        self._mean_us += _NEWEST * (min(ended_us - started_us, _OUTLIER * self._mean_us) - self._mean_us)
        if kind == ERROR:
            _fail(job, raised(msgspec.json.decode(payload, type=Told)))
        elif not task.answer.done():
            task.answer.set_result(
                Prepared(tensor=payload, arrived_us=job.arrived_us, started_us=started_us, ended_us=ended_us)
            )
        return True

    def _drop_late(self) -> None:
        """Who waits in vain is told when its time is over, not when its turn comes."""
        self._tick = None
        for job in self._queue.expire(self._clock.now_us()):
            _fail(job, DeadlineError("the deadline passed before the picture was prepared"))
        if self._queue:
            self._tick = asyncio.get_running_loop().call_later(TICK_S, self._drop_late)


_ENCODED: dict[tuple[PreStep, ...], bytes] = {}


def _encoded(steps: tuple[PreStep, ...]) -> bytes:
    found = _ENCODED.get(steps)
    if found is None:
        found = _ENCODED[steps] = msgspec.json.encode(steps)
    return found


def _fail(job: Job, error: NpuopsError) -> None:
    _answered(job, error)


def _answered(job: Job, found: Completion | NpuopsError) -> None:
    answer: asyncio.Future[Prepared] = job.context.answer
    if isinstance(found, NpuopsError) and not answer.done():
        answer.set_exception(found)
