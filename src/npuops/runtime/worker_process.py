"""The server's end of a worker process: start it, hand it its artifacts, ring its bell, hear its answers and its end.

Nothing here waits: the loop calls back. A process that is started ahead of need (`spare`) has paid for Python, numpy
and the targets' libraries already, and loads a model in a fraction of the time.
"""

from __future__ import annotations

import asyncio
import logging
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from npuops.errors import RunError
from npuops.runtime import doorbell
from npuops.runtime.background import AGAIN_S, Lowered, bring_forward, send_to_background
from npuops.runtime.doorbell import NonsenseError
from npuops.runtime.slots import Geometry, SharedMemory, make_memory

MODULE: Final = "npuops.runtime.worker"
LIKELY_TARGETS: Final = ("ort-cpu",)
"""That spares prepare for: every install has it, and its library is most targets' library."""
CLOSE_S: Final = 2.0
"""A worker that was told to end and is still there after so long is killed."""
HUNG_UP_S: Final = 0.5
"""One that hung up by itself can do nothing any more; its exit code tells more than a kill, if it comes so soon."""
REFILL_S: Final = 0.2
"""A spare is not replaced at once: the one just taken loads a model, and needs the processor."""
_SEND_BUFFER_BYTES: Final = 1 << 20
_log: Final = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenOrder:
    """What a worker is to load.

    Attributes:
        artifacts: folders.
        digests: that their manifests must have; empty takes what is there.
        geometry: of the shared memory.
        sizes: rows to measure each artifact at.
        budget_ms: of time to measure.
        background: load with low priority.
        environment: for the vendor's code.
    """

    artifacts: tuple[Path, ...]
    digests: tuple[str, ...]
    geometry: Geometry
    sizes: tuple[tuple[int, ...], ...]
    budget_ms: float
    background: bool = False
    environment: Mapping[str, str] = field(default_factory=dict)


class WorkerLostError(RunError):
    """The worker process ended, or was ended."""


