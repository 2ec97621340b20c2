"""Connections whose answers pages of other sites may read; without `cors_origins` servers use those above these."""

from __future__ import annotations

from typing import Any

from npuops.runtime.job import Bytes
from npuops.server.cors import Cors
from npuops.server.http_connection import Connection
from npuops.server.http_known import Known
from npuops.server.http_recorded import RecordedConnection


class _CrossOrigin(Connection):
    """Adds the fields to every answer to a request that came whole."""

    def __init__(self, cors: Cors, *others: Any) -> None:
        """`others` as the class below takes them."""
        super().__init__(*others)
        self._cors, self._fields = cors, b""

    def _take(self, known: Known, body: Bytes) -> None:
        self._fields = self._cors.fields(known.head)
        super()._take(known, body)

    def reply(self, data: bytes, *, keep_alive: bool) -> None:
        """A whole response."""
        fields, self._fields = self._fields, b""
        if fields:
            line, _, rest = data.partition(b"\r\n")
            data = b"".join((line, b"\r\n", fields, rest))
        super().reply(data, keep_alive=keep_alive)


class CorsConnection(_CrossOrigin):
    """A connection whose answers pages of other sites may read."""


class RecordedCorsConnection(_CrossOrigin, RecordedConnection):
    """The same, with a record of each request."""
