"""What becomes of requests whose run failed, or whose worker or device is gone: each runs again, or is told why not.

- A run that the model refused is run again request by request: one bad input must not fail those beside it.
- A device that is lost: its requests go once more, to another device or to the same one after its restart.
- A device that has no memory for a request (others fill it, or it is too large): once more, on another device.
- A worker that ended: its requests go again; those that it was at when it ended are suspects (`restart_policy`).
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final

from npuops.errors import DeadlineError, NotReadyError, NpuopsError, RunError
from npuops.runtime.facts import ShedReason
from npuops.runtime.fair_queue import FairQueue
from npuops.runtime.job import Job
from npuops.runtime.replica import Replica, Run
from npuops.runtime.reporter import Reporter
from npuops.runtime.restart_policy import KILLS, Suspects

ATTEMPTS: Final = 2
"""Devices that a request may lose; then its client is told."""


class Recovery:
    """Of one model version.

    Attributes:
        alone: requests that go again without any other in their run.
    """

    def __init__(self, queue: FairQueue, reporter: Reporter) -> None:
        """`queue`: where the others go again, before all that wait."""
        self.alone: deque[Job] = deque()
        self._queue, self._reporter = queue, reporter
        self._blamed = Suspects()
        self._lost: set[Replica] = set()

    def failed(self, replica: Replica, run: Run, error: NpuopsError) -> None:
        """The model or its target refused a run; the device is well."""
        if len(run.jobs) > 1:
            self.alone.extend(job for job in run.jobs if not job.cancelled)
        else:
            self._fail(run.jobs[0], replica, error)

    def lost(self, replica: Replica, jobs: Sequence[Job], error: NpuopsError) -> None:
        """The device is lost, and its worker will end. A second loss is told to the client."""
        self._lost.add(replica)
        back = []
        for job in jobs:
            job.attempts += 1
            if job.attempts < ATTEMPTS:
                back.append(job)
            else:
                self._fail(job, replica, error)
        back = self._wanted(back)
        self._queue.push_front(back)
        self._reporter.retried(replica, len(back), error.message)

    def elsewhere(self, replica: Replica, job: Job, error: NpuopsError) -> None:
        """The device is well, but has no memory for this request."""
        job.avoid = replica.spec.name
        back = self._wanted([job])
        self._queue.push_front(back)
        self._reporter.retried(replica, len(back), error.message)

    def ended(self, replica: Replica, runs: Sequence[Run], why: str) -> None:
        """A worker ended, and had these runs; it was at the first one."""
        blamed = [] if replica in self._lost else runs[:1]  # of a device that is lost, no request is to blame
        self._lost.discard(replica)
        if not runs:
            return
        replay = self._blamed.ended(
            [job for run in blamed for job in run.jobs], [job for run in runs[len(blamed) :] for job in run.jobs]
        )
        error = RunError(
            f"the worker ended {KILLS} times while it ran this input alone ({why})",
            advice="`npuops run` with the same input may tell why",
        )
        for job in replay.failed:
            self._fail(job, replica, error)
        alone, together = self._wanted(replay.alone), self._wanted(replay.together)
        self.alone.extend(alone)
        self._queue.push_front(together)
        self._reporter.retried(replica, len(alone) + len(together), why)

    def answered(self, jobs: Sequence[Job]) -> None:
        """They are not to blame."""
        if self._blamed:
            self._blamed.answered(jobs)

    def forget(self, job: Job) -> None:
        """Nobody waits for it any more, or it was refused."""
        if self._blamed:
            self._blamed.answered((job,))

    def next_alone(self) -> Job | None:
        """Whose turn it is of those that go alone; it stays."""
        while self.alone and self.alone[0].cancelled:
            self.forget(self.alone.popleft())
        return self.alone[0] if self.alone else None

    def expire(self, now_us: int) -> list[Job]:
        """Remove and return those that wait to run alone and whose deadline has passed."""
        late = [job for job in self.alone if job.deadline_us <= now_us and not job.cancelled]
        for job in late:
            self.alone.remove(job)
            self.forget(job)
        return late

    def drain(self) -> list[Job]:
        """Remove and return all that wait to run alone."""
        jobs = [job for job in self.alone if not job.cancelled]
        self.alone.clear()
        return jobs

    def refuse_late(self, jobs: Sequence[Job], words: str) -> None:
        """They get no answer in time."""
        for job in jobs:
            self.forget(job)
            self._reporter.refuse(job, DeadlineError(words), ShedReason.DEADLINE)

    def refuse_all(self, jobs: Sequence[Job], error: NotReadyError) -> None:
        """They are not run."""
        for job in jobs:
            self.forget(job)
            if not job.cancelled:
                self._reporter.refuse(job, error, ShedReason.NOT_READY)

    def _wanted(self, jobs: Sequence[Job]) -> list[Job]:
        for job in jobs:
            if job.cancelled:
                self.forget(job)
        return [job for job in jobs if not job.cancelled]

    def _fail(self, job: Job, replica: Replica, error: NpuopsError) -> None:
        self.forget(job)
        if not job.cancelled:
            self._reporter.fail(job, replica, error)
