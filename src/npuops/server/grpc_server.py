"""gRPC over HTTP/2: which handler gets a call's messages, and what a call that breaks a rule is told."""

from __future__ import annotations

import asyncio
import logging
import ssl
from collections.abc import Callable, Coroutine, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, Final

from npuops.errors import NpuopsError, nearest
from npuops.server.grpc_call import GrpcCall, Hold, Method, Stream, Unary
from npuops.server.grpc_head import GrpcHead, http_status, read_grpc_head
from npuops.server.grpc_messages import PREFIX, UNPACK_HERE_BYTES, MessageAssembly, Room, too_large
from npuops.server.grpc_status import GrpcCallError
from npuops.server.http2_connection import Http2Connection
from npuops.server.http2_frames import ErrorCode
from npuops.server.http2_headers import RequestHead
from npuops.server.http2_server import Http2Server
from npuops.server.http2_streams import Http2Limits, Http2Stream
from npuops.server.status import GrpcStatus

_log: Final = logging.getLogger("npuops.server")

_unpack = PREFIX.unpack_from
_PREFIX_BYTES: Final = PREFIX.size

SLOWEST_BYTES_S: Final = 1024
"""A message that comes slower than this for long is given up."""
_TURN: Final = 64
"""Messages of one call that are handed over before other connections have their turn."""
_PATH_SHOWN: Final = 100
_HINTS: Final = 16
"""Wrong paths of one connection that are answered with what could be meant: a client has one or two."""
_UNPACKERS: Final = 2
"""Threads: as many messages are decompressed at a time, each up to the limit of a message."""


@dataclass(frozen=True, slots=True, kw_only=True)
class GrpcLimits:
    """How much a call may ask for.

    Attributes:
        message_bytes: largest message, before and after decompression.
        unfinished_bytes: of messages that are not whole yet, over all connections.
        stall_s: seconds without a byte, after which an unfinished message is given up; one that comes slower than
            1 KiB a second is given up too.
        queued_bytes: of answers that a client does not take, above which no more of its stream is read.
        unsent_bytes: of answers that clients do not take, over all connections; who has the most is cut off.
        max_connections: open at a time.
    """

    message_bytes: int = 256 << 20
    unfinished_bytes: int = 1 << 30
    stall_s: int = 30
    queued_bytes: int = 4 << 20
    unsent_bytes: int = 1 << 30
    max_connections: int = 4096


MakeCall = Callable[[GrpcHead, Method, str, Http2Connection, Http2Stream], GrpcCall]


class GrpcServer:
    """Serves methods, each by its path `/package.Service/Method`.

    Attributes:
        room: for messages that are not whole yet.
        unpackers: threads that decompress large messages.
    """

    def __init__(
        self,
        methods: Mapping[str, Method],
        limits: GrpcLimits | None = None,
        http2: Http2Limits | None = None,
        on_drain: Sequence[Callable[[], None]] = (),
        make_call: MakeCall = GrpcCall,
    ) -> None:
        """Nothing is open yet.

        Args:
            methods: by their paths.
            limits: of calls.
            http2: of connections.
            on_drain: called when a drain begins, to end the calls that would not end by themselves.
            make_call: with the arguments of `GrpcCall`.
        """
        self._methods = dict(methods)
        self._on_drain = tuple(on_drain)
        self.make_call = make_call
        self.limits = limits or GrpcLimits()
        self.room = Room(self.limits.unfinished_bytes)
        self.unpackers = ThreadPoolExecutor(_UNPACKERS, "grpc-unpack")
        self._tasks: set[asyncio.Task[None]] = set()
        self._http2 = Http2Server(
            lambda: GrpcSession(self), http2, self.limits.max_connections, self.limits.unsent_bytes
        )

    async def listen(self, host: str, port: int, *, tls: ssl.SSLContext | None = None) -> list[tuple[str, int]]:
        """Listen, and say where.

        Raises:
            OptionError: the address cannot be had.
        """
        return await self._http2.listen(host, port, tls=tls)

    def method(self, path: str) -> Method | None:
        """The one at this path."""
        return self._methods.get(path)

    def nearest(self, path: str) -> str:
        """Words on what could be meant by a path that is none. They take some time."""
        # Names are compared within their service: whole paths are long and alike.
        service, _, name = path.rpartition("/")
        names = [known.rpartition("/")[2] for known in self._methods if known.rpartition("/")[0] == service]
        if names:
            return nearest(name[:_PATH_SHOWN], names)
        services = sorted({known.rpartition("/")[0].removeprefix("/") for known in self._methods})
        return f"the services here are {', '.join(services)}"

    def later(self, work: Coroutine[Any, Any, None]) -> None:
        """What cannot be done at once."""
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    @property
    def connections(self) -> int:
        """Open now."""
        return self._http2.connections

    async def drain(self, timeout_s: float) -> None:
        """Take no new calls, finish the open ones, close; after the timeout, cut off."""
        for stop in self._on_drain:
            stop()
        await self._http2.drain(timeout_s)
        self.close()

    def close(self) -> None:
        """Cut everything off."""
        self._http2.close()
        self.unpackers.shutdown(wait=False, cancel_futures=True)


