from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import hostile_worker as order
from engine_lab import ROWS, Got, Lab, children, descriptors, engine_of, hostile, in_time, row, run, segments, until
from npuops.build.fallback import read_fallback_policy
from npuops.errors import (
    DataError,
    DeadlineError,
    DeviceLostError,
    NotReadyError,
    NpuopsError,
    OverloadedError,
    RunError,
    TooLargeError,
)
from npuops.runtime.admission import Limits
from npuops.runtime.buckets import Bucket
from npuops.runtime.facts import BatchRan, BatchRetried, ColdCause, RequestFailed, RequestShed, ShedReason, WorkerEnded
from npuops.runtime.job import Job
from npuops.runtime.signature import Port, Signature


def value(got: Got | NpuopsError) -> float:
    assert isinstance(got, Got), got
    return float(got.outputs[0][0, 0])


async def answers(lab: Lab, *values: float) -> list[float]:
    return [value(got) for got in await asyncio.gather(*(lab.ask(row(each)) for each in values))]


def test_requests_that_wait_share_a_run_and_each_gets_its_own_answer() -> None:
    async def main() -> None:
        async with engine_of([hostile()]) as lab:
            assert await answers(lab, *range(40)) == [each + 1 for each in range(40)]
            assert max(batch.rows for batch in lab.of(BatchRan)) == ROWS.max_rows

    run(main())


@pytest.mark.parametrize(
    "how",
    [
        order.KILL_ONCE,
        *(
            pytest.param(how, marks=pytest.mark.slow)
            for how in (order.SHORT, order.STRANGER, order.OUTSIDE, order.HANG_UP)
        ),
    ],
)
def test_a_worker_that_dies_or_lies_costs_no_request_of_others(how: float, tmp_path: Path) -> None:
    async def main() -> None:
        device = hostile(environment={order.FLAG: str(tmp_path / "flag")})
        async with engine_of([device]) as lab:
            bad = lab.ask(row(how))
            assert await answers(lab, *range(30)) == [each + 1 for each in range(30)]
            got = await bad
            assert isinstance(got, RunError) or value(got) == how + 1  # it lies only when it comes first in a run
            assert [ended.wanted for ended in lab.of(WorkerEnded)].count(False) >= 1
            assert await answers(lab, 5.0) == [6.0]

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("how", "words"),
    [
        (order.REFUSE, "not this one"),
        (order.RAISE, "ValueError in the worker: a vendor's own error"),
        (order.ROWS, "rows"),
        (order.DOUBLE, "float64"),
        (order.MISSING, "no output 'y'"),
        (order.WORDY, "words"),
    ],
)
def test_a_bad_input_fails_alone_and_its_neighbours_are_answered(how: float, words: str) -> None:
    async def main() -> None:
        async with engine_of([hostile()]) as lab:
            asked = [lab.ask(row(each)) for each in range(5)]
            bad = lab.ask(row(how))
            asked += [lab.ask(row(each)) for each in range(5, 10)]
            assert [value(got) for got in await asyncio.gather(*asked)] == [each + 1 for each in range(10)]
            error = await bad
            assert isinstance(error, RunError)
            assert words in error.message
            (failed,) = lab.of(RequestFailed)
            assert (failed.device, failed.error) == ("npu", "RunError")
            assert lab.of(WorkerEnded) == []

    run(main())


def test_outputs_that_do_not_fit_are_an_error_and_what_follows_is_answered() -> None:
    async def main() -> None:
        async with engine_of([hostile()]) as lab:
            error = await lab.ask(row(order.LARGE))
            assert isinstance(error, TooLargeError)
            assert await answers(lab, 1.0) == [2.0]

    run(main())


def test_one_that_answers_twice_is_ended_and_the_first_answer_counts_once() -> None:
    async def main() -> None:
        async with engine_of([hostile()]) as lab:
            assert value(await lab.ask(row(order.TWICE))) == order.TWICE + 1
            await until(lambda: lab.of(WorkerEnded), "the liar goes on")
            assert "nonsense" in lab.of(WorkerEnded)[0].why
            assert await answers(lab, 1.0) == [2.0]

    run(main())


@pytest.mark.slow
def test_an_input_that_kills_workers_is_refused_and_the_model_goes_on() -> None:
    async def main() -> None:
        async with engine_of([hostile()]) as lab:
            poison = lab.ask(row(order.KILL))
            assert await answers(lab, *range(20)) == [each + 1 for each in range(20)]
            error = await poison
            assert isinstance(error, RunError)
            assert "worker ended" in error.message
            assert await answers(lab, 7.0) == [8.0]

    run(main())


