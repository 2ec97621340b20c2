"""An agent that only listens, in this process or as one that can be killed; and applications as processes."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from npuops.hostsched.hint import Hint
from npuops.hostsched.hint_socket import HintSocket

AGENT = """
import sys, time
from npuops.hostsched.hint_socket import HintSocket
with HintSocket(sys.argv[1]) as socket:
    print("listening", flush=True)
    while True:
        found = {tid: [hint.kind, hint.queued, hint.served] for tid, hint in socket.heard().items()}
        if found:
            print(found, flush=True)
        time.sleep(0.02)
"""


def await_true(holds: Callable[[], object], limit_s: float = 30.0) -> None:
    """Look again until it holds."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, "it never came"
        time.sleep(0.005)


def hear(listener: HintSocket, holds: Callable[[dict[int, Hint]], object]) -> dict[int, Hint]:
    """Look, as an agent does, until the hints are as expected; gives them."""
    found: dict[int, Hint] = {}

    def look() -> object:
        nonlocal found
        found = listener.heard()
        return holds(found)

    await_true(look)
    return found


IMPORTS = """
import socket, struct, threading
from npuops.hostsched.hint_client import HintClient
from npuops.hostsched.hint_line import HintLine
from npuops.hostsched.hint_wire import Word, encode
"""


@dataclass(slots=True)
class Application:
    """A process that does as it is told by lines, and answers each with a line."""

    process: subprocess.Popen[str]

    @property
    def pid(self) -> int:
        return self.process.pid

    def line(self) -> str:
        """The next one it says."""
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, words: str) -> str:
        """Tell it some Python, and wait for the answer."""
        self.begin(words)
        return self.line()

    def begin(self, words: str) -> None:
        """Tell it some Python; `line` is the answer."""
        assert self.process.stdin is not None
        self.process.stdin.write(json.dumps(words) + "\n")
        self.process.stdin.flush()


PROMPT = """
import json, os, sys
names = {"os": os}
print("ready", flush=True)
for line in sys.stdin:
    exec(json.loads(line), names)
    print(names.pop("answer", "done"), flush=True)
"""


@contextmanager
def process(code: str = PROMPT, *words: str, environment: Mapping[str, str] | None = None) -> Iterator[Application]:
    """Python that runs until the end of the block."""
    started = subprocess.Popen(
        [sys.executable, "-c", code, *words],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, **(environment or {})},
    )
    try:
        yield Application(started)
    finally:
        started.kill()
        started.wait(30)
        for stream in (started.stdin, started.stdout):
            assert stream is not None
            stream.close()


@contextmanager
def application(path: Path | str, code: str, user: int | None = None) -> Iterator[Application]:
    """One that ran this code; as another user from then on, since that one may not read where we are installed."""
    with process(environment={"NPUOPS_HINT_SOCKET": str(path)}) as found:
        assert found.line() == "ready"
        if user is not None:
            found.tell(IMPORTS)
            found.tell(f"os.setgroups([]); os.setgid({user}); os.setuid({user})")
        assert found.tell(code) == "done"
        yield found
