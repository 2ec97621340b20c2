"""The server's end of one process that turns pictures into tensors: start it, ask it, hear its answer or its end."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
from contextlib import ExitStack, suppress
from typing import Final

from npuops.errors import RunError
from npuops.runtime.job import Bytes
from npuops.runtime.slots import SharedMemory, make_memory
from npuops.runtime.step_process import READY, REPLY, REQUEST, SHARED, TENSOR_BYTES

_START_S: Final = 30.0
_BUFFER_BYTES: Final = 1 << 20


class StepWorker:
    """One child and the line to it.

    Attributes:
        pid: of the process.
    """

    def __init__(self) -> None:
        """Start it; `started` waits until it listens.

        Raises:
            RunError: the system does not start a process, or has no descriptor left.
            StorageError: there is no shared memory for it.
        """
        with ExitStack() as undo:
            try:
                self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
                undo.callback(self._socket.close)
                with theirs:
                    for end in (self._socket, theirs):
                        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _BUFFER_BYTES)
                    self._socket.setblocking(False)
                    shared = make_memory(TENSOR_BYTES)
                    try:
                        self._memory = SharedMemory(os.dup(shared), TENSOR_BYTES)
                        undo.callback(self._memory.close)
                        self._child = _start(theirs.fileno(), shared)
                    finally:
                        os.close(shared)
            except OSError as error:
                raise RunError(f"cannot start a process: {error.strerror}") from error
            undo.pop_all()
        self.pid = self._child.pid

    @classmethod
    async def started(cls) -> StepWorker:
        """A process that listens.

        Raises:
            RunError: the system does not start it, or it does not come up.
            StorageError: there is no shared memory for it.
        """
        worker = cls()
        try:
            kind, _ = await asyncio.wait_for(worker.reply(), _START_S)
        except (OSError, EOFError, TimeoutError) as error:
            why = await worker.end()
            raise RunError(f"a process that prepares pictures does not start: {why}") from error
        except BaseException:
            await worker.end()
            raise
        if kind != READY:
            await worker.end()
            raise RunError("a process that prepares pictures does not speak our language")
        return worker

    async def ask(self, steps: bytes, data: Bytes, limit_s: float) -> tuple[int, bytearray]:
        """Send a picture, and wait for what becomes of it.

        Raises:
            EOFError, OSError: the process is gone.
        """
        loop = asyncio.get_running_loop()
        # The child's own limit comes into play only where nobody is left to keep ours.
        await loop.sock_sendall(self._socket, REQUEST.pack(len(steps), len(data), 2 * limit_s) + steps)
        await loop.sock_sendall(self._socket, data)
        return await self.reply()

    async def reply(self) -> tuple[int, bytearray]:
        """The next answer.

        Raises:
            EOFError, OSError: the process is gone.
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


def _start(line: int, shared: int) -> subprocess.Popen[bytes]:
    """The child, with the descriptors of its end of the line and of the memory."""
    return subprocess.Popen(  # noqa: S603 - our own module, no word of a user
        [sys.executable, "-m", "npuops.runtime.step_process", str(line), str(shared)],
        pass_fds=(line, shared),
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
    )
