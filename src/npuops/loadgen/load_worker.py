"""Where a stage runs: in this process, or in one of several, which are told what to do through a pipe."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import resource
import signal
import threading
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, Final, Protocol

from npuops.errors import ServingError
from npuops.loadgen.answers import Checker
from npuops.loadgen.grpc_client import MOST_CHANNELS, GrpcChannels, GrpcLane
from npuops.loadgen.http_client import HttpLane, KeepingHttpLane
from npuops.loadgen.lane import Lane
from npuops.loadgen.load_engine import StagePlan, StageRecord, StageRun, stage_run
from npuops.loadgen.metadata_client import tls_context
from npuops.loadgen.outcomes import GRPC
from npuops.loadgen.request_source import Requests
from npuops.loadgen.results import Agreement

try:
    import uvloop
except ModuleNotFoundError:  # it is optional: asyncio's own loop does the same, at half the rate
    uvloop = None

_READY: Final = "ready"
_STOP: Final = "stop"
_END: Final = "end"


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class WorkerAnswer:
    """Of one process, for one stage."""

    record: StageRecord
    agreement: Agreement | None


class Worker(Protocol):
    """Runs one stage at a time."""

    async def ready(self) -> None:
        """Return when it can begin at once."""
        ...

    async def open(self, plan: StagePlan) -> None:
        """Connect for a stage, so that several processes can then begin it at one instant."""
        ...

    async def run(self, start_s: float) -> WorkerAnswer:
        """Run that stage to its end; it counts from this instant of `time.perf_counter`, 0 for now."""
        ...

    def stop(self) -> None:
        """End the stage that runs; what was measured is kept."""
        ...

    async def close(self) -> None:
        """No more stages."""
        ...


def allow_descriptors() -> None:
    """Each connection takes a descriptor, and a process begins with fewer than it may have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft not in {hard, resource.RLIM_INFINITY}:
        with contextlib.suppress(ValueError, OSError):  # macOS has a lower limit that it does not tell
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def run_loop(main: Callable[[], Any]) -> Any:
    """Run a coroutine function on the fastest loop there is."""
    allow_descriptors()
    with asyncio.Runner(loop_factory=None if uvloop is None else uvloop.new_event_loop) as runner:
        return runner.run(main())


class LocalWorker:
    """The load comes from this process's loop."""

    def __init__(self, requests: Requests) -> None:
        self._requests = requests
        self._run: StageRun | None = None
        self._grpc: GrpcChannels | None = None
        self._stopped = False
        self._checker = Checker(requests.expected, requests.form, requests.tolerance) if requests.expected else None

    async def ready(self) -> None:
        """It always is."""

    async def open(self, plan: StagePlan) -> None:
        """As `Worker.open`."""
        loop = asyncio.get_running_loop()
        self._grpc = self._channels(plan)
        self._run = stage_run(plan, self._maker(loop, self._grpc))
        if self._stopped:
            self._run.stop()
        await self._run.open()

    async def run(self, start_s: float) -> WorkerAnswer:
        """As `Worker.run`."""
        run, channels = self._run, self._grpc
        if run is None:
            raise RuntimeError("a stage is opened before it runs")
        try:
            record = await run.run(start_s)
        finally:
            self._run = self._grpc = None
            if channels is not None:
                await channels.close()
        return WorkerAnswer(record=record, agreement=None if self._checker is None else self._checker.taken())

    def stop(self) -> None:
        """As `Worker.stop`; a stage that comes later ends at once."""
        self._stopped = True
        if self._run is not None:
            self._run.stop()

    async def close(self) -> None:
        """There is nothing to end."""

    def _channels(self, plan: StagePlan) -> GrpcChannels | None:
        requests = self._requests
        if requests.form != "grpc":
            return None
        count = min(max(plan.lanes, 1), MOST_CHANNELS)
        return GrpcChannels(requests.endpoint.authority, count, tls=requests.endpoint.tls, insecure=requests.insecure)

    def _maker(self, loop: asyncio.AbstractEventLoop, channels: GrpcChannels | None) -> Any:
        requests, made = self._requests, 0
        server = (requests.endpoint.host, requests.endpoint.port)
        context = tls_context(requests.endpoint, insecure=requests.insecure)
        messages = list(zip(requests.wires, requests.metadata, strict=True)) if channels is not None else []
        lane_class = HttpLane if self._checker is None else KeepingHttpLane

        def make(settled: Callable[[Any, int], None]) -> Lane:
            nonlocal made
            made += 1
            told = settled if self._checker is None else self._checked(settled, self._checker)
            if channels is not None:
                return GrpcLane(loop, channels, made, messages, told)
            return lane_class(loop, server, context, requests.wires, told)

        return make

    def _checked(self, settled: Callable[[Any, int], None], checker: Checker) -> Callable[[Any, int], None]:
        inputs = self._requests.inputs

        def told(lane: Any, code: int) -> None:
            # The end is noted first, and the lane may send its next request then: what is compared is taken before.
            place, body, header_bytes = lane.kind % inputs, lane.body, lane.header_bytes
            settled(lane, code)
            if 200 <= code < 300 or code == GRPC:
                checker.check(place, body, header_bytes)

        return told


