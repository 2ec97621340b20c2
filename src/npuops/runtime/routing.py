"""Which device runs the next request: the engine's devices, put before the judges (`router`, `fallback`)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import inf

from npuops.build.fallback import FallbackPolicy
from npuops.runtime.batch_curve import BatchCurve
from npuops.runtime.buckets import NO_PADDING, AxisPadding, Bucket, choose, curve_over
from npuops.runtime.curve_correction import CurveCorrection
from npuops.runtime.fallback import FallbackBudget
from npuops.runtime.job import NO_DEADLINE, Job
from npuops.runtime.patience import followed, is_overdue, left_us, must_move
from npuops.runtime.replica import Answer, Replica, Run
from npuops.runtime.router import BY_SHAPE, Candidate, ranking, shard_key, takes_part
from npuops.runtime.router import choose as choose_device
from npuops.runtime.signature import Form

_CURVES_KEPT = 256


class Routing:
    """Of one model version."""

    def __init__(
        self, policy: FallbackPolicy, shard: str, padding: AxisPadding = NO_PADDING, spill_us: float = 0.0
    ) -> None:
        """As in the engine's options."""
        self.budget = FallbackBudget(policy)
        self.shard = shard
        self.spill_us = spill_us
        self.padding = padding
        self._correction = CurveCorrection()
        self._curves: dict[tuple[str, object], tuple[object, BatchCurve]] = {}

    def reconfigure(self, policy: FallbackPolicy, shard: str, spill_us: float) -> None:
        """Another policy from now on; what fell back so far still counts."""
        self.budget.policy = policy
        self.shard = shard
        self.spill_us = spill_us

    def pick(
        self, replicas: Sequence[Replica], job: Job, now_us: int, rows: int = 0, budget_us: float = 0.0
    ) -> Replica | None:
        """The device for this request now; None where it is better to wait.

        Args:
            replicas: all of the engine.
            job: whose turn it is.
            now_us: the moment.
            rows: of all that wait, its own included, where it may be spilled for the sake of the others.
            budget_us: longest run that batching may make.
        """
        if len(replicas) == 1:
            return replicas[0] if replicas[0].credits else None
        if job.avoid:
            replicas = self.others(replicas, job.avoid, job, now_us) or replicas
        choice = choose_device(
            [self._candidate(replica, job.form, now_us, rows, budget_us) for replica in replicas],
            now_us,
            job.deadline_us,
            lambda: self.budget.may_take(job.form.rows, job.fallback, now_us),
            self._preferred(replicas, job),
            self.spill_us if rows else 0.0,
        )
        if choice.device is None or choice.wait:
            return None
        return next(replica for replica in replicas if replica.spec.name == choice.device)

    def companions(self, replicas: Sequence[Replica], replica: Replica, jobs: list[Job]) -> tuple[list[Job], list[Job]]:
        """Of a batch led by the first one: who may share its run there, and who must not."""
        by_parameter = self.shard not in {"", BY_SHAPE}
        if not by_parameter and not replica.spec.fallback and not any(job.avoid for job in jobs):
            return jobs, []
        home = self._preferred(replicas, jobs[0])[:1]
        stays = [
            job is jobs[0]
            or (
                not (replica.spec.fallback and job.fallback == "forbid")
                and job.avoid != replica.spec.name
                and self._preferred(replicas, job)[:1] in {(), home}
            )
            for job in jobs
        ]
        together = [job for job, stay in zip(jobs, stays, strict=True) if stay]
        return together, [job for job, stay in zip(jobs, stays, strict=True) if not stay]

    def is_particular(self, replicas: Sequence[Replica], job: Job) -> bool:
        """Whether a request that waits for its device must not keep those behind it from one that is free."""
        free = [replica for replica in replicas if replica.credits]
        if not free:
            return False
        if self.shard or job.avoid or job.fallback == "forbid":
            return True
        return any(self.bucket(replica, job.form, job.form.rows) is None for replica in free)

    def why_not(self, replicas: Sequence[Replica], job: Job, now_us: int) -> str:
        """Why no device takes it while only fallbacks are ready; "" where one does, or none is ready at all."""
        fallbacks = [replica for replica in replicas if replica.ready and replica.spec.fallback]
        if not fallbacks:
            return ""
        verdict = self.budget.may_take(job.form.rows, job.fallback, now_us)
        return "" if verdict.allowed else f"only {fallbacks[0].spec.name} is healthy, and {verdict.why}"

    def takes(self, replicas: Sequence[Replica], form: Form) -> bool:
        """Whether any device has an artifact for these shapes, be it ready or not."""
        return any(self.bucket(replica, form, form.rows) is not None for replica in replicas)

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
        return self.curve(replica, form).us(rows) * replica.pace if replica.curves else 0.0

    def wait_us(self, replicas: Sequence[Replica], job: Job, rows: int, budget_us: float) -> float:
        """Until a request that comes now is answered: what waits, shared by the devices, and its own run on the best.

        A device that is too slow to be chosen does not count, neither its rate nor its run.
        A fallback that it may have answers it when the deadline comes near, whatever waits for the other devices.
        """
        form, now_us = job.form, job.arrived_us
        own: list[tuple[Replica, float]] = []
        fallback_us = inf
        for replica in replicas:
            if not replica.ready or not replica.curves:
                continue
            run_us = self.run_us(replica, form, form.rows)
            if not replica.spec.fallback:
                if run_us > 0 and self.bucket(replica, form, form.rows) is not None:
                    own.append((replica, run_us))
            elif self._may(replica, job, now_us):
                fallback_us = min(fallback_us, self.backlog_us(replica, now_us) + run_us)
        if not own:
            return 0.0
        best, best_us = min(own, key=lambda each: each[1])
        longest_us = self.run_us(best, form, self.curve(best, form).best_rows(budget_us))
        rate = 0.0
        for replica, run_us in own:
            if takes_part(run_us, best_us, longest_us, 0.0):
                us = self.curve(replica, form).backlog_us(rows, budget_us) * replica.pace
                rate += rows / us if us else 0.0
        return min(best_us + (rows / rate if rate else 0.0), fallback_us)

    def _candidate(self, replica: Replica, form: Form, now_us: int, rows: int, budget_us: float) -> Candidate:
        takes = self.bucket(replica, form, form.rows) is not None
        batch_us = work_us = 0.0
        if self.spill_us > 0 and rows and takes:
            curve = self.curve(replica, form)
            batch_us = self.run_us(replica, form, max(form.rows, min(rows, curve.best_rows(budget_us))))
            work_us = curve.backlog_us(rows, budget_us) * replica.pace
        return Candidate(
            device=replica.spec.name,
            healthy=replica.ready and takes,
            fallback=replica.spec.fallback,
            credits=replica.credits,
            backlog_us=self.backlog_us(replica, now_us),
            run_us=self.run_us(replica, form, form.rows),
            batch_us=batch_us,
            work_us=work_us,
        )

    def backlog_us(self, replica: Replica, now_us: int) -> float:
        """Until what it has is done."""
        total, first = 0.0, True
        for run in replica.under_way.values():
            us = self.run_us(replica, run.jobs[0].form, run.rows)
            total += left_us(us, now_us - replica.began_us) if first else us
            first = False
        return total

    def ran(self, replica: Replica, run: Run, answer: Answer) -> None:
        """A run was answered: it counts for the budget, and tells how the device keeps to its curve."""
        self.budget.ran(run.rows, replica.spec.fallback, run.dispatched_us)
        if replica.curves:
            form, took_us = run.jobs[0].form, answer.computed_us - answer.started_us
            predicted_us = self.curve(replica, form).us(run.rows)
            replica.pace = followed(replica.pace, predicted_us, took_us)
            if run.bucket.shapes == form.key:  # else runs are shorter where their tensors are
                self._correct(replica, run, took_us)

    def _correct(self, replica: Replica, run: Run, took_us: int) -> None:
        index, curves = run.bucket.index, replica.curves
        right = self._correction.ran(replica.spec.name, index, curves, run.padded, took_us)
        if right is not None:
            # The pace had followed these runs: it is one against the new curve.
            replica.pace *= curves[index].us(run.padded) / max(right[index].us(run.padded), 1e-3)
            replica.curves = right

    def hangs(self, replicas: Sequence[Replica], replica: Replica, now_us: int, limit_us: float) -> str:
        """Why the oldest run of a device is not waited for any longer; "" while it is."""
        run = next(iter(replica.under_way.values()))
        taken_us = now_us - replica.began_us
        if taken_us > limit_us:
            return f"a run took longer than {limit_us / 1e6:g} s"
        jobs = (job for each in replica.under_way.values() for job in each.jobs)
        job = min(jobs, key=lambda each: each.deadline_us)
        if job.deadline_us == NO_DEADLINE or not is_overdue(self.run_us(replica, run.jobs[0].form, run.rows), taken_us):
            return ""
        others = self.others(replicas, replica.spec.name, job, now_us)
        other_us = min((self.run_us(other, job.form, job.form.rows) for other in others), default=None)
        if other_us is None or not must_move(job.deadline_us - now_us, other_us):
            return ""
        return f"a run has taken {taken_us / 1e6:.3g} s, and its requests can still be answered in time elsewhere"

    def others(self, replicas: Sequence[Replica], name: str, job: Job, now_us: int) -> list[Replica]:
        """Devices beside the one of that name that may have the request, now or when a run of theirs is done."""
        return [replica for replica in replicas if replica.spec.name != name and self._may(replica, job, now_us)]

    def _may(self, replica: Replica, job: Job, now_us: int) -> bool:
        if not replica.ready or self.bucket(replica, job.form, job.form.rows) is None:
            return False
        return not replica.spec.fallback or self.budget.may_take(job.form.rows, job.fallback, now_us).allowed

    def _preferred(self, replicas: Sequence[Replica], job: Job) -> tuple[str, ...]:
        if not self.shard:
            return ()
        key = shard_key(self.shard, job.form, job_parameters(job))
        names = tuple(replica.spec.name for replica in replicas if not replica.spec.fallback)
        return ranking(key, names) if key else ()


def job_parameters(job: Job) -> Mapping[str, object]:
    """Those of the request, where its front end keeps them."""
    return getattr(job.context, "parameters", {})