class GrpcSession:
    """The calls of one connection."""

    def __init__(self, server: GrpcServer) -> None:
        self._server = server
        self._limits = server.limits
        self._connection: Http2Connection
        self._peer = ""
        self._hints = _HINTS

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
            refusal(self._server.make_call(head, method, self._peer, self._connection, stream))
            return
        stream.context = call = self._server.make_call(head, method, self._peer, self._connection, stream)
        if type(method) is Stream and method.on_open is not None:
            _guarded(call, method.on_open, call)

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
        _guarded(call, self._assemble, call, data, ended)

    def drained(self, stream: Http2Stream) -> None:
        """All answers are out."""
        call: GrpcCall | None = stream.context
        if call is not None:
            call.release(Hold.UNTAKEN)

    def was_reset(self, stream: Http2Stream, code: ErrorCode) -> None:
        """Nobody waits for the answer."""
        del code
        call: GrpcCall | None = stream.context
        if call is None:
            return
        stream.context = None
        on_cancel = call.on_cancel
        call.forget()
        if on_cancel is not None:
            _guarded(call, on_cancel)

    def tick(self) -> None:
        """A second passed: a message that does not come is given up."""
        for stream in list(self._connection.streams.values()):
            call: GrpcCall | None = stream.context
            if call is None or not call.is_receiving or call.held:
                continue
            call.waited_s += 1
            if call.waited_s > self._limits.stall_s:
                call.fail(GrpcStatus.DEADLINE_EXCEEDED, "the message does not come, or too slowly")

    def _judged(self, head: RequestHead) -> tuple[Any, GrpcHead, Method]:
        """What to do with all calls that have this head."""
        grpc_head = GrpcHead(head.path.decode("latin-1"))
        status = http_status(head)
        if status != 200:
            return lambda call: call.refuse(status), grpc_head, _NOTHING
        try:
            grpc_head = read_grpc_head(head)
            return None, grpc_head, self._method(grpc_head.path)
        except GrpcCallError as error:
            refused = error
            return lambda call: call.fail_with(refused), grpc_head, _NOTHING

    def _method(self, path: str) -> Method:
        method = self._server.method(path)
        if method is not None:
            return method
        self._hints -= 1
        raise GrpcCallError(
            f"no method {path[:_PATH_SHOWN]}",
            advice=self._server.nearest(path) if self._hints >= 0 else "",
            status=GrpcStatus.UNIMPLEMENTED,
        )

    def _assemble(self, call: GrpcCall, data: bytes, ended: bool) -> None:
        assembly = call.assembly
        if assembly is None:
            assembly = MessageAssembly(call.head.encoding, self._limits.message_bytes, self._server.room)
            call.assembly = assembly
            call.on_release = self._go_on_soon
        assembly.is_ended = ended
        assembly.add(data)
        call.waited_s = max(0.0, call.waited_s - len(data) / SLOWEST_BYTES_S)
        self._take(call, assembly)

    def _take(self, call: GrpcCall, assembly: MessageAssembly) -> None:
        """Hand over what is whole: in order, so nothing overtakes a message that takes its time."""
        for _ in range(_TURN):
            if call.queued_bytes > self._limits.queued_bytes:
                call.hold(Hold.UNTAKEN)
            if call.held or not call.is_open:
                return
            found = assembly.take()
            if found is None:
                break
            flag, message = found
            if flag and len(message) > UNPACK_HERE_BYTES:
                call.hold(Hold.BUSY)
                assembly.lend(len(message))
                self._server.later(self._opened_apart(call, assembly, flag, message))
                return
            _give(call, assembly, assembly.opened(flag, message))
        else:
            call.hold(Hold.BUSY)  # tiny messages by the ten thousand: other connections get their turn
            asyncio.get_running_loop().call_soon(call.release, Hold.BUSY)
            return
        call.is_receiving = type(call.method) is Unary or assembly.size > 0
        if assembly.is_ended:
            _end(call, assembly)
        else:
            call.widen()

    async def _opened_apart(self, call: GrpcCall, assembly: MessageAssembly, flag: int, message: bytes) -> None:
        try:
            opened = await asyncio.get_running_loop().run_in_executor(
                self._server.unpackers, assembly.opened, flag, message
            )
        except Exception as error:  # noqa: BLE001 -- `_guarded` tells errors of clients and defects of ours apart
            _guarded(call, _raise, error)
            return
        if call.is_open:
            assembly.lend(0)
            _guarded(call, _give, call, assembly, opened)
            call.release(Hold.BUSY)

    def _go_on_soon(self, call: GrpcCall) -> None:
        # Not at once: it is often the handler of one message that makes room for the next.
        asyncio.get_running_loop().call_soon(self._go_on, call)

    def _go_on(self, call: GrpcCall) -> None:
        if call.is_open and call.assembly is not None:
            _guarded(call, self._take, call, call.assembly)


def _give(call: GrpcCall, assembly: MessageAssembly, message: bytes) -> None:
    """A whole message. That of a unary call waits for the end, which may be a refusal."""
    method = call.method
    if isinstance(method, Stream):
        method.on_message(call, message)
    elif assembly.whole is None:
        assembly.keep(message)
    else:
        raise _not_one(call, "more")


def _end(call: GrpcCall, assembly: MessageAssembly) -> None:
    assembly.is_ended = False  # it is told once
    call.is_receiving = False
    if assembly.size:
        raise GrpcCallError("the call ends in the middle of a message")
    method = call.method
    if isinstance(method, Stream):
        method.on_end(call)
        return
    message = assembly.whole
    if message is None:
        raise _not_one(call, "none")
    assembly.drop()
    method.handler(call, message)


def _not_one(call: GrpcCall, how_many: str) -> GrpcCallError:
    return GrpcCallError(f"{call.head.path} takes one message, not {how_many}", status=GrpcStatus.UNIMPLEMENTED)


def _raise(error: Exception) -> None:
    raise error


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
