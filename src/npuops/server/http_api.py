"""From a request's head to what answers it: routes, tenants, and the small answers."""

from __future__ import annotations

import asyncio
import logging
from typing import Final
from urllib.parse import unquote

from npuops.errors import NpuopsError
from npuops.runtime.job import Bytes
from npuops.server.access import Gate, access_of, require_admin, timeout_us_of
from npuops.server.cors import Cors, refuse_foreign_page
from npuops.server.dataplane import Dataplane
from npuops.server.http_connection import Connection
from npuops.server.http_head import Head
from npuops.server.http_infer import HttpInfer, InferTarget
from npuops.server.http_known import Known
from npuops.server.http_response import MethodError, response
from npuops.server.http_routes import INFER, PROTOCOL_ROUTES, Answer, Asked, Route, find_route

_log: Final = logging.getLogger(__name__)
_COMPRESSIONS: Final = ("gzip", "deflate")


class HttpApi:
    """All that a server answers over HTTP. Only the server's own health is told without an API key."""

    def __init__(
        self,
        plane: Dataplane,
        infer: HttpInfer,
        gate: Gate,
        loop: asyncio.AbstractEventLoop,
        pages: tuple[Route, ...],
        cors: Cors | None = None,
    ) -> None:
        """`pages`: routes besides the protocol's, such as the metrics; `cors`: other sites whose pages may ask."""
        self._cors = cors
        self._plane, self._infer, self._gate, self._loop = plane, infer, gate, loop
        self._routes = (*PROTOCOL_ROUTES, *pages)
        self._tasks: set[asyncio.Task[None]] = set()

    def know(self, head: Head) -> Known:
        """Find the route and the tenant of a head.

        Raises:
            NpuopsError: no such path, or the client may not.
        """
        preflight = self._cors.preflight(head) if self._cors is not None else None
        if preflight is not None:
            return Known(head, self._permit, preflight)
        match = INFER.fullmatch(head.path.strip("/"))
        if match is None:
            route, names = find_route(self._routes, head)
            self._check(route, head)
            return Known(head, self._begin, (route, names))
        if head.method != "POST":
            raise MethodError(head.path, head.method, ("POST",))
        target = InferTarget(
            model=unquote(match["model"]),
            version=unquote(match["version"] or ""),
            access=access_of(self._gate, head.headers),
            timeout_us=timeout_us_of(head.headers),
            compress=_accepted(head),
        )
        return Known(head, self._infer.begin, target)

    def _check(self, route: Route, head: Head) -> None:
        """Whether the client may; asked for every request, since keys and rights may change while a head is known."""
        if not head.path.startswith("/v2/health/"):
            access = access_of(self._gate, head.headers)
            if route.admin:
                require_admin(access)
                refuse_foreign_page(head, self._cors)

    def _permit(self, connection: Connection, known: Known, body: Bytes) -> None:
        """The answer to a browser's question before its request; it has no API key yet."""
        del body
        keep_alive = known.head.keep_alive and not connection.ending
        connection.reply(response(200, b"", headers=known.context, keep_alive=keep_alive), keep_alive=keep_alive)

    def _begin(self, connection: Connection, known: Known, body: Bytes) -> None:
        task = self._loop.create_task(self._answer(connection, known, body))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _answer(self, connection: Connection, known: Known, body: Bytes) -> None:
        route, names = known.context
        head = known.head
        head_only = head.method == "HEAD"
        try:
            self._check(route, head)
            made: Answer = await route.handler(self._plane, Asked(head, names, body))
        except NpuopsError as error:
            connection.fail(error, keep_alive=head.keep_alive, head_only=head_only)
            return
        except Exception as error:  # noqa: BLE001 - a defect of ours: logged, and the client gets no details
            _log.exception("%s %s", head.method, head.path)
            connection.fail(error, keep_alive=head.keep_alive, head_only=head_only)
            return
        keep_alive = head.keep_alive and not connection.ending
        data = response(
            made.status,
            made.body,
            content_type=made.content_type,
            headers=made.headers,
            keep_alive=keep_alive,
            head_only=head_only,
        )
        connection.reply(data, keep_alive=keep_alive)


def _accepted(head: Head) -> str:
    """Compression is what a client asks for by name; `*` and browsers' lists are not worth the time."""
    asked = head.headers.get("accept-encoding", "").strip().lower()
    return asked if asked in _COMPRESSIONS else ""
