"""`npuops serve` as a process of its own, as a user starts it; and clients that keep it busy."""

from __future__ import annotations

import http.client
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from running_server import wait_for

COMMAND = (sys.executable, "-c", "from npuops.cli.main import main; main()")


@dataclass(slots=True)
class Served:
    """A server that runs.

    Attributes:
        said: its lines of JSON, as they come.
        scratch: the folder in which it may make temporary files.
    """

    process: subprocess.Popen[str]
    scratch: Path
    said: list[dict[str, Any]] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)

    @property
    def http_port(self) -> int:
        return int(self.heard("Listening")["http"])

    @property
    def grpc_port(self) -> int:
        return int(self.heard("Listening")["grpc"])

    def heard(self, event: str, /, **details: Any) -> dict[str, Any]:
        """Wait until it says this; gives the details."""
        wait_for(
            lambda: self.find(event, **details) or self.process.poll() is not None, f"no {event} {details}: {self.said}"
        )
        found = self.find(event, **details)
        assert found, f"no {event} {details}: {self.said} {self.errors}"
        return found[-1]

    def find(self, event: str, /, **details: Any) -> list[dict[str, Any]]:
        """What it has said of this."""
        lines = [line["detail"] for line in self.said if line.get("event") == event]
        return [detail for detail in lines if details.items() <= detail.items()]

    def ready(self, model: str, version: str = "1") -> None:
        """Wait until it answers."""
        self.heard("VersionChanged", model=model, version=version, event="loaded")

    def all_ready(self) -> None:
        """Wait until all models do."""
        self.heard("Listening")
        wait_for(lambda: self.http("GET", "/v2/health/ready")[0] == 200, f"not ready: {self.said} {self.errors}")

    def http(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, bytes]:
        """One request on a connection of its own."""
        status, _, data = self._exchange(method, path, body, headers or {})
        return status, data

    def infer(self, model: str, array: NDArray[Any], name: str = "x") -> tuple[int, bytes]:
        """Status, and the bytes of the answer's tensors or the text of an error."""
        status, told, data = self._exchange("POST", f"/v2/models/{model}/infer", *infer_request(array, name))
        return status, data[int(told.get("Inference-Header-Content-Length", 0)) :]

    def _exchange(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> tuple[int, Mapping[str, str], bytes]:
        connection = http.client.HTTPConnection("127.0.0.1", self.http_port, timeout=60)
        try:
            connection.request(method, path, body=body, headers=dict(headers))
            response = connection.getresponse()
            return response.status, response.headers, response.read()
        finally:
            connection.close()

    def end(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, and wait for the exit code."""
        self.process.send_signal(number)
        return self.process.wait(60)

    def family(self) -> list[int]:
        """It and all processes below it."""
        found, todo = [], [self.process.pid]
        while todo:
            pid = todo.pop()
            found.append(pid)
            try:
                tasks = list(Path(f"/proc/{pid}/task").iterdir())
                todo += [int(child) for task in tasks for child in (task / "children").read_text().split()]
            except OSError:  # it ended meanwhile
                continue
        return found


@contextmanager
def served(path: Path, scratch: Path, *flags: str, environment: Mapping[str, str] | None = None) -> Iterator[Served]:
    """Serve what lies there; whatever still runs at the end of the block is killed."""
    scratch.mkdir(exist_ok=True)
    process = subprocess.Popen(
        [*COMMAND, "serve", str(path), "--http-port", "0", "--grpc-port", "0", "--json", *flags],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "TMPDIR": str(scratch), **(environment or {})},
    )
    running = Served(process, scratch)
    readers = [
        threading.Thread(target=_read, args=(process.stdout, lambda line: running.said.append(json.loads(line)))),
        threading.Thread(target=_read, args=(process.stderr, running.errors.append)),
    ]
    for reader in readers:
        reader.start()
    try:
        yield running
    finally:
        if process.poll() is None:
            process.kill()
        process.wait(60)
        for reader in readers:
            reader.join(60)
        for stream in (process.stdout, process.stderr):
            if stream is not None:
                stream.close()


def _read(stream: Any, take: Callable[[str], None]) -> None:
    for line in stream:
        take(line)


def infer_request(array: NDArray[Any], name: str = "x") -> tuple[bytes, dict[str, str]]:
    """Body and header of a request with one float input; the answer comes as binary too."""
    raw = np.ascontiguousarray(array, np.float32).tobytes()
    described = {
        "name": name,
        "shape": list(array.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [described], "parameters": {"binary_data_output": True}}).encode()
    return head + raw, {"Inference-Header-Content-Length": str(len(head))}


@dataclass(slots=True)
class Load:
    """What came back to the clients.

    Attributes:
        answers: bytes of the tensors, one for each request that was answered with 200.
        problems: everything else.
        refused: connections that the server did not take.
    """

    answers: list[bytes] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    refused: int = 0


@contextmanager
def load(port: int, model: str, array: NDArray[Any], clients: int = 4, name: str = "x") -> Iterator[Load]:
    """So many clients that ask and wait in turn, until the end of the block or of the server."""
    told, ended = Load(), threading.Event()
    body, headers = infer_request(array, name)

    def one_connection() -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        try:
            connection.connect()
        except OSError:
            told.refused += 1
            return False
        try:
            while not ended.is_set():
                connection.request("POST", f"/v2/models/{model}/infer", body=body, headers=headers)
                response = connection.getresponse()
                data = response.read()
                if response.status == 200:
                    told.answers.append(data[int(response.headers["Inference-Header-Content-Length"]) :])
                else:
                    told.problems.append(f"{response.status} {data!r}")
                if response.will_close:
                    return True
        except (OSError, http.client.HTTPException) as error:
            told.problems.append(repr(error))
            return False
        finally:
            connection.close()
        return False

    def client() -> None:
        while one_connection():
            pass

    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    try:
        yield told
    finally:
        ended.set()
        for thread in threads:
            thread.join(120)
