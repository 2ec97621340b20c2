"""Output for a loop that must not wait: a reader that stalls loses lines, and is told how many once it reads again.

A pipe that is full, or a terminal that was stopped, would hold a plain `write` for as long as its reader likes. The
file description may be shared with a shell or a command, so it is not made non-blocking: ours is a second one of the
same pipe or terminal where the system gives us one; elsewhere no more is written than `poll` says there is room for.
"""

from __future__ import annotations

import io
import os
import select
import stat
import sys
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from types import TracebackType
from typing import Final, Self, TextIO

BACKLOG_BYTES: Final = 256 * 1024
"""What waits for a reader that is late; beyond it lines are dropped, the newest first."""
PATIENCE_S: Final = 2.0
"""An end that takes longer looks like a program that hangs."""
_AGAIN_S: Final = 0.01
_PIECE_BYTES: Final = select.PIPE_BUF
"""A pipe that `poll` calls ready takes so much at once, and what is not longer stays in one piece."""


class LossyOutput(io.TextIOBase):
    """A text stream whose `write` never waits. `close` does, for a bounded time. For one thread."""

    encoding: str = "utf-8"

    def __init__(self, stream: TextIO, told: Callable[[int], bytes], patience_s: float = PATIENCE_S) -> None:
        """In the place of `stream`.

        Args:
            stream: of the process: standard output or standard error.
            told: the line that says how many lines were dropped.
            patience_s: that a reader has at the end.
        """
        super().__init__()
        stream.flush()
        self.encoding = stream.encoding
        self._text_errors = stream.errors or "strict"
        self._is_terminal = stream.isatty()
        self._told = told
        self._patience_s = patience_s
        self._backlog: deque[bytes] = deque()
        self._waiting = 0
        self._dropped = 0
        self._keeps_all = False
        self._file = _second(stream.fileno())
        self._poll = select.poll()
        self._poll.register(self._file, select.POLLOUT)

    @property
    def is_behind(self) -> bool:
        """Something waits for the reader."""
        return bool(self._backlog)

    def isatty(self) -> bool:
        """Whether a person reads."""
        return self._is_terminal

    def write(self, text: str) -> int:
        """A line, or a screen at once; its length, also if it is dropped.

        Raises:
            OSError: nobody reads any more, or the disk is full; then nothing waits any more.
        """
        self.write_line(text.encode(self.encoding, self._text_errors))
        return len(text)

    def last_words(self) -> None:
        """What comes now is the end of it: nothing is dropped any more, however much waits already."""
        self._tell_dropped()
        self._keeps_all = True

    def write_line(self, line: bytes) -> None:
        """As it is.

        Raises:
            OSError: as `write`.
        """
        self.go_on()
        full = self._dropped or (self._backlog and self._waiting + len(line) > BACKLOG_BYTES)
        if full and not self._keeps_all:
            self._dropped += 1  # and so are the next ones until the reader has caught up: a gap is told once
            return
        self._append(line)
        self.go_on()

    def go_on(self) -> None:
        """Write what the reader takes now.

        Raises:
            OSError: as `write`.
        """
        if self._backlog:
            self._write_on(0.0)

    def close(self) -> None:
        """Wait for the reader, but not for long; what it did not take is told on standard error.

        Raises:
            OSError: as `write`.
        """
        if self.closed:
            return
        try:
            self._tell_dropped()
            self._write_on(self._patience_s)
            if self._backlog and self._is_not(sys.stderr):
                say_at_once(f"npuops: the last {len(self._backlog)} lines were not written: nobody reads them\n")
        finally:
            self._backlog.clear()
            os.close(self._file)
            super().close()

    def __enter__(self) -> Self:
        """Itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; the error that ends us is not hidden by one of the output."""
        try:
            self.close()
        except OSError:
            if error is None:
                raise

    def _append(self, line: bytes) -> None:
        self._backlog.append(line)
        self._waiting += len(line)

    def _tell_dropped(self) -> None:
        if self._dropped:
            count, self._dropped = self._dropped, 0
            self._append(self._told(count))

    def _write_on(self, patience_s: float) -> None:
        until = time.monotonic() + patience_s
        try:
            while self._backlog and self._poll.poll(max(until - time.monotonic(), 0.0) * 1000):
                if not self._write_piece():
                    if time.monotonic() >= until:
                        return
                    time.sleep(_AGAIN_S)
                elif not self._backlog:
                    self._tell_dropped()
        except OSError:
            self._backlog.clear()
            self._waiting = self._dropped = 0
            raise

    def _write_piece(self) -> bool:
        """False: there is no room, whatever `poll` says: another writer was faster, or a terminal has less."""
        line = self._backlog[0]
        try:
            taken = os.write(self._file, line[:_PIECE_BYTES])
        except BlockingIOError:
            return False
        self._waiting -= taken
        if taken == len(line):
            self._backlog.popleft()
        else:
            self._backlog[0] = line[taken:]
        return True

    def _is_not(self, stream: TextIO) -> bool:
        ours, other = os.fstat(self._file), os.fstat(stream.fileno())
        return (ours.st_dev, ours.st_ino) != (other.st_dev, other.st_ino)


def say_at_once(text: str) -> None:
    """On standard error, if anybody reads there in time: last words, which must neither hold nor fail the end."""
    with suppress(OSError), LossyOutput(sys.stderr, lambda count: b"%d lines\n" % count) as output:
        output.write(text)


def _second(file: int) -> int:
    """Another description of the same file, which never blocks; the same one again where the system refuses that."""
    if stat.S_ISFIFO(os.fstat(file).st_mode) or os.isatty(file):
        with suppress(OSError):  # another user's terminal, or a pipe that nobody reads any more: writing will tell
            return os.open(f"/proc/self/fd/{file}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    return os.dup(file)
