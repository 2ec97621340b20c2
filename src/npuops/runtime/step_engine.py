"""A model with a pipeline, answering: pictures to the step processes, tensors to the model, scores to labels."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Coroutine, Sequence
from functools import partial
from typing import Any, Final, Protocol

import numpy as np
from numpy.typing import NDArray

from npuops.errors import NpuopsError, RunError
from npuops.models.steps import Pipeline
from npuops.runtime.delivery import refuse
from npuops.runtime.job import Bytes, Completion, Job
from npuops.runtime.signature import Form, Signature, form_of
from npuops.runtime.step_worker import StepPool
from npuops.runtime.steps import Pictures
from npuops.runtime.text_tensor import read_text

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


class Inferred:
    """A completion that was copied out of the shared memory, so that it can be kept."""

    __slots__ = ("device", "fell_back", "outputs", "shapes")

    def __init__(self, completion: Completion) -> None:
        self.outputs = [bytes(output) for output in completion.outputs]
        self.shapes = completion.shapes
        self.device = completion.device
        self.fell_back = completion.fell_back


async def infer(model: Model, outer: Job, form: Form, parts: Sequence[Bytes]) -> Inferred:
    """Run one request of a model on behalf of another one, whose deadline, tenant and place it has.

    Raises:
        NpuopsError: the model's answer.
    """
    answer: asyncio.Future[Inferred] = asyncio.get_running_loop().create_future()
    inner = Job(
        form,
        parts,
        partial(_receive, answer),
        outer.arrived_us,
        tenant=outer.tenant,
        priority=outer.priority,
        deadline_us=outer.deadline_us,
        fallback=outer.fallback,
    )
    model.submit(inner)
    try:
        return await answer
    except asyncio.CancelledError:
        model.cancel(inner)
        raise


def _receive(answer: asyncio.Future[Inferred], _job: Job, found: Completion | NpuopsError) -> None:
    if answer.done():
        return
    if isinstance(found, NpuopsError):
        answer.set_exception(found)
    else:
        answer.set_result(Inferred(found))


class Errands:
    """One task for each request, with the promise that its receiver is called exactly once."""

    def __init__(self) -> None:
        """Nothing is under way."""
        self._tasks: dict[Job, asyncio.Task[Completion]] = {}

    def start(self, job: Job, work: Coroutine[Any, Any, Completion]) -> None:
        """Answer `job` with what the coroutine `work` gives or raises."""
        task: asyncio.Task[Completion] = asyncio.get_running_loop().create_task(work)
        self._tasks[job] = task
        task.add_done_callback(partial(self._done, job))

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more."""
        job.cancelled = True
        task = self._tasks.pop(job, None)
        if task is not None:
            task.cancel()

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
            refuse(job, RunError("the request was dropped while the server stopped"))
            return
        error = task.exception()
        if error is None:
            _give(job, task.result())
            return
        found = first_error(error)
        if not isinstance(found, NpuopsError):
            _log.error("a pipeline failed", exc_info=found)
            found = RunError(f"the pipeline failed: {type(found).__name__}", advice="see the server's log")
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


class PipelinedModel:
    """Pictures in, labels out; each picture is an inference of its own, which the model's engine batches as it likes.

    Attributes:
        signature: as clients see it.
    """

    def __init__(
        self, pipeline: Pipeline, labels: Sequence[str] | None, inner: Signature, model: Model, pool: StepPool
    ) -> None:
        """Check that the pipeline fits the model.

        Raises:
            OptionError: it does not.
        """
        self._pictures = Pictures(pipeline, inner, labels)
        self.signature = self._pictures.signature
        self._steps, self._model, self._pool = pipeline.preprocess, model, pool
        self._form = form_of(inner, [self._pictures.row])
        self._errands = Errands()

    @property
    def is_ready(self) -> bool:
        """As the model is."""
        return self._model.is_ready

    def submit(self, job: Job) -> None:
        """Take a request; its receiver is called exactly once, unless the job is cancelled."""
        self._errands.start(job, self._answer(job))

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more."""
        self._errands.cancel(job)

    async def _answer(self, job: Job) -> Completion:
        pictures = read_text(job.parts[0], job.form.shapes[0])
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(self._classify(picture, job)) for picture in pictures]
        found = [task.result() for task in tasks]
        rows: list[NDArray[Any]] = [self._pictures.scores(one.outputs[self._pictures.output]) for one in found]
        parts, shapes = self._pictures.answer(np.concatenate(rows))
        devices = dict.fromkeys(one.device for one in found)
        return Completion(parts, shapes, "+".join(devices), fell_back=any(one.fell_back for one in found))

    async def _classify(self, picture: bytes, job: Job) -> Inferred:
        tensor = await self._pool.submit(self._steps, picture, deadline_us=job.deadline_us)
        return await infer(self._model, job, self._form, [tensor])
