"""The server's end of a worker process: start it, hand it its artifacts, ring its bell, hear its answers and its end.

Nothing here waits: the loop calls back. A process that is started ahead of need (`spare`) has paid for Python and numpy
already, and loads a model in a fraction of the time.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import msgspec

from npuops import errors
from npuops.clock import Clock
from npuops.errors import NpuopsError, RunError
from npuops.runtime import doorbell
from npuops.runtime.slots import Geometry, SharedMemory, make_memory

SPARE_BUFFER_BYTES: Final = 1 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOrder:
    """What a worker is to load.

    Attributes:
        artifacts: folders.
        geometry: of the shared memory.
        sizes: rows to measure each artifact at.
        budget_ms: of time to measure.
        environment: for the vendor's code.
    """

    artifacts: tuple[Path, ...]
    geometry: Geometry
    sizes: tuple[tuple[int, ...], ...]
    budget_ms: float
    environment: Mapping[str, str] = field(default_factory=dict)


class WorkerLostError(RunError):
    """The worker process ended, or was ended."""


class WorkerProcess:
    """One process. `open` once, then `send` runs; every message and the end come to the callbacks.

    Attributes:
        pid: of the process.
        memory: shared with it; None before `open`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock) -> None:
        """Start it.

        Raises:
            RunError: the system does not start a process.
        """
        self._loop = loop
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SPARE_BUFFER_BYTES)
            try:
                self._process = subprocess.Popen(  # noqa: S603 - our own module, no word of a user
                    [sys.executable, "-m", "npuops.runtime.worker", str(theirs.fileno())],
                    pass_fds=(theirs.fileno(),),
                    stdin=subprocess.DEVNULL,
                    start_new_session=True,
                )
            except OSError as error:
                ours.close()
                raise RunError(f"cannot start a worker: {error.strerror}") from error
        ours.setblocking(False)
        self._socket = ours
        self.pid = self._process.pid
        self.memory: SharedMemory | None = None
        self.born_us = clock.now_us()
        self._opened: asyncio.Future[doorbell.Opened] | None = None
        self._on_message: Callable[[bytes], None] | None = None
        self._on_end: Callable[[str], None] | None = None
        self._ended: asyncio.Future[str] = loop.create_future()
        self._pidfd = os.pidfd_open(self.pid)
        loop.add_reader(ours.fileno(), self._read)
        loop.add_reader(self._pidfd, self._exited)

    async def open(
        self, order: OpenOrder, on_message: Callable[[bytes], None], on_end: Callable[[str], None]
    ) -> doorbell.Opened:
        """Load the artifacts, warm up, and measure. From then on every message and the end come to the callbacks.

        Raises:
            NpuopsError: as the worker met it.
            WorkerLostError: the process ended meanwhile.
        """
        descriptor = make_memory(order.geometry.total_bytes)
        self.memory = SharedMemory(os.dup(descriptor), order.geometry.total_bytes)
        self._opened = self._loop.create_future()
        self._on_message, self._on_end = on_message, on_end
        message = doorbell.Open(
            artifacts=[str(path) for path in order.artifacts],
            segment_bytes=order.geometry.total_bytes,
            slot_bytes=order.geometry.slot_bytes,
            output_offset=order.geometry.output_offset,
            environment=dict(order.environment),
            sizes=[list(sizes) for sizes in order.sizes],
            budget_ms=order.budget_ms,
        )
        try:
            socket.send_fds(self._socket, [doorbell.pack_json(doorbell.OPEN, message)], [descriptor])
        except OSError as error:
            raise WorkerLostError(f"the worker {self.pid} ended before it was used") from error
        finally:
            os.close(descriptor)
        return await self._opened

    def send(self, message: bytes) -> bool:
        """Ring the bell; False where the worker is gone (its end is told separately)."""
        try:
            self._socket.send(message)
        except OSError:
            return False
        return True

    def kill(self) -> None:
        """End it now; `on_end` follows."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)

    async def ended(self) -> str:
        """Wait until it is gone; gives why."""
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Hang up, and see it end; one that does not is killed."""
        self._on_message = None
        self._hang_up()
        try:
            await asyncio.wait_for(self.ended(), timeout=2.0)
        except TimeoutError:
            self.kill()
            await self.ended()

    @property
    def is_alive(self) -> bool:
        """Whether its end was not seen yet."""
        return not self._ended.done()

    def _read(self) -> None:
        while True:
            try:
                message = self._socket.recv(doorbell.MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._hang_up()
                return
            if message[0] in {doorbell.RAN, doorbell.FAILED}:
                if self._on_message is not None:
                    self._on_message(message)
            else:
                self._handshake(message)

    def _handshake(self, message: bytes) -> None:
        if self._opened is None or self._opened.done():
            return  # a spare says that it has started
        if message[0] == doorbell.OPENED:
            self._opened.set_result(msgspec.json.decode(message[1:], type=doorbell.Opened))
        elif message[0] == doorbell.REFUSED:
            self._opened.set_exception(raised(msgspec.json.decode(message[1:], type=doorbell.Told)))

    def _hang_up(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._process.wait()
        self._read_rest()
        self._hang_up()
        why = f"signal {signal.Signals(-code).name}" if code < 0 else f"exit code {code}"
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(WorkerLostError(f"the worker ended while it loaded: {why}"))
            self._opened.exception()  # whoever awaited it has it; if nobody did, that is no news
        self._ended.set_result(why)
        if self._on_end is not None:
            self._on_end(why)
        if self.memory is not None:
            self.memory.close()

    def _read_rest(self) -> None:
        """Answers that were sent before the end still count."""
        if self._socket.fileno() >= 0:
            self._read()


def raised(told: doorbell.Told) -> NpuopsError:
    """The worker's error, of its own class."""
    kind = getattr(errors, told.kind, RunError)
    return kind(told.message, advice=told.advice) if issubclass(kind, NpuopsError) else RunError(told.message)


class SparePool:
    """Processes that wait for a model: `count` of them are kept ready."""

    def __init__(self, loop: asyncio.AbstractEventLoop, clock: Clock, count: int) -> None:
        """Start them."""
        self._loop, self._clock, self._count = loop, clock, count
        self._spares: list[WorkerProcess] = []
        self.refill()

    def take(self) -> WorkerProcess:
        """A process: a spare, or a new one. Another spare is started soon after.

        Raises:
            RunError: the system does not start a process.
        """
        while self._spares:
            spare = self._spares.pop(0)
            if spare.is_alive:
                self._loop.call_later(0.2, self.refill)  # not while the one just taken loads
                return spare
        return WorkerProcess(self._loop, self._clock)

    def refill(self) -> None:
        """Start as many as are missing."""
        self._spares = [spare for spare in self._spares if spare.is_alive]
        while len(self._spares) < self._count:
            self._spares.append(WorkerProcess(self._loop, self._clock))

    async def close(self) -> None:
        """End all spares."""
        self._count = 0
        spares, self._spares = self._spares, []
        await asyncio.gather(*(spare.close() for spare in spares))
