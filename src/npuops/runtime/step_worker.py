"""A small pool of processes that turn pictures into tensors, so that neither the event loop nor a device waits for it.

Strangers' pictures are decoded here and nowhere else in a server: a decoder that crashes or hangs costs one process,
which is replaced, and one picture.
"""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final

import msgspec

from npuops.clock import Clock
from npuops.errors import DataError, DeadlineError, NotReadyError, NpuopsError, OverloadedError, RunError
from npuops.events import Event, Observer
from npuops.models.steps import PreStep
from npuops.runtime.doorbell import Told
from npuops.runtime.job import NO_DEADLINE, Bytes
from npuops.runtime.slots import SharedMemory, make_memory
from npuops.runtime.step_process import ERROR, READY, REPLY, REQUEST, SHARED, TENSOR_BYTES
from npuops.runtime.worker_process import raised

ATTEMPTS: Final = 2
"""Processes that a picture may cost: the first may have been ended by somebody else."""
_START_S: Final = 30.0
_BUFFER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class StepOptions:
    """How pictures are prepared.

    Attributes:
        processes: None: half of the processor's cores, at least one.
        limit_s: for one picture; then its process is replaced.
        max_waiting: pictures; beyond, requests are refused.
    """

    processes: int | None = None
    limit_s: float = 5.0
    max_waiting: int = 256


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProcessEnded(Event):
    """A process of the pool is gone, and replaced."""

    pid: int
    why: str


@dataclass(slots=True)
class _Task:
    steps: bytes
    data: Bytes
    deadline_us: int
    answer: asyncio.Future[bytearray]
    attempts: int = 0


