"""An application's line to the agent: it never waits, never fails, and finds the agent again when that comes back."""

from __future__ import annotations

import os
import socket
import time
from typing import Final

from npuops.hostsched.hint_place import places
from npuops.hostsched.hint_wire import Word, encode

RETRY_US: Final = 1_000_000
"""Where no agent listens, it is looked for once in so long."""
_KIND: Final = socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC


def now_us() -> int:
    """By the clock in which words say when they were said."""
    return time.monotonic_ns() // 1000


class HintLine:
    """A connection, while there is one. Not safe for threads: its owner has the lock.

    Attributes:
        sent: words that the kernel took.
        unsent: words that nobody listened to: no agent, or one that does not read.
        meetings: how often an agent was met; who counts them knows when to say everything again.
        trouble: the system's word on the last failure; "" where there was none.
    """

    def __init__(self, path: str | None = None) -> None:
        """Nothing is opened yet. `path` of the socket; None: as `places` says, looked up at each try."""
        self._path = path
        self._socket: socket.socket | None = None
        self._next_try_us = 0
        self.sent = self.unsent = self.meetings = 0
        self.trouble = ""

    @property
    def connected(self) -> bool:
        """An agent was there at the last word."""
        return self._socket is not None

    def is_open(self, at_us: int) -> bool:
        """Whether a word has a chance now; looks for an agent if it is time to."""
        if self._socket is None and at_us >= self._next_try_us:
            self._next_try_us = at_us + RETRY_US
            self._connect()
        return self._socket is not None

    def send(self, word: Word) -> bool:
        """Say it, if somebody listens; False where nobody does."""
        if not self.is_open(now_us()) or self._socket is None:
            self.unsent += 1
            return False
        try:
            self._socket.send(encode(word), socket.MSG_NOSIGNAL)
        except BlockingIOError:  # the agent does not read: the next word supersedes this one anyway
            self.unsent += 1
            self.trouble = "the agent does not read"
            return False
        except OSError as error:
            self.unsent += 1
            self.trouble = str(error)
            self.close()
            return False
        self.sent += 1
        return True

    def close(self) -> None:
        """Hang up: the agent forgets what was said. The next word calls again."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    def _connect(self) -> None:
        for path in [self._path] if self._path is not None else places(os.environ):
            try:
                made = socket.socket(socket.AF_UNIX, _KIND)
            except OSError as error:
                self.trouble = str(error)
                return
            try:
                made.connect(path)
            except (OSError, ValueError) as error:  # ValueError: a zero byte in the path
                made.close()
                self.trouble = f"{path}: {error}"
                continue
            self._socket = made
            self.meetings += 1
            return
