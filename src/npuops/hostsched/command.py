"""The command of `npuops hostsched run -- CMD`: ours to start, to hand signals to, and to end as."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Iterable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import ClassVar, Final

from npuops.errors import UsageError

FORWARDED: Final = (
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
)
_SET_CHILD_SUBREAPER: Final = 36
"""PR_SET_CHILD_SUBREAPER (prctl(2)): orphans among our descendants become our children, not those of init."""
_FROM_KEYS: Final = frozenset({signal.SIGINT, signal.SIGQUIT})
"""A terminal sends them to everybody in its foreground, so the command has them already."""


class NoSuchCommandError(UsageError):
    """There is no such command; a shell would end so too."""

    exit_code: ClassVar[int] = 127


class NotACommandError(UsageError):
    """It is there, and cannot be run; a shell would end so too."""

    exit_code: ClassVar[int] = 126


class Command:
    """Has our terminal and our process group, as if it had been started without us.

    Until it ends, orphans among its descendants become our children, so all of them descend from us: who names
    this process as whose children opt in, misses nobody.
    """

    def __init__(self, words: Sequence[str]) -> None:
        """Start it.

        Raises:
            NoSuchCommandError: nothing of that name is in PATH.
            NotACommandError: the file cannot be run.
        """
        self.words = tuple(words)
        ctypes.CDLL(None).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)  # without it, those whose parent ended may be missed
        try:
            self._process = subprocess.Popen(self.words)  # noqa: S603 - the user's own command
        except FileNotFoundError as error:
            raise NoSuchCommandError(f"{words[0]}: no such command", advice="give its path, or set PATH") from error
        except (OSError, ValueError) as error:  # not executable, a folder, a NUL in it, too many arguments
            why = error.strerror if isinstance(error, OSError) else error
            raise NotACommandError(f"{words[0]} cannot be run: {why}") from error

    @property
    def pid(self) -> int:
        """Of its process."""
        return self._process.pid

    def hand_on(self, caught: Iterable[int]) -> None:
        """What came before it was there to hear it."""
        for number in caught:
            self._process.send_signal(number)

    def is_over(self, caught: Iterable[int]) -> bool:
        """Hand on what we were sent, and say whether it has ended."""
        for number in caught:
            if number in _FROM_KEYS and _in_foreground():
                continue
            self._process.send_signal(number)  # does nothing to one that ended and was waited for
        self._bury_orphans()
        return self._process.poll() is not None

    def _bury_orphans(self) -> None:
        """Whoever adopts must wait for those that end; a Popen whose child is taken so counts it as ended."""
        me = os.getpid()
        for child in Path(f"/proc/{me}/task/{me}/children").read_text(encoding="ascii").split():
            if int(child) != self.pid:
                with suppress(ChildProcessError):  # somebody else just waited for it
                    os.waitpid(int(child), os.WNOHANG)

    def exit_code(self) -> int:
        """Its exit code, or 128 and the number of the signal that ended it. Only after `is_over`."""
        code = self._process.wait()
        return 128 - code if code < 0 else code


def _in_foreground() -> bool:
    """Whether the keys of a terminal reach our process group."""
    for stream in (0, 1, 2):
        try:
            return os.tcgetpgrp(stream) == os.getpgrp()
        except OSError:  # no terminal, or closed
            continue
    return False
