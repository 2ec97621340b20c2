"""The listening side of HTTP: accepts connections, sweeps slow ones, drains when the server ends."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final

from npuops.errors import UsageError
from npuops.server.http_body import Room
from npuops.server.http_connection import Connection
from npuops.server.http_known import Heads, HttpLimits, Router

SWEEP_S: Final = 1.0
BACKLOG: Final = 4096
GRACE_S: Final = 0.1
"""A request that was sent before the client could know of the end is still read within this."""

Connect = Callable[[Heads, HttpLimits, asyncio.AbstractEventLoop, set[Connection], Room], Connection]


class HttpServer:
    """One port.

    Attributes:
        heads: the heads that are known.
    """

    def __init__(
        self, router: Router, limits: HttpLimits, loop: asyncio.AbstractEventLoop, connect: Connect = Connection
    ) -> None:
        """`listen` opens the port. `connect` makes a connection, with the arguments of `Connection`."""
        self.heads = Heads(router, limits.body_bytes)
        self._room = Room(limits.received_bytes)
        self._limits, self._loop, self._connect = limits, loop, connect
        self._alive: set[Connection] = set()
        self._server: asyncio.Server | None = None
        self._sweep: asyncio.TimerHandle | None = None
        self._draining = False
        self._sweep_s = min(SWEEP_S, limits.head_s, limits.body_s, limits.idle_s)

    async def listen(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> int:
        """Open the port; 0 takes a free one. Gives the port.

        Raises:
            UsageError: it is taken, or is not ours to open.
        """
        try:
            self._server = await self._loop.create_server(
                self._connection,
                host,
                port,
                ssl=tls,
                backlog=BACKLOG,
                ssl_handshake_timeout=self._limits.head_s if tls is not None else None,
            )
        except OSError as error:
            raise UsageError(
                f"cannot listen on {host}:{port}: {error.strerror or error}", advice="choose another --http-port"
            ) from error
        self._sweep = self._loop.call_later(self._sweep_s, self._sweep_all)
        return int(self._server.sockets[0].getsockname()[1])

    @property
    def connections(self) -> int:
        """That are open."""
        return len(self._alive)

    async def drain(self, limit_s: float) -> None:
        """Take no new connection, answer what is under way, close the rest."""
        if self._server is not None:
            self._server.close()
        self._draining = True
        for connection in list(self._alive):
            connection.drain()
        end_s = self._loop.time() + limit_s
        await asyncio.sleep(GRACE_S)
        while True:
            for connection in list(self._alive):
                connection.hang_up_if_idle()
            if self._loop.time() >= end_s or not any(connection.is_busy for connection in self._alive):
                break
            await asyncio.sleep(0.01)
        for connection in list(self._alive):
            connection.hang_up()
        if self._sweep is not None:
            self._sweep.cancel()

    def _connection(self) -> Connection:
        connection = self._connect(self.heads, self._limits, self._loop, self._alive, self._room)
        connection.ending = self._draining
        return connection

    def _sweep_all(self) -> None:
        now_s = self._loop.time()
        for connection in list(self._alive):
            connection.sweep(now_s)
        self._sweep = self._loop.call_later(self._sweep_s, self._sweep_all)