class StepPool:
    """Give it pictures from the event loop's thread; it answers with futures."""

    def __init__(self, options: StepOptions, clock: Clock, observe: Observer) -> None:
        """No process runs before `start`."""
        self._options, self._clock, self._observe = options, clock, observe
        self._tasks: asyncio.Queue[_Task] = asyncio.Queue()
        self._servers: list[asyncio.Task[None]] = []
        self._closed = False
        self.pids: set[int] = set()

    async def start(self) -> None:
        """Start the processes; they are ready when this returns.

        Raises:
            RunError: the system does not start a process, or it does not come up.
        """
        count = self._options.processes or max(1, len(os.sched_getaffinity(0)) // 2)
        first = [await self._new() for _ in range(count)]
        self._servers = [asyncio.create_task(self._serve(process)) for process in first]

    def submit(
        self, steps: Sequence[PreStep], data: Bytes, *, deadline_us: int = NO_DEADLINE
    ) -> asyncio.Future[bytearray]:
        """Prepare one picture.

        Args:
            steps: of a pipeline.
            data: the encoded picture; must stay as it is until the future is done.
            deadline_us: on the pool's clock; what waits longer is dropped.

        Returns:
            The bytes of the tensor, in the dtype and layout that the steps say. It fails with DataError (no readable
            picture), DeadlineError, OverloadedError (too many wait), NotReadyError (the pool is closed), or RunError.
        """
        answer: asyncio.Future[bytearray] = asyncio.get_running_loop().create_future()
        if self._closed or not self._servers:
            answer.set_exception(NotReadyError("the preparation of pictures is not running"))
        elif self._tasks.qsize() >= self._options.max_waiting:
            answer.set_exception(OverloadedError(f"{self._options.max_waiting} pictures wait already"))
        else:
            self._tasks.put_nowait(
                _Task(steps=_encoded(tuple(steps)), data=data, deadline_us=deadline_us, answer=answer)
            )
        return answer

    @property
    def waiting(self) -> int:
        """Pictures that no process has begun."""
        return self._tasks.qsize()

    async def close(self) -> None:
        """End all processes; whoever still waits gets NotReadyError."""
        self._closed = True
        for server in self._servers:
            server.cancel()
        await asyncio.gather(*self._servers, return_exceptions=True)
        self._servers = []
        while not self._tasks.empty():
            _fail(self._tasks.get_nowait(), NotReadyError("the server stops"))

    async def _new(self) -> _Process:
        process = _Process()
        try:
            kind, _ = await asyncio.wait_for(process.reply(), _START_S)
        except (OSError, EOFError, TimeoutError) as error:
            why = await process.end()
            raise RunError(f"a process that prepares pictures does not start: {why}") from error
        if kind != READY:
            raise RunError("a process that prepares pictures does not speak our language")
        self.pids.add(process.pid)
        return process

    async def _serve(self, process: _Process | None) -> None:
        """One place in the pool: a process, and after its end another."""
        task: _Task | None = None
        try:
            while True:
                # A picture whose process died is tried once more on a fresh one, which nobody can have ended before.
                if task is None or task.answer.done():
                    task = await self._tasks.get()
                if self._is_over(task):
                    continue
                if process is None:
                    process = await self._revived(task)
                elif not await self._try(process, task):
                    self.pids.discard(process.pid)
                    self._observe(StepProcessEnded(pid=process.pid, why=await process.end()))
                    process = None
        finally:
            if task is not None:
                _fail(task, NotReadyError("the server stops"))
            if process is not None:
                self.pids.discard(process.pid)
                await process.end()

    async def _revived(self, task: _Task) -> _Process | None:
        try:
            return await self._new()
        except RunError as error:
            _fail(task, error)
            return None

    def _is_over(self, task: _Task) -> bool:
        if not task.answer.done() and self._clock.now_us() > task.deadline_us:
            _fail(task, DeadlineError("the deadline passed before the picture was prepared"))
        return task.answer.done()

    async def _try(self, process: _Process, task: _Task) -> bool:
        """Whether the process lives on."""
        task.attempts += 1
        try:
            kind, payload = await asyncio.wait_for(
                process.ask(task.steps, task.data, self._options.limit_s), self._options.limit_s
            )
        except TimeoutError:
            words = f"the picture takes longer than {self._options.limit_s:g} s to prepare"
            _fail(task, DataError(words, advice="send it smaller"))
            return False
        except (OSError, EOFError):
            if task.attempts == ATTEMPTS:
                _fail(task, DataError("the picture ended the process that decoded it, twice"))
            return False
        if kind == ERROR:
            _fail(task, raised(msgspec.json.decode(payload, type=Told)))
        elif not task.answer.done():
            task.answer.set_result(payload)
        return True


class _Process:
    """One child and the line to it."""

    def __init__(self) -> None:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        with theirs:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
            ours.setblocking(False)
            shared = make_memory(TENSOR_BYTES)
            self._memory = SharedMemory(os.dup(shared), TENSOR_BYTES)
            try:
                self._child = subprocess.Popen(  # noqa: S603 - our own module, no word of a user
                    [sys.executable, "-m", "npuops.runtime.step_process", str(theirs.fileno()), str(shared)],
                    pass_fds=(theirs.fileno(), shared),
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                    env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
                )
            except OSError as error:
                ours.close()
                raise RunError(f"cannot start a process: {error.strerror}") from error
            finally:
                os.close(shared)
        self._socket = ours
        self.pid = self._child.pid

    async def ask(self, steps: bytes, data: Bytes, limit_s: float) -> tuple[int, bytearray]:
        """Send a picture, and wait for what becomes of it."""
        loop = asyncio.get_running_loop()
        # The child's own limit comes into play only where nobody is left to keep ours.
        await loop.sock_sendall(self._socket, REQUEST.pack(len(steps), len(data), 2 * limit_s) + steps)
        await loop.sock_sendall(self._socket, data)
        return await self.reply()

    async def reply(self) -> tuple[int, bytearray]:
        """The next answer.

        Raises:
            EOFError: the process is gone.
        """
        kind, size = REPLY.unpack(await self._received(REPLY.size))
        if kind == SHARED:
            return kind, bytearray(self._memory.view[:size])
        return kind, await self._received(size)

    async def end(self) -> str:
        """Kill it if need be, and say how it ended."""
        self._socket.close()
        self._memory.close()
        with suppress(ProcessLookupError):
            self._child.kill()
        code = await asyncio.get_running_loop().run_in_executor(None, self._child.wait)
        return f"signal {-code}" if code < 0 else f"exit code {code}"

    async def _received(self, size: int) -> bytearray:
        loop, buffer, at = asyncio.get_running_loop(), bytearray(size), 0
        view = memoryview(buffer)
        while at < size:
            count = await loop.sock_recv_into(self._socket, view[at:])
            if not count:
                raise EOFError
            at += count
        return buffer


_ENCODED: dict[tuple[PreStep, ...], bytes] = {}


def _encoded(steps: tuple[PreStep, ...]) -> bytes:
    found = _ENCODED.get(steps)
    if found is None:
        found = _ENCODED[steps] = msgspec.json.encode(steps)
    return found


def _fail(task: _Task, error: NpuopsError) -> None:
    if not task.answer.done():
        task.answer.set_exception(error)
