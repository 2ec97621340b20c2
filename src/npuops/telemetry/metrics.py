"""Facts into the counts and histograms that a scrape shows.

`Metrics` is fed in the event loop's thread, and copied there; the copy is turned into text by `exposition`, in any
thread, so that a scrape of many series holds up no request for longer than the copy takes.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from npuops.events import Event
from npuops.runtime.facts import (
    BatchRetried,
    ColdCause,
    DeviceChanged,
    RequestFailed,
    WorkerEnded,
    WorkerStarted,
)
from npuops.runtime.step_facts import StepProcessEnded, StepsRan
from npuops.runtime.version_facts import VersionChanged
from npuops.telemetry import metric_catalogue as catalogue
from npuops.telemetry.batch_table import BatchTable, Ints, SeriesName
from npuops.telemetry.folded_histogram import FoldedHistogram
from npuops.telemetry.intake import ShedKey
from npuops.telemetry.metric_catalogue import Metric
from npuops.telemetry.recent_sums import RecentSums

STAGE_BOUNDS_US: Final = (
    *(50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 200_000, 500_000),
    *(1_000_000, 2_000_000, 5_000_000, 10_000_000),
)
COLD_BOUNDS_US: Final = tuple(
    int(seconds * 1e6) for seconds in (0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 300)
)
ROW_BOUNDS: Final = tuple(2**power for power in range(11))

QUEUE, DMA_IN, COMPUTE, DMA_OUT, TOTAL = STAGES = ("queue", "dma_in", "compute", "dma_out", "total")
NOBODY: Final = ""
"""Stands for the parts of requests that are counted as a whole."""
OTHER: Final = "other"
"""Stands for every tenant above the limit, and for an error that is not a name."""
MAX_TENANTS: Final = 50
RECENT_S: Final = 60
KEPT_S: Final = 600
"""Series of a version that is gone: long enough for every scrape to see their last values, and then no longer."""
_ERROR_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.]{0,79}")
_MAX_ERRORS: Final = 50

Labels = tuple[str, ...]
Counts = Mapping[Labels, float]


class _Names(dict[Labels, int]):
    """Label values → row of a histogram."""

    def __missing__(self, labels: Labels) -> int:
        self[labels] = number = len(self)
        return number


class _Tenants(dict[str, int]):
    """Tenant → row: the first ones have their own, all others share `other`, so that the series stay few."""

    def __init__(self, known: Iterable[str]) -> None:
        super().__init__()
        self.names = [OTHER, NOBODY]
        self[NOBODY] = 1
        for tenant in known:
            self[tenant]

    def __missing__(self, tenant: str) -> int:
        if tenant == OTHER or len(self.names) > MAX_TENANTS + 1:
            return 0
        self[tenant] = number = len(self.names)
        self.names.append(tenant)
        return number


@dataclass(frozen=True, slots=True, kw_only=True)
class MetricState:
    """A copy of everything that was counted.

    Attributes:
        counters: metric → label values → count.
        ratios: gauges of the last minute.
        histograms: metric → histogram and the label values of its rows, with how many of its units make the metric's.
    """

    counters: Mapping[Metric, Counts]
    ratios: Mapping[Metric, Counts]
    histograms: Mapping[Metric, tuple[tuple[FoldedHistogram, tuple[Labels, ...], int], ...]]


class Metrics:
    """A `Folder` that counts.

    Args:
        tenants: names that get their own series before any other does.
    """

    def __init__(self, tenants: Iterable[str] = ()) -> None:
        self._names: list[SeriesName] = []
        self._stages = {stage: FoldedHistogram(STAGE_BOUNDS_US) for stage in STAGES}
        self._rows = FoldedHistogram(ROW_BOUNDS)
        self._tenants = _Tenants(tenants)
        self._tenant_total = FoldedHistogram(STAGE_BOUNDS_US)
        self._cold = FoldedHistogram(COLD_BOUNDS_US)
        self._cold_names = _Names()
        self._phases = FoldedHistogram(COLD_BOUNDS_US)
        self._phase_names = _Names()
        self._steps = FoldedHistogram(STAGE_BOUNDS_US)
        self._steps_names = _Names()
        self._counters: dict[Metric, dict[Labels, float]] = defaultdict(lambda: defaultdict(float))
        self._recent = RecentSums(columns=4, seconds=RECENT_S)
        self._gone_us: dict[Labels, int | None] = {}

    def fold_batches(self, table: BatchTable) -> None:
        """Count batches and their requests."""
        self._names = list(table.names)
        series, requests = table.series, table.requests
        of_request = series[table.owner]
        self._stages[QUEUE].add(of_request, table.queue_us)
        self._stages[DMA_IN].add(series, table.dma_in_us, requests)
        self._stages[COMPUTE].add(series, table.compute_us, requests)
        self._stages[DMA_OUT].add(series, table.dma_out_us, requests)
        self._stages[TOTAL].add(of_request, table.total_us)
        self._rows.add(series, table.rows)
        fell_back = table.fell_back * requests
        self._recent.add(
            table.answered_us, series, np.stack([requests, fell_back, table.elements, table.padded_elements], axis=1)
        )
        self._count_series(catalogue.PADDED_ROWS, series, table.padded_rows)
        self._count_series(catalogue.ELEMENTS, series, table.elements)
        self._count_series(catalogue.PADDED_ELEMENTS, series, table.padded_elements)
        self._count_series(catalogue.FALLBACKS, series, fell_back)
        tenants = np.fromiter(map(self._tenants.__getitem__, table.tenants), np.int64, len(table.tenants))
        self._tenant_total.add(tenants, table.total_us)
        self._tenant_total.clear([self._tenants[NOBODY]])

    def fold_sheds(self, sheds: Mapping[ShedKey, int]) -> None:
        """Count requests that were not run."""
        for (model, version, tenant, reason), count in sheds.items():
            label = self._tenants.names[self._tenants[tenant]]
            self._count(catalogue.REQUESTS, (model, version, "shed"), count)
            self._count(catalogue.SHEDS, (model, version, reason), count)
            if label != NOBODY:
                self._count(catalogue.TENANT_REQUESTS, (label, "shed"), count)
                self._count(catalogue.TENANT_SHEDS, (label, reason), count)

    def note(self, event: Event) -> None:
        """Count a rare fact; unknown ones are nobody's metric."""
        match event:
            case RequestFailed(model=model, version=version, tenant=tenant, device=device, error=error):
                self._count(catalogue.REQUESTS, (model, version, "failure"))
                self._count(catalogue.FAILURES, (model, version, device, self._error_label(error)))
                if tenant != NOBODY:
                    self._count(catalogue.TENANT_REQUESTS, (self._tenants.names[self._tenants[tenant]], "failure"))
            case WorkerStarted():
                self._note_start(event)
            case WorkerEnded(model=model, version=version, device=device):
                self._count(catalogue.EXITS, (model, version, device, "true" if event.wanted else "false"))
                self._count(catalogue.REPLAYS, (model, version, device), event.replayed)
            case DeviceChanged(model=model, version=version, device=device, state=state):
                self._count(catalogue.STATE_CHANGES, (model, version, device, state))
            case StepsRan():
                self._note_steps(event)
            case StepProcessEnded():
                self._count(catalogue.PREPROCESSING_EXITS, ())
            case BatchRetried(model=model, version=version, device=device, requests=requests):
                self._count(catalogue.RETRIES, (model, version, device), requests)
            case VersionChanged(model=model, version=version, event="closed"):
                self._gone_us[model, version] = None  # `sweep` knows the time
            case VersionChanged(model=model, version=version):
                self._gone_us.pop((model, version), None)
            case _:
                return

    def take(self, now_us: int) -> MetricState:
        """A copy, for `exposition`.

        Args:
            now_us: on the engine's clock; the last minute ends there.
        """
        successes = self._stages[TOTAL].counts.sum(axis=1).tolist()
        counters = {metric: dict(counts) for metric, counts in self._counters.items()}
        requests = defaultdict(float, counters.get(catalogue.REQUESTS, {}))
        for (model, version, _), count in zip(self._names, successes, strict=False):
            if count:
                requests[(model, version, "success")] += count
        counters[catalogue.REQUESTS] = requests
        of_tenants = self._tenant_total.counts.sum(axis=1).tolist()
        by_tenant = counters.setdefault(catalogue.TENANT_REQUESTS, {})
        by_tenant |= {
            (tenant, "success"): count for tenant, count in zip(self._tenants.names, of_tenants, strict=False) if count
        }
        tenants = tuple((tenant,) for tenant in self._tenants.names)
        return MetricState(
            counters=counters,
            ratios=self._ratios(now_us),
            histograms={
                catalogue.STAGES: tuple(
                    (histogram.copy(), tuple((stage, *name) for name in self._names), 1_000_000)
                    for stage, histogram in self._stages.items()
                ),
                catalogue.BATCH_ROWS: ((self._rows.copy(), tuple(self._names), 1),),
                catalogue.TENANT_TOTAL: ((self._tenant_total.copy(), tenants, 1_000_000),),
                catalogue.COLD_STARTS: ((self._cold.copy(), tuple(self._cold_names), 1_000_000),),
                catalogue.COLD_PHASES: ((self._phases.copy(), tuple(self._phase_names), 1_000_000),),
                catalogue.PREPROCESSING: ((self._steps.copy(), tuple(self._steps_names), 1_000_000),),
            },
        )

    def sweep(self, now_us: int) -> None:
        """Forget versions that are gone for `KEPT_S`; one that comes back counts from 0. Call it now and then."""
        for version, since_us in list(self._gone_us.items()):
            if since_us is None:
                self._gone_us[version] = now_us
            elif now_us - since_us > KEPT_S * 1_000_000:
                del self._gone_us[version]
                self._forget(version)

    def _forget(self, version: Labels) -> None:
        for metric, counts in self._counters.items():
            if metric.labels[:2] == catalogue.VERSION:
                self._counters[metric] = defaultdict(
                    float, {labels: count for labels, count in counts.items() if labels[:2] != version}
                )
        of_series = [row for row, name in enumerate(self._names) if name[:2] == version]
        for histogram in (*self._stages.values(), self._rows):
            histogram.clear(of_series)
        self._cold.clear([row for name, row in self._cold_names.items() if name[:2] == version])
        self._phases.clear([row for name, row in self._phase_names.items() if name[:2] == version])
        self._steps.clear([row for name, row in self._steps_names.items() if name[1:] == version])

    def _ratios(self, now_us: int) -> dict[Metric, Counts]:
        padding: dict[Labels, float] = {}
        versions: dict[Labels, list[float]] = {}
        sums = self._recent.sums(now_us)
        for name, (requests, fell_back, elements, padded) in zip(self._names, sums.tolist(), strict=False):
            if requests:
                if elements + padded:
                    padding[name] = padded / (elements + padded)
                of_version = versions.setdefault(name[:2], [0.0, 0.0])
                of_version[0] += fell_back
                of_version[1] += requests
        return {
            catalogue.PADDING_RATIO: padding,
            catalogue.FALLBACK_RATIO: {name: fell / requests for name, (fell, requests) in versions.items()},
        }

    def _note_start(self, event: WorkerStarted) -> None:
        device = (event.model, event.version, event.device)
        cold_us = np.array([int(event.seconds * 1e6)])
        self._cold.add(np.array([self._cold_names[(*device, event.cause)]]), cold_us)
        if event.phases:
            rows = np.array([self._phase_names[(*device, phase)] for phase in event.phases])
            self._phases.add(rows, np.array([int(seconds * 1e6) for seconds in event.phases.values()]))
        self._count(catalogue.COLD_WAITS, device, event.waiting)
        self._count(catalogue.RESTARTS, device, event.cause is ColdCause.CRASH)

    def _note_steps(self, event: StepsRan) -> None:
        version = (event.model, event.version)
        rows = np.array([self._steps_names["queue", *version], self._steps_names["steps", *version]])
        self._steps.add(rows, np.array([event.started_us - event.arrived_us, event.ended_us - event.started_us]))

    def _error_label(self, error: str) -> str:
        """The error's class; a sentence, or one name too many, would make a series for each request."""
        known = {labels[3] for labels in self._counters[catalogue.FAILURES]}
        fits = _ERROR_NAME.fullmatch(error) and (error in known or len(known) < _MAX_ERRORS)
        return error if fits else OTHER

    def _count_series(self, metric: Metric, series: Ints, values: Ints) -> None:
        counts = self._counters[metric]
        sums = np.bincount(series, weights=values)
        for number in np.unique(series).tolist():  # the server may know a thousand, and these are a few
            counts[self._names[number]] += float(sums[number])

    def _count(self, metric: Metric, labels: Labels, count: float = 1) -> None:
        self._counters[metric][labels] += count
