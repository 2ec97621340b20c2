"""A line of the access log is one JSON object with stable names."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.telemetry.access_record import AccessRecord, line_of

FULL = AccessRecord(
    unix_us=1_790_000_000_123_456,
    duration_us=1_250,
    protocol="http",
    method="POST",
    path="/v2/models/mobilenet/infer",
    status=200,
    client="192.0.2.7",
    user_agent="curl/8",
    request_bytes=100,
    response_bytes=0,
    model="mobilenet",
    version="3",
    device="npu0",
    fell_back=True,
    tenant="camera",
    request_id="7",
    trace_id="4bf92f3577b34da6a3ce929d0e0e4736",
)


def test_a_line_begins_with_its_time_and_has_the_conventions_names() -> None:
    line = line_of(FULL)
    assert line.endswith(b"}\n")
    assert line.count(b"\n") == 1
    assert list(json.loads(line).items()) == [
        ("timestamp", "2026-09-21T14:13:20.123456Z"),
        ("duration_s", 0.00125),
        ("network.protocol.name", "http"),
        ("http.request.method", "POST"),
        ("url.path", "/v2/models/mobilenet/infer"),
        ("http.response.status_code", 200),
        ("client.address", "192.0.2.7"),
        ("user_agent.original", "curl/8"),
        ("http.request.body.size", 100),
        ("http.response.body.size", 0),
        ("npuops.model", "mobilenet"),
        ("npuops.version", "3"),
        ("npuops.device", "npu0"),
        ("npuops.fell_back", True),
        ("npuops.tenant", "camera"),
        ("npuops.request.id", "7"),
        ("trace_id", "4bf92f3577b34da6a3ce929d0e0e4736"),
    ]


def test_what_does_not_apply_is_not_written() -> None:
    record = AccessRecord(unix_us=0, duration_us=1, protocol="grpc", grpc_method="inference/ModelInfer", grpc_status=0)
    assert set(json.loads(line_of(record))) == {
        *("timestamp", "duration_s", "network.protocol.name", "rpc.method", "rpc.grpc.status_code")
    }


@given(st.text(), st.sampled_from(["path", "user_agent", "tenant", "protocol", "request_id"]))
def test_no_client_can_forge_a_line(text: str, field: str) -> None:
    fields = {"protocol": "http", field: text}
    line = line_of(AccessRecord(unix_us=0, duration_us=1, **fields))  # type: ignore[arg-type]
    assert line.count(b"\n") == 1
    name = {"path": "url.path", "user_agent": "user_agent.original", "protocol": "network.protocol.name"}
    expected = {"tenant": "npuops.tenant", "request_id": "npuops.request.id"} | name
    assert json.loads(line).get(expected[field], "") == text


@pytest.mark.parametrize("text", ["\udc80", "a\ud800b"])
def test_bytes_that_are_no_text_do_not_stop_the_log(text: str) -> None:
    assert "?" in json.loads(line_of(AccessRecord(unix_us=0, duration_us=1, protocol="http", path=text)))["url.path"]
