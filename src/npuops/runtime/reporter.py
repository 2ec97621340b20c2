"""The facts of one model version, as its engine tells them."""

from __future__ import annotations

from npuops.errors import NpuopsError
from npuops.events import Observer
from npuops.runtime.buckets import padding
from npuops.runtime.delivery import refuse
from npuops.runtime.facts import BatchRan, BatchRetried, RequestFailed, RequestShed, ShedReason
from npuops.runtime.job import Job
from npuops.runtime.replica import Answer, DeviceSpec, Replica, Run


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
        self._observe(RequestShed(model=self._model, version=self._version, tenant=job.tenant, reason=reason))

    def fail(self, job: Job, replica: Replica, error: NpuopsError) -> None:
        """A request ran, and failed."""
        self._observe(
            RequestFailed(
                model=self._model,
                version=self._version,
                tenant=job.tenant,
                device=replica.spec.name,
                error=type(error).__name__,
            )
        )
        refuse(job, error)

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
        self._observe(
            BatchRan(
                model=self._model,
                version=self._version,
                device=spec.name,
                fell_back=spec.fallback,
                inline=False,
                arrived_us=tuple([job.arrived_us for job in jobs]),
                tenants=tuple([job.tenant for job in jobs]),
                rows=run.rows,
                padded_rows=padding(run.rows, run.bucket),
                dispatched_us=run.dispatched_us,
                started_us=answer.started_us,
                computed_us=answer.computed_us,
                answered_us=now_us,
            )
        )
