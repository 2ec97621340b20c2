from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from npuops.runtime.job import Job
from npuops.runtime.restart_policy import KILLS, LONGEST_S, Backoff, Suspects
from npuops.runtime.signature import Form

FORM = Form(rows=1, shapes=((1,),), sizes=(4,), total_bytes=4, key=((1,),))


def ignore(job: Job, answer: object) -> None:
    del job, answer


def job() -> Job:
    return Job(FORM, (b"1234",), ignore, 0)


def test_the_first_restart_is_at_once_and_the_pauses_double() -> None:
    backoff = Backoff()
    delays = [backoff.next_delay_s(0.0) for _ in range(9)]
    assert delays == [0.0, 0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0]


def test_a_healthy_time_forgives() -> None:
    backoff = Backoff(healthy_s=60)
    for _ in range(5):
        backoff.next_delay_s(59.0)
    assert backoff.next_delay_s(60.0) == 0.0
    assert backoff.next_delay_s(1.0) == 0.1


@given(st.integers(1, 100_000))
def test_no_pause_is_longer_than_the_longest(failures: int) -> None:
    backoff = Backoff()
    backoff._failures = failures
    assert 0 < backoff.next_delay_s(0.0) <= LONGEST_S


def test_a_batch_goes_again_together_once_and_then_alone() -> None:
    suspects, jobs = Suspects(), [job(), job(), job()]
    assert suspects.ended(jobs).together == tuple(jobs)
    assert suspects.ended(jobs).alone == tuple(jobs)


def test_only_who_ends_workers_alone_is_failed() -> None:
    suspects, poison, good = Suspects(), job(), job()
    for _ in range(KILLS):
        suspects.ended([poison, good])
    assert suspects.ended([poison]).alone == (poison,)
    suspects.answered([good])
    assert suspects.ended([poison]).failed == (poison,)
    assert not suspects


def test_a_lone_request_gets_a_second_try_alone() -> None:
    suspects, lone = Suspects(), job()
    assert suspects.ended([lone]).alone == (lone,)
    assert suspects.ended([lone]).failed == (lone,)


def test_a_prepared_run_is_not_to_blame() -> None:
    suspects, running, prepared = Suspects(), [job(), job()], [job()]
    for _ in range(10):
        replay = suspects.ended([job(), job()], prepared)
        assert replay.together[-1] is prepared[0]
    suspects.ended(running)
    suspects.ended(running)
    assert suspects.ended([job()], running).alone[1:] == tuple(running)


@given(st.lists(st.sets(st.integers(0, 5), min_size=1), max_size=40), st.integers(0, 5))
def test_nobody_is_failed_who_did_not_end_two_workers_alone(batches: list[set[int]], poison: int) -> None:
    suspects, jobs = Suspects(), [job() for _ in range(6)]
    alone = dict.fromkeys(range(6), 0)
    for batch in batches:
        members = sorted(batch)
        if poison not in batch:
            suspects.answered([jobs[index] for index in members])
            for index in members:
                alone[index] = 0
            continue
        replay = suspects.ended([jobs[index] for index in members])
        assert sorted(map(jobs.index, (*replay.together, *replay.alone, *replay.failed))) == members
        if len(members) == 1:
            alone[poison] += 1
        for failed in replay.failed:
            assert failed is jobs[poison]
            assert alone[poison] == KILLS
            alone[poison] = 0
