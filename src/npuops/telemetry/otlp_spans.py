"""Traced requests as OpenTelemetry spans, made and sent over OTLP/HTTP by the SDK's own thread.

The event loop only puts requests aside; where the collector does not take them, the newest are dropped and counted.
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
MAX_WAITING: Final = 2048
"""Requests that wait for the SDK's thread at most; half a megabyte."""
BATCH: Final = 128
"""Requests in one message to the collector: some 700 spans, a quarter of a megabyte."""
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


class _Ended:
    """A request on its way to the SDK's thread, which asks a span for its context."""

    __slots__ = ("context", "offset_us", "request")

    def __init__(self, context: Any, request: TracedRequest, offset_us: int) -> None:
        self.context = context
        self.request = request
        self.offset_us = offset_us


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
        from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExportResult  # noqa: PLC0415
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
        self._failed = SpanExportResult.FAILURE
        self._exporter = OTLPSpanExporter(endpoint=options.endpoint)
        self._ended = threading.Event()
        self._given = self._refused = 0  # by the event loop
        self._taken = self._delivered = self._unsent = 0  # by the SDK's thread
        # A queue of the SDK that is never full: when it is, it drops, and says so in the log for each span.
        self._processor = BatchSpanProcessor(self, max_queue_size=2 * MAX_WAITING, max_export_batch_size=BATCH)
        self._sampled_context = self._context(1, 1, False, self._sampled)

    @property
    def dropped(self) -> int:
        """Requests that were not sent, since the start."""
        return self._refused + (self._given - self._delivered if self._ended.is_set() else self._unsent)

    def __call__(self, request: TracedRequest) -> None:
        """Put a request aside for the SDK's thread; drop it where that has too many. Never waits."""
        if self._given - self._taken >= MAX_WAITING:
            self._refused += 1
            return
        self._given += 1
        self._processor.on_end(_Ended(self._sampled_context, request, self._unix_offset_us()))

    def export(self, ended: Sequence[_Ended]) -> Any:
        """Make the spans of these requests, and send them; in the SDK's thread, which takes this for its exporter."""
        self._taken += len(ended)
        result = self._failed
        if not self._ended.is_set():
            result = self._exporter.export(
                [span for each in ended for span in self._spans(each.request, each.offset_us)]
            )
        if result is self._failed:
            self._unsent += len(ended)
        else:
            self._delivered += len(ended)
        return result

    def shutdown(self) -> None:
        """Give up what is being sent, and send no more; a second call does nothing."""
        if not self._ended.is_set():
            self._ended.set()
            self._exporter.shutdown()

    def new_trace_id(self) -> str:
        """For a request that begins a trace."""
        return f"{self._ids.generate_trace_id():032x}"

    def flush(self) -> bool:
        """Send what is queued; waits for the receiver."""
        return bool(self._processor.force_flush())

    def close(self) -> None:
        """Send the rest, for `CLOSE_S` at most, and end the SDK's thread."""
        # A collector that takes the connection and says nothing is waited for by the exporter, whatever it is told.
        last = threading.Thread(target=self._processor.shutdown, name="traces-end", daemon=True)
        last.start()
        last.join(CLOSE_S)
        self.shutdown()

    def _spans(self, request: TracedRequest, offset_us: int) -> Sequence[Any]:
        parent = request.parent
        trace_id = int(request.trace_id or self.new_trace_id(), 16)
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
            "npuops.batch.padded_elements": batch.padded_elements,
        }
    if request.error:
        found["error.type"] = request.error
    return {**found, **request.attributes}


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:
        return False
