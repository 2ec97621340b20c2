"""`npuops serve` as a user starts it: a process, which tells its ports in a line of JSON."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass
class Command:
    """A server process.

    Attributes:
        told: every line of its standard output, as a document.
    """

    process: subprocess.Popen[str]
    http: int
    grpc: int | None
    told: list[dict[str, Any]] = field(default_factory=list)

    def ask(
        self, method: str, path: str, body: bytes | str = b"", headers: dict[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection of its own."""
        connection = http.client.HTTPConnection("127.0.0.1", self.http, timeout=60)
        try:
            connection.request(method, path, body=body, headers=headers or {})
            response = connection.getresponse()
            data = response.read()
            return response.status, {name.lower(): value for name, value in response.getheaders()}, data
        finally:
            connection.close()

    def end(self) -> int:
        """SIGTERM; its exit code."""
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(60)


@contextmanager
def serve_command(source: Path, *flags: str, ready: bool = True, **environment: str) -> Iterator[Command]:
    """Serve until the end of the block; with `ready` it is so when the block begins."""
    command = [sys.executable, "-c", "from npuops.cli.main import main; main()", "serve", str(source)]
    ports = ["--http-port", "0", "--grpc-port", "0", "--json"]
    process = subprocess.Popen(
        [*command, *ports, *flags], stdout=subprocess.PIPE, text=True, env={**os.environ, **environment}
    )
    assert process.stdout is not None
    lines = process.stdout
    told: list[dict[str, Any]] = []
    listening = threading.Event()

    def listen() -> None:
        for line in lines:
            told.append(json.loads(line))
            if told[-1]["event"] == "Listening":
                listening.set()
        listening.set()

    reader = threading.Thread(target=listen)
    reader.start()
    try:
        assert listening.wait(60), "it does not listen"
        assert told, "it ended before it listened"
        first = next(line for line in told if line["event"] == "Listening")["detail"]
        server = Command(process, first["http"], first["grpc"], told)
        while ready and server.ask("GET", "/v2/health/ready")[0] != 200:
            assert process.poll() is None, "it ended before it was ready"
            threading.Event().wait(0.05)
        yield server
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            process.wait(60)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        finally:
            reader.join(60)
            lines.close()
