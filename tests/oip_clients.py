"""The real tritonclient in its four forms, called alike."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import tritonclient.grpc
import tritonclient.grpc.aio
import tritonclient.http
import tritonclient.http.aio

KINDS = ("http", "http-aio", "grpc", "grpc-aio")
_MODULES: dict[str, ModuleType] = {
    "http": tritonclient.http,
    "http-aio": tritonclient.http.aio,
    "grpc": tritonclient.grpc,
    "grpc-aio": tritonclient.grpc.aio,
}


class Client:
    """Any of the four; asynchronous ones run in a loop of their own.

    Attributes:
        kind: one of `KINDS`.
        module: that its inputs and outputs come from.
    """

    def __init__(self, kind: str, client: Any, run: Any) -> None:
        self.kind, self.module = kind, tritonclient.grpc if "grpc" in kind else tritonclient.http
        self._client, self._run = client, run

    @property
    def is_grpc(self) -> bool:
        return "grpc" in self.kind

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._client, name)
        if self._run is None:
            return method
        return lambda *args, **keys: self._run(method, args, keys)

    def document(self, name: str, *args: Any, **keys: Any) -> Any:
        """An answer as JSON-like documents, also from gRPC."""
        return getattr(self, name)(*args, **keys, **({"as_json": True} if self.is_grpc else {}))

    def input(self, name: str, array: Any, word: str, *, binary: bool = True) -> Any:
        tensor = self.module.InferInput(name, list(array.shape), word)
        tensor.set_data_from_numpy(array, **({} if self.is_grpc else {"binary_data": binary}))
        return tensor

    def output(self, name: str, *, binary: bool = True, classes: int = 0) -> Any:
        return self.module.InferRequestedOutput(
            name, class_count=classes, **({} if self.is_grpc else {"binary_data": binary})
        )


@contextmanager
def oip_client(kind: str, http: int, grpc: int | None) -> Iterator[Client]:
    """A client until the end of the block."""
    address = f"127.0.0.1:{grpc if 'grpc' in kind else http}"
    if "aio" not in kind:
        with _MODULES[kind].InferenceServerClient(address) as client:
            yield Client(kind, client, None)
        return
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever)
    thread.start()

    def run(method: Any, args: Any, keys: Any) -> Any:
        async def call() -> Any:
            return await method(*args, **keys)

        return asyncio.run_coroutine_threadsafe(call(), loop).result(60)

    async def made() -> Any:
        return _MODULES[kind].InferenceServerClient(address)

    client = asyncio.run_coroutine_threadsafe(made(), loop).result(60)
    try:
        yield Client(kind, client, run)
    finally:
        run(client.close, (), {})
        loop.call_soon_threadsafe(loop.stop)
        thread.join(60)
        loop.close()
