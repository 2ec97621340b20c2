from __future__ import annotations

from typing import Any

from engine_lab import ANY_ROWS, ROWS, hostile
from npuops.errors import DeviceLostError, NotReadyError, RunError
from npuops.runtime.buckets import NO_PADDING
from npuops.runtime.fair_queue import FairQueue
from npuops.runtime.job import Job
from npuops.runtime.recovery import Recovery
from npuops.runtime.replica import Replica, Reports, Run
from npuops.runtime.reporter import Reporter
from npuops.runtime.signature import form_of
from npuops.runtime.slots import Geometry
from npuops.testing import EventLog

FORM = form_of(ROWS, [(1, 4)])


class Desk:
    """A recovery, and what became of its requests."""

    def __init__(self) -> None:
        self.log, self.told = EventLog(), list[tuple[Any, type]]()
        self.queue = FairQueue(lambda _: 1.0)
        self.recovery = Recovery(self.queue, Reporter("m", "1", self.log))
        reports = Reports(ran=self._unused, failed=self._unused, ended=self._unused)
        self.replica = Replica(hostile(), Geometry(slots=3, slot_bytes=1, output_offset=0), reports, ROWS, NO_PADDING)

    def job(self, name: str, **rest: Any) -> Job:
        return Job(FORM, [b""], lambda job, what: self.told.append((job.context, type(what))), 0, name, **rest)

    def runs(self, *groups: str) -> list[Run]:
        return [Run(0, [self.job(name) for name in group], len(group), ANY_ROWS[0], 0, 0, None) for group in groups]

    def waiting(self) -> list[Any]:
        return [job.context for job in self.queue.take(100, FORM.key)]

    @staticmethod
    def _unused(*_: object) -> None:
        raise AssertionError


def test_a_run_that_failed_goes_again_request_by_request_and_one_alone_is_told() -> None:
    desk = Desk()
    (run,) = desk.runs("abc")
    run.jobs[1].cancelled = True
    desk.recovery.failed(desk.replica, run, RunError("no"))
    assert [job.context for job in desk.recovery.alone] == ["a", "c"]
    desk.recovery.failed(desk.replica, desk.runs("d")[0], RunError("no"))
    assert desk.told == [("d", RunError)]


def test_a_device_may_be_lost_once_for_a_request_and_no_request_is_blamed_for_it() -> None:
    desk = Desk()
    first, behind = desk.runs("ab", "c")
    desk.recovery.lost(desk.replica, first.jobs, DeviceLostError("gone"))
    desk.recovery.ended(desk.replica, [behind], "signal SIGKILL")
    assert len(desk.recovery._blamed) == 0
    assert sorted(desk.waiting()) == ["a", "b", "c"]
    desk.recovery.lost(desk.replica, first.jobs, DeviceLostError("gone"))
    assert desk.told == [("a", DeviceLostError), ("b", DeviceLostError)]


def test_nobody_who_left_is_remembered() -> None:
    desk = Desk()
    runs = desk.runs("ab", "c")
    runs[0].jobs[0].cancelled = True
    desk.recovery.ended(desk.replica, runs, "signal SIGKILL")
    assert desk.waiting() == ["b", "c"]
    desk.recovery.refuse_late([runs[0].jobs[1]], "late")
    assert len(desk.recovery._blamed) == 0


def test_who_waits_to_run_alone_can_expire_be_cancelled_and_be_refused() -> None:
    desk = Desk()
    jobs = [desk.job("late", deadline_us=5), desk.job("gone"), desk.job("waits")]
    desk.recovery.alone.extend(jobs)
    jobs[1].cancelled = True
    assert [job.context for job in desk.recovery.expire(10)] == ["late"]
    following = desk.recovery.next_alone()
    assert following is jobs[2]
    desk.recovery.refuse_all(desk.recovery.drain(), NotReadyError("closing"))
    assert desk.told == [("waits", NotReadyError)]
    assert desk.recovery.next_alone() is None
