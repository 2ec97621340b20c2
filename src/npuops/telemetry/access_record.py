"""One request in the access log: a line of JSON whose field names are those of OpenTelemetry where it has one."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Final

import msgspec


class AccessRecord(msgspec.Struct, frozen=True, gc=False, kw_only=True, omit_defaults=True):
    """A request that was answered, or given up.

    A `msgspec.Struct`, because one is made for every request while the log is on: a frozen dataclass costs five times
    as much. A field that does not apply stays at its default and is not written.

    Attributes:
        unix_us: the end of the request, microseconds since 1970.
        duration_us: from its first byte to its answer.
        protocol: `http` or `grpc`.
        method: of HTTP, or the full method of gRPC.
        path: without the query, which may hold secrets.
        status: of HTTP.
        grpc_status: its number, in gRPC.
        client: address of the peer.
        user_agent: as the client says.
        request_bytes: of the body.
        response_bytes: of the body.
        model: that was asked for.
        version: that answered, or was asked for.
        device: that answered.
        fell_back: the model's fallback answered.
        tenant: whose request it was.
        request_id: the client's own id.
        error: class of the error, "" where there was none.
        trace_id: 32 hexadecimal digits, of the client's trace or our own.
    """

    unix_us: int
    duration_us: int
    protocol: str = msgspec.field(name="network.protocol.name")
    method: str = msgspec.field(default="", name="http.request.method")
    path: str = msgspec.field(default="", name="url.path")
    status: int = msgspec.field(default=0, name="http.response.status_code")
    grpc_method: str = msgspec.field(default="", name="rpc.method")
    grpc_status: int = msgspec.field(default=-1, name="rpc.grpc.status_code")
    client: str = msgspec.field(default="", name="client.address")
    user_agent: str = msgspec.field(default="", name="user_agent.original")
    request_bytes: int = msgspec.field(default=-1, name="http.request.body.size")
    response_bytes: int = msgspec.field(default=-1, name="http.response.body.size")
    model: str = msgspec.field(default="", name="npuops.model")
    version: str = msgspec.field(default="", name="npuops.version")
    device: str = msgspec.field(default="", name="npuops.device")
    fell_back: bool = msgspec.field(default=False, name="npuops.fell_back")
    tenant: str = msgspec.field(default="", name="npuops.tenant")
    request_id: str = msgspec.field(default="", name="npuops.request.id")
    error: str = msgspec.field(default="", name="error.type")
    trace_id: str = ""


class _Head(msgspec.Struct, gc=False):
    """What begins a line, in place of the record's own two numbers."""

    timestamp: str
    duration_s: float


_ENCODER: Final = msgspec.json.Encoder()


def line_of(record: AccessRecord) -> bytes:
    """The record as a line of JSON; `timestamp` (RFC 3339, UTC) and `duration_s` come first."""
    moment = datetime.fromtimestamp(record.unix_us / 1e6, UTC).isoformat(timespec="microseconds")
    head = _ENCODER.encode(_Head(moment.replace("+00:00", "Z"), record.duration_us / 1e6))
    try:
        rest = _ENCODER.encode(record)
    except UnicodeEncodeError:
        rest = _ENCODER.encode(_readable(record))
    # The record's two numbers are its first fields, so the rest begins at the quote of the third.
    return head[:-1] + b"," + rest[rest.index(b'"network') :] + b"\n"


def _readable(record: AccessRecord) -> AccessRecord:
    """Clients send bytes that are no text, which some decoders keep as lone surrogates: `?` stands for them."""
    texts = {
        name: value.encode("utf-8", "replace").decode()
        for name in record.__struct_fields__
        if isinstance(value := getattr(record, name), str)
    }
    return msgspec.structs.replace(record, **texts)
