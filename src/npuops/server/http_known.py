"""The heads of requests that a server knows, by their bytes, with all that follows from each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from npuops.errors import NpuopsError
from npuops.runtime.job import Bytes
from npuops.server.http_head import Head, parse_head

_HEADS_KEPT: Final = 4096
_KEPT_HEAD_BYTES: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What a client may take; sizes in bytes, times in seconds.

    Attributes:
        received_bytes: of all bodies together that are not whole yet.
        head_s: from the first byte of a head to its last: a client that trickles is cut off.
        body_s: without a new byte of a body; one that comes slower than 1 KiB a second is cut off too.
        idle_s: between two requests.
    """

    head_bytes: int = 16 * 1024
    body_bytes: int = 64 << 20
    received_bytes: int = 1 << 30
    connections: int = 10_000
    head_s: float = 10.0
    body_s: float = 30.0
    idle_s: float = 120.0


class Known:
    """A head, and all that follows from it alone.

    Attributes:
        head: as it was parsed.
        begin: takes the request; it calls the connection's `reply` exactly once, at once or later.
        context: of `begin`.
        body_bytes: of a body that is taken as it comes; -1 for one that is in chunks or compressed.
        refused: why the client may not; its body need not be read.
    """

    __slots__ = ("begin", "body_bytes", "context", "head", "refused")

    def __init__(self, head: Head, begin: Begin, context: Any = None, *, refused: NpuopsError | None = None) -> None:
        self.head = head
        self.begin = begin
        self.context = context
        self.body_bytes = -1 if head.encoding else head.content_length
        self.refused = refused


Begin = Callable[[Any, Known, Bytes], None]
"""Gets the connection (`http_connection.Connection`), what is known, and the body."""


class Router(Protocol):
    """Says what is to be done with a head."""

    def know(self, head: Head) -> Known:
        """Find the route, the tenant, and everything else that the head decides.

        Raises:
            NpuopsError: there is no such path, or the client may not.
        """
        ...


class Heads:
    """The heads that are known, by their bytes; shared by all connections of a server."""

    def __init__(self, router: Router, body_limit_bytes: int) -> None:
        """Empty. A head with a longer body than the limit is never kept."""
        self.router = router
        self._body_limit_bytes = body_limit_bytes
        self._known: dict[bytes, Known] = {}
        self.get = self._known.get

    def learn(self, data: bytes) -> Known:
        """Parse a head and remember it, unless the router refuses it: that may change.

        Raises:
            DataError: it is no HTTP/1.1.
            TooLargeError: too many fields.
        """
        head = parse_head(data)
        try:
            known = self.router.know(head)
        except NpuopsError as error:
            return Known(head, _refuse, refused=error)
        if len(data) <= _KEPT_HEAD_BYTES and head.content_length <= self._body_limit_bytes:
            if len(self._known) >= _HEADS_KEPT:
                self._known.clear()
            self._known[data] = known
        return known


def _refuse(connection: Any, known: Known, body: Bytes) -> None:
    del body
    assert known.refused is not None  # noqa: S101 - `learn` says why
    connection.fail(known.refused, keep_alive=known.head.keep_alive, head_only=known.head.method == "HEAD")
