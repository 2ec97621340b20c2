"""gRPC lanes over grpcio, which carries our own bytes."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable, Sequence
from typing import Any, Final

from npuops.errors import MissingToolchainError
from npuops.loadgen.lane import TaskLane
from npuops.loadgen.outcomes import GRPC, LOST, REFUSED
from npuops.loadgen.proto_wire import METHOD

MOST_CHANNELS: Final = 16
"""Connections that the lanes share; each carries many requests at a time."""
OPTIONS: Final = (
    ("grpc.max_receive_message_length", -1),
    ("grpc.max_send_message_length", -1),
    ("grpc.use_local_subchannel_pool", 1),  # else all channels to one address would be one connection
    ("grpc.enable_http_proxy", 0),
    ("grpc.max_reconnect_backoff_ms", 1000),
)
_UNAVAILABLE: Final = 14
# Both come as UNAVAILABLE, as a server's own refusal does: only the words of grpcio's core tell them apart.
_NO_CONNECTION: Final = re.compile(
    r"failed to connect|connection refused|connect failed|name resolution", re.IGNORECASE
)
_BROKEN: Final = re.compile(
    r"socket closed|reset by peer|broken pipe|GOAWAY|recvmsg|sendmsg|transport closed", re.IGNORECASE
)

Metadata = tuple[tuple[str, str], ...]


def require_grpc() -> Any:
    """The package grpc.

    Raises:
        MissingToolchainError: it is not installed.
    """
    try:
        import grpc  # noqa: PLC0415 - it is optional, and slow to import
        import grpc.aio  # noqa: PLC0415 - as above
    except ModuleNotFoundError as error:
        raise MissingToolchainError(
            "load over gRPC needs grpcio, which is not installed", advice='pip install "npuops[bench]"'
        ) from error
    return grpc


def code_of(status: int, details: str) -> int:
    """The outcome of a call that ended with a gRPC status."""
    if status == _UNAVAILABLE and _NO_CONNECTION.search(details):
        return REFUSED
    if status == _UNAVAILABLE and _BROKEN.search(details):
        return LOST
    return GRPC + status


def credentials(grpc: Any, *, insecure: bool) -> Any:
    """For TLS.

    Raises:
        MissingToolchainError: a certificate cannot be left unchecked.
    """
    if insecure:
        raise MissingToolchainError(
            "grpcio cannot leave a certificate unchecked",
            advice="name the certificate in $GRPC_DEFAULT_SSL_ROOTS_FILE_PATH, or use HTTP",
        )
    return grpc.ssl_channel_credentials()


class GrpcChannels:
    """The connections; made in the loop that uses them."""

    def __init__(self, authority: str, count: int, *, tls: bool, insecure: bool) -> None:
        grpc = require_grpc()
        secure = credentials(grpc, insecure=insecure) if tls else None
        self._channels = [
            grpc.aio.insecure_channel(authority, options=OPTIONS)
            if secure is None
            else grpc.aio.secure_channel(authority, secure, options=OPTIONS)
            for _ in range(count)
        ]
        self.error = grpc.aio.AioRpcError
        self.calls = [channel.unary_unary(f"{METHOD}ModelInfer") for channel in self._channels]

    async def close(self) -> None:
        """End them all."""
        await asyncio.gather(*(channel.close() for channel in self._channels))


class GrpcLane(TaskLane):
    """One request at a time on a channel; as `http_client.HttpLane`."""

    def __init__(
        self,
        loop: asyncio.AbstractEventLoop,
        channels: GrpcChannels,
        place: int,
        requests: Sequence[tuple[bytes, Metadata]],
        settled: Callable[[GrpcLane, int], None],
    ) -> None:
        super().__init__(loop, settled)
        self._call = channels.calls[place % len(channels.calls)]
        self._error = channels.error
        self._requests = requests
        self.body = b""
        self.header_bytes: int | None = None
        self.is_open = True

    async def open(self) -> None:
        """A channel connects when it is used."""

    def send(self, kind: int) -> None:
        """Start the call."""
        self.kind = kind
        self.busy = True
        self._begin(self._ask())

    def fail(self, code: int) -> None:
        """Cancel the call, and settle it so."""
        self._cancel()
        self._settle(code)

    def close(self) -> None:
        """Cancel the call, silently."""
        self.busy = False
        self._cancel()

    async def _ask(self) -> None:
        message, metadata = self._requests[self.kind]
        try:
            body: bytes = await self._call(message, metadata=metadata)
        except self._error as error:
            code = code_of(error.code().value[0], error.details() or "")
            self.is_open = code != REFUSED
        else:
            code, self.body, self.is_open = GRPC, body, True
            self.received_bytes += len(body)
        self._settle(code)
