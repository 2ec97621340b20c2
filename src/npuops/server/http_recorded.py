"""HTTP while somebody keeps a record of each request. Other servers use the classes above these, and pay nothing."""

from __future__ import annotations

import asyncio

import orjson

from npuops.errors import NpuopsError
from npuops.runtime.job import Bytes, Completion, Job
from npuops.server.http_body import Room
from npuops.server.http_connection import Connection
from npuops.server.http_infer import Exchange, HttpInfer, InferTarget
from npuops.server.http_known import Heads, HttpLimits, Known
from npuops.server.recorder import CLIENT_GONE, CLIENT_GONE_STATUS, Recorder, RequestRecord
from npuops.server.status import status_of

_STATUS_AT = slice(9, 12)
"""Of a response: after `HTTP/1.1 `."""


class RecordedConnection(Connection):
    """A connection whose requests are recorded, also those that are refused before they are whole.

    Attributes:
        record: of the request that is being answered; None between two of them.
    """

    __slots__ = ("_first_us", "_recorder", "record")

    def __init__(
        self,
        recorder: Recorder,
        heads: Heads,
        limits: HttpLimits,
        loop: asyncio.AbstractEventLoop,
        alive: set[Connection],
        room: Room,
    ) -> None:
        """As `Connection`."""
        super().__init__(heads, limits, loop, alive, room)
        self._recorder = recorder
        self._first_us = 0
        self.record: RequestRecord | None = None

    def connection_lost(self, exc: Exception | None) -> None:
        """The client is gone."""
        if self.record is None and self._first_us and (self._known is not None or self._buffer):
            self._record(self._known, -1)  # in the middle of a request
        if self.record is not None:
            self.record.error = self.record.error or CLIENT_GONE
            self._end(CLIENT_GONE_STATUS, 0)
        super().connection_lost(exc)

    def reply(self, data: bytes, *, keep_alive: bool) -> None:
        """A whole response."""
        is_open = self.is_open
        super().reply(data, keep_alive=keep_alive)
        if is_open:
            self._end(int(data[_STATUS_AT]), len(data) - data.find(b"\r\n\r\n") - 4)

    def fail(self, error: BaseException, *, keep_alive: bool, head_only: bool = False) -> None:
        """An error as the response."""
        if self.record is not None:
            self.record.error = type(error).__name__
        super().fail(error, keep_alive=keep_alive, head_only=head_only)

    def _read_head(self) -> None:
        if not self._first_us:
            self._first_us = self._recorder.clock.now_us()
        super()._read_head()

    def _take(self, known: Known, body: Bytes) -> None:
        self._record(known, len(body))
        super()._take(known, body)

    def _refuse(self, error: NpuopsError, status: int | None = None) -> None:
        record = self._record(self._known, -1)
        record.error = type(error).__name__
        super()._refuse(error, status)
        self._end(status or int(status_of(error).http), -1)

    def _record(self, known: Known | None, request_bytes: int) -> RequestRecord:
        record = self.record = RequestRecord("http", self.peer, self._first_us or self._recorder.clock.now_us())
        self._first_us = 0
        record.request_bytes = request_bytes
        if known is not None:
            head = known.head
            record.method, record.path = head.method, head.path
            record.user_agent = head.headers.get("user-agent", "")
            record.traceparent = head.headers.get("traceparent", "")
        return record

    def _end(self, status: int, response_bytes: int) -> None:
        record, self.record = self.record, None
        if record is not None:
            record.status, record.response_bytes = status, response_bytes
            record.responded_us = self._recorder.clock.now_us()
            self._recorder.end(record)


class RecordedInfer(HttpInfer):
    """Inference whose requests are recorded, for `RecordedConnection`s."""

    def begin(self, connection: Connection, known: Known, body: Bytes) -> None:
        """A request."""
        if connection.exchange is None:
            connection.exchange = RecordedExchange(self, connection)
        super().begin(connection, known, body)


class RecordedExchange(Exchange):
    """What is known of an inference goes into its connection's record."""

    __slots__ = ()

    def begin(self, known: Known, body: Bytes) -> None:
        """Understand the request and hand it over."""
        record = self._present()
        target: InferTarget = known.context
        if record is not None:
            record.model, record.version, record.tenant = target.model, target.version, target.access.tenant
        super().begin(known, body)

    def _answer(self, job: Job, result: Completion | NpuopsError) -> None:
        record = self._present()
        if record is not None:
            record.answered(job, result, self._infer.clock.now_us())
            record.version = self._served.version
            if self._request_id:  # as JSON text
                record.request_id = orjson.loads(self._request_id)
        super()._answer(job, result)

    def _present(self) -> RequestRecord | None:
        connection = self._connection
        return connection.record if isinstance(connection, RecordedConnection) else None
