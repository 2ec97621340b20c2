"""Spans arrive at a receiver that speaks OTLP over HTTP, as OpenTelemetry's own protobuf."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import pytest

from npuops.telemetry.intake import Intake
from npuops.telemetry.trace_options import TraceOptions
from npuops.telemetry.traces import Traces
from serving_facts import batch_ran

pytest.importorskip("opentelemetry.sdk", reason="pip install 'npuops[otel]' to have traces")

from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status

from npuops.telemetry.otlp_spans import MAX_WAITING, OtlpSpans
from npuops.telemetry.traces import TracedRequest
from otlp_receiver import Receiver, receiving

TRACE, SPAN = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
UNIX_US = 1_790_000_000_000_000


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with receiving() as made:
        yield made


def attributes(span: Any) -> dict[str, Any]:
    return {pair.key: getattr(pair.value, pair.value.WhichOneof("value")) for pair in span.attributes}


def send(receiver: Receiver, header: str | None, error: str = "") -> list[Any]:
    spans = OtlpSpans(TraceOptions(endpoint=receiver.endpoint, service_name="edge-box"), lambda: UNIX_US)
    traces = Traces(spans, ratio=1.0)
    observe = Intake([traces])
    request = traces.begin(header, "POST /v2/models/{model}/infer", "mobilenet", "1", 950, 1_000)
    assert request is not None
    traces.end(
        request,
        completed_us=1_900,
        responded_us=1_920,
        error=error,
        attributes={"http.response.status_code": 503 if error else 200},
    )
    observe(batch_ran(arrived_us=(800, 1_000), rows=2, padded_rows=6, fell_back=True))
    observe.flush()
    assert spans.flush()
    spans.close()
    return receiver.spans


def test_a_request_is_a_server_span_under_the_clients_with_its_stages_one_after_the_other(receiver: Receiver) -> None:
    root, *stages = send(receiver, f"00-{TRACE}-{SPAN}-01")
    assert (root.name, root.kind) == ("POST /v2/models/{model}/infer", Span.SPAN_KIND_SERVER)
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (TRACE, SPAN)
    assert (root.start_time_unix_nano, root.end_time_unix_nano) == ((UNIX_US + 950) * 1000, (UNIX_US + 1920) * 1000)
    assert [stage.name for stage in stages] == ["queue", "dma in", "compute", "dma out", "respond"]
    for stage, following in pairwise(stages):
        assert stage.end_time_unix_nano == following.start_time_unix_nano
    for stage in stages:
        assert (stage.trace_id, stage.parent_span_id) == (root.trace_id, root.span_id)
    assert len({span.span_id for span in [root, *stages]}) == 6


def test_the_span_says_what_ran_it(receiver: Receiver) -> None:
    root, *_ = send(receiver, None)
    assert attributes(root) == {
        "npuops.model": "mobilenet",
        "npuops.version": "1",
        "npuops.device": "npu0",
        "npuops.fell_back": True,
        "npuops.batch.rows": 2,
        "npuops.batch.requests": 2,
        "npuops.batch.padded_rows": 6,
        "npuops.batch.padded_elements": 0,
        "http.response.status_code": 200,
    }
    assert receiver.resources[0]["service.name"] == "edge-box"
    assert root.parent_span_id == b""
    assert len(root.trace_id) == 16


def test_an_error_is_marked(receiver: Receiver) -> None:
    root, respond = send(receiver, None, error="OverloadedError")
    assert root.status.code == Status.STATUS_CODE_ERROR
    assert attributes(root)["error.type"] == "OverloadedError"
    assert respond.name == "respond"


def ended(number: int) -> TracedRequest:
    request = TracedRequest(None, "POST /v2/models/{model}/infer", "mobilenet", "1", number, number)
    request.completed_us = request.responded_us = number + 100
    return request


def test_a_collector_that_never_answers_holds_up_nobody_and_what_it_does_not_take_is_counted() -> None:
    with socket.create_server(("127.0.0.1", 0)) as deaf:  # takes connections, and says nothing
        spans = OtlpSpans(TraceOptions(endpoint=f"http://127.0.0.1:{deaf.getsockname()[1]}/v1/traces"), lambda: UNIX_US)
        for number in range(3 * MAX_WAITING):
            spans(ended(number))
        assert MAX_WAITING // 2 <= spans.dropped <= 2 * MAX_WAITING
        spans.close()
        assert any("OtelBatchSpan" in thread.name for thread in threading.enumerate()), "it was waited for"
    assert spans.dropped == 3 * MAX_WAITING


def test_requests_whose_collector_is_gone_are_counted_as_dropped() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    spans = OtlpSpans(TraceOptions(endpoint=f"http://127.0.0.1:{port}/v1/traces"), lambda: UNIX_US)
    for number in range(10):
        spans(ended(number))
    spans.close()
    assert spans.dropped == 10


def test_every_request_arrives_where_the_collector_is_well(receiver: Receiver) -> None:
    spans = OtlpSpans(TraceOptions(endpoint=receiver.endpoint), lambda: UNIX_US)
    for number in range(1000):
        spans(ended(number))
    spans.close()
    assert spans.dropped == 0
    assert len([span for span in receiver.spans if span.kind == Span.SPAN_KIND_SERVER]) == 1000
