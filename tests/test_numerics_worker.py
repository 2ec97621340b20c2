from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator

import pytest

from npuops.errors import DataError, RunError
from npuops.vnpu.numerics_worker import Finished, NumericsWorker, attempt


@pytest.fixture
def worker() -> Iterator[NumericsWorker]:
    found = NumericsWorker()
    yield found
    found.close()


def rung(worker: NumericsWorker) -> bool:
    poll = select.poll()
    poll.register(worker.bell.fileno(), select.POLLIN)
    return bool(poll.poll(10_000))


def test_a_task_runs_elsewhere_and_the_bell_tells_when_it_is_through(worker: NumericsWorker) -> None:
    go = threading.Event()

    def task() -> int:
        assert go.wait(10)
        return threading.get_ident()

    worker.start(7, task)
    assert worker.finished() == [], "it waits, and nobody waits for it"
    go.set()
    assert rung(worker)
    (done,) = worker.finished()
    assert (done.key, done.error) == (7, None)
    assert done.value != threading.get_ident()
    assert worker.finished() == [], "each is told once"


def test_every_task_is_told_by_its_key_whatever_became_of_it(worker: NumericsWorker) -> None:
    for key in range(50):
        worker.start(key, lambda key=key: 1 // (key % 2))  # type: ignore[misc]
    found: dict[int, Finished] = {}
    while len(found) < 50:
        assert rung(worker)
        found |= {each.key: each for each in worker.finished()}
    assert all((each.error is None) == bool(key % 2) for key, each in found.items())


def test_an_error_of_ours_stays_itself_and_any_other_becomes_one_of_ours() -> None:
    def ours() -> None:
        raise DataError("wrong", advice="do better")

    def theirs() -> None:
        raise ZeroDivisionError("by nothing")

    assert attempt(1, lambda: 5) == Finished(1, 5, None)
    assert type(attempt(2, ours).error) is DataError
    error = attempt(3, theirs).error
    assert isinstance(error, RunError)
    assert "ZeroDivisionError: by nothing" in error.message


def test_closing_waits_for_nothing_and_starts_nothing_that_still_waits() -> None:
    worker, go, ran = NumericsWorker(), threading.Event(), threading.Event()
    started = threading.Semaphore(0)

    def hold() -> None:
        started.release()
        go.wait(10)

    crew = os.cpu_count() or 1
    for key in range(crew):
        worker.start(key, hold)
    for _ in range(crew):
        assert started.acquire(timeout=10)
    worker.start(99, ran.set)
    worker.close()
    go.set()
    worker._pool.shutdown(wait=True)
    assert not ran.is_set()
