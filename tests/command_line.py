"""The command line, as a user has it: a process for each command."""

from __future__ import annotations

import atexit
import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

_FORKER = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
import forked_commands
sys.path.pop(0)
"""


def npuops(*arguments: object, code: int = 0, **environment: str) -> str:
    """Run `npuops` and demand its exit code; what it wrote to both streams."""
    # COLUMNS, which test runners set, would fold tables.
    clean = {name: value for name, value in os.environ.items() if name not in {"NPUOPS_KEY_PASSWORD", "COLUMNS"}}
    found, said = _run([str(each) for each in arguments], {**clean, **environment})
    assert found == code, said
    return said


def _run(arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
    if _forker.begun_with(environment) and _forker.free.acquire(blocking=False):
        try:
            return _forker.run(arguments, environment)
        finally:
            _forker.free.release()
    command = [sys.executable, "-c", "from npuops.cli.main import main; main()", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=environment)
    return done.returncode, done.stdout + done.stderr


class _Forker:
    """Our end of `forked_commands`, begun by the first command.

    Attributes:
        free: held while a command runs; another one of that moment starts from nothing.
    """

    def __init__(self) -> None:
        self.free = threading.Lock()
        self._begun_with = _of_the_interpreter(os.environ)
        self._line: socket.socket | None = None

    def begun_with(self, environment: Mapping[str, str]) -> bool:
        """Whether what an interpreter looks at when it starts is still the same."""
        return _of_the_interpreter(environment) == self._begun_with

    def run(self, arguments: Sequence[str], environment: Mapping[str, str]) -> tuple[int, str]:
        """Exit code, and what it wrote: to the end of both streams, whoever else holds them."""
        line = self._line = self._line or self._begin()
        message = {"arguments": arguments, "environment": dict(environment), "folder": str(Path.cwd())}
        (out, out_end), (err, err_end) = os.pipe(), os.pipe()
        socket.send_fds(line, [json.dumps(message).encode()], [out_end, err_end])
        os.close(out_end)
        os.close(err_end)
        with ThreadPoolExecutor(2) as readers:
            said = "".join(readers.map(_all_of, (out, err)))
        return int(line.recv(100)), said

    def _begin(self) -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            process = subprocess.Popen(
                [sys.executable, "-c", f"{_FORKER}forked_commands.serve({theirs.fileno()})"],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,  # of the kind that each command gets: Python remembers that it cannot seek
                pass_fds=[theirs.fileno()],
            )
        atexit.register(process.communicate)
        atexit.register(ours.close)  # the last one that is registered comes first
        return ours


def _of_the_interpreter(environment: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in environment.items() if name.startswith(("PYTHON", "LC_", "LANG", "LD_"))}


def _all_of(descriptor: int) -> str:
    with open(descriptor, encoding="utf-8") as stream:
        return stream.read()


_forker = _Forker()
