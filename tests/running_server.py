"""A whole `npuops serve` in a thread, for clients that block: artifacts in, answers over a real socket out."""

from __future__ import annotations

import asyncio
import http.client
import json
import shutil
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray

from npuops.artifacts.manifest import Artifact
from npuops.runtime.facts import DeviceChanged, WorkerStarted
from npuops.runtime.version_facts import VersionChanged
from npuops.server.serve_options import ServeOptions
from npuops.serving import Server
from npuops.testing import EventLog

Arrays = Mapping[str, NDArray[Any]]
_DATATYPES = {"float32": "FP32", "int64": "INT64", "uint8": "UINT8", "int8": "INT8", "int32": "INT32"}
_DTYPES = {word: name for name, word in _DATATYPES.items()}


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back.

    Attributes:
        seconds: from the request to the last byte.
        outputs: empty where it is an error.
        said: the JSON part.
    """

    status: int
    seconds: float
    headers: Mapping[str, str]
    outputs: Arrays
    said: Mapping[str, Any]

    @property
    def device(self) -> str:
        return str(self.said["parameters"]["npuops_device"])

    @property
    def fell_back(self) -> bool:
        return bool(self.said["parameters"]["npuops_fallback"])


@dataclass(slots=True)
class Running:
    """A server that runs; `events` are all that it reported; `grpc_port` is None where it does not listen."""

    port: int
    grpc_port: int | None
    server: Server
    loop: asyncio.AbstractEventLoop
    events: EventLog
    _local: threading.local = field(default_factory=threading.local)

    def ask(
        self, model: str, inputs: Arrays, *, timeout_us: int = 0, headers: Mapping[str, str] | None = None, **also: Any
    ) -> Answer:
        """One inference with binary tensors both ways; `also` are parameters of the request."""
        parameters = {"binary_data_output": True, **({"timeout": timeout_us} if timeout_us else {}), **also}
        raw = [np.ascontiguousarray(array).tobytes() for array in inputs.values()]
        described = [
            {
                "name": name,
                "shape": list(array.shape),
                "datatype": _DATATYPES[array.dtype.name],
                "parameters": {"binary_data_size": len(part)},
            }
            for (name, array), part in zip(inputs.items(), raw, strict=True)
        ]
        head = json.dumps({"inputs": described, "parameters": parameters}).encode()
        fields = {"Inference-Header-Content-Length": str(len(head)), **(headers or {})}
        begun = time.monotonic()
        status, got, body = self.http("POST", f"/v2/models/{model}/infer", b"".join([head, *raw]), fields)
        return _answer(status, time.monotonic() - begun, got, body)

    def http(
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> tuple[int, dict[str, str], bytes]:
        """One request on a connection that the calling thread keeps."""
        connection: http.client.HTTPConnection | None = getattr(self._local, "connection", None)
        if connection is None:
            connection = self._local.connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        connection.request(method, path, body=body, headers=dict(headers or {}))
        response = connection.getresponse()
        data = response.read()
        return response.status, {name.lower(): value for name, value in response.getheaders()}, data

    def hang_up(self) -> None:
        """Close the calling thread's connection."""
        connection = getattr(self._local, "connection", None)
        if connection is not None:
            connection.close()

    def states(self, model: str) -> dict[str, str]:
        """Device → its state now."""
        return {event.device: event.state for event in self.events.of(DeviceChanged) if event.model == model}

    def starts(self, model: str) -> list[WorkerStarted]:
        """Of its workers, oldest first."""
        return [event for event in self.events.of(WorkerStarted) if event.model == model]

    def settled(self, model: str) -> str:
        """Wait until its version was loaded or has failed; gives the reason of a failure."""
        wait_for(lambda: self._last(model) in {"loaded", "failed"}, f"{model} neither came up nor failed")
        changed = [event for event in self.events.of(VersionChanged) if event.model == model]
        return changed[-1].reason if changed[-1].event == "failed" else ""

    def _last(self, model: str) -> str:
        return next((e.event for e in reversed(self.events.of(VersionChanged)) if e.model == model), "")


def repository(folder: Path, model: str, artifacts: Mapping[str, Artifact | Path], options: str = "") -> Path:
    """Put a model with one version into a repository; gives the repository."""
    version = folder / model / "1"
    version.mkdir(parents=True)
    for name, artifact in artifacts.items():
        shutil.copytree(artifact if isinstance(artifact, Path) else artifact.root, version / name)
    if options:
        (folder / model / "model.toml").write_text(options, encoding="utf-8")
    return folder


@contextmanager
def serving(path: Path, **options: Any) -> Iterator[Running]:
    """Serve what lies there until the end of the block."""
    ready: Future[Running] = Future()
    ended = asyncio.Event()
    events = EventLog()

    async def main() -> None:
        quiet: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "grpc": False, "watch": False}
        server = Server(path, ServeOptions(**{**quiet, **options}), observe=(events,))
        try:
            ports = await server.start()
            ready.set_result(Running(ports.http, ports.grpc, server, asyncio.get_running_loop(), events))
            await ended.wait()
        except BaseException as error:
            if not ready.done():
                ready.set_exception(error)
            raise
        finally:
            await server.stop()

    thread = threading.Thread(target=lambda: uvloop.run(main()))
    thread.start()
    running = ready.result(60)
    try:
        yield running
    finally:
        running.hang_up()
        running.loop.call_soon_threadsafe(ended.set)
        thread.join(60)
        assert not thread.is_alive(), "the server does not end"


@contextmanager
def clients(running: Running, count: int, ask: Callable[[], Answer]) -> Iterator[list[Answer]]:
    """So many clients that ask and wait in turn, until the end of the block; what they got so far, in order."""
    answers: list[Answer] = []
    ended = threading.Event()
    failures: list[BaseException] = []

    def client() -> None:
        try:
            while not ended.is_set():
                answers.append(ask())
        except BaseException as error:  # noqa: BLE001 - told by the thread that reads the list
            failures.append(error)
        finally:
            running.hang_up()

    threads = [threading.Thread(target=client) for _ in range(count)]
    for thread in threads:
        thread.start()
    try:
        yield answers
    finally:
        ended.set()
        for thread in threads:
            thread.join(60)
    assert not failures, failures


def wait_for(holds: Callable[[], object], complaint: str, limit_s: float = 60.0) -> None:
    """What the server does is awaited, never assumed."""
    deadline = time.monotonic() + limit_s
    while not holds():
        assert time.monotonic() < deadline, complaint
        time.sleep(0.005)


def _answer(status: int, seconds: float, headers: Mapping[str, str], body: bytes) -> Answer:
    size = int(headers.get("inference-header-content-length", len(body)))
    said = json.loads(body[:size])
    outputs: dict[str, NDArray[Any]] = {}
    at = size
    for output in said.get("outputs", ()):
        after = at + output["parameters"]["binary_data_size"]
        array = np.frombuffer(body[at:after], _DTYPES[output["datatype"]])
        outputs[output["name"]], at = array.reshape(output["shape"]), after
    return Answer(status, seconds, headers, outputs, said)
