"""Servers for the load generator's tests: real sockets, and answers that a test chooses."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
from collections.abc import Awaitable, Callable, Iterator
from concurrent import futures
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc
import numpy as np
from tritonclient.grpc import service_pb2 as messages
from tritonclient.grpc import service_pb2_grpc as services

MODEL = {
    "name": "double",
    "versions": ["1"],
    "platform": "test",
    "inputs": [{"name": "x", "datatype": "FP32", "shape": [-1, 4]}],
    "outputs": [{"name": "y", "datatype": "FP32", "shape": [-1, 4]}],
}


@dataclass
class Request:
    """As it arrived; names of headers in lower case."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes


Answer = tuple[int, dict[str, str], bytes]
Answering = Callable[["HttpServer", Request], Awaitable[Answer | None]]
"""None closes the connection without a word."""


@dataclass
class HttpServer:
    """What it saw, and what it says about its model."""

    port: int = 0
    extensions: tuple[str, ...] = ("binary_tensor_data",)
    model: Any = field(default_factory=lambda: MODEL)
    seen: list[Request] = field(default_factory=list)
    connections: int = 0
    tls: ssl.SSLContext | None = None
    listening: asyncio.Server | None = None

    @property
    def url(self) -> str:
        scheme = "http" if self.tls is None else "https"
        return f"{scheme}://127.0.0.1:{self.port}/v2/models/double"

    @property
    def inferred(self) -> list[Request]:
        return [request for request in self.seen if request.path.endswith("/infer")]


async def double(server: HttpServer, request: Request) -> Answer:
    """The protocol's own answers for a model that doubles its input."""
    if request.path == "/v2":
        return reply({"name": "test", "version": "1", "extensions": server.extensions})
    if request.path in {"/v2/models/double", "/v2/models/double/versions/1"}:
        return reply(server.model)
    if request.path == "/v2/repository/index":
        return reply([{"name": "double"}, {"name": "triple"}])
    if not request.path.startswith("/v2/models/double"):
        return 404, {}, b'{"error": "no such model here"}'
    size = int(request.headers.get("inference-header-content-length", len(request.body)))
    asked = json.loads(request.body[:size])["inputs"][0]
    data = np.frombuffer(request.body[size:], "<f4") if "data" not in asked else np.array(asked["data"], np.float32)
    return infer_reply(data.reshape(asked["shape"]) * 2, binary="data" not in asked)


def infer_reply(values: np.ndarray[Any, Any], *, binary: bool) -> Answer:
    output: dict[str, Any] = {"name": "y", "datatype": "FP32", "shape": list(values.shape)}
    raw = values.astype("<f4").tobytes()
    if not binary:
        return reply({"model_name": "double", "outputs": [{**output, "data": values.reshape(-1).tolist()}]})
    output["parameters"] = {"binary_data_size": len(raw)}
    head = json.dumps({"model_name": "double", "outputs": [output]}).encode()
    return 200, {"Inference-Header-Content-Length": str(len(head))}, head + raw


def reply(value: Any) -> Answer:
    return 200, {"Content-Type": "application/json"}, json.dumps(value).encode()


async def _talk(server: HttpServer, answer: Answering, reader: asyncio.StreamReader, writer: Any) -> None:
    server.connections += 1
    try:
        while True:
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            method, path, _ = head[0].split(" ")
            pairs = (line.partition(":") for line in head[1:] if line)
            headers = {name.lower(): value.strip() for name, _, value in pairs}
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            request = Request(method=method, path=path, headers=headers, body=body)
            server.seen.append(request)
            answered = await answer(server, request)
            if answered is None:
                return
            status, fields, content = answered
            sent = {"Content-Length": str(len(content)), **fields}
            lines = "".join(f"{name}: {value}\r\n" for name, value in sent.items() if value)
            writer.write(f"HTTP/1.1 {status} Word\r\n{lines}\r\n".encode() + content)
            await writer.drain()
            if sent.get("Connection") == "close" or not sent["Content-Length"]:
                return
    except (asyncio.IncompleteReadError, ConnectionError):
        return
    finally:
        writer.close()


@contextmanager
def http_server(answer: Answering = double, **about: Any) -> Iterator[HttpServer]:
    """A server in a thread; `answer` runs in its loop."""
    server = HttpServer(**about)
    ready, loop = threading.Event(), asyncio.new_event_loop()

    async def serve() -> None:
        listening = await asyncio.start_server(
            lambda reader, writer: _talk(server, answer, reader, writer), "127.0.0.1", server.port, ssl=server.tls
        )
        server.port = listening.sockets[0].getsockname()[1]
        server.listening = listening
        ready.set()
        await stopped.wait()
        listening.close()
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)

    stopped = asyncio.Event()
    thread = threading.Thread(target=loop.run_until_complete, args=(serve(),))
    thread.start()
    ready.wait(10)
    try:
        yield server
    finally:
        loop.call_soon_threadsafe(stopped.set)
        thread.join(10)
        loop.close()


class _Double(services.GRPCInferenceServiceServicer):
    """The same model, encoded by the protocol's own generated classes."""

    def __init__(self) -> None:
        self.metadata: list[dict[str, str]] = []
        self.status: tuple[Any, str] | None = None

    def ModelMetadata(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's
        if request.name != "double":
            context.abort(grpc.StatusCode.NOT_FOUND, "no such model here")
        tensor = messages.ModelMetadataResponse.TensorMetadata
        return messages.ModelMetadataResponse(
            name="double",
            inputs=[tensor(name="x", datatype="FP32", shape=[-1, 4])],
            outputs=[tensor(name="y", datatype="FP32", shape=[-1, 4])],
        )

    def ModelInfer(self, request: Any, context: Any) -> Any:  # noqa: N802 - the protocol's
        self.metadata.append(dict(context.invocation_metadata()))
        if self.status is not None and len(self.metadata) > 1:
            context.abort(*self.status)
        values = np.frombuffer(request.raw_input_contents[0], "<f4") * 2
        output = messages.ModelInferResponse.InferOutputTensor(name="y", datatype="FP32", shape=request.inputs[0].shape)
        return messages.ModelInferResponse(
            model_name=request.model_name, outputs=[output], raw_output_contents=[values.tobytes()]
        )


@contextmanager
def grpc_server() -> Iterator[tuple[str, _Double]]:
    """Its address, and its service."""
    service = _Double()
    server = grpc.server(futures.ThreadPoolExecutor(4))
    services.add_GRPCInferenceServiceServicer_to_server(service, server)
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    try:
        yield f"grpc://127.0.0.1:{port}/double", service
    finally:
        server.stop(0).wait()
