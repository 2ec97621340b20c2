"""The pool of processes that decode pictures: real processes, which are stopped and killed."""

from __future__ import annotations

import asyncio
import os
import resource
import select
import signal
import subprocess
import sys
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from npuops.clock import Clock, SystemClock
from npuops.errors import DataError, DeadlineError, NotReadyError, OverloadedError, RunError, StorageError
from npuops.evaluate.image_steps import run_image_steps
from npuops.runtime.admission import Limits
from npuops.runtime.step_facts import StepProcessEnded
from npuops.runtime.step_pool import Prepared, StepOptions, StepPool
from npuops.testing import EventLog, ManualClock
from picture_models import COLOUR_PIPELINE, COLOURS, large_picture, picture

pytest.importorskip("PIL.Image", reason="images need the extra `images`")
STEPS = COLOUR_PIPELINE.preprocess


def with_pool(
    test: Callable[[StepPool, EventLog], Awaitable[None]], clock: Clock | None = None, **options: Any
) -> EventLog:
    log = EventLog()

    async def run() -> None:
        pool = StepPool(StepOptions(**{"processes": 1, **options}), clock or SystemClock(), log)
        await pool.start()
        try:
            await test(pool, log)
        finally:
            pids = set(pool.pids)
            await pool.close()
        assert all(not is_alive(pid) for pid in pids)

    asyncio.run(run())
    return log


def is_alive(pid: int) -> bool:
    with suppress(ProcessLookupError):
        os.kill(pid, 0)
        return True
    return False


def test_pictures_become_the_tensors_that_calibration_would_make_of_them() -> None:
    async def test(pool: StepPool, _: EventLog) -> None:
        pictures = [picture(colour) for colour in COLOURS.values()] * 5
        found = await asyncio.gather(*(pool.submit(STEPS, data) for data in pictures))
        for data, tensor in zip(pictures, found, strict=True):
            wanted = run_image_steps(STEPS, data, where="x")
            np.testing.assert_array_equal(np.frombuffer(tensor.tensor, np.float32).reshape(1, 3, 4, 4), wanted)

    log = with_pool(test, processes=2)
    assert log.of(StepProcessEnded) == []


def test_a_picture_that_cannot_be_read_fails_alone() -> None:
    async def test(pool: StepPool, _: EventLog) -> None:
        bad, good = pool.submit(STEPS, b"nothing"), pool.submit(STEPS, picture((1, 2, 3)))
        with pytest.raises(DataError, match=r"^step decode_image: the picture is no readable image") as caught:
            await bad
        assert "JPEG" in caught.value.advice
        assert len((await good).tensor) == 4 * 4 * 3 * 4

    assert with_pool(test).of(StepProcessEnded) == []


def test_a_killed_process_is_replaced_and_its_picture_is_not_lost() -> None:
    async def test(pool: StepPool, log: EventLog) -> None:
        (first,) = pool.pids
        os.kill(first, signal.SIGSTOP)
        answer = pool.submit(STEPS, picture((1, 2, 3)))
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        assert len((await answer).tensor) == 4 * 4 * 3 * 4
        assert first not in pool.pids
        assert [event.why for event in log.of(StepProcessEnded)] == ["signal 9"]

    with_pool(test)


@pytest.mark.slow
def test_a_picture_that_ends_every_process_is_given_up_and_the_next_one_is_served() -> None:
    async def test(pool: StepPool, _: EventLog) -> None:
        answer = pool.submit(STEPS, large_picture())
        while not answer.done():
            for pid in set(pool.pids):
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            await asyncio.sleep(0)
        with pytest.raises(DataError, match="twice"):
            await answer
        assert len((await pool.submit(STEPS, picture((1, 2, 3)))).tensor) == 4 * 4 * 3 * 4

    assert len(with_pool(test).of(StepProcessEnded)) >= 2


def test_a_process_that_hangs_is_ended_at_the_time_limit() -> None:
    async def test(pool: StepPool, _: EventLog) -> None:
        (first,) = pool.pids
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(DataError, match=r"takes longer than 0.2 s"):
            await pool.submit(STEPS, picture((1, 2, 3)))
        assert len((await pool.submit(STEPS, picture((1, 2, 3)))).tensor) == 4 * 4 * 3 * 4
        assert not is_alive(first)

    with_pool(test, limit_s=0.2)


