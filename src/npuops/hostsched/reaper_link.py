"""The agent's side of its reaper: start it, see that it lives, say goodbye to it."""

from __future__ import annotations

import os
import select
import subprocess
import sys
import time
from pathlib import Path
from typing import IO, Final

from npuops.errors import RunError
from npuops.hostsched.heartbeat import Heartbeat
from npuops.hostsched.reaper import GOODBYE, READY
from npuops.hostsched.task_id import TaskId

HEARTBEAT_TIMEOUT_MS: Final = 300
_START_S: Final = 30.0
_END_S: Final = 10.0


class ReaperLink:
    """One reaper, from its start to its end; use it from the thread that made it."""

    def __init__(self, agent: TaskId, leases: Path, timeout_ms: int = HEARTBEAT_TIMEOUT_MS) -> None:
        """Start it, and wait until it watches.

        Raises:
            RunError: it does not start.
        """
        self.heartbeat = Heartbeat(timeout_ms * 1000)
        shared = self.heartbeat.descriptors
        options = [f"--agent={agent.tid}:{agent.start_ticks}", f"--leases={leases.absolute()}"]
        options += [f"--heartbeat={shared[0]}:{shared[1]}", f"--timeout-ms={timeout_ms}"]
        self._ended = False
        self._process = subprocess.Popen(  # noqa: S603 - our own module, by our own interpreter
            [sys.executable, "-P", "-m", "npuops.hostsched.reaper", *options],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=shared,  # kept open, under the same numbers
            start_new_session=True,
        )
        if self._first_words() != READY:
            self.end()
            raise RunError(
                "the reaper did not start: nothing may be changed without it",
                advice=f"see what `{sys.executable} -m npuops.hostsched.reaper` says",
            )

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    @property
    def alive(self) -> bool:
        """It has not ended."""
        return not self._ended and self._process.poll() is None

    def spent_ns(self) -> int:
        """CPU time of its process so far; 0 once it is gone."""
        try:
            return int(Path(f"/proc/{self.pid}/schedstat").read_bytes().split()[0])
        except (FileNotFoundError, ProcessLookupError):
            return 0

    def end(self) -> None:
        """Say goodbye and wait for its end: there must be nothing left to put back."""
        if self._ended:
            return
        self._ended = True
        try:
            _pipe(self._process.stdin).write(GOODBYE)
            _pipe(self._process.stdin).flush()
        except OSError:
            self._process.kill()  # it is dead, or as good as that
        try:
            self._process.wait(_END_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._close()

    def _close(self) -> None:
        for pipe in (self._process.stdin, self._process.stdout):
            try:
                _pipe(pipe).close()
            except OSError:
                continue  # the goodbye that could not be written is still in its buffer
        self.heartbeat.close()

    def _first_words(self) -> bytes:
        pipe = _pipe(self._process.stdout)
        until = time.monotonic() + _START_S
        text = b""
        while len(text) < len(READY):
            waiting, _, _ = select.select([pipe], [], [], max(until - time.monotonic(), 0))
            piece = os.read(pipe.fileno(), len(READY)) if waiting else b""
            if not piece:
                return text
            text += piece
        return text


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    if pipe is None:
        raise RunError("the reaper has no pipe")
    return pipe
