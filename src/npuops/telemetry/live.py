"""The last five minutes in figures for each second: what the live page draws."""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec
import numpy as np
from numpy.typing import NDArray

from npuops import __version__
from npuops.clock import Clock
from npuops.events import Event
from npuops.runtime.facts import BatchRetried, DeviceChanged, RequestFailed, WorkerEnded, WorkerStarted
from npuops.runtime.replica_states import State
from npuops.telemetry.batch_table import BatchTable, SeriesName
from npuops.telemetry.folded_histogram import log_bounds, quantile
from npuops.telemetry.intake import ShedKey
from npuops.telemetry.live_figures import (
    WINDOW_S,
    ChipSecond,
    LatencyFigures,
    LiveAnswer,
    LiveEvent,
    LivePoint,
    SeriesSecond,
    VersionSecond,
)
from npuops.telemetry.serving_snapshot import ServingSnapshot

BOUNDS_US: Final = np.asarray(log_bounds(16, 60_000_000, 8), np.int64)
"""Eight buckets for each doubling: a percentile is right within 9 %, mostly within 4 %."""
EVENTS: Final = 40
_SECOND_US: Final = 1_000_000
_WIDTH: Final = 7

Version = tuple[str, str]


class _Sums:
    """One series in one second. `numbers`: requests, batches, rows and elements with their padding, fallen back."""

    __slots__ = ("counts", "numbers")

    def __init__(self) -> None:
        self.counts: NDArray[np.int64] = np.zeros(len(BOUNDS_US) + 1, np.int64)
        self.numbers: NDArray[np.int64] = np.zeros(_WIDTH, np.int64)


class Live:
    """A `Folder`; call `sample` once a second, after the intake's `flush`, and `answer` for each reader.

    Args:
        clock: the engine's.
        unix_offset_us: what to add to it to get microseconds since 1970.
    """

    def __init__(self, clock: Clock, unix_offset_us: int) -> None:
        self._clock = clock
        self._unix_offset_us = unix_offset_us
        self._started = self._now_s()
        self._open: dict[int, dict[SeriesName, _Sums]] = {}
        self._sheds: Counter[Version] = Counter()
        self._failures: Counter[Version] = Counter()
        self._closed_up_to = int(self._started) - 1
        # Encoded once: whoever opens the page gets five minutes, and requests wait while those are put together.
        self._points: deque[tuple[int, msgspec.Raw]] = deque(maxlen=WINDOW_S)
        self._events: deque[LiveEvent] = deque(maxlen=EVENTS)
        self._snapshot = ServingSnapshot()

    def fold_batches(self, table: BatchTable) -> None:
        """Count batches in the second in which they were answered; a second that was closed is left alone."""
        seconds = (table.answered_us + self._unix_offset_us) // _SECOND_US
        cells, cell_of = np.unique(seconds * len(table.names) + table.series, return_inverse=True)
        buckets = np.searchsorted(BOUNDS_US, table.total_us, side="left")
        width = len(BOUNDS_US) + 1
        counts = np.bincount(cell_of[table.owner] * width + buckets, minlength=len(cells) * width)
        columns = (
            table.requests,
            np.ones_like(cell_of),
            table.rows,
            table.padded_rows,
            table.elements,
            table.padded_elements,
            table.fell_back * table.requests,
        )
        numbers = np.stack([np.bincount(cell_of, weights=column) for column in columns], axis=1).astype(np.int64)
        for cell, own, row in zip(cells.tolist(), counts.reshape(-1, width), numbers, strict=True):
            second, series = divmod(cell, len(table.names))
            if second <= self._closed_up_to:
                continue
            if second not in self._open and len(self._open) >= WINDOW_S:
                del self._open[min(self._open)]  # nobody samples: memory stays bounded all the same
            sums = self._open.setdefault(second, {}).setdefault(table.names[series], _Sums())
            sums.counts += own
            sums.numbers += row

    def fold_sheds(self, sheds: Mapping[ShedKey, int]) -> None:
        """Count in the second that is going on."""
        for (model, version, _, _), count in sheds.items():
            self._sheds[model, version] += count

    def note(self, event: Event) -> None:
        """Keep what people want to read, and count failures."""
        match event:
            case RequestFailed(model=model, version=version):
                self._failures[model, version] += 1
            case WorkerStarted() | WorkerEnded() | DeviceChanged() | BatchRetried():
                self._events.appendleft(live_event(event, self._now_s()))
            case _:
                return

    def sample(self, snapshot: ServingSnapshot) -> None:
        """Close the seconds that are over, with the gauges of now."""
        self._snapshot = snapshot
        now = int(self._now_s())
        for second in range(max(self._closed_up_to + 1, now - WINDOW_S), now):
            newest = second == now - 1
            point = self._close(second, snapshot, count_rest=newest)
            self._points.append((second, msgspec.Raw(msgspec.json.encode(point))))
        self._closed_up_to = max(self._closed_up_to, now - 1)
        for second in [second for second in self._open if second < now]:
            del self._open[second]

    def answer(self, since: int = 0) -> bytes:
        """The document for a reader that knows the points up to `since` (seconds since 1970), as JSON."""
        return msgspec.json.encode(
            LiveAnswer(
                server=__version__,
                started=self._started,
                now=self._now_s(),
                points=tuple(point for second, point in self._points if second > since),
                versions=self._snapshot.versions,
                chips=self._snapshot.chips,
                events=tuple(self._events),
            )
        )

    def _close(self, second: int, snapshot: ServingSnapshot, *, count_rest: bool) -> LivePoint:
        """A second's point. What has no time of its own is counted in the newest."""
        found = self._open.get(second, {})
        sheds = failures = Counter[Version]()
        if count_rest:
            sheds, self._sheds = self._sheds, Counter()
            failures, self._failures = self._failures, Counter()
        return LivePoint(
            t=second,
            requests=sum(int(sums.numbers[0]) for sums in found.values()),
            latency=_latency([sums.counts for sums in found.values()]),
            loaded=len(snapshot.versions),
            series=tuple(_series(name, sums) for name, sums in sorted(found.items())),
            versions=tuple(_versions(snapshot, sheds, failures)),
            chips=tuple(
                ChipSecond(
                    device=chip.device,
                    temperature_celsius=chip.temperature_celsius,
                    clock_hertz=chip.clock_hertz,
                    power_watts=chip.power_watts,
                    busy_ratio=chip.busy_ratio,
                )
                for chip in snapshot.chips
            ),
        )

    def _now_s(self) -> float:
        return (self._clock.now_us() + self._unix_offset_us) / _SECOND_US