async def busy(pool: StepPool) -> tuple[asyncio.Future[Prepared], Callable[[], None]]:
    """Its only process has a picture, and stands still until the second is called."""
    (first,) = pool.pids
    os.kill(first, signal.SIGSTOP)
    running = pool.submit(STEPS, picture((1, 2, 3)))
    while pool.waiting:
        await asyncio.sleep(0)
    return running, lambda: os.kill(first, signal.SIGCONT)


def test_what_waits_too_long_is_dropped_while_it_waits() -> None:
    async def test(pool: StepPool, _: EventLog) -> None:
        running, go_on = await busy(pool)
        gone = pool.submit(STEPS, b"x", deadline_us=SystemClock().now_us())
        late = pool.submit(STEPS, b"x", deadline_us=SystemClock().now_us() + 50_000)
        for one in (gone, late):
            with pytest.raises(DeadlineError):
                await one
        assert not running.done()
        assert pool.waiting == 0
        go_on()
        await running

    with_pool(test)


def test_a_slow_picture_does_not_send_later_ones_away() -> None:
    """Nothing but pictures that are let through could show that the next ones are fast."""
    clock = ManualClock()

    async def test(pool: StepPool, _: EventLog) -> None:
        slow, go_on = await busy(pool)
        clock.advance(3_600_000_000)
        go_on()
        await slow
        while not pool.idle:
            await asyncio.sleep(0)
        assert len((await pool.submit(STEPS, picture((1, 2, 3)), deadline_us=clock.now_us() + 1)).tensor) == 192
        again, go_on = await busy(pool)
        in_a_while = clock.now_us() + 50_000
        behind = pool.submit(STEPS, picture((1, 2, 3)), deadline_us=in_a_while)
        go_on()
        await asyncio.gather(again, behind)

    with_pool(test, clock)


def test_what_is_too_much_is_refused_and_what_was_taken_back_makes_room() -> None:
    async def test(pool: StepPool, _: EventLog) -> None:
        running, go_on = await busy(pool)
        data = picture((1, 2, 3))
        waiting = [pool.submit(STEPS, data) for _ in range(2)]
        with pytest.raises(OverloadedError):
            await pool.submit(STEPS, data)
        waiting[0].cancel()
        await asyncio.sleep(0)
        assert pool.waiting == 1
        last = pool.submit(STEPS, data)
        go_on()
        await asyncio.gather(running, waiting[1], last)

    with_pool(test, waiting=Limits(max_queue_requests=2))


def test_bytes_that_wait_are_bounded_too() -> None:
    async def test(pool: StepPool, _: EventLog) -> None:
        running, go_on = await busy(pool)
        waiting = pool.submit(STEPS, bytes(900))
        with pytest.raises(OverloadedError):
            await pool.submit(STEPS, bytes(200))
        go_on()
        await running
        with pytest.raises(DataError):
            await waiting

    with_pool(test, waiting=Limits(max_queue_bytes=1000))


def test_who_gives_way_to_a_large_picture_gives_all_the_bytes_that_it_needs() -> None:
    async def test(pool: StepPool, _: EventLog) -> None:
        running, go_on = await busy(pool)
        small = [pool.submit(STEPS, bytes(100), tenant="many") for _ in range(10)]
        large = pool.submit(STEPS, bytes(500), tenant="few")
        assert [one.done() for one in small] == [False] * 5 + [True] * 5, "the newest go"
        go_on()
        found = await asyncio.gather(running, large, *small, return_exceptions=True)
        assert [type(one) for one in found[1:]] == [DataError] * 6 + [OverloadedError] * 5

    with_pool(test, waiting=Limits(max_queue_bytes=1000))


def test_a_process_that_cannot_be_replaced_costs_its_picture_and_the_next_one_tries_again() -> None:
    async def test(pool: StepPool, _: EventLog) -> None:
        (first,) = pool.pids
        os.kill(first, signal.SIGKILL)
        _, hard = before = resource.getrlimit(resource.RLIMIT_NOFILE)
        answer = pool.submit(STEPS, picture((1, 2, 3)))
        resource.setrlimit(resource.RLIMIT_NOFILE, (0, hard))
        try:
            with pytest.raises((RunError, StorageError)):
                await answer
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, before)
        assert len((await pool.submit(STEPS, picture((1, 2, 3)))).tensor) == 192

    with_pool(test)