class WorkerProcess:
    """One process. `open` once, then `send` runs; every message and the end come to the callbacks.

    Attributes:
        pid: of the process.
        memory: shared with it; None before `open`.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, likely: Sequence[str] = (), module: str = MODULE) -> None:
        """Start it.

        Args:
            loop: calls back.
            likely: targets to prepare for.
            module: to run; the tests have workers that misbehave.

        Raises:
            RunError: the system does not start a process.
        """
        self._loop = loop
        self.memory: SharedMemory | None = None
        self._opened: asyncio.Future[doorbell.Opened] | None = None
        self._on_message: Callable[[bytes], None] | None = None
        self._on_end: Callable[[str], None] | None = None
        self._why = ""
        self._lowered = Lowered()
        try:
            self._socket, self._process = _spawn(module, likely)
        except OSError as error:
            raise RunError(f"cannot start a worker: {error.strerror}", advice=_LIMITS) from error
        self.pid = self._process.pid
        try:
            self._pidfd = os.pidfd_open(self.pid)
        except OSError as error:
            self._socket.close()
            self._process.kill()
            self._process.wait()
            raise RunError(f"cannot watch a worker: {error.strerror}", advice=_LIMITS) from error
        self._ended: asyncio.Future[str] = loop.create_future()
        loop.add_reader(self._socket.fileno(), self._read)
        loop.add_reader(self._pidfd, self._exited)

    async def open(
        self, order: OpenOrder, on_message: Callable[[bytes], None], on_end: Callable[[str], None]
    ) -> doorbell.Opened:
        """Load the artifacts, warm up, and measure. From then on every message and the end come to the callbacks.

        Raises:
            NpuopsError: as the worker met it.
            WorkerLostError: the process ended meanwhile.
            StorageError: there is no memory for the slots.
        """
        nbytes = order.geometry.total_bytes
        message = doorbell.Open(
            artifacts=[str(path) for path in order.artifacts],
            digests=list(order.digests),
            segment_bytes=nbytes,
            slot_bytes=order.geometry.slot_bytes,
            output_offset=order.geometry.output_offset,
            environment=dict(order.environment),
            sizes=[list(sizes) for sizes in order.sizes],
            budget_ms=order.budget_ms,
            background=order.background,
        )
        descriptor = make_memory(nbytes)
        try:
            try:
                socket.send_fds(self._socket, [doorbell.pack_json(doorbell.OPEN, message)], [descriptor])
            except OSError as error:
                raise WorkerLostError(f"the worker {self.pid} cannot be told what to load: {error.strerror}") from error
        except BaseException:
            os.close(descriptor)
            raise
        self.memory = SharedMemory(descriptor, nbytes)
        self._opened = self._loop.create_future()
        self._on_message, self._on_end = on_message, on_end
        return await self._opened

    def send(self, message: bytes) -> bool:
        """Ring the bell; False where the worker is gone (its end is told separately)."""
        try:
            self._socket.send(message)
        except OSError:
            return False
        return True

    def kill(self, why: str = "") -> None:
        """End it now; `on_end` follows, with these words if there are any."""
        self._why = self._why or why
        if self.is_alive:  # else its number may be another process's by now
            with suppress(ProcessLookupError):
                os.kill(self.pid, signal.SIGKILL)

    def step_back(self) -> None:
        """Nobody waits for it: whoever answers goes first."""
        self._lowered = send_to_background(self.pid)

    def come_forward(self) -> None:
        """It is needed."""
        if self.is_alive and not bring_forward(self.pid, self._lowered):
            self._loop.call_later(AGAIN_S, self.come_forward)

    async def ended(self) -> str:
        """Wait until it is gone; gives why."""
        return await asyncio.shield(self._ended)

    async def close(self) -> None:
        """Hang up, and see it end; one that does not is killed."""
        self._on_message = None
        self._hang_up()
        try:
            await asyncio.wait_for(self.ended(), timeout=CLOSE_S)
        except TimeoutError:
            self.kill()
            await self.ended()

    @property
    def is_alive(self) -> bool:
        """Whether its end was not seen yet."""
        return not self._ended.done()

    def _read(self) -> None:
        receive = self._socket.recv
        while True:
            try:
                message = receive(doorbell.MESSAGE_BYTES)
            except BlockingIOError:
                return
            except OSError:
                message = b""
            if not message:
                self._hang_up()
                self._loop.call_later(HUNG_UP_S, self.kill)
                return
            try:
                self._hear(message)
            except NonsenseError as error:
                self._on_message = None
                self.kill(f"it spoke nonsense: {error.message}")
                return

    def _hear(self, message: bytes) -> None:
        kind = message[0]
        if kind in {doorbell.RAN, doorbell.FAILED}:
            if self._on_message is not None:
                self._on_message(message)
        elif kind == doorbell.SPAWNED or self._opened is None or self._opened.done():
            return  # a spare says that it has started, or nobody waits for the model any more
        elif kind == doorbell.OPENED:
            self._opened.set_result(doorbell.unpack_json(message, doorbell.Opened))
        elif kind == doorbell.REFUSED:
            self._opened.set_exception(doorbell.raised(doorbell.unpack_json(message, doorbell.Told)))

    def _hang_up(self) -> None:
        if self._socket.fileno() >= 0:
            self._loop.remove_reader(self._socket.fileno())
            self._socket.close()

    def _exited(self) -> None:
        self._loop.remove_reader(self._pidfd)
        os.close(self._pidfd)
        code = self._process.wait()
        if self._socket.fileno() >= 0:
            self._read()  # answers that were sent before the end still count
        self._hang_up()
        why = self._why or (f"signal {_signal_name(-code)}" if code < 0 else f"exit code {code}")
        self._ended.set_result(why)
        if self._opened is not None and not self._opened.done():
            self._opened.set_exception(WorkerLostError(f"the worker ended while it loaded: {why}"))
            self._opened.exception()  # whoever awaited it has it; if nobody did, that is no news
        if self._on_end is not None:
            self._on_end(why)
        self._on_message = self._on_end = None
        if self.memory is not None:
            self.memory.close()


class SparePool:
    """Processes that wait for a model: `count` of them are kept ready."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        count: int,
        *,
        likely: Sequence[str] = LIKELY_TARGETS,
        module: str = MODULE,
    ) -> None:
        """Start them. The arguments are those of `WorkerProcess`."""
        self._loop, self._count, self._likely, self._module = loop, count, likely, module
        self._spares: list[WorkerProcess] = []
        self._timer: asyncio.TimerHandle | None = None
        self._refill()

    def take(self) -> WorkerProcess:
        """A process: a spare, or a new one. Another spare is started soon after.

        Raises:
            RunError: the system does not start a process.
        """
        if self._count and self._timer is None:
            self._timer = self._loop.call_later(REFILL_S, self._refill)
        while self._spares:
            spare = self._spares.pop(0)
            if spare.is_alive:
                spare.come_forward()
                return spare
        return self._made()

    @property
    def pids(self) -> list[int]:
        """Of the spares that live."""
        return [spare.pid for spare in self._spares if spare.is_alive]

    async def close(self) -> None:
        """End all spares."""
        self._count = 0
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        spares, self._spares = self._spares, []
        for spare in spares:
            spare.kill()  # it holds nothing that anyone would miss
        await asyncio.gather(*(spare.close() for spare in spares))

    def _refill(self) -> None:
        """Start as many as are missing."""
        self._timer = None
        self._spares = [spare for spare in self._spares if spare.is_alive]
        try:
            while len(self._spares) < self._count:
                self._spares.append(self._made())
                self._spares[-1].step_back()
        except RunError as error:
            _log.warning("no spare worker: %s", error.message)  # the next `take` tries again, and is told

    def _made(self) -> WorkerProcess:
        return WorkerProcess(self._loop, self._likely, self._module)


_LIMITS: Final = "raise the limits on processes and open files"


def _spawn(module: str, likely: Sequence[str]) -> tuple[socket.socket, subprocess.Popen[bytes]]:
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        with theirs:
            for end in (ours, theirs):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER_BYTES)
            process = subprocess.Popen(  # noqa: S603 - our own module, no word of a user
                [sys.executable, "-m", module, str(theirs.fileno()), *likely],
                pass_fds=(theirs.fileno(),),
                stdin=subprocess.DEVNULL,
                stdout=2,  # what a vendor prints must not come between the lines that the server tells programs
                start_new_session=True,
            )
    except BaseException:
        ours.close()
        raise
    ours.setblocking(False)
    return ours, process


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return str(number)
