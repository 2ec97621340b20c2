"""The facts of one model version, as its engine tells them."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from math import prod

from npuops.errors import DataError, NpuopsError
from npuops.events import Observer
from npuops.runtime.delivery import refuse
from npuops.runtime.facts import BatchRan, BatchRetried, RequestFailed, RequestShed, ShedReason
from npuops.runtime.job import Job
from npuops.runtime.replica import Answer, DeviceSpec, Replica, Run
from npuops.runtime.signature import Shape


class Reporter:
    """Tells facts, and gives errors to the requests that they are about."""

    def __init__(self, model: str, version: str, observe: Observer) -> None:
        """Of this version."""
        self._model, self._version, self._observe = model, version, observe

    def refuse(self, job: Job, error: NpuopsError, reason: ShedReason) -> None:
        """A request is not run."""
        self.shed(job, reason)
        refuse(job, error)

    def shed(self, job: Job, reason: ShedReason) -> None:
        """A request is not run, and nobody waits for its answer."""
        self._observe(RequestShed(model=self._model, version=self._version, tenant=job.account, reason=reason))

    def fail(self, job: Job, replica: Replica, error: NpuopsError) -> None:
        """A request ran, and failed."""
        self._observe(
            RequestFailed(
                model=self._model,
                version=self._version,
                tenant=job.account,
                device=replica.spec.name,
                error=type(error).__name__,
            )
        )
        refuse(job, error)

    def refuse_shape(self, jobs: Sequence[Job], replica: Replica) -> None:
        """No artifact takes what they bring."""
        for job in jobs:
            shapes = ", ".join(str(list(shape)) for shape in job.form.shapes)
            self.fail(job, replica, DataError(f"no artifact of {self._model} takes the shapes {shapes}"))

    def retried(self, replica: Replica, requests: int, why: str) -> None:
        """Requests run again."""
        if requests:
            self._observe(
                BatchRetried(
                    model=self._model, version=self._version, device=replica.spec.name, requests=requests, why=why
                )
            )

    def ran(self, spec: DeviceSpec, run: Run, answer: Answer, now_us: int) -> None:
        """A run was answered."""
        jobs = run.jobs
        key = jobs[0].form.key
        elements = run.rows * _elements(key)
        computed = (
            elements if run.filled is None and run.padded == run.rows else run.padded * _elements(run.filled or key)
        )
        self._observe(
            BatchRan(
                model=self._model,
                version=self._version,
                device=spec.name,
                fell_back=spec.fallback,
                inline=False,
                arrived_us=tuple([job.arrived_us for job in jobs]),
                tenants=tuple([job.account for job in jobs]),
                rows=run.rows,
                padded_rows=run.padded - run.rows,
                dispatched_us=run.dispatched_us,
                started_us=answer.started_us,
                computed_us=answer.computed_us,
                answered_us=now_us,
                elements=elements,
                padded_elements=computed - elements,
            )
        )

    def ran_inline(self, spec: DeviceSpec, job: Job, moments: tuple[int, int, int, int]) -> None:
        """A request was computed in this process. `moments`: dispatched, started, computed, answered (µs)."""
        dispatched_us, started_us, computed_us, answered_us = moments
        self._observe(
            BatchRan(
                model=self._model,
                version=self._version,
                device=spec.name,
                fell_back=spec.fallback,
                inline=True,
                arrived_us=(job.arrived_us,),
                tenants=(job.account,),
                rows=job.form.rows,
                padded_rows=0,
                dispatched_us=dispatched_us,
                started_us=started_us,
                computed_us=computed_us,
                answered_us=answered_us,
                elements=job.form.rows * _elements(job.form.key),
            )
        )


@lru_cache(maxsize=4096)
def _elements(shapes: tuple[Shape, ...]) -> int:
    """Of all inputs together. Few shapes come again and again."""
    return sum(map(prod, shapes))
