"""Which requests are traced, and their stages: what the front end knows of a request meets the facts of its batch.

The facts are reported per batch and name no request, so a traced request is found in them by model, version and the
moment of its arrival. Two requests of one model version in the same microsecond are told apart only by their batch;
if those differ, their stages may be exchanged, which changes no picture that a trace is looked at for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

import numpy as np

from npuops.events import Event
from npuops.runtime.facts import BatchRan
from npuops.runtime.step_facts import StepsRan
from npuops.telemetry.batch_table import BatchTable
from npuops.telemetry.intake import ShedKey
from npuops.telemetry.traceparent import TraceParent, parse_traceparent

MAX_WAITING: Final = 4096
"""Traced requests under way; above it a request goes untraced, and is counted."""
FORGET_US: Final = 60_000_000
"""After this long, a request whose batch was never reported is told without its stages."""

Key = tuple[str, str, int]
"""Model, version, arrival."""


class TracedRequest:
    """A request that is recorded. Made by `Traces.begin`, for few requests only.

    Attributes:
        parent: the client's span; None begins a trace.
        trace_id: 32 hexadecimal digits, the client's or our own; "" leaves it to whoever emits.
        name: of the span, for example `POST /v2/models/{model}/infer`.
        model: that was asked for.
        version: of it.
        received_us: its first byte came, on the engine's clock.
        arrived_us: it was handed to the engine.
        completed_us: its completion came back from the engine; 0 until then.
        responded_us: its answer was handed to the socket; 0 until then.
        error: class of the error, "" where there was none.
        attributes: more of the span, by OpenTelemetry's names.
        batch: that it ran in; None while that is not known.
        steps: before it joined the model's queue; None where it had none.
    """

    __slots__ = (
        "arrived_us",
        "attributes",
        "batch",
        "completed_us",
        "error",
        "model",
        "name",
        "parent",
        "received_us",
        "responded_us",
        "steps",
        "trace_id",
        "version",
    )

    def __init__(
        self, parent: TraceParent | None, name: str, model: str, version: str, received_us: int, arrived_us: int
    ) -> None:
        self.parent = parent
        self.trace_id = parent.trace_id if parent is not None else ""
        self.name = name
        self.model = model
        self.version = version
        self.received_us = received_us
        self.arrived_us = arrived_us
        self.completed_us = 0
        self.responded_us = 0
        self.error = ""
        self.attributes: Mapping[str, str | int | bool] = {}
        self.batch: BatchRan | None = None
        self.steps: StepsRan | None = None

    @property
    def queued_us(self) -> int:
        """It joined the model's queue."""
        return self.arrived_us if self.steps is None else self.steps.ended_us

    @property
    def key(self) -> Key:
        """By which its batch is found."""
        return self.model, self.version, self.queued_us


Emit = Callable[[TracedRequest], None]


class Traces:
    """A `Folder` that completes traced requests and emits them.

    Args:
        emit: gets each request once, when it is complete.
        ratio: of the requests without a `traceparent` that are recorded.
        new_trace_id: makes one, for a request that begins a trace.
    """

    def __init__(self, emit: Emit, ratio: float, new_trace_id: Callable[[], str] = str) -> None:
        self._emit = emit
        self._new_trace_id = new_trace_id
        self._ratio = ratio
        self._credit = 0.0
        self._waiting: dict[Key, list[TracedRequest]] = {}
        self._steps: dict[Key, StepsRan] = {}
        self._count = 0
        self._dropped = 0

    @property
    def dropped(self) -> int:
        """Requests that were to be recorded and were not, because too many are under way."""
        return self._dropped

    def begin(
        self, traceparent: str | None, name: str, model: str, version: str, received_us: int, arrived_us: int
    ) -> TracedRequest | None:
        """Decide by the client's header, or by the ratio; None where the request is not recorded.

        A traced request must be given to `end`, whatever becomes of it.
        """
        parent = parse_traceparent(traceparent) if traceparent else None
        if parent is not None:
            if not parent.sampled:
                return None
        else:
            self._credit += self._ratio
            if self._credit < 1.0:
                return None
            self._credit -= 1.0
        if self._count >= MAX_WAITING:
            self._dropped += 1
            return None
        request = TracedRequest(parent, name, model, version, received_us, arrived_us)
        request.trace_id = request.trace_id or self._new_trace_id()
        request.steps = self._steps.pop(request.key, None)
        self._waiting.setdefault(request.key, []).append(request)
        self._count += 1
        return request

    def end(
        self,
        request: TracedRequest,
        *,
        completed_us: int,
        responded_us: int,
        error: str = "",
        attributes: Mapping[str, str | int | bool] | None = None,
    ) -> None:
        """The answer left. It is emitted now if it is an error or its batch is known, otherwise with its batch."""
        request.completed_us = completed_us
        request.responded_us = responded_us
        request.error = error
        request.attributes = attributes or {}
        if request.batch is not None:
            self._emit(request)
        elif error:
            self._remove(request)
            self._emit(request)

    def fold_batches(self, table: BatchTable) -> None:
        """Find the batches of the requests that wait for them."""
        if not self._waiting:
            return
        wanted = np.fromiter((arrived for _, _, arrived in self._waiting), np.int64, len(self._waiting))
        for place in np.flatnonzero(np.isin(table.arrived_us, wanted)).tolist():
            batch = table.batches[int(table.owner[place])]
            key = (batch.model, batch.version, int(table.arrived_us[place]))
            for request in self._waiting.pop(key, ()):
                self._count -= 1
                request.batch = batch
                if request.responded_us:
                    self._emit(request)
        self._forget(int(table.answered_us.max()))

    def fold_sheds(self, sheds: Mapping[ShedKey, int]) -> None:
        """Nothing: the front end tells the error of each traced request."""
        del sheds

    def note(self, event: Event) -> None:
        """Keep what happened to a picture before its batch, until the end of its request; of several, the last."""
        if not isinstance(event, StepsRan):
            return
        if len(self._steps) >= MAX_WAITING:
            del self._steps[next(iter(self._steps))]
        self._steps[event.model, event.version, event.requested_us] = event

    def close(self) -> None:
        """Emit what was answered and still waits for its batch."""
        for request in [request for requests in self._waiting.values() for request in requests]:
            self._give_up(request)

    def _forget(self, now_us: int) -> None:
        # In the order of arrival, so the old ones come first.
        old = []
        for (_, _, arrived_us), requests in self._waiting.items():
            if now_us - arrived_us < FORGET_US:
                break
            old += requests
        for request in old:
            self._give_up(request)

    def _give_up(self, request: TracedRequest) -> None:
        self._remove(request)
        if request.responded_us:
            self._emit(request)

    def _remove(self, request: TracedRequest) -> None:
        requests = self._waiting.get(request.key, [])
        if request in requests:
            requests.remove(request)
            self._count -= 1
        if not requests:
            self._waiting.pop(request.key, None)
