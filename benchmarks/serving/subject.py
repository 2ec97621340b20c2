"""A running server under test, what it is asked, and how one is made: shared by the fault scenarios and the soak."""

from __future__ import annotations

import asyncio
import contextlib
import resource
import shutil
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from client import Answer, Call, Sample, closed_loop, per_second
from exchanges import Exchange, differs
from peers import Peer
from served_models import ServedModel
from server_process import ServerProcess

Result = dict[str, Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Subject:
    """A running server, and what it is asked."""

    peer: Peer
    model: ServedModel
    server: ServerProcess
    scratch: Path
    exchange: Exchange

    @property
    def port(self) -> int:
        return self.server.command.http_port

    def call(self, headers: Mapping[str, str] | None = None) -> Call:
        """The usual request, with the judge of its answer."""
        return Call(self.exchange.http_bytes(f"127.0.0.1:{self.port}", headers), self.judge)

    def judge(self, answer: Answer) -> str:
        """Why an answer of status 200 is not the right one."""
        return differs(self.exchange, answer.headers, answer.body, self.model.answer, int8=self.peer.int8)


def many_files() -> None:
    """As many connections as the system allows: an open loop against a stalled server needs them."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


@contextmanager
def running(peer: Peer, model: ServedModel, threads: int = 1) -> Iterator[tuple[ServerProcess, Path]]:
    """A server that is ready, with its scratch folder; both are gone afterwards."""
    scratch = Path(tempfile.mkdtemp(prefix="s"))  # short: Ray's sockets lie in it
    server = ServerProcess(peer.start(model, scratch, threads), scratch / "log")
    try:
        server.start()
        yield server, scratch
    finally:
        server.stop()
        shutil.rmtree(scratch, ignore_errors=True)


@asynccontextmanager
async def closed(subject: Subject, call: Callable[[], Call], connections: int) -> AsyncIterator[list[Sample]]:
    """Closed-loop clients for as long as the block runs."""
    samples: list[Sample] = []
    stop = asyncio.Event()
    load = asyncio.create_task(closed_loop(subject.port, call, connections, stop, samples))
    try:
        yield samples
    finally:
        stop.set()
        await load


async def capacity(subject: Subject, seconds: float = 3.0, connections: int = 8) -> float:
    """Right answers a second of closed-loop clients."""
    call = subject.call()
    async with closed(subject, lambda: call, connections) as samples:
        await asyncio.sleep(seconds)
    return per_second(samples)


class MemoryPeak:
    """The most memory of a server's tree while a block runs."""

    def __init__(self, server: ServerProcess) -> None:
        self.server = server
        self.pss_mib = 0.0

    async def __aenter__(self) -> MemoryPeak:
        self.task = asyncio.create_task(self.watch())
        return self

    async def __aexit__(self, *_error: object) -> None:
        self.task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self.task

    async def watch(self) -> None:
        while True:
            usage = await asyncio.to_thread(self.server.usage)
            self.pss_mib = max(self.pss_mib, usage.pss_mib)
            await asyncio.sleep(0.5)