def test_a_replacement_that_is_killed_while_it_starts_costs_no_picture() -> None:
    async def test(pool: StepPool, log: EventLog) -> None:
        (first,) = pool.pids
        before = children()
        os.kill(first, signal.SIGKILL)
        answer = pool.submit(STEPS, picture((1, 2, 3)))
        while not (new := children() - before):
            await asyncio.sleep(0)
        assert not pool.pids, "it is not ready"
        os.kill(new.pop(), signal.SIGKILL)
        assert len((await answer).tensor) == 192
        assert len(log.of(StepProcessEnded)) == 1

    with_pool(test)


def children() -> set[int]:
    """Processes that this one has started, by any of its threads."""
    tasks = Path("/proc/self/task").iterdir()
    return {int(pid) for task in tasks for pid in (task / "children").read_text().split()}


def test_a_tenant_that_floods_the_pool_loses_its_own_pictures_and_not_the_others() -> None:
    async def test(pool: StepPool, _: EventLog) -> None:
        running, go_on = await busy(pool)
        done: list[str] = []
        data = picture((1, 2, 3))

        def send(tenant: str) -> asyncio.Future[Prepared]:
            answer = pool.submit(STEPS, data, tenant=tenant)
            answer.add_done_callback(lambda one: done.append(tenant if one.exception() is None else "refused"))
            return answer

        flood = [send("noisy") for _ in range(10)]
        quiet = [send("quiet") for _ in range(2)]
        go_on()
        found = await asyncio.gather(running, *flood, *quiet, return_exceptions=True)
        assert [type(one) for one in found[-2:]] == [Prepared, Prepared]
        assert [type(one) for one in found[1:11]].count(OverloadedError) == 2
        served = [tenant for tenant in done if tenant != "refused"]
        assert set(served[:4]) == {"noisy", "quiet"}, "they take turns, though the flood was there first"
        assert served[:4].count("quiet") == 2

    with_pool(test, waiting=Limits(max_queue_requests=10))


def test_starting_twice_starts_once_and_a_start_that_is_given_up_goes_on_for_the_others() -> None:
    async def run() -> None:
        pool = StepPool(StepOptions(processes=2), SystemClock(), EventLog())
        given_up = asyncio.create_task(pool.start())
        await asyncio.sleep(0)
        given_up.cancel()
        await asyncio.gather(pool.start(), pool.start())
        assert len(pool.pids) == 2
        await pool.close()
        await pool.close()
        with pytest.raises(NotReadyError):
            await pool.start()

    asyncio.run(run())


def test_a_pool_that_is_closed_while_it_starts_leaves_no_process() -> None:
    async def run() -> None:
        pool = StepPool(StepOptions(processes=2), SystemClock(), EventLog())
        starting = asyncio.create_task(pool.start())
        await asyncio.sleep(0)
        await pool.close()
        await starting
        assert pool.pids == set()

    asyncio.run(run())


def test_processes_end_with_a_server_that_is_killed_even_while_they_work() -> None:
    server = """
import asyncio, sys
from npuops.clock import Clock, SystemClock
from npuops.events import ignore
from npuops.runtime.step_pool import Prepared, StepOptions, StepPool
async def main():
    pool = StepPool(StepOptions(processes=2), SystemClock(), ignore)
    await pool.start()
    print(*pool.pids, flush=True)
    await asyncio.sleep(60)
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", server], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        pids = [int(word) for word in process.stdout.readline().split()]
        assert len(pids) == 2
        watched = [os.pidfd_open(pid) for pid in pids]
        process.kill()
    for descriptor in watched:
        assert select.select([descriptor], [], [], 30)[0], "it is gone"
        os.close(descriptor)


def test_a_closed_pool_answers_everybody() -> None:
    async def run() -> None:
        pool = StepPool(StepOptions(processes=1), SystemClock(), EventLog())
        with pytest.raises(NotReadyError):
            await pool.submit(STEPS, b"x")
        await pool.start()
        (pid,) = pool.pids
        os.kill(pid, signal.SIGSTOP)
        waiting = [pool.submit(STEPS, picture((1, 2, 3))) for _ in range(3)]
        await asyncio.sleep(0)
        await pool.close()
        found = await asyncio.gather(*waiting, return_exceptions=True)
        assert {type(error) for error in found} == {NotReadyError}
        assert not is_alive(pid)

    asyncio.run(run())
