"""gRPC over HTTP/2: which handler gets a call's messages, and what a call that breaks a rule is told."""

from __future__ import annotations

import logging
import ssl
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from npuops.errors import NpuopsError, nearest
from npuops.server.grpc_call import GrpcCall, Method, Stream, Unary
from npuops.server.grpc_head import GrpcHead, http_status, read_grpc_head
from npuops.server.grpc_messages import PREFIX, MessageAssembly, Room, too_large
from npuops.server.grpc_status import GrpcCallError, http_block
from npuops.server.http2_connection import Http2Connection
from npuops.server.http2_frames import ErrorCode
from npuops.server.http2_headers import RequestHead
from npuops.server.http2_server import Http2Server
from npuops.server.http2_streams import Http2Limits, Http2Stream
from npuops.server.status import GrpcStatus

_log: Final = logging.getLogger("npuops.server")

_unpack = PREFIX.unpack_from
_PREFIX_BYTES: Final = PREFIX.size


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcLimits:
    """How much a call may ask for.

    Attributes:
        message_bytes: largest message, before and after decompression.
        unfinished_bytes: of messages that are not whole yet, over all connections.
        stall_s: seconds without a byte, after which an unfinished message is given up.
        queued_bytes: of answers that a client does not take, above which no more of its stream is read.
        max_connections: open at a time.
    """

    message_bytes: int = 256 << 20
    unfinished_bytes: int = 1 << 30
    stall_s: int = 30
    queued_bytes: int = 4 << 20
    max_connections: int = 4096