@pytest.mark.slow
def test_a_run_that_does_not_end_costs_its_worker_after_the_limit() -> None:
    async def main() -> None:
        async with engine_of([hostile()], run_limit_s=0.3) as lab:
            stuck = lab.ask(row(order.STOP))
            others = [lab.ask(row(each)) for each in range(12)]
            assert [value(got) for got in await asyncio.gather(*others)] == [each + 1 for each in range(12)]
            assert isinstance(await stuck, RunError)
            assert "longer than 0.3 s" in lab.of(WorkerEnded)[0].why

    run(main())


def test_whoever_waits_for_a_stuck_run_is_told_at_the_deadline() -> None:
    async def main() -> None:
        async with engine_of([hostile()], run_limit_s=20.0) as lab:
            stuck = lab.ask(row(order.STOP), deadline_us=in_time(0.3))
            assert isinstance(await stuck, DeadlineError)
            os.kill(lab.engine.replicas.all[0].pid, signal.SIGCONT)
            assert await answers(lab, 1.0) == [2.0]

    run(main())


def test_a_lost_device_gives_its_requests_to_another_once() -> None:
    async def main() -> None:
        down = hostile("npu0", environment={order.FLAG: "x"})
        async with engine_of([down, hostile("npu1")]) as lab:
            error = await lab.ask(row(order.LOSE))
            assert isinstance(error, DeviceLostError)  # the second device fell off the bus at it, too
            (retried,) = [fact for fact in lab.of(BatchRetried) if fact.requests]
            assert retried.requests == 1
            assert await answers(lab, *range(10)) == [each + 1 for each in range(10)]
            await until(lambda: all(replica.ready for replica in lab.engine.replicas.all), "a device stays lost")

    run(main())


