"""A gRPC server of ours in a thread, for clients that block."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from typing import Any

import uvloop

from npuops.server.grpc_call import GrpcCall, Method, Stream, Unary
from npuops.server.grpc_server import GrpcLimits, GrpcServer
from npuops.server.http2_streams import Http2Limits


def echo(call: GrpcCall, message: bytes) -> None:
    call.reply(message)


def each(call: GrpcCall, message: bytes) -> None:
    call.send(message)


METHODS: dict[str, Method] = {
    "/t.Test/Echo": Unary(handler=echo),
    "/t.Test/Each": Stream(on_message=each, on_end=GrpcCall.end),
}


class Served:
    """The server, its address, and its event loop."""

    def __init__(self, server: GrpcServer, loop: asyncio.AbstractEventLoop, port: int) -> None:
        self.server, self.loop, self.port = server, loop, port
        self.address = f"127.0.0.1:{port}"

    def run(self, work: Callable[[], Any]) -> Any:
        """Run it within the server's loop."""

        async def call() -> Any:
            return work()

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(30)

    def until(self, condition: Callable[[], Any]) -> None:
        """Look, within the server's loop, until it is so."""
        end_s = time.monotonic() + 60
        while not self.run(condition):
            assert time.monotonic() < end_s, "it never came true"

    def drain(self, timeout_s: float) -> Future[None]:
        return asyncio.run_coroutine_threadsafe(self.server.drain(timeout_s), self.loop)


@contextmanager
def served(
    methods: Mapping[str, Method] = METHODS,
    limits: GrpcLimits | None = None,
    http2: Http2Limits | None = None,
    tls: Any = None,
    on_drain: Sequence[Callable[[], None]] = (),
) -> Iterator[Served]:
    """Serve until the end of the block."""
    ready: Future[Served] = Future()
    ended = asyncio.Event()

    async def main() -> None:
        server = GrpcServer(methods, limits, http2, on_drain)
        ((_, port),) = await server.listen("127.0.0.1", 0, tls=tls)
        ready.set_result(Served(server, asyncio.get_running_loop(), port))
        await ended.wait()
        await server.drain(0)

    thread = threading.Thread(target=lambda: uvloop.run(main()))
    thread.start()
    it = ready.result(30)
    try:
        yield it
    finally:
        it.loop.call_soon_threadsafe(ended.set)
        thread.join(30)
