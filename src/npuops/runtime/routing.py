"""Which device runs the next request: the engine's devices, put before the judges (`router`, `fallback`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from npuops.build.fallback import FallbackPolicy
from npuops.runtime.batch_curve import BatchCurve
from npuops.runtime.buckets import NO_PADDING, AxisPadding, Bucket, choose, curve_over
from npuops.runtime.fallback import FallbackBudget
from npuops.runtime.job import Job
from npuops.runtime.replica import Replica
from npuops.runtime.router import Candidate, ranking, shard_key
from npuops.runtime.router import choose as choose_device
from npuops.runtime.signature import Form

_CURVES_KEPT = 256


class Routing:
    """Of one model version."""

    def __init__(self, policy: FallbackPolicy, shard: str, padding: AxisPadding = NO_PADDING) -> None:
        """As in the engine's options."""
        self.budget = FallbackBudget(policy)
        self.shard = shard
        self.padding = padding
        self._curves: dict[tuple[str, object], tuple[object, BatchCurve]] = {}

    def pick(self, replicas: Sequence[Replica], job: Job, now_us: int) -> Replica | None:
        """The device for this request now; None where it is better to wait."""
        if len(replicas) == 1:
            return replicas[0] if replicas[0].credits else None
        choice = choose_device(
            [self._candidate(replica, job.form, now_us) for replica in replicas],
            now_us,
            job.deadline_us,
            lambda: self.budget.may_take(job.form.rows, job.fallback, now_us),
            self._preferred(replicas, job),
        )
        if choice.device is None or choice.wait:
            return None
        return next(replica for replica in replicas if replica.spec.name == choice.device)

    def why_not(self, replicas: Sequence[Replica], job: Job, now_us: int) -> str:
        """Why no device will ever take it as things are; "" where one will."""
        if any(replica.ready and not replica.spec.fallback for replica in replicas):
            return ""
        fallbacks = [replica for replica in replicas if replica.ready]
        if not fallbacks:
            return "no device is healthy"
        verdict = self.budget.may_take(job.form.rows, job.fallback, now_us)
        return "" if verdict.allowed else f"only {fallbacks[0].spec.name} is healthy, and {verdict.why}"

    def bucket(self, replica: Replica, form: Form, rows: int) -> Bucket | None:
        """The artifact of a device that computes least for nothing; None where none takes these shapes."""
        return choose(replica.spec.buckets, form, rows, self.padding)

    def curve(self, replica: Replica, form: Form) -> BatchCurve:
        """How long runs of these shapes take there, whatever artifact they go to."""
        key = (replica.spec.name, form.key)
        found = self._curves.get(key)
        if found is None or found[0] is not replica.curves:
            if len(self._curves) >= _CURVES_KEPT:
                self._curves.clear()
            made = curve_over(replica.spec.buckets, replica.curves, form, self.padding)
            found = self._curves[key] = (replica.curves, made)
        return found[1]

    def shortest_us(self, replicas: Sequence[Replica]) -> float:
        """Of all runs of one row: sooner nothing can be answered."""
        return min((curve.us(1) for replica in replicas for curve in replica.curves), default=0.0)

    def run_us(self, replica: Replica, form: Form, rows: int) -> float:
        """How long a run of so many rows takes there; 0 where that was never measured."""
        return self.curve(replica, form).us(rows) if replica.curves else 0.0

    def wait_us(self, replicas: Sequence[Replica], form: Form, rows: int, budget_us: float) -> float:
        """Until a request that comes now is answered: what waits, shared by all devices, and its own run."""
        rate, own_us = 0.0, 0.0
        for replica in replicas:
            if not replica.ready or replica.spec.fallback or not replica.curves:
                continue
            own_us = max(own_us, self.run_us(replica, form, form.rows))
            us = self.curve(replica, form).backlog_us(rows, budget_us)
            rate += rows / us if us else 0.0
        return own_us + (rows / rate if rate else 0.0)

    def _candidate(self, replica: Replica, form: Form, now_us: int) -> Candidate:
        takes = self.bucket(replica, form, form.rows) is not None
        return Candidate(
            device=replica.spec.name,
            healthy=replica.ready and takes,
            fallback=replica.spec.fallback,
            credits=replica.credits,
            backlog_us=self.backlog_us(replica, now_us),
            run_us=self.run_us(replica, form, form.rows),
        )

    def backlog_us(self, replica: Replica, now_us: int) -> float:
        """Until what it has is done; the run under way has been at it since it was dispatched."""
        total, first = 0.0, True
        for run in replica.under_way.values():
            left = self.run_us(replica, run.jobs[0].form, run.rows)
            total += max(0.0, left - (now_us - run.dispatched_us)) if first else left
            first = False
        return total

    def _preferred(self, replicas: Sequence[Replica], job: Job) -> Sequence[str]:
        if not self.shard:
            return ()
        key = shard_key(self.shard, job.form, job_parameters(job))
        names = tuple(replica.spec.name for replica in replicas if not replica.spec.fallback)
        return ranking(key, names) if key else ()


def job_parameters(job: Job) -> Mapping[str, object]:
    """Those of the request, where its front end keeps them."""
    return getattr(job.context, "parameters", {})
