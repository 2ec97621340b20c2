"""Where the records of requests go: the access log, and the traces."""

from __future__ import annotations

from npuops.clock import Clock
from npuops.server.recorder import RequestRecord
from npuops.telemetry.access_log import AccessLog
from npuops.telemetry.access_record import AccessRecord
from npuops.telemetry.instruments import unix_offset_us
from npuops.telemetry.traceparent import parse_traceparent
from npuops.telemetry.traces import Traces


class Records:
    """A `Recorder`.

    Attributes:
        clock: the engine's.
    """

    def __init__(self, clock: Clock, log: AccessLog | None, traces: Traces | None) -> None:
        """At least one of the two should be there."""
        self.clock = clock
        self._log, self._traces = log, traces

    def end(self, record: RequestRecord) -> None:
        """A request is over."""
        trace_id = self._trace(self._traces, record) if self._traces is not None and record.model else ""
        if self._log is not None:
            self._log.log(access_record(record, unix_offset_us(self.clock), trace_id))

    def _trace(self, traces: Traces, record: RequestRecord) -> str:
        """The trace's id; "" where the request is not recorded."""
        if not (record.arrived_us or record.error):
            return ""  # no batch will ever tell of it
        # The facts of its batch are folded later, so the trace may begin when the request is over.
        request = traces.begin(
            record.traceparent,
            span_name(record),
            record.model,
            record.version,
            record.received_us,
            record.arrived_us or record.received_us,
        )
        if request is None:
            return ""
        traces.end(
            request,
            completed_us=record.completed_us,
            responded_us=record.responded_us,
            error=record.error,
            attributes=attributes(record),
        )
        return request.trace_id


def span_name(record: RequestRecord) -> str:
    """Of few different values, as OpenTelemetry wants it: without the names of models."""
    return record.path if record.protocol == "grpc" else f"{record.method} /v2/models/{{model}}/infer"


def attributes(record: RequestRecord) -> dict[str, str | int | bool]:
    """By OpenTelemetry's names."""
    found: dict[str, str | int | bool] = {"network.protocol.name": record.protocol, "client.address": record.client}
    if record.tenant:
        found["npuops.tenant"] = record.tenant
    if record.request_id:
        found["npuops.request.id"] = record.request_id
    if record.protocol == "grpc":
        return {**found, "rpc.method": record.path, "rpc.grpc.status_code": record.grpc_status}
    return {
        **found,
        "http.request.method": record.method,
        "url.path": record.path,
        "http.response.status_code": record.status,
    }


def access_record(record: RequestRecord, offset_us: int, trace_id: str = "") -> AccessRecord:
    """As a line of the access log.

    Args:
        record: of a request that is over.
        offset_us: from the engine's clock to microseconds since 1970.
        trace_id: of the server's own trace; "" where there is none, then the client's counts.
    """
    is_grpc = record.protocol == "grpc"
    if not trace_id and record.traceparent:
        parent = parse_traceparent(record.traceparent)
        trace_id = parent.trace_id if parent is not None else ""
    return AccessRecord(
        unix_us=record.responded_us + offset_us,
        duration_us=record.responded_us - record.received_us,
        protocol=record.protocol,
        method=record.method,
        path="" if is_grpc else record.path,
        status=record.status,
        grpc_method=record.path if is_grpc else "",
        grpc_status=record.grpc_status,
        client=record.client,
        user_agent=record.user_agent,
        request_bytes=record.request_bytes,
        response_bytes=record.response_bytes,
        model=record.model,
        version=record.version,
        device=record.device,
        fell_back=record.fell_back,
        tenant=record.tenant,
        request_id=record.request_id,
        error=record.error,
        trace_id=trace_id,
    )