class GrpcServer:
    """Serves methods, each by its path `/package.Service/Method`.

    Attributes:
        room: for messages that are not whole yet.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        limits: GrpcLimits | None = None,
        http2: Http2Limits | None = None,
        on_drain: Sequence[Callable[[], None]] = (),
    ) -> None:
        """`on_drain`: called when a drain begins, to end the calls that would not end by themselves."""
        self._methods = dict(methods)
        self._on_drain = tuple(on_drain)
        self.limits = limits or GrpcLimits()
        self.room = Room(self.limits.unfinished_bytes)
        self._http2 = Http2Server(lambda: GrpcSession(self), http2, self.limits.max_connections)

    async def listen(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> list[tuple[str, int]]:
        """Listen, and say where.

        Raises:
            OptionError: the address cannot be had.
        """
        return await self._http2.listen(host, port, tls=tls)

    def method(self, path: str) -> Method:
        """The one at this path.

        Raises:
            GrpcCallError: there is none.
        """
        method = self._methods.get(path)
        if method is None:
            raise GrpcCallError(
                f"no method {path}", advice=nearest(path, self._methods), status=GrpcStatus.UNIMPLEMENTED
            )
        return method

    @property
    def connections(self) -> int:
        """Open now."""
        return self._http2.connections

    async def drain(self, timeout_s: float) -> None:
        """Take no new calls, finish the open ones, close; after the timeout, cut off."""
        for stop in self._on_drain:
            stop()
        await self._http2.drain(timeout_s)

    def close(self) -> None:
        """Cut everything off."""
        self._http2.close()


class GrpcSession:
    """The calls of one connection."""

    def __init__(self, server: GrpcServer) -> None:
        self._server = server
        self._limits = server.limits
        self._connection: Http2Connection
        self._peer = ""

    def attached(self, connection: Http2Connection, peer: str) -> None:
        """The connection is there."""
        self._connection, self._peer = connection, peer

    def opened(self, stream: Http2Stream) -> None:
        """A call began."""
        known = stream.head.memo
        if known is None:
            known = self._judged(stream.head)
            stream.head.memo = known
        refusal, head, method = known
        if refusal is not None:
            refusal(GrpcCall(head, method, self._peer, self._connection, stream), stream)
            return
        stream.context = GrpcCall(head, method, self._peer, self._connection, stream)

    def received(self, stream: Http2Stream, data: bytes, *, ended: bool) -> None:
        """Bytes of its messages."""
        call: GrpcCall | None = stream.context
        if call is None:
            return
        method = call.method
        if ended and call.assembly is None and len(data) >= _PREFIX_BYTES:
            flag, length = _unpack(data)
            if length == len(data) - _PREFIX_BYTES and flag == 0 and type(method) is Unary:
                call.is_receiving = False
                if length <= self._limits.message_bytes:
                    _guarded(call, method.handler, call, data[_PREFIX_BYTES:])
                else:
                    call.fail_with(too_large(length, self._limits.message_bytes))
                return
        _guarded(call, self._assemble, call, stream, data, ended)

    def drained(self, stream: Http2Stream) -> None:
        """All answers are out."""
        call: GrpcCall | None = stream.context
        if call is not None:
            call.release()

    def was_reset(self, stream: Http2Stream, code: ErrorCode) -> None:
        """Nobody waits for the answer."""
        del code
        call: GrpcCall | None = stream.context
        if call is None:
            return
        stream.context = None
        call.forget()
        if call.on_cancel is not None:
            _guarded(call, call.on_cancel)

    def tick(self) -> None:
        """A second passed: a message that does not come is given up."""
        for stream in list(self._connection.streams.values()):
            call: GrpcCall | None = stream.context
            if call is None or not call.is_receiving:
                continue
            call.waited_s += 1
            if call.waited_s > self._limits.stall_s:
                call.forget()
                call.fail(GrpcStatus.DEADLINE_EXCEEDED, f"no byte of the message came for {self._limits.stall_s} s")

    def _judged(self, head: RequestHead) -> tuple[Any, GrpcHead, Method]:
        """What to do with all calls that have this head."""
        status = http_status(head)
        if status != 200:
            block = http_block(status)
            return (
                lambda _, stream: self._connection.sender.headers(stream, block, end=True),
                GrpcHead(""),
                _NOTHING,
            )
        try:
            grpc_head = read_grpc_head(head)
            return None, grpc_head, self._server.method(grpc_head.path)
        except GrpcCallError as error:
            refused = error
            return lambda call, _: call.fail_with(refused), GrpcHead(""), _NOTHING

    def _assemble(self, call: GrpcCall, stream: Http2Stream, data: bytes, ended: bool) -> None:
        assembly = call.assembly
        if assembly is None:
            assembly = MessageAssembly(call.head.encoding, self._limits.message_bytes, self._server.room)
            call.assembly = assembly
        messages = assembly.add(data)
        call.waited_s = 0
        if ended and assembly.size:
            raise GrpcCallError("the call ends in the middle of a message")
        if isinstance(call.method, Unary):
            _take_one(call, call.method, assembly, messages, ended)
        else:
            self._take_many(call, call.method, stream, messages, ended)

    def _take_many(
        self, call: GrpcCall, method: Stream, stream: Http2Stream, messages: list[bytes], ended: bool
    ) -> None:
        call.is_receiving = call.assembly is not None and call.assembly.size > 0
        for message in messages:
            if stream.is_closed:
                return
            method.on_message(call, message)
        if ended and not stream.is_closed:
            method.on_end(call)
        elif stream.queued_bytes > self._limits.queued_bytes:
            call.hold()


def _take_one(call: GrpcCall, method: Unary, assembly: MessageAssembly, messages: list[bytes], ended: bool) -> None:
    if messages and assembly.whole is None:
        assembly.keep(messages.pop(0))
    message = assembly.whole
    if messages or (ended and message is None):
        raise GrpcCallError(
            f"{call.head.path} takes one message, not {'more' if messages else 'none'}",
            status=GrpcStatus.UNIMPLEMENTED,
        )
    if ended and message is not None:
        assembly.drop()
        call.is_receiving = False
        method.handler(call, message)


def _guarded(call: GrpcCall, work: Callable[..., None], *arguments: Any) -> None:
    """Run it; whatever it raises ends this call, and no other."""
    try:
        work(*arguments)
    except NpuopsError as error:
        call.fail_with(error)
    except Exception:  # noqa: BLE001 -- a defect in one handler must not cut off all calls of the connection
        _log.exception("a handler of %s failed", call.head.path)
        call.fail(GrpcStatus.INTERNAL, "a defect of the server; its log tells more")


def _refuse(call: GrpcCall, message: bytes) -> None:
    del call, message


_NOTHING: Final = Unary(handler=_refuse)
