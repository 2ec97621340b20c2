from __future__ import annotations

import asyncio
import os
import resource
import signal
from pathlib import Path
from typing import Any

import pytest

import hostile_worker as order
from engine_lab import (
    HOSTILE,
    LIMIT_S,
    REAL,
    Got,
    children,
    descriptors,
    engine_of,
    gone,
    hostile,
    row,
    run,
    served,
    until,
)
from npuops.errors import RunError
from npuops.runtime import doorbell
from npuops.runtime.doorbell import Told, raised, told_of
from npuops.runtime.facts import ColdCause, WorkerStarted
from npuops.runtime.slots import Geometry
from npuops.runtime.worker_process import OpenOrder, SparePool, WorkerLostError, WorkerProcess
from served_artifacts import ort_artifact, tiny_cnn

GEOMETRY = Geometry(slots=3, slot_bytes=8192, output_offset=4096)


def an_order(**rest: Any) -> OpenOrder:
    values = {"artifacts": (Path("none"),), "digests": (), "sizes": ((1,),), "budget_ms": 1.0, **rest}
    return OpenOrder(geometry=GEOMETRY, **values)


async def opened(worker: WorkerProcess, **rest: Any) -> tuple[list[bytes], list[str]]:
    heard: list[bytes] = []
    ends: list[str] = []
    await worker.open(an_order(**rest), heard.append, ends.append)
    return heard, ends


@pytest.mark.slow
def test_a_worker_that_is_closed_ends_and_leaves_nothing() -> None:
    async def main() -> None:
        before = descriptors()
        worker = WorkerProcess(asyncio.get_running_loop(), module=HOSTILE)
        _, ends = await opened(worker)
        await worker.close()
        assert ends == ["exit code 0"]
        assert not worker.is_alive
        assert gone(worker.pid)
        assert not worker.send(b"\1")
        worker.kill()  # its number may be another process's by now
        await worker.close()
        assert descriptors() <= before

    run(main())


@pytest.mark.parametrize("stage", ["spawned", "opening", "open"])
def test_a_kill_is_told_at_every_stage(stage: str) -> None:
    async def main() -> None:
        worker = WorkerProcess(asyncio.get_running_loop(), module=HOSTILE)
        if stage == "spawned":
            os.kill(worker.pid, signal.SIGKILL)
            assert await asyncio.wait_for(worker.ended(), LIMIT_S) == "signal SIGKILL"
            with pytest.raises(WorkerLostError):
                await opened(worker)
            return
        if stage == "opening":
            opening = asyncio.ensure_future(opened(worker, environment={order.LOAD: "stop"}))
            await until(lambda: stopped(worker.pid), "it does not stop")
            os.kill(worker.pid, signal.SIGKILL)
            with pytest.raises(WorkerLostError, match="SIGKILL"):
                await opening
            return
        _, ends = await opened(worker)
        os.kill(worker.pid, signal.SIGKILL)
        await until(lambda: ends, "nobody is told")
        assert ends == ["signal SIGKILL"]
        assert gone(worker.pid)

    run(main())


def stopped(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()[0] == "T"


def test_a_worker_that_does_not_listen_is_killed_when_it_is_closed() -> None:
    async def main() -> None:
        worker = WorkerProcess(asyncio.get_running_loop(), module=HOSTILE)
        await opened(worker)
        os.kill(worker.pid, signal.SIGSTOP)
        await worker.close()
        assert gone(worker.pid)

    run(main())


@pytest.mark.slow
def test_without_descriptors_no_worker_starts_and_none_leaks() -> None:
    async def main() -> None:
        loop = asyncio.get_running_loop()
        pool = SparePool(loop, 0, module=HOSTILE)
        before = descriptors()
        refused = 0
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        for spare in range(8):  # each step fails once: the sockets, the pipe of the start, the watch
            resource.setrlimit(resource.RLIMIT_NOFILE, (before + spare, hard))
            try:
                worker = pool.take()
            except RunError:
                refused += 1
                worker = None
            finally:
                resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
            if worker is not None:
                await worker.close()
        assert refused >= 3
        assert descriptors() <= before
        assert children() == []
        await pool.close()

    run(main())


def test_a_spare_that_died_is_not_given_out_and_is_replaced() -> None:
    async def main() -> None:
        pool = SparePool(asyncio.get_running_loop(), 2, module=HOSTILE)
        dead = pool.pids
        for pid in dead:
            os.kill(pid, signal.SIGKILL)
        await until(lambda: pool.pids == [], "a dead spare counts")
        worker = pool.take()
        assert worker.pid not in dead
        await opened(worker)
        await until(lambda: len(pool.pids) == 2, "nobody refills the pool")
        await worker.close()
        await pool.close()
        assert children() == []

    run(main())


def test_a_spare_has_paid_for_the_libraries(tmp_path: Path) -> None:
    spec, signature = served(ort_artifact(tmp_path / "a", tiny_cnn(tmp_path / "tiny.onnx")))

    def ready(pid: int) -> bool:
        return "onnxruntime" in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")

    async def main() -> None:
        async with engine_of([spec], signature, module=REAL, spares=1, start=False) as lab:
            await until(lambda: ready(lab.spares.pids[0]), "a spare does not prepare")
            spare = lab.spares.pids[0]
            await lab.engine.start(ColdCause.LOAD)
            (started,) = lab.of(WorkerStarted)
            assert started.pid == spare

    run(main())


def test_the_last_words_of_a_worker_that_dies_still_count() -> None:
    async def main() -> None:
        async with engine_of([hostile()]) as lab:
            asked = [lab.ask(row(each)) for each in range(8)]
            await asyncio.sleep(0)
            got = await asyncio.gather(*asked)
            assert all(isinstance(each, Got) for each in got)

    run(main())


def test_an_error_keeps_its_class_and_its_words_across_the_border() -> None:
    class VendorsOwnError(RunError):
        """Not of our tree."""

    again = raised(told_of(VendorsOwnError("no", advice="ask the vendor")))
    assert type(again) is RunError
    assert (again.message, again.advice) == ("no", "ask the vendor")
    assert type(raised(Told(kind="nearest", message="a function's name"))) is RunError
    assert "KeyError" in raised(told_of(KeyError("x"))).message
    assert len(doorbell.pack_failed(1, told_of(RunError("\ud800" * 100_000)))) < doorbell.MESSAGE_BYTES
