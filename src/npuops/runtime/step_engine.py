"""A model with a pipeline, answering: pictures to the step processes, tensors to the model, scores to labels."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from npuops.clock import Clock
from npuops.errors import DataError, NpuopsError
from npuops.events import Observer
from npuops.models.steps import Pipeline
from npuops.runtime.bytes_tensor import check_elements, element_views
from npuops.runtime.job import Bytes, Completion, Job
from npuops.runtime.signature import form_of
from npuops.runtime.step_errands import Errands, Inferred, Model, infer
from npuops.runtime.step_facts import StepsRan, cancelled, unanswered
from npuops.runtime.step_pool import Prepared, StepPool
from npuops.runtime.steps import IMAGE, Pictures

HOST: Final = "host"
"""The device of steps, in facts and metrics: they run on the server's own processor."""


class PipelinedModel:
    """Pictures in, labels out; each picture is an inference of its own, which the model's engine batches as it likes.

    Attributes:
        signature: as clients see it.
        last_used_us: when the last request came.
    """

    def __init__(
        self,
        identity: tuple[str, str],
        pipeline: Pipeline,
        labels: Sequence[str] | None,
        model: Model,
        pool: StepPool,
        clock: Clock,
        observe: Observer,
    ) -> None:
        """Check that the pipeline fits the model.

        Args:
            identity: model and version, for the facts.
            pipeline: of its artifacts.
            labels: of its classes.
            model: takes tensors. It belongs to the caller, who closes it after this.
            pool: makes them of pictures.
            clock: the model's, and the pool's.
            observe: gets the facts of the steps; those of the model are its own.

        Raises:
            OptionError: it does not.
        """
        self._pictures = Pictures(pipeline, model.signature, labels)
        self.signature = self._pictures.signature
        self._identity = identity
        self._steps, self._model, self._pool = pipeline.preprocess, model, pool
        self._form = form_of(model.signature, [self._pictures.row])
        self._errands = Errands("pipeline")
        self._clock, self._observe = clock, observe
        self.last_used_us = clock.now_us()

    @property
    def is_ready(self) -> bool:
        """As the model is."""
        return self._model.is_ready

    @property
    def in_flight(self) -> int:
        """Requests that are not answered."""
        return len(self._errands)

    def submit(self, job: Job) -> None:
        """Take a request; its receiver is called exactly once, unless the job is cancelled."""
        self.last_used_us = job.arrived_us
        self._errands.start(job, self._answer(job))

    def cancel(self, job: Job) -> None:
        """Nobody waits for it any more: its pictures leave the queues."""
        self._errands.cancel(job)

    async def drain(self, limit_s: float) -> bool:
        """Wait until all that was taken is answered; False where the time is over first."""
        return await self._errands.drain(limit_s)

    async def close(self) -> None:
        """Refuse what is under way. The model and the pool stay."""
        await self._errands.close("the model is being unloaded")

    async def _answer(self, job: Job) -> Completion:
        # The request's own bytes, which stay until it is answered: copies would double what waits.
        check_elements(job.parts[0], job.form.rows, IMAGE)
        pictures = element_views(job.parts[0])
        if len(pictures) == 1:
            found = [await self._classify(pictures[0], job, "", job.account)]
        else:
            async with asyncio.TaskGroup() as group:
                tasks = [
                    group.create_task(
                        # Of the request's pictures one stands for it in the tenant's counters.
                        self._classify(
                            picture, job, f"picture {place} of {len(pictures)}: ", job.account if place == 1 else ""
                        )
                    )
                    for place, picture in enumerate(pictures, start=1)
                ]
            found = [task.result() for task in tasks]
        rows: list[NDArray[Any]] = [self._pictures.scores(one.outputs[self._pictures.output]) for one in found]
        parts, shapes = self._pictures.answer(np.concatenate(rows))
        devices = dict.fromkeys(one.device for one in found)
        return Completion(parts, shapes, "+".join(devices), fell_back=any(one.fell_back for one in found))

    async def _classify(self, picture: Bytes, job: Job, which: str, account: str) -> Inferred:
        prepared = await self._prepared(picture, job, which, account)
        return await infer(self._model, job, self._form, [prepared.tensor], prepared.ended_us, account=account)

    async def _prepared(self, picture: Bytes, job: Job, which: str, account: str) -> Prepared:
        model, version = self._identity
        try:
            prepared = await self._pool.submit(
                self._steps, picture, tenant=job.tenant, priority=job.priority, deadline_us=job.deadline_us
            )
        except asyncio.CancelledError:
            self._observe(cancelled(self._identity, account))
            raise
        except NpuopsError as error:
            self._observe(unanswered(self._identity, account, HOST, error))
            if which and isinstance(error, DataError):
                raise DataError(which + error.message, advice=error.advice) from error
            raise
        self._observe(
            StepsRan(
                model=model,
                version=version,
                tenant=job.tenant,
                requested_us=job.arrived_us,
                arrived_us=prepared.arrived_us,
                started_us=prepared.started_us,
                ended_us=prepared.ended_us,
            )
        )
        return prepared