def test_requests_on_a_device_that_is_killed_are_answered_by_the_other_one() -> None:
    async def main() -> None:
        async with engine_of([hostile("a"), hostile("b")]) as lab:
            asked = [lab.ask(row(order.SLOW)), *(lab.ask(row(each)) for each in range(20))]
            await asyncio.sleep(0)
            os.kill(lab.engine.replicas.all[0].pid, signal.SIGKILL)
            got = await asyncio.gather(*asked)
            assert [value(each) for each in got[1:]] == [each + 1 for each in range(20)]

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["forbid", "allow"])
def test_the_fallback_answers_only_where_the_policy_lets_it(policy: str, tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    async def main() -> None:
        devices = [hostile("npu", environment={order.FLAG: str(flag)}), hostile("cpu", fallback=True)]
        async with engine_of(devices, fallback=read_fallback_policy(policy), patience_s=0.2) as lab:
            first = await lab.ask(row(1.0))
            assert isinstance(first, Got)
            assert (first.device, first.fell_back) == ("npu", False)
            Path(f"{flag}.down").touch()
            os.kill(lab.engine.replicas.all[0].pid, signal.SIGKILL)
            await until(lambda: not lab.engine.replicas.own_ready, "it survives")
            second = await lab.ask(row(2.0))
            if policy == "allow":
                assert isinstance(second, Got)
                assert (second.device, second.fell_back) == ("cpu", True)
            else:
                assert isinstance(second, NotReadyError)
                assert "forbids" in second.message
            Path(f"{flag}.down").unlink()
            await until(lambda: lab.engine.replicas.own_ready, "the device does not come back")
            third = await lab.ask(row(3.0))
            assert isinstance(third, Got)
            assert third.device == "npu"

    run(main())


def test_without_any_device_requests_wait_for_the_restart_and_are_told_after_the_patience(tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    async def main() -> None:
        device = hostile("npu", environment={order.FLAG: str(flag)})
        async with engine_of([device], patience_s=0.3, limits=Limits(max_queue_requests=4)) as lab:
            Path(f"{flag}.down").touch()
            os.kill(lab.engine.replicas.all[0].pid, signal.SIGKILL)
            await until(lambda: not lab.engine.is_ready, "it survives")
            waiting = [lab.ask(row(each)) for each in range(4)]
            assert isinstance(await lab.ask(row(9.0)), OverloadedError)
            for got in await asyncio.gather(*waiting):
                assert isinstance(got, NotReadyError)
                assert "no device of model is ready" in got.message
            assert isinstance(await lab.ask(row(9.0)), NotReadyError)
            Path(f"{flag}.down").unlink()
            await until(lambda: lab.engine.is_ready, "the device does not come back")
            assert await answers(lab, 1.0) == [2.0]

    run(main())


def test_deadlines_end_the_wait_while_all_devices_are_gone(tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    async def main() -> None:
        async with engine_of([hostile("npu", environment={order.FLAG: str(flag)})]) as lab:
            Path(f"{flag}.down").touch()
            os.kill(lab.engine.replicas.all[0].pid, signal.SIGKILL)
            await until(lambda: not lab.engine.is_ready, "it survives")
            assert isinstance(await lab.ask(row(1.0), deadline_us=in_time(0.1)), DeadlineError)

    run(main())


def test_cancelled_requests_are_never_answered_and_hold_nothing_up() -> None:
    async def main() -> None:
        async with engine_of([hostile()]) as lab:
            jobs = [lab.send([row(order.SLOW if each == 0 else each)]) for each in range(20)]
            lab.engine.cancel(jobs[15][0])  # before the loop saw it
            await asyncio.sleep(0)
            lab.engine.cancel(jobs[0][0])  # under way
            lab.engine.cancel(jobs[19][0])  # waits
            kept = [future for number, (_, future) in enumerate(jobs) if number not in {0, 15, 19}]
            got = [value(each) for each in await asyncio.gather(*kept)]
            assert got == [each + 1.0 for each in range(1, 19) if each != 15]
            assert await lab.engine.drain(10.0)
            assert [future.done() for _, future in (jobs[0], jobs[15], jobs[19])] == [False] * 3
            assert [shed.reason for shed in lab.of(RequestShed)] == [ShedReason.CANCELLED] * 3

    run(main())


def test_a_drain_ends_when_the_last_request_that_waits_is_cancelled(tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    async def main() -> None:
        async with engine_of([hostile("npu", environment={order.FLAG: str(flag)})]) as lab:
            Path(f"{flag}.down").touch()
            os.kill(lab.engine.replicas.all[0].pid, signal.SIGKILL)
            await until(lambda: not lab.engine.is_ready, "it survives")
            job, _ = lab.send([row(1.0)])
            drained = asyncio.ensure_future(lab.engine.drain(50.0))
            await asyncio.sleep(0)
            lab.engine.cancel(job)
            assert await drained

    run(main())


def test_a_close_answers_what_waits_and_what_is_under_way() -> None:
    async def main() -> None:
        async with engine_of([hostile()]) as lab:
            asked = [lab.ask(row(order.STOP)), *(lab.ask(row(each)) for each in range(30))]
            await asyncio.sleep(0.05)
            assert not await lab.engine.drain(0.05)
            await lab.engine.close()
            for got in await asyncio.gather(*asked):
                assert isinstance(got, NotReadyError)
            assert isinstance(await lab.ask(row(1.0)), NotReadyError)
            assert lab.engine.in_flight == 0

    run(main())


@pytest.mark.slow
@pytest.mark.parametrize("how", ["stop", ""])
def test_a_close_while_it_loads_leaves_no_process(how: str) -> None:
    async def main() -> None:
        before = descriptors()
        async with engine_of([hostile(environment={order.LOAD: how}), hostile("b")], start=False) as lab:
            starting = asyncio.ensure_future(lab.engine.start(ColdCause.LOAD))
            await until(children, "no worker is started")
            await lab.engine.close()
            with pytest.raises(RunError):
                await starting
            assert children() == []
        assert descriptors() <= before + 1

    run(main())


def test_a_start_that_is_cancelled_leaves_no_process() -> None:
    async def main() -> None:
        async with engine_of([hostile(environment={order.LOAD: "stop"})], start=False) as lab:
            starting = asyncio.ensure_future(lab.engine.start(ColdCause.LOAD))
            await until(children, "no worker is started")
            starting.cancel()
            with pytest.raises(asyncio.CancelledError):
                await starting
            await lab.engine.close()
            assert children() == []

    run(main())


def test_a_receiver_that_fails_takes_no_answer_of_others_with_it(caplog: pytest.LogCaptureFixture) -> None:
    async def main() -> None:
        async with engine_of([hostile()]) as lab:

            def fail(_: Job, __: object) -> None:
                raise ValueError("a defect in a front end")

            job, _ = lab.send([row(1.0)])
            job.receiver = fail
            assert await answers(lab, 2.0, 3.0) == [3.0, 4.0]

    run(main())
    assert "a receiver failed" in caplog.text


def test_a_part_that_is_not_as_long_as_its_shape_fails_alone() -> None:
    async def main() -> None:
        async with engine_of([hostile()]) as lab:
            _, short = lab.send([row(1.0)], parts=[b"\0" * 12])
            _, long = lab.send([row(1.0)], parts=[b"\0" * 20])
            assert await answers(lab, 2.0, 3.0) == [3.0, 4.0]
            assert isinstance(await short, DataError)
            assert isinstance(await long, DataError)

    run(main())


def test_shapes_that_no_artifact_takes_are_refused_and_nobody_waits_behind_them() -> None:
    free = Port(name="x", dtype="float32", shape=(-1, -1))
    signature = Signature(inputs=(free,), outputs=(free,), batched=True, max_rows=8)

    async def main() -> None:
        for devices in ([hostile()], [hostile("a"), hostile("b")]):
            async with engine_of(devices, signature) as lab:
                strange = lab.ask(np.zeros((1, 5), np.float32))
                assert await answers(lab, 2.0) == [3.0]
                error = await strange
                assert isinstance(error, DataError)
                assert "[1, 5]" in error.message

    run(main())


def test_requests_that_do_not_fit_into_a_slot_together_go_one_after_the_other() -> None:
    free = Port(name="x", dtype="float32", shape=(-1, -1))
    signature = Signature(inputs=(free,), outputs=(free,), batched=True, max_rows=8)

    async def main() -> None:
        device = hostile(buckets=(Bucket(0, None, ((-1,),)),))
        async with engine_of([device], signature, max_request_bytes=4096) as lab:
            wide = [np.full((1, 512), each, np.float32) for each in range(8)]
            got = await asyncio.gather(*(lab.ask(array) for array in wide))
            assert [value(each) for each in got] == [each + 1.0 for each in range(8)]
            assert isinstance(await lab.ask(np.zeros((1, 2048), np.float32)), TooLargeError)

    run(main())


def test_static_batches_are_filled_up_and_what_fills_is_cut_off() -> None:
    buckets = (Bucket(0, 1, ((4,),)), Bucket(1, 8, ((4,),)))

    async def main() -> None:
        device = hostile(buckets=buckets, artifacts=(Path("one"), Path("eight")))
        async with engine_of([device]) as lab:
            got = await asyncio.gather(*(lab.ask(row(each, rows=2)) for each in range(10)))
            for number, each in enumerate(got):
                assert isinstance(each, Got)
                assert each.shapes == ((2, 4),)
                assert np.all(each.outputs[0] == number + 1)
            assert all(batch.rows + batch.padded_rows in {1, 8} for batch in lab.of(BatchRan))

    run(main())


def test_a_flood_is_refused_beyond_the_limit_and_the_device_never_waits() -> None:
    async def main() -> None:
        async with engine_of([hostile()], limits=Limits(max_queue_requests=64)) as lab:
            asked: list[asyncio.Future[Any]] = [lab.ask(row(order.SLOW)) for _ in range(64)]
            longest = 0
            for _ in range(20):  # four times what it can do: eight rows a run are answered, and 32 come
                batches = len(lab.of(BatchRan))
                asked += [lab.ask(row(order.SLOW)) for _ in range(32)]
                longest = max(longest, lab.engine.queued)
                await until(lambda: len(lab.of(BatchRan)) > batches, "no run ends")  # noqa: B023 - at once
            got = await asyncio.gather(*asked)
            good = sum(isinstance(each, Got) for each in got)
            assert all(isinstance(each, Got | OverloadedError) for each in got)
            assert longest <= 64
            rows = [batch.rows for batch in lab.of(BatchRan)]
            assert sum(rows) == good
            assert sum(rows) >= 0.9 * ROWS.max_rows * len(rows), "runs were not full"

    run(main())


def test_a_full_queue_takes_places_from_who_floods_it() -> None:
    async def main() -> None:
        async with engine_of([hostile()], limits=Limits(max_queue_requests=16)) as lab:
            flood = [lab.ask(row(order.SLOW), tenant="noisy") for _ in range(40)]
            quiet = lab.ask(row(1.0), tenant="quiet")
            assert value(await quiet) == 2.0
            assert any(isinstance(got, OverloadedError) for got in await asyncio.gather(*flood))

    run(main())


class Context:
    """What a front end keeps."""

    def __init__(self, key: str) -> None:
        self.parameters = {"session": key}


@pytest.mark.slow
@pytest.mark.parametrize("at_once", [1, 60])
def test_equal_shards_go_to_one_device_also_in_batches(at_once: int) -> None:
    async def main() -> None:
        async with engine_of([hostile("a"), hostile("b")], shard="session") as lab:
            went: dict[str, set[str]] = {}
            for begin in range(0, 120, at_once):
                keys = [f"key{number % 6}" for number in range(begin, begin + at_once)]
                asked = [lab.ask(row(number), context=Context(key)) for number, key in enumerate(keys)]
                for number, (key, got) in enumerate(zip(keys, await asyncio.gather(*asked), strict=True)):
                    assert isinstance(got, Got)
                    assert value(got) == number + 1
                    went.setdefault(key, set()).add(got.device)
            assert all(len(devices) == 1 for devices in went.values())
            assert {device for devices in went.values() for device in devices} == {"a", "b"}

    run(main())


def test_who_forbids_the_fallback_is_in_no_batch_of_it_and_holds_nobody_up(tmp_path: Path) -> None:
    flag = tmp_path / "flag"

    async def main() -> None:
        devices = [hostile("npu", environment={order.FLAG: str(flag)}), hostile("cpu", fallback=True)]
        async with engine_of(devices, patience_s=30.0) as lab:
            Path(f"{flag}.down").touch()
            os.kill(lab.engine.replicas.all[0].pid, signal.SIGKILL)
            await until(lambda: not lab.engine.replicas.own_ready, "it survives")
            words: list[Any] = ["", "forbid", "", "", "forbid", ""]
            asked = [lab.ask(row(number), fallback=word) for number, word in enumerate(words)]
            for got in await asyncio.gather(*(each for each, word in zip(asked, words, strict=True) if not word)):
                assert isinstance(got, Got)
                assert got.fell_back
            for got in await asyncio.gather(*(each for each, word in zip(asked, words, strict=True) if word)):
                assert isinstance(got, NotReadyError)  # the device was tried again, in vain

    run(main())


def test_a_request_for_a_busy_device_does_not_hold_up_those_for_a_free_one() -> None:
    free = Port(name="x", dtype="float32", shape=(-1, -1))
    signature = Signature(inputs=(free,), outputs=(free,), batched=True, max_rows=8)

    async def main() -> None:
        devices = [hostile("a", buckets=(Bucket(0, None, ((4,),)),)), hostile("b", buckets=(Bucket(0, None, ((5,),)),))]
        async with engine_of(devices, signature, run_limit_s=20.0) as lab:
            stuck = [lab.ask(np.full((8, 4), order.STOP, np.float32)) for _ in range(6)]
            await asyncio.sleep(0)
            got = await asyncio.gather(*(lab.ask(np.full((1, 5), number, np.float32)) for number in range(20)))
            assert [value(each) for each in got] == [number + 1.0 for number in range(20)]
            assert not any(each.done() for each in stuck)

            def released() -> bool:
                os.kill(lab.engine.replicas.all[0].pid, signal.SIGCONT)  # each run of them stops the worker again
                return all(each.done() for each in stuck)

            await until(released, "they stay stuck")

    run(main())


@pytest.mark.slow
def test_fifty_restarts_and_twenty_engines_leave_nothing_behind() -> None:
    async def main() -> None:
        async with engine_of([hostile()], spares=1) as lab:
            assert await answers(lab, 1.0) == [2.0]
        before, mapped = descriptors(), segments()
        async with engine_of([hostile()], spares=1) as lab:
            lab.engine.replicas._backoffs["npu"]._healthy_s = 0.0  # each restart at once
            for number in range(50):
                asked = [lab.ask(row(each)) for each in range(4)]
                os.kill(lab.engine.replicas.all[0].pid, signal.SIGKILL)
                assert [value(got) for got in await asyncio.gather(*asked)] == [1.0, 2.0, 3.0, 4.0], number
                await until(lambda: lab.engine.is_ready, "no restart")
                assert len(children()) <= 3
            assert segments() == mapped + 1
        for _ in range(20):
            async with engine_of([hostile()]) as lab:
                assert await answers(lab, 1.0) == [2.0]
        assert children() == []
        assert segments() == mapped
        assert descriptors() <= before

    run(main())
