"""What `GET /live.json` answers: a point for each second, what is loaded now, and what happened lately.

The contract of the live page, `npuops.live/1`. A figure that is not known is null, never 0.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

import msgspec

from npuops.telemetry.serving_snapshot import ChipReading, VersionGauges

SCHEMA: Final = "npuops.live/1"
WINDOW_S: Final = 300
"""Seconds that are kept."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyFigures:
    """Of the requests that were answered in one second, arrival to answer; null where there was none."""

    p50_ms: float | None = None
    p95_ms: float | None = None
    p99_ms: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class SeriesSecond:
    """One device of one model version in one second; only those that answered something are listed.

    Attributes:
        requests: that were answered.
        batches: that they were run in.
        rows: of them, without padding.
        padded_rows: computed for nothing.
        elements: of their inputs, without padding.
        padded_elements: that the inputs were filled up with, along any axis.
        fell_back: requests that the fallback ran.
    """

    model: str
    version: str
    device: str
    requests: int
    batches: int
    rows: int
    padded_rows: int
    elements: int
    padded_elements: int
    fell_back: int
    latency: LatencyFigures


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionSecond:
    """One model version in one second.

    Attributes:
        queue: requests that waited at its end; null where the version is not loaded.
        in_flight: requests that were with workers at its end.
        shed: requests that were not run.
        failed: requests that got an error.
    """

    model: str
    version: str
    queue: int | None
    in_flight: int | None
    shed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipSecond:
    """One chip at the end of a second; null is unknown."""

    device: str
    temperature_celsius: float | None
    clock_hertz: float | None
    power_watts: float | None
    busy_ratio: float | None


@dataclass(frozen=True, slots=True, kw_only=True)
class LivePoint:
    """One second.

    Attributes:
        t: the second, since 1970; the last one that began before the figures were taken.
        requests: answered, over all series.
        latency: over all series.
        loaded: versions that were.
        versions: those that had anything to tell; of the others all is 0.
    """

    t: int
    requests: int
    latency: LatencyFigures
    loaded: int
    series: tuple[SeriesSecond, ...] = ()
    versions: tuple[VersionSecond, ...] = ()
    chips: tuple[ChipSecond, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveEvent:
    """Something that happened.

    Attributes:
        t: seconds since 1970.
        kind: `cold_start`, `worker_ended`, `device_changed`, `retried`.
        text: one sentence.
        trouble: somebody may want to look at it.
        seconds: of a cold start, in all.
        phases: of a cold start, in seconds.
    """

    t: float
    kind: str
    model: str
    version: str
    device: str
    text: str
    trouble: bool
    seconds: float | None = None
    phases: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveAnswer:
    """The document.

    Attributes:
        server: npuops' version.
        started: when the server started; another value than before means that it restarted.
        now: the server's clock, seconds since 1970.
        window_s: seconds that are kept.
        points: seconds after the one that was asked for, oldest first, without a gap; each the JSON of a `LivePoint`.
        versions: that are loaded.
        chips: behind the devices.
        events: newest first.
    """

    server: str
    started: float
    now: float
    points: tuple[msgspec.Raw, ...]
    versions: tuple[VersionGauges, ...]
    chips: tuple[ChipReading, ...]
    events: tuple[LiveEvent, ...]
    window_s: int = WINDOW_S
    schema: str = SCHEMA
