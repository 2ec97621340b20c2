"""One gRPC call with the real client library: the answer is checked before a server is measured."""

from __future__ import annotations

import grpc
from exchanges import Exchange


def call(port: int, exchange: Exchange, limit_s: float = 30.0) -> bytes:
    """The serialized answer to an exchange's message.

    Raises:
        grpc.RpcError: the server refused it.
    """
    with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
        method = channel.unary_unary(exchange.path)
        answer: bytes = method(exchange.body[5:], timeout=limit_s, wait_for_ready=True)
        return answer
