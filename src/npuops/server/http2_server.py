"""HTTP/2 on sockets: an asyncio protocol around each connection's state machine, and the server that has them all."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from typing import Final, Protocol, cast

from npuops.errors import OptionError
from npuops.server.http2_connection import Http2Connection
from npuops.server.http2_frames import ErrorCode
from npuops.server.http2_sending import Backlog
from npuops.server.http2_streams import Http2Limits, StreamReceiver

_WRITE_HIGH: Final = 1 << 20
"""Bytes that wait for the socket; above them responses wait in their streams."""
_WRITE_FULL: Final = 4 << 20
"""Above these nothing is read either: whoever doesn't read answers may not ask."""
_BACKLOG: Final = 1024
_LINGER_S: Final = 2


class Http2Receiver(StreamReceiver, Protocol):
    """What one connection's streams are answered by."""

    def attached(self, connection: Http2Connection, peer: str) -> None:
        """The connection is there; called once, before anything else."""
        ...

    def tick(self) -> None:
        """A second passed."""
        ...


class Http2Protocol(asyncio.Protocol):
    """One socket."""

    def __init__(self, server: Http2Server) -> None:
        self._server = server
        self._receiver = server.make_receiver()
        self._is_reading = True
        self._is_open = False
        self._closing_s = 0
        self._transport: asyncio.Transport
        self.connection: Http2Connection

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Of asyncio."""
        self._transport = cast("asyncio.Transport", transport)
        self._transport.set_write_buffer_limits(high=_WRITE_HIGH)
        self._is_open = True
        name = transport.get_extra_info("peername")
        self.connection = Http2Connection(self._server.limits, self._receiver, self, self._server.backlog)
        self._receiver.attached(self.connection, f"{name[0]}:{name[1]}" if isinstance(name, tuple) else "local")
        why_not = self._server.admit(self)
        if why_not:
            self.connection.fail(ErrorCode.ENHANCE_YOUR_CALM, why_not)

    def data_received(self, data: bytes) -> None:
        """Of asyncio."""
        self.connection.receive(data)
        is_paused = self._is_open and self.connection.sender.is_paused
        if is_paused and self._transport.get_write_buffer_size() > _WRITE_FULL:
            self._is_reading = False
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        """Of asyncio."""
        self.connection.sender.is_paused = True

    def resume_writing(self) -> None:
        """Of asyncio."""
        self._read_on()
        self.connection.resumed()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 -- asyncio's signature
        """Of asyncio."""
        self._is_open = False
        self._server.leave(self)
        self.connection.lost()

    def write(self, data: bytes) -> None:
        """Send, if there is still somebody: uvloop raises on a closed transport."""
        if self._is_open:
            self._transport.write(data)

    def close(self) -> None:
        """Send what was written, then close; what still comes is read meanwhile, and nobody's.

        A socket that is closed with something unread takes back what the peer has not received yet.
        """
        if not self._is_open:
            return
        self._read_on()
        self._is_open = False
        if self._transport.can_write_eof():
            self._transport.write_eof()
        else:
            self._transport.close()  # TLS says goodbye in its own way

    def abort(self) -> None:
        """Close at once."""
        self._is_open = False
        self._transport.abort()

    @property
    def unsent_bytes(self) -> int:
        """Of responses that the peer does not take."""
        return self.connection.sender.queued_bytes + self._transport.get_write_buffer_size()

    def tick(self) -> None:
        """A second passed."""
        if self.connection.is_over:
            self._closing_s += 1
            is_sent = self._transport.get_write_buffer_size() == 0
            if self._closing_s > (_LINGER_S if is_sent else self._server.limits.ping_s):
                self.abort()
            return
        self._receiver.tick()
        self.connection.tick()

    def _read_on(self) -> None:
        if not self._is_reading and self._is_open:
            self._is_reading = True
            self._transport.resume_reading()


class Http2Server:
    """Listens, and has all connections.

    Attributes:
        limits: of each connection.
        make_receiver: called for each connection.
        backlog: of all connections.
    """

    def __init__(
        self,
        make_receiver: Callable[[], Http2Receiver],
        limits: Http2Limits | None = None,
        max_connections: int = 4096,
        unsent_bytes: int = 1 << 30,
    ) -> None:
        """Nothing is open.

        Args:
            make_receiver: called for each connection.
            limits: of each connection.
            max_connections: open at a time; more are told so, and closed.
            unsent_bytes: of responses that their clients do not take; above, who has the most of them is cut off.
        """
        self.limits = limits or Http2Limits()
        self.make_receiver = make_receiver
        self.backlog = Backlog(unsent_bytes, self._shed_soon)
        self._most = max_connections
        self._most_unsent = unsent_bytes
        self._is_shedding = False
        self._protocols: set[Http2Protocol] = set()
        self._listeners: list[asyncio.Server] = []
        self._is_stopping = False
        self._timer: asyncio.TimerHandle | None = None
        self._empty = asyncio.Event()
        self._empty.set()

    async def listen(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> list[tuple[str, int]]:
        """Listen on an address, and say where: port 0 lets the system choose.

        Raises:
            OptionError: the address cannot be had.
        """
        loop = asyncio.get_running_loop()
        try:
            listener = await loop.create_server(
                lambda: Http2Protocol(self),
                host,
                port,
                backlog=_BACKLOG,
                ssl=tls,
                ssl_handshake_timeout=self.limits.handshake_s if tls else None,
            )
        except OSError as error:
            raise OptionError(
                f"cannot listen on {host}:{port}: {error}", advice="choose another --grpc-port"
            ) from error
        self._listeners.append(listener)
        if self._timer is None:
            self._timer = loop.call_later(1, self._tick)
        return [socket.getsockname()[:2] for socket in listener.sockets]

    @property
    def connections(self) -> int:
        """Open now."""
        return len(self._protocols)

    async def drain(self, timeout_s: float) -> None:
        """Take no connections and no streams any more, finish what is open, close; after the timeout, cut off."""
        self._stop_listening()
        for protocol in list(self._protocols):
            protocol.connection.drain()
        try:
            async with asyncio.timeout(timeout_s):
                await self._empty.wait()
        except TimeoutError:
            self.close()
            await self._empty.wait()
        self.close()

    def close(self) -> None:
        """Cut everything off."""
        self._stop_listening()
        for protocol in list(self._protocols):
            protocol.abort()
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def admit(self, protocol: Http2Protocol) -> str:
        """A connection is there. Empty, or why it cannot stay."""
        self._protocols.add(protocol)
        self._empty.clear()
        if self._is_stopping:
            return "the server stops"  # it was accepted before the port was closed
        return "" if len(self._protocols) <= self._most else "too many connections"

    def leave(self, protocol: Http2Protocol) -> None:
        """A connection is gone."""
        self._protocols.discard(protocol)
        if not self._protocols:
            self._empty.set()

    def _shed_soon(self) -> None:
        """Not at once: whoever adds to the backlog is in the middle of a response."""
        if not self._is_shedding:
            self._is_shedding = True
            asyncio.get_running_loop().call_soon(self._shed)

    def _shed(self) -> None:
        """Responses that nobody takes must not fill the memory: who hoards the most of them goes first."""
        self._is_shedding = False
        unsent = {protocol: protocol.unsent_bytes for protocol in self._protocols}
        total = sum(unsent.values())
        for protocol, size in sorted(unsent.items(), key=lambda item: item[1], reverse=True):
            if total <= self._most_unsent:
                return
            protocol.connection.fail(ErrorCode.ENHANCE_YOUR_CALM, "responses are not read")
            protocol.abort()
            total -= size

    def _stop_listening(self) -> None:
        self._is_stopping = True
        for listener in self._listeners:
            listener.close()
        self._listeners.clear()

    def _tick(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(1, self._tick)
        for protocol in list(self._protocols):
            protocol.tick()
        self._shed()
