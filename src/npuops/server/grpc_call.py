"""One gRPC call, as a handler sees it: what it asks, and how it is answered, now or later."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import IntFlag
from typing import Any, Final

from npuops.errors import NpuopsError
from npuops.server.grpc_head import GrpcHead
from npuops.server.grpc_messages import PREFIX, MessageAssembly
from npuops.server.grpc_status import (
    OK_BLOCK,
    RESPONSE_BLOCK,
    fields_of,
    http_block,
    status_of,
    trailer_block,
    trailers_only_block,
)
from npuops.server.http2_connection import Http2Connection
from npuops.server.http2_streams import Http2Stream
from npuops.server.status import GrpcStatus, words_of

Bytes = bytes | bytearray | memoryview

_pack: Final = PREFIX.pack


class Hold(IntFlag):
    """Why no more of a call's messages are taken for now."""

    UNTAKEN = 1
    """The client does not take its answers."""
    CROWDED = 2
    """The handler has as many as it wants."""
    BUSY = 4
    """One is being decompressed, or others have their turn first."""


class GrpcCall:
    """One call. It may be answered from anywhere in the event loop; after its end, answers go nowhere.

    Attributes:
        head: its method, timeout and metadata.
        peer: the client's address.
        on_cancel: called, once, when nobody waits for the answer any more.
        on_release: called with the call when messages are taken again after a `hold`.
        context: whatever the handler keeps with it.
        assembly: of messages that come in pieces; None while none did.
        is_receiving: the client still owes bytes that the handler needs.
        waited_s: seconds that it owed them, less one for each KiB that came.
        held: why no more messages are taken for now.
    """

    __slots__ = (
        "_connection",
        "_has_begun",
        "_stream",
        "assembly",
        "context",
        "head",
        "held",
        "is_receiving",
        "method",
        "on_cancel",
        "on_release",
        "peer",
        "waited_s",
    )

    def __init__(
        self, head: GrpcHead, method: Unary | Stream, peer: str, connection: Http2Connection, stream: Http2Stream
    ) -> None:
        self.head = head
        self.method = method
        self.peer = peer
        self._connection = connection
        self._stream = stream
        self._has_begun = False
        self.on_cancel: Callable[[], None] | None = None
        self.on_release: Callable[[GrpcCall], None] | None = None
        self.context: Any = None
        self.assembly: MessageAssembly | None = None
        self.is_receiving = type(method) is Unary  # a stream may be silent before its first message too
        self.waited_s = 0.0
        self.held = 0

    @property
    def is_open(self) -> bool:
        """The client still waits."""
        return not self._stream.is_closed

    @property
    def queued_bytes(self) -> int:
        """Of answers that the client has not taken yet."""
        return self._stream.queued_bytes

    def reply(self, *parts: Bytes) -> None:
        """The one answer of a unary call. The parts are the message; they may be reused afterwards."""
        stream = self._stream
        if stream.is_closed:
            return
        size = 0
        for part in parts:
            size += len(part)
        self._connection.sender.respond(stream, RESPONSE_BLOCK, (_pack(0, size), *parts), size + 5, OK_BLOCK)
        self.forget()

    def send(self, *parts: Bytes) -> None:
        """One of several answers. The parts are the message; they may be reused afterwards."""
        if self._stream.is_closed:
            return
        self._begin()
        data = b"".join((_pack(0, sum(map(len, parts))), *parts))
        self._connection.sender.data(self._stream, data)

    def end(self) -> None:
        """No more answers."""
        if not self._stream.is_closed:
            self._begin()
            self._connection.sender.finish(self._stream, OK_BLOCK)
            self.forget()

    def fail(self, status: GrpcStatus, message: str, fields: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """The call ends with an error, and these fields in its trailers; answers that were sent before stay valid."""
        if self._stream.is_closed:
            return
        if self._has_begun:
            self._connection.sender.finish(self._stream, trailer_block(status, message, fields))
        else:
            block = trailers_only_block(status, message, fields)
            self._connection.sender.headers(self._stream, block, end=True)
        self.forget()

    def fail_with(self, error: NpuopsError) -> None:
        """The call ends with an error of our tree."""
        self.fail(status_of(error), words_of(error), fields_of(error))

    def refuse(self, http_status: int) -> None:
        """It is no call of gRPC: HTTP has an answer for that."""
        self._connection.sender.headers(self._stream, http_block(http_status), end=True)

    def hold(self, why: Hold) -> None:
        """Take no more messages, and no more bytes than the client may already send."""
        self.held |= why
        self._stream.is_held = True

    def release(self, why: Hold) -> None:
        """Take them again, if nothing else is against it."""
        if not self.held & why:
            return
        self.held &= ~why
        if not self.held and self.on_release is not None:
            self.on_release(self)

    def widen(self) -> None:
        """All that came is taken: the client may send more."""
        if self._stream.is_held:
            self._connection.release(self._stream)

    def forget(self) -> None:
        """The call is over: an unfinished message is nobody's any more, and there is nothing to cancel."""
        self.on_cancel = self.on_release = None
        if self.assembly is not None:
            self.assembly.drop()

    def _begin(self) -> None:
        if not self._has_begun:
            self._has_begun = True
            self._connection.sender.headers(self._stream, RESPONSE_BLOCK)


@dataclass(frozen=True, slots=True, kw_only=True)
class Unary:
    """A method that takes one message.

    Attributes:
        handler: gets the call and the message, and must not block. It answers, now or later, with one `reply`, or with
            any number of `send` and an `end`, or with a `fail`. An error of our tree that it raises is such a `fail`.
    """

    handler: Callable[[GrpcCall, bytes], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """A method that takes any number of messages.

    Attributes:
        on_message: like a unary handler, for each of them.
        on_end: the client sends no more; the handler owes an `end`, now or when its answers are out.
        on_open: the call began; its first message may be long in coming.
    """

    on_message: Callable[[GrpcCall, bytes], None]
    on_end: Callable[[GrpcCall], None]
    on_open: Callable[[GrpcCall], None] | None = None


Method = Unary | Stream