def live_event(event: WorkerStarted | WorkerEnded | DeviceChanged | BatchRetried, t: float) -> LiveEvent:
    """A fact as a line to read."""
    seconds: float | None = None
    phases: Mapping[str, float] = {}
    match event:
        case WorkerStarted():
            kind, trouble, seconds, phases = "cold_start", event.cause == "crash", event.seconds, event.phases
            waited = f", {event.waiting} requests waited" if event.waiting else ""
            text = f"worker ready after {event.seconds:.2f} s ({event.cause}){waited}"
        case WorkerEnded():
            kind, trouble = "worker_ended", not event.wanted
            again = f"; {event.replayed} batches run again" if event.replayed else ""
            text = f"worker {'stopped' if event.wanted else 'lost'}: {event.why}{again}"
        case DeviceChanged():
            kind, trouble = "device_changed", event.state == State.SICK
            text = f"{event.state}: {event.why}" if event.why else event.state
        case BatchRetried():
            kind, trouble = "retried", True
            text = f"{event.requests} requests go to another device: {event.why}"
    return LiveEvent(
        t=t,
        kind=kind,
        model=event.model,
        version=event.version,
        device=event.device,
        text=text,
        trouble=trouble,
        seconds=seconds,
        phases=phases,
    )


def _latency(counts: Sequence[NDArray[Any]]) -> LatencyFigures:
    if not counts:
        return LatencyFigures()
    together = np.sum(counts, axis=0)
    p50, p95, p99 = (_milliseconds(quantile(BOUNDS_US, together, share)) for share in (0.5, 0.95, 0.99))
    return LatencyFigures(p50_ms=p50, p95_ms=p95, p99_ms=p99)


def _milliseconds(us: float | None) -> float | None:
    return None if us is None else round(us / 1000, 4)


def _series(name: SeriesName, sums: _Sums) -> SeriesSecond:
    model, version, device = name
    requests, batches, rows, padded_rows, elements, padded_elements, fell_back = sums.numbers.tolist()
    return SeriesSecond(
        model=model,
        version=version,
        device=device,
        requests=requests,
        batches=batches,
        rows=rows,
        padded_rows=padded_rows,
        elements=elements,
        padded_elements=padded_elements,
        fell_back=fell_back,
        latency=_latency([sums.counts]),
    )


def _versions(
    snapshot: ServingSnapshot, sheds: Mapping[Version, int], failures: Mapping[Version, int]
) -> Iterable[VersionSecond]:
    held = {(gauges.model, gauges.version): gauges for gauges in snapshot.versions}
    for model, version in dict.fromkeys((*held, *sheds, *failures)):
        gauges = held.get((model, version))
        second = VersionSecond(
            model=model,
            version=version,
            queue=gauges.queue_requests if gauges else None,
            in_flight=sum(device.in_flight for device in gauges.devices) if gauges else None,
            shed=sheds.get((model, version), 0),
            failed=failures.get((model, version), 0),
        )
        if second.queue or second.in_flight or second.shed or second.failed:
            yield second
