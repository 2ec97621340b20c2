"""All of a server's telemetry behind one door: an observer to feed, a beat each second, and what readers ask for."""

from __future__ import annotations

import time
from collections.abc import Iterable
from dataclasses import dataclass

from npuops.clock import Clock
from npuops.telemetry.exposition import Exposition, expose
from npuops.telemetry.intake import Folder, Intake
from npuops.telemetry.live import Live
from npuops.telemetry.metrics import Metrics, MetricState
from npuops.telemetry.otlp_spans import OtlpSpans
from npuops.telemetry.serving_snapshot import ServingSnapshot, Snapshot
from npuops.telemetry.trace_options import TraceOptions
from npuops.telemetry.traces import Traces


@dataclass(frozen=True, slots=True, kw_only=True)
class Scrape:
    """Everything that one scrape shows, as copies: it may be written in another thread."""

    state: MetricState
    snapshot: ServingSnapshot

    def expose(self, accept: str = "") -> Exposition:
        """The text, by the scraper's `Accept` header. Takes about 70 µs for each model version and device."""
        return expose(self.state, self.snapshot, accept)


class Instruments:
    """Everything but `Scrape.expose` is called in the event loop's thread.

    Args:
        clock: the engine's.
        snapshot: what the server holds now.
        tenants: names that get metrics of their own before any other does.
        traces: where spans go; None for no traces.

    Attributes:
        observe: the `Observer` to give to the runtime.
        traces: for the front ends; None where traces are off.

    Raises:
        OptionError: traces are wanted and the extra `otel` is not installed.
    """

    def __init__(
        self, clock: Clock, snapshot: Snapshot, *, tenants: Iterable[str] = (), traces: TraceOptions | None = None
    ) -> None:
        self._clock = clock
        self._snapshot = snapshot
        self._metrics = Metrics(tenants)
        self._live = Live(clock, unix_offset_us(clock))
        self._spans = OtlpSpans(traces, lambda: unix_offset_us(clock)) if traces else None
        self.traces = Traces(self._spans, traces.ratio, self._spans.new_trace_id) if traces and self._spans else None
        folders: list[Folder] = [self._metrics, self._live, *([self.traces] if self.traces else [])]
        self.observe = Intake(folders)

    @property
    def traces_dropped(self) -> int | None:
        """Requests that were to be recorded and whose trace was not sent; None where traces are off."""
        if self.traces is None:
            return None
        return self.traces.dropped + (self._spans.dropped if self._spans is not None else 0)

    def every_second(self) -> None:
        """The beat: call it about once a second, or the live page has no points."""
        self.observe.flush()
        self._live.sample(self._snapshot())
        self._metrics.sweep(self._clock.now_us())

    def scrape(self) -> Scrape:
        """For `GET /metrics`: copy here, then `expose` where it holds up nobody."""
        self.observe.flush()
        return Scrape(state=self._metrics.take(self._clock.now_us()), snapshot=self._snapshot())

    def live_figures(self, since: int = 0) -> bytes:
        """For `GET /live.json?since=`: the JSON."""
        return self._live.answer(since)

    def close(self) -> None:
        """Send what was traced; takes some seconds at most. A second call does nothing."""
        self.observe.flush()
        if self.traces is not None and self._spans is not None:
            self.traces.close()
            self._spans.close()
            self._spans = None


def unix_offset_us(clock: Clock) -> int:
    """What to add to this clock, now, to get microseconds since 1970."""
    return time.time_ns() // 1000 - clock.now_us()
