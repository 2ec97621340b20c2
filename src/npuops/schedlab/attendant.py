"""Starts a program in a session of its own, and leaves nothing of it behind, however anybody ends.

Between it and us stands our C program (`attend` in program_stage.c): it ends the program and all its descendants when
we close a pipe, which the kernel does for us if we are killed.
"""

from __future__ import annotations

import os
import re
import select
import signal
import subprocess
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from npuops.errors import StorageError, ToolchainCrashError, ToolchainTimeoutError
from npuops.hostsched.c_source import CSource

STAGE: Final = CSource(
    "npuops.schedlab", "program-stage", ("program_load.h", "program_stage.c", "program_client.c", "program_wake.c")
)
_WORD: Final = 8
_START_S: Final = 30.0
_END_S: Final = 15.0
"""Longer than the attendant's own patience with the program."""
_TAIL: Final = 2000
_LOOK_S: Final = 0.01


@dataclass(frozen=True, slots=True)
class Attended:
    """A program that was started.

    Attributes:
        name: for messages.
        pid: its first process.
        stdin: what it reads; closed in the end.
        errors: file of what it writes to standard error.
        said: file, or reading end of a pipe, of its standard output.
    """

    name: str
    pid: int
    stdin: IO[bytes]
    errors: Path
    said: IO[bytes]
    _attendant: subprocess.Popen[bytes]

    def tell(self, words: bytes) -> None:
        """Write to its standard input.

        Raises:
            ToolchainCrashError: it ended.
        """
        try:
            self.stdin.write(words)
            self.stdin.flush()
        except BrokenPipeError as error:
            raise self.crash() from error

    def hear(self, count: int, limit_s: float = 60.0) -> bytes:
        """So many bytes of its standard output.

        Raises:
            ToolchainCrashError: it ended before.
            ToolchainTimeoutError: they do not come.
        """
        poll = select.poll()
        poll.register(self.said, select.POLLIN)
        if not poll.poll(limit_s * 1000):
            raise ToolchainTimeoutError(f"{self.name} said nothing within {limit_s:g} s")
        words = os.read(self.said.fileno(), count)
        if not words:
            raise self.crash()
        return words

    def await_said(self, pattern: str, limit_s: float = 60.0) -> re.Match[str]:
        """Until what it wrote to standard output (of a program with a log) has this.

        Raises:
            ToolchainCrashError: it ended before.
            ToolchainTimeoutError: it does not come.
        """
        until = time.monotonic() + limit_s
        while (found := re.search(pattern, self.log())) is None:
            self.demand_alive()
            if time.monotonic() > until:
                raise ToolchainTimeoutError(f"{self.name} did not say {pattern} within {limit_s:g} s")
            time.sleep(_LOOK_S)
        return found

    def log(self) -> str:
        """All that it wrote to standard output so far."""
        return os.pread(self.said.fileno(), os.fstat(self.said.fileno()).st_size, 0).decode(errors="replace")

    def signal(self, number: signal.Signals) -> None:
        """Send its first process a signal; nothing happens if that has ended."""
        if self._attendant.poll() is None:  # as long as it is there, the process is not reaped, or is its
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def has_ended(self) -> bool:
        """It, and all its descendants."""
        return self._attendant.poll() is not None

    def wait(self, limit_s: float) -> int:
        """Until it has ended, and all its descendants with it; its exit code, 128 + n for signal n.

        Raises:
            ToolchainTimeoutError: it does not end.
        """
        try:
            return self._attendant.wait(limit_s)
        except subprocess.TimeoutExpired as error:
            raise ToolchainTimeoutError(f"{self.name} did not end within {limit_s:g} s") from error

    def demand_alive(self) -> None:
        """Raises: ToolchainCrashError: it ended."""
        if self.has_ended():
            raise self.crash()

    def crash(self) -> ToolchainCrashError:
        """What is known about an end that came too early."""
        try:
            code = f"exit {self._attendant.wait(_END_S)}"
        except subprocess.TimeoutExpired:
            code = "no exit code"
        words = self.errors.read_bytes()[-_TAIL:].decode(errors="replace").strip()
        return ToolchainCrashError(
            f"{self.name} ended before its time ({code}): {words or 'it said nothing'}",
            advice="what the others did meanwhile means nothing: play it again",
        )


@contextmanager
def attended(
    name: str,
    words: Sequence[object],
    folder: Path,
    *,
    log: bool = True,
    pass_fds: Sequence[int] = (),
    env: Mapping[str, str] | None = None,
) -> Iterator[Attended]:
    """Start a program; on leaving it is asked to end, and made to five seconds later.

    Args:
        name: for messages, and of its files.
        words: its command; each is made a string.
        folder: where its output goes; also its working directory.
        log: its standard output goes to a file; otherwise into a pipe, for `hear`.
        pass_fds: descriptors that it gets.
        env: added to our environment.

    Raises:
        StorageError: the command cannot be started.
        ToolchainCrashError: the attendant ended at once.
        As `CSource.compiled`.
    """
    program = STAGE.compiled()
    errors, output = folder / f"{name}.err", folder / f"{name}.out"
    control_end, control = os.pipe()
    report, report_end = os.pipe()
    with output.open("ab") as file, errors.open("ab") as error_file:
        try:
            child = subprocess.Popen(  # noqa: S603 - our own list of words
                [program, "attend", str(control_end), str(report_end), str(os.getpid()), "--", *map(str, words)],
                stdin=subprocess.PIPE,
                stdout=file if log else subprocess.PIPE,
                stderr=error_file,
                cwd=folder,
                env={**os.environ, "TMPDIR": str(folder), **(env or {})},  # what is left there goes with the folder
                pass_fds=(control_end, report_end, *pass_fds),
                start_new_session=True,
            )
        except OSError as error:
            os.close(control)
            os.close(report)
            raise StorageError(f"{program} cannot be started: {error.strerror}") from error
        finally:
            os.close(control_end)
            os.close(report_end)
    said: IO[bytes] = output.open("rb") if child.stdout is None else child.stdout
    assert child.stdin is not None  # noqa: S101 - it is a pipe
    try:
        pid = _heard_pid(name, words, report, child)
        yield Attended(name, pid, child.stdin, errors, said, child)
    finally:
        os.close(control)
        os.close(report)
        with suppress(BrokenPipeError):  # what it did not read is of no use any more
            child.stdin.close()
        _end(child)
        said.close()


def _heard_pid(name: str, words: Sequence[object], report: int, child: subprocess.Popen[bytes]) -> int:
    """Its number; the attendant then closes its end, unless the command could not be started."""
    told = b""
    poll = select.poll()
    poll.register(report, select.POLLIN)
    while poll.poll(_START_S * 1000):
        more = os.read(report, _WORD)
        if not more:
            break
        told += more
    numbers = [int.from_bytes(told[at : at + _WORD], "little", signed=True) for at in range(0, len(told), _WORD)]
    failed = next((-number for number in numbers if number < 0), None)
    if failed is not None:
        raise StorageError(f"{words[0]} cannot be started: {os.strerror(failed)}")
    if not numbers:
        raise ToolchainCrashError(f"the attendant of {name} ended with {child.wait(_END_S)}")
    return numbers[0]


def _end(child: subprocess.Popen[bytes]) -> None:
    """Its pipe is closed, so it ends the program and itself."""
    try:
        child.wait(_END_S)
    except subprocess.TimeoutExpired:  # somebody stopped it; the program's first process dies with it
        child.kill()
        child.wait()