class ProcessWorker:
    """The load comes from a process of its own."""

    def __init__(self, requests: Requests) -> None:
        context = multiprocessing.get_context("spawn")  # a fork would carry this loop's sockets along
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_serve, args=(theirs, requests), daemon=True)
        self._process.start()
        theirs.close()

    async def ready(self) -> None:
        """As `Worker.ready`: its imports take longer than any start could be put off.

        Raises:
            ServingError: the process died.
        """
        await self._heard()

    async def open(self, plan: StagePlan) -> None:
        """As `Worker.open`.

        Raises:
            ServingError: the process died.
        """
        self._tell(plan)
        await self._heard()

    async def run(self, start_s: float) -> WorkerAnswer:
        """As `Worker.run`.

        Raises:
            ServingError: the process died.
        """
        self._tell(start_s)
        found: WorkerAnswer = await self._heard()
        return found

    async def _heard(self) -> Any:
        try:
            found = await asyncio.to_thread(self._pipe.recv)
        except (EOFError, OSError) as error:
            raise ServingError("a load process died", advice="its own words are above") from error
        if isinstance(found, Exception):
            raise found
        return found

    def stop(self) -> None:
        """As `Worker.stop`."""
        self._tell(_STOP)

    async def close(self) -> None:
        """End the process."""
        self._tell(_END)
        self._process.join(5)
        if self._process.is_alive():
            self._process.kill()
            self._process.join()
        self._pipe.close()

    def _tell(self, message: StagePlan | float | str) -> None:
        _sent(self._pipe, message)  # where it is gone already, `_heard` tells


def _serve(pipe: Connection, requests: Requests) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches the whole group, but only the parent decides
    run_loop(lambda: _serve_stages(pipe, requests))


async def _serve_stages(pipe: Connection, requests: Requests) -> None:
    loop = asyncio.get_running_loop()
    worker = LocalWorker(requests)
    tasks: asyncio.Queue[StagePlan | float | None] = asyncio.Queue()

    def heard(message: StagePlan | float | str) -> None:
        if not isinstance(message, str):
            tasks.put_nowait(message)
            return
        worker.stop()
        if message == _END:
            tasks.put_nowait(None)

    def listen() -> None:
        """In a thread that sleeps in the kernel: a loop's reader would make the pipe one that never blocks."""
        message: StagePlan | float | str = ""
        while message != _END:
            try:
                message = pipe.recv()
            except (EOFError, OSError):
                message = _END  # the parent is gone
            loop.call_soon_threadsafe(heard, message)

    threading.Thread(target=listen, daemon=True).start()
    alive = _sent(pipe, _READY)
    while alive and (task := await tasks.get()) is not None:
        answer: WorkerAnswer | Exception | str = _READY
        try:
            if isinstance(task, StagePlan):
                await worker.open(task)
            else:
                answer = await worker.run(task)
        except Exception as error:  # noqa: BLE001 - it is raised in the parent, where somebody sees it
            answer = error
        alive = _sent(pipe, answer)


def _sent(pipe: Connection, message: object) -> bool:
    """False where nobody is at the other end any more."""
    try:
        pipe.send(message)
    except OSError:
        return False
    return True
