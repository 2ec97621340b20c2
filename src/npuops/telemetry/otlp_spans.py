"""Traced requests as OpenTelemetry spans, sent over OTLP/HTTP by the SDK's own thread.

The SDK comes with the extra `otel` and is imported only when traces are wanted.
"""

from __future__ import annotations

import importlib.util
import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from npuops import __version__
from npuops.errors import OptionError
from npuops.telemetry.trace_options import TraceOptions
from npuops.telemetry.traces import TracedRequest

Stage = tuple[str, int, int]
"""Name, begin and end, in microseconds on the engine's clock."""
CLOSE_S: Final = 3.0
"""A collector that does not answer holds up the server's end for so long."""
_NEEDED: Final = ("opentelemetry.sdk", "opentelemetry.exporter.otlp.proto.http")


def stages_of(request: TracedRequest) -> Iterator[Stage]:
    """The parts of a request in order: queue, dma in, compute, dma out, respond. Without its batch, only the last.

    Before them, of a picture: the wait for a process, and its steps.
    """
    batch, steps = request.batch, request.steps
    if steps is not None:
        yield "preprocessing queue", steps.arrived_us, steps.started_us
        yield "preprocessing", steps.started_us, steps.ended_us
    if batch is not None:
        yield "queue", request.queued_us, batch.dispatched_us
        yield "dma in", batch.dispatched_us, batch.started_us
        yield "compute", batch.started_us, batch.computed_us
        yield "dma out", batch.computed_us, max(request.completed_us, batch.computed_us)
    if request.completed_us:
        yield "respond", request.completed_us, request.responded_us


class OtlpSpans:
    """Give it to `Traces` as `emit`.

    Args:
        options: where to.
        unix_offset_us: gives what to add to the engine's clock to get microseconds since 1970; asked for each
            request, because the wall clock is corrected while the server runs.

    Raises:
        OptionError: the extra is not installed.
    """

    def __init__(self, options: TraceOptions, unix_offset_us: Callable[[], int]) -> None:
        if not all(_is_installed(module) for module in _NEEDED):
            raise OptionError("traces need OpenTelemetry's SDK", advice="pip install 'npuops[otel]'")
        # Imported here: the extra is optional, and its import takes a tenth of a second.
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415
        from opentelemetry.sdk.resources import Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import ReadableSpan  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
        from opentelemetry.sdk.trace.id_generator import RandomIdGenerator  # noqa: PLC0415
        from opentelemetry.sdk.util.instrumentation import InstrumentationScope  # noqa: PLC0415
        from opentelemetry.trace import SpanContext, SpanKind, Status, StatusCode, TraceFlags  # noqa: PLC0415

        self._unix_offset_us = unix_offset_us
        self._ids = RandomIdGenerator()
        self._span, self._context, self._kind = ReadableSpan, SpanContext, SpanKind
        self._sampled = TraceFlags(TraceFlags.SAMPLED)
        self._ok, self._error = Status(StatusCode.UNSET), Status(StatusCode.ERROR)
        self._resource = Resource.create({"service.name": options.service_name, "service.version": __version__})
        self._scope = InstrumentationScope("npuops", __version__)
        self._exporter = OTLPSpanExporter(endpoint=options.endpoint)
        self._processor = BatchSpanProcessor(self._exporter)

    def __call__(self, request: TracedRequest) -> None:
        """Queue the request's spans; the SDK drops the oldest when its queue is full."""
        offset_us = self._unix_offset_us()
        for span in self._spans(request, offset_us):
            self._processor.on_end(span)

    def flush(self) -> bool:
        """Send what is queued; waits for the receiver."""
        return bool(self._processor.force_flush())

    def close(self) -> None:
        """Send the rest, for `CLOSE_S` at most, and end the SDK's thread."""
        # The exporter tries again and again where nobody answers; ending it is what cuts that short.
        limit = threading.Timer(CLOSE_S, self._exporter.shutdown)
        limit.daemon = True
        limit.start()
        self._processor.shutdown()
        limit.cancel()

    def _spans(self, request: TracedRequest, offset_us: int) -> Sequence[Any]:
        parent = request.parent
        trace_id = int(parent.trace_id, 16) if parent else self._ids.generate_trace_id()
        remote = self._context(trace_id, int(parent.span_id, 16), True, self._sampled) if parent else None
        own = self._context(trace_id, self._ids.generate_span_id(), False, self._sampled)
        spans = [
            self._span(
                name=request.name,
                context=own,
                parent=remote,
                resource=self._resource,
                attributes=attributes_of(request),
                kind=self._kind.SERVER,
                status=self._error if request.error else self._ok,
                start_time=(request.received_us + offset_us) * 1000,
                end_time=(request.responded_us + offset_us) * 1000,
                instrumentation_scope=self._scope,
            )
        ]
        for name, begin_us, end_us in stages_of(request):
            context = self._context(trace_id, self._ids.generate_span_id(), False, self._sampled)
            spans.append(
                self._span(
                    name=name,
                    context=context,
                    parent=own,
                    resource=self._resource,
                    start_time=(begin_us + offset_us) * 1000,
                    end_time=(end_us + offset_us) * 1000,
                    instrumentation_scope=self._scope,
                )
            )
        return spans


def attributes_of(request: TracedRequest) -> dict[str, str | int | bool]:
    """Of the request's own span."""
    found: dict[str, str | int | bool] = {"npuops.model": request.model, "npuops.version": request.version}
    batch = request.batch
    if batch is not None:
        found |= {
            "npuops.device": batch.device,
            "npuops.fell_back": batch.fell_back,
            "npuops.batch.rows": batch.rows,
            "npuops.batch.requests": len(batch.arrived_us),
            "npuops.batch.padded_rows": batch.padded_rows,
        }
    if request.error:
        found["error.type"] = request.error
    return {**found, **request.attributes}


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
