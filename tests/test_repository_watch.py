from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from npuops.errors import StorageError
from npuops.events import Warned
from npuops.server.repository_watch import RepositoryWatch
from npuops.testing import EventLog
from repository_lab import lab, toys

Made = Callable[[int], Path]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return toys(tmp_path_factory.mktemp("toys"))


class Desk:
    """Looks are counted, and fail when they are told to."""

    def __init__(self) -> None:
        self.looks: list[bool] = []
        self.ticks = 0
        self.error: Exception | None = None
        self.looked = asyncio.Event()

    async def refresh(self, *, settle: bool = False) -> None:
        self.looks.append(settle)
        self.looked.set()
        if self.error is not None:
            raise self.error

    def tick(self) -> None:
        self.ticks += 1

    async def count(self, looks: int) -> None:
        while len(self.looks) < looks:
            self.looked.clear()
            await self.looked.wait()


async def end(task: asyncio.Task[None]) -> None:
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def test_a_watch_looks_again_and_again_and_takes_only_what_stayed() -> None:
    async def story() -> None:
        desk = Desk()
        watch = asyncio.create_task(RepositoryWatch(desk, poll_s=0.001).run())
        await desk.count(5)
        assert all(desk.looks)
        assert desk.ticks >= 4
        await end(watch)

    asyncio.run(story())


def test_sighup_looks_at_once_and_takes_everything_as_it_is() -> None:
    async def story() -> None:
        desk = Desk()
        watch = RepositoryWatch(desk, poll_s=None)
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGHUP, watch.look_now)
        task = asyncio.create_task(watch.run())
        os.kill(os.getpid(), signal.SIGHUP)
        await desk.count(1)
        assert desk.looks == [False]
        loop.remove_signal_handler(signal.SIGHUP)
        await end(task)

    asyncio.run(story())


def test_a_disk_that_cannot_be_read_is_said_once_and_looked_at_again() -> None:
    async def story() -> None:
        desk, log = Desk(), EventLog()
        desk.error = StorageError("cannot list /repo: gone")
        watch = asyncio.create_task(RepositoryWatch(desk, poll_s=0.001, observe=log).run())
        await desk.count(4)
        assert len(log.of(Warned)) == 1
        assert "stays as it is" in log.of(Warned)[0].message
        desk.error = None
        await desk.count(6)
        desk.error = StorageError("cannot list /repo: gone")
        await desk.count(9)
        assert len(log.of(Warned)) == 2
        await end(watch)

    asyncio.run(story())


def test_a_defect_in_one_look_is_said_and_does_not_end_the_later_ones() -> None:
    async def story() -> None:
        desk, log = Desk(), EventLog()
        desk.error = RuntimeError("a bug")
        watch = asyncio.create_task(RepositoryWatch(desk, poll_s=0.001, observe=log).run())
        await desk.count(3)
        assert "RuntimeError: a bug" in log.of(Warned)[0].message
        await end(watch)

    asyncio.run(story())


def test_a_version_that_is_copied_into_a_served_repository_is_served_when_it_is_whole(
    tmp_path: Path, made: Made
) -> None:
    async def story() -> None:
        async with lab(tmp_path / "repo", made) as here:
            here.put("a/1", 0)
            await here.look()
            watch = asyncio.create_task(RepositoryWatch(here.repository, poll_s=0.001).run())
            target = here.root / "a/2"
            target.mkdir()
            for name in ("manifest.json", "program.toy"):
                data = (made(1) / name).read_bytes()
                with (target / name).open("wb") as file:
                    for begin in range(0, len(data), 500):
                        file.write(data[begin : begin + 500])
                        file.flush()
                        await asyncio.sleep(0)
            while here.states("a") != {"1": "UNAVAILABLE", "2": "READY"}:
                await asyncio.sleep(0.001)
            assert here.answer("a").shape == (1, 10)
            await end(watch)

    asyncio.run(story())
