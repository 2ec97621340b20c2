"""The pool of processes that decode pictures: real processes, which are stopped and killed."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Awaitable, Callable
from contextlib import suppress

import numpy as np
import pytest

from npuops.clock import SystemClock
from npuops.errors import DataError, DeadlineError, NotReadyError, OverloadedError
from npuops.evaluate.image_steps import run_image_steps
from npuops.runtime.step_worker import StepOptions, StepPool, StepProcessEnded
from npuops.testing import EventLog
from picture_models import COLOUR_PIPELINE, COLOURS, large_picture, picture

pytest.importorskip("PIL.Image", reason="images need the extra `images`")
STEPS = COLOUR_PIPELINE.preprocess


def with_pool(test: Callable[[StepPool, EventLog], Awaitable[None]], **options: float) -> EventLog:
    log = EventLog()

    async def run() -> None:
        pool = StepPool(StepOptions(**{"processes": 1, **options}), SystemClock(), log)  # type: ignore[arg-type]
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
            np.testing.assert_array_equal(np.frombuffer(tensor, np.float32).reshape(1, 3, 4, 4), wanted)

    log = with_pool(test, processes=2)
    assert log.of(StepProcessEnded) == []


def test_a_picture_that_cannot_be_read_fails_alone() -> None:
    async def test(pool: StepPool, _: EventLog) -> None:
        bad, good = pool.submit(STEPS, b"nothing"), pool.submit(STEPS, picture((1, 2, 3)))
        with pytest.raises(DataError, match="no readable image") as caught:
            await bad
        assert "JPEG" in caught.value.advice
        assert len(await good) == 4 * 4 * 3 * 4

    assert with_pool(test).of(StepProcessEnded) == []


def test_a_killed_process_is_replaced_and_its_picture_is_not_lost() -> None:
    async def test(pool: StepPool, log: EventLog) -> None:
        (first,) = pool.pids
        os.kill(first, signal.SIGSTOP)
        answer = pool.submit(STEPS, picture((1, 2, 3)))
        await asyncio.sleep(0)
        os.kill(first, signal.SIGKILL)
        assert len(await answer) == 4 * 4 * 3 * 4
        assert first not in pool.pids
        assert [event.why for event in log.of(StepProcessEnded)] == ["signal 9"]

    with_pool(test)


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
        assert len(await pool.submit(STEPS, picture((1, 2, 3)))) == 4 * 4 * 3 * 4

    assert len(with_pool(test).of(StepProcessEnded)) >= 2


def test_a_process_that_hangs_is_ended_at_the_time_limit() -> None:
    async def test(pool: StepPool, _: EventLog) -> None:
        (first,) = pool.pids
        os.kill(first, signal.SIGSTOP)
        with pytest.raises(DataError, match=r"takes longer than 0.2 s"):
            await pool.submit(STEPS, picture((1, 2, 3)))
        assert len(await pool.submit(STEPS, picture((1, 2, 3)))) == 4 * 4 * 3 * 4
        assert not is_alive(first)

    with_pool(test, limit_s=0.2)


def test_what_waits_too_long_is_dropped_and_what_is_too_much_is_refused() -> None:
    async def test(pool: StepPool, _: EventLog) -> None:
        (first,) = pool.pids
        os.kill(first, signal.SIGSTOP)
        data = picture((1, 2, 3))
        running = pool.submit(STEPS, data)
        while pool.waiting:
            await asyncio.sleep(0)
        late = pool.submit(STEPS, data, deadline_us=SystemClock().now_us())
        taken_back = pool.submit(STEPS, data)
        with pytest.raises(OverloadedError):
            await pool.submit(STEPS, data)
        taken_back.cancel()
        os.kill(first, signal.SIGCONT)
        assert len(await running) == 4 * 4 * 3 * 4
        with pytest.raises(DeadlineError):
            await late

    with_pool(test, max_waiting=2)


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
