"""Requests that come when their time has come, whether or not the last one was answered: made, and what became of them.

The instants are drawn here, by seed, and lie in memory files that our C program (program_client.c, program_wake.c)
reads, and writes the answers to.
"""

from __future__ import annotations

import mmap
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.artifacts.disk import storage_errors
from npuops.schedlab.attendant import STAGE, Attended, attended
from npuops.schedlab.program_outcome import Answers

UNANSWERED: Final = -1
PATIENCE_S: Final = 1.0
"""What is not answered so long after the window is given up; a miss in any case."""
CONNECTIONS: Final = 8
_CUT: Final = 8.0
"""Gaps are Poisson's, cut here: one draw shall not decide a short play."""
_END_S: Final = 60.0


def poisson_ns(seed: int, rate_per_s: float, window_ns: int) -> NDArray[np.int64]:
    """Instants since the beginning of the window, rising."""
    random = np.random.default_rng(seed)
    gap_ns = 1e9 / rate_per_s
    count = int(window_ns / gap_ns * 2) + 16
    instants = np.cumsum(np.minimum(random.exponential(gap_ns, count), _CUT * gap_ns))
    found: NDArray[np.int64] = instants[instants < window_ns].astype(np.int64)
    return found


class OpenLoop:
    """One of our programs that knows the instants, and waits for the beginning. Made by `asking` and `played_by`."""

    def __init__(self, program: Attended, arrivals: NDArray[np.int64], results: mmap.mmap, window_ns: int) -> None:
        """As the program says that it is ready."""
        self.program = program
        self._arrivals = arrivals
        self._results = results
        self._window_ns = window_ns
        self._start_ns = 0
        program.hear(1)

    @property
    def ahead(self) -> bool:
        """The client runs before all others, so that none of the lateness is its own; False where it may not."""
        return bool(np.frombuffer(self._results, np.int64, 1)[0])

    def go(self, start_ns: int) -> None:
        """The window begins then, in ns of CLOCK_MONOTONIC.

        Raises:
            ToolchainCrashError: the program ended.
        """
        self._start_ns = start_ns
        self.program.tell(start_ns.to_bytes(8, "little"))

    def finish(self) -> Answers:
        """What became of the requests; those that are open now have another second.

        Raises:
            ToolchainCrashError: the program ended badly.
        """
        limit_ns = self._window_ns + round(PATIENCE_S * 1e9)
        while (done := self._done()).size and (done == UNANSWERED).any():
            if time.monotonic_ns() - self._start_ns > limit_ns:
                break
            if self.program.has_ended():  # the last one may have been answered just then
                done = self._done()
                break
            time.sleep(0.01)
        if self.program.has_ended() and self.program.wait(_END_S) != 0:
            raise self.program.crash()
        answered = (done >= 0) & (done <= limit_ns)
        until = np.where(answered, done, limit_ns)
        return Answers((until - self._arrivals) / 1000, answered)

    def _done(self) -> NDArray[np.int64]:
        return np.frombuffer(self._results, np.int64)[1 : 1 + len(self._arrivals)].copy()


@contextmanager
def asking(
    port: int, protocol: str, request: bytes, arrivals: NDArray[np.int64], window_ns: int, folder: Path
) -> Iterator[OpenLoop]:
    """A client of a server on this machine; every connection has had one answer before it is ready.

    Args:
        port: of the server, 127.0.0.1.
        protocol: `http`, `redis` or `memcached`.
        request: the bytes of one request; all are alike.
        arrivals: int64, when to send one, in ns since the beginning.
        window_ns: length of the window.
        folder: for its output.

    Raises:
        ToolchainCrashError: the server refuses, or cannot be understood.
        StorageError: memory is short.
    """
    with ExitStack() as stack:
        content = len(request).to_bytes(8, "little") + request
        request_fd, _ = memory_file(stack, "request", content.ljust(-(-len(content) // 8) * 8, b"\0"))
        fds, results = _wires(stack, arrivals)
        words = [str(word) for word in (port, protocol, CONNECTIONS, window_ns, round(PATIENCE_S * 1e9), request_fd)]
        command = [STAGE.compiled(), "ask", *words, *map(str, fds)]
        client = attended("client", command, folder, log=False, pass_fds=(request_fd, *fds))
        yield OpenLoop(stack.enter_context(client), arrivals, results, window_ns)


@contextmanager
def played_by(
    words: list[str], name: str, arrivals: NDArray[np.int64], window_ns: int, folder: Path
) -> Iterator[OpenLoop]:
    """One of our own programs that is client and server in one: `words` are its arguments, up to the two files."""
    with ExitStack() as stack:
        fds, results = _wires(stack, arrivals)
        command = [STAGE.compiled(), *words, *map(str, fds)]
        program = stack.enter_context(attended(name, command, folder, log=False, pass_fds=fds))
        yield OpenLoop(program, arrivals, results, window_ns)


def _wires(stack: ExitStack, arrivals: NDArray[np.int64]) -> tuple[tuple[int, int], mmap.mmap]:
    arrivals_fd, _ = memory_file(stack, "arrivals", arrivals.tobytes())
    blank = np.full(1 + len(arrivals), UNANSWERED, np.int64)
    blank[0] = 0
    results_fd, results = memory_file(stack, "results", blank.tobytes())
    return (arrivals_fd, results_fd), results


def memory_file(stack: ExitStack, name: str, content: bytes) -> tuple[int, mmap.mmap]:
    """A file without a place, of this content, which must be some.

    Raises:
        StorageError: memory is short.
    """
    with storage_errors("keep in memory", Path(name), need_bytes=len(content)):
        fd = os.memfd_create(f"npuops-{name}", os.MFD_CLOEXEC)
        stack.callback(os.close, fd)
        os.posix_fallocate(fd, 0, max(len(content), 8))
        mapped = mmap.mmap(fd, max(len(content), 8))
        mapped[: len(content)] = content
    return fd, mapped
