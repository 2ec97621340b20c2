"""gRPC while somebody keeps a record of each request. Other servers use the classes above these, and pay nothing.

A stream of inferences has a record for each message that is answered, and one of its own only where it breaks off.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from npuops.errors import NpuopsError
from npuops.runtime.job import Bytes, Completion, Job
from npuops.server.access import Access
from npuops.server.grpc_call import GrpcCall, Stream, Unary
from npuops.server.grpc_decode import Asked
from npuops.server.grpc_head import GrpcHead
from npuops.server.grpc_infer import GrpcInfer, Request
from npuops.server.http2_connection import Http2Connection
from npuops.server.http2_streams import Http2Stream
from npuops.server.recorder import CLIENT_GONE, Recorder, RequestRecord
from npuops.server.served_version import ServedVersion
from npuops.server.status import GrpcStatus, status_of

Tell = Callable[[Request, Completion | NpuopsError], None]


class RecordedCall(GrpcCall):
    """A call that is recorded.

    Attributes:
        record: of the call; None when it is over.
    """

    __slots__ = ("_recorder", "record")

    def __init__(
        self,
        recorder: Recorder,
        head: GrpcHead,
        method: Unary | Stream,
        peer: str,
        connection: Http2Connection,
        stream: Http2Stream,
    ) -> None:
        """As `GrpcCall`."""
        super().__init__(head, method, peer, connection, stream)
        self._recorder = recorder
        self.record: RequestRecord | None = self.new_record()

    def new_record(self) -> RequestRecord:
        """Of something that begins now."""
        record = RequestRecord("grpc", self.peer, self._recorder.clock.now_us())
        record.path = self.head.path.removeprefix("/")
        record.user_agent = self.head.metadata.get("user-agent", "")
        record.traceparent = self.head.metadata.get("traceparent", "")
        return record

    def over(self, record: RequestRecord, status: GrpcStatus) -> None:
        """Something that was begun is over."""
        record.grpc_status = int(status)
        record.responded_us = self._recorder.clock.now_us()
        self._recorder.end(record)

    def reply(self, *parts: Bytes) -> None:
        """The one answer of a unary call."""
        record, self.record = self.record, None
        super().reply(*parts)
        if record is not None:
            record.response_bytes = sum(map(len, parts))
            self.over(record, GrpcStatus.OK)

    def end(self) -> None:
        """No more answers."""
        record, self.record = self.record, None
        super().end()
        if record is not None and not _is_inference_stream(self):
            self.over(record, GrpcStatus.OK)

    def fail(self, status: GrpcStatus, message: str, fields: tuple[tuple[bytes, bytes], ...] = ()) -> None:
        """The call ends with an error."""
        record, self.record = self.record, None
        super().fail(status, message, fields)
        if record is not None:
            record.error = record.error or status.name
            self.over(record, status)

    def refuse(self, http_status: int) -> None:
        """It is no call of gRPC."""
        record, self.record = self.record, None
        super().refuse(http_status)
        if record is not None:
            record.status = http_status
            record.responded_us = self._recorder.clock.now_us()
            self._recorder.end(record)

    def fail_with(self, error: NpuopsError) -> None:
        """The call ends with an error of our tree."""
        if self.record is not None:
            self.record.error = type(error).__name__
        super().fail_with(error)

    def forget(self) -> None:
        """An unfinished message is nobody's any more; with its stream closed, nobody waits for an answer either."""
        super().forget()
        record = self.record
        if record is not None and not self.is_open:
            self.record = None
            record.error = record.error or CLIENT_GONE
            self.over(record, GrpcStatus.CANCELLED)


class RecordedGrpcInfer(GrpcInfer):
    """Inference whose requests are recorded, for `RecordedCall`s."""

    def begin(self, request: Request, message: bytes) -> None:
        """Understand a request and hand it over."""
        call = request.call
        if not isinstance(call, RecordedCall) or call.record is None:
            super().begin(request, message)
            return
        if type(call.method) is Unary:
            call.record.request_bytes = len(message)
            super().begin(request, message)
            return
        record = call.new_record()
        record.request_bytes = len(message)
        request.tell = MessageTold(request.tell, record)
        try:
            super().begin(request, message)
        except NpuopsError as error:
            record.error = type(error).__name__
            call.over(record, status_of(error).grpc)
            raise

    def _run(
        self,
        request: Request,
        served: ServedVersion,
        asked: Asked,
        pieces: Sequence[Bytes],
        access: Access,
        timeout_us: int,
        now_us: int,
    ) -> None:
        record = _record_of(request)
        if record is not None:
            record.model, record.version, record.tenant = served.name, served.version, access.tenant
            record.request_id = request.identity
        super()._run(request, served, asked, pieces, access, timeout_us, now_us)

    def _received(self, job: Job, result: Completion | NpuopsError) -> None:
        record = _record_of(job.context)
        if record is not None:
            record.answered(job, result, self._clock.now_us())
        super()._received(job, result)


class MessageTold:
    """Takes the answer to one message of a stream, and ends its record."""

    __slots__ = ("_tell", "record")

    def __init__(self, tell: Tell, record: RequestRecord) -> None:
        self._tell = tell
        self.record = record

    def __call__(self, request: Request, result: Completion | NpuopsError) -> None:
        """The answer."""
        self._tell(request, result)
        status = GrpcStatus.OK
        if isinstance(result, NpuopsError):
            status, self.record.error = status_of(result).grpc, type(result).__name__
        if isinstance(request.call, RecordedCall):
            request.call.over(self.record, status)


def _record_of(request: Request) -> RequestRecord | None:
    if isinstance(request.tell, MessageTold):
        return request.tell.record
    call = request.call
    return call.record if isinstance(call, RecordedCall) else None


def _is_inference_stream(call: GrpcCall) -> bool:
    return type(call.method) is Stream
