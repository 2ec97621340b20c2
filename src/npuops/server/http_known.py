"""The heads of requests that a server knows, by their bytes, with all that follows from each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, Protocol

from npuops.runtime.job import Bytes
from npuops.server.http_head import Head, parse_head

_HEADS_KEPT: Final = 4096
_KEPT_HEAD_BYTES: Final = 2048


@dataclass(frozen=True, slots=True, kw_only=True)
class HttpLimits:
    """What a client may take; sizes in bytes, times in seconds.

    Attributes:
        head_s: from the first byte of a head to its last: a client that trickles is cut off.
        body_s: without a new byte of a body.
        idle_s: between two requests.
    """

    head_bytes: int = 16 * 1024
    body_bytes: int = 64 << 20
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
    """

    __slots__ = ("begin", "context", "head")

    def __init__(self, head: Head, begin: Begin, context: Any = None) -> None:
        self.head = head
        self.begin = begin
        self.context = context


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

    def __init__(self, router: Router) -> None:
        """Empty."""
        self.router = router
        self._known: dict[bytes, Known] = {}
        self.get = self._known.get

    def learn(self, data: bytes) -> Known:
        """Parse a head and remember it.

        Raises:
            NpuopsError: it is no HTTP/1.1, or the router refuses it.
        """
        known = self.router.know(parse_head(data))
        if len(data) <= _KEPT_HEAD_BYTES:
            if len(self._known) >= _HEADS_KEPT:
                self._known.clear()
            self._known[data] = known
        return known

    def forget(self) -> None:
        """Models, tenants or keys changed."""
        self._known.clear()
