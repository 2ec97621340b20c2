"""Requests that are answered by other requests: one task for each, with an engine's promises towards who sent it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Final, Protocol

from npuops.errors import NotReadyError, NpuopsError, RunError
from npuops.runtime.delivery import refuse
from npuops.runtime.job import Bytes, Completion, Job
from npuops.runtime.signature import Form, Signature

_log: Final = logging.getLogger(__name__)


class Model(Protocol):
    """What takes requests for a model version: an engine."""

    def submit(self, job: Job) -> None:
        """Take a request; its receiver is called exactly once, unless the job is cancelled."""
        ...

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more."""
        ...

    @property
    def is_ready(self) -> bool:
        """Requests are answered."""
        ...

    @property
    def signature(self) -> Signature:
        """What requests must look like."""
        ...


class Inferred:
    """A completion that was copied out of the shared memory, so that it can be kept."""

    __slots__ = ("device", "fell_back", "outputs", "shapes")

    def __init__(self, completion: Completion) -> None:
        self.outputs = [bytes(output) for output in completion.outputs]
        self.shapes = completion.shapes
        self.device = completion.device
        self.fell_back = completion.fell_back


async def infer(model: Model, outer: Job, form: Form, parts: Sequence[Bytes], now_us: int, *, account: str) -> Inferred:
    """Run one request of a model on behalf of another one, whose deadline, tenant and place it has.

    Args:
        model: that answers.
        outer: the request that it is for.
        form: of the new one.
        parts: its inputs.
        now_us: when it comes: not when the outer one did, since what happened in between is not this model's queue.
        account: of the tenant, or "" where the outer request is counted elsewhere (`Job.account`).

    Raises:
        NpuopsError: the model's answer.
    """
    answer: asyncio.Future[Inferred] = asyncio.get_running_loop().create_future()
    inner = Job(
        form,
        parts,
        _receive,
        now_us,
        context=answer,
        tenant=outer.tenant,
        priority=outer.priority,
        deadline_us=outer.deadline_us,
        fallback=outer.fallback,
    )
    inner.account = account
    model.submit(inner)
    try:
        return await answer
    except asyncio.CancelledError:
        if inner.context is not None:
            model.cancel(inner)
        raise


def _receive(job: Job, found: Completion | NpuopsError) -> None:
    answer: asyncio.Future[Inferred] = job.context
    job.context = None
    if answer.done():
        return
    if isinstance(found, NpuopsError):
        answer.set_exception(found)
    else:
        answer.set_result(Inferred(found))


class Errands:
    """One task for each request; its receiver is called exactly once."""

    def __init__(self, what: str) -> None:
        """`what` it is that fails, for the log."""
        self._what = what
        self._tasks: dict[Job, asyncio.Task[Completion]] = {}
        self._closed = ""

    def start(self, job: Job, work: Coroutine[Any, Any, Completion]) -> None:
        """Answer `job` with what the coroutine `work` gives or raises."""
        if self._closed:
            work.close()
            refuse(job, NotReadyError(self._closed, retry_after_s=0.1))
            return
        task: asyncio.Task[Completion] = asyncio.get_running_loop().create_task(work)
        self._tasks[job] = task
        task.add_done_callback(partial(self._done, job))

    def cancel(self, job: Job) -> bool:
        """Nobody waits for it any more. False where it was answered before."""
        job.cancelled = True
        task = self._tasks.pop(job, None)
        return task is not None and task.cancel()

    async def drain(self, limit_s: float) -> bool:
        """Wait until all are answered; False where the time is over first."""
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=limit_s)
        return not self._tasks

    async def close(self, why: str) -> None:
        """Refuse those that are under way, and all that come."""
        self._closed = why
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def __len__(self) -> int:
        """How many are under way."""
        return len(self._tasks)

    def _done(self, job: Job, task: asyncio.Task[Completion]) -> None:
        self._tasks.pop(job, None)
        if job.cancelled:
            if not task.cancelled():
                task.exception()  # nobody waits for it: that is no news
            return
        if task.cancelled():
            refuse(job, NotReadyError(self._closed or "the request was dropped", retry_after_s=0.1))
            return
        error = task.exception()
        if error is None:
            _give(job, task.result())
            return
        found = first_error(error)
        if not isinstance(found, NpuopsError):
            _log.error("a %s failed", self._what, exc_info=found)
            found = RunError(f"the {self._what} failed: {type(found).__name__}", advice="see the server's log")
        refuse(job, found)


def _give(job: Job, completion: Completion) -> None:
    try:
        job.receiver(job, completion)
    except Exception:  # noqa: BLE001 - a defect of a front end must not take the answers of others with it
        _log.exception("a receiver failed")


def first_error(error: BaseException) -> BaseException:
    """The first of a group, which says what went wrong; the others followed from it, or came later."""
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    return error
