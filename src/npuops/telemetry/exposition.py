"""The text that Prometheus reads, in its own format or OpenMetrics, by what the scraper accepts."""

from __future__ import annotations

import platform
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.exposition import choose_encoder
from prometheus_client.registry import Collector

from npuops import __version__
from npuops.devices.health import Health
from npuops.telemetry import metric_catalogue as catalogue
from npuops.telemetry.histogram_text import histogram_text
from npuops.telemetry.metric_catalogue import Kind, Metric
from npuops.telemetry.metrics import Counts, MetricState
from npuops.telemetry.serving_snapshot import ChipReading, ServingSnapshot

_END: Final = b"# EOF\n"
"""Of OpenMetrics; the histograms stand before it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Exposition:
    """The answer to a scrape."""

    body: bytes
    content_type: str


def expose(state: MetricState, snapshot: ServingSnapshot, accept: str = "") -> Exposition:
    """Write everything that is known; works in any thread.

    Args:
        state: what was counted.
        snapshot: what the server holds.
        accept: the scraper's `Accept` header.
    """
    registry = CollectorRegistry()
    registry.register(StateCollector(state, snapshot))
    ProcessCollector(registry=registry)
    encode, content_type = choose_encoder(accept)
    histograms = "".join(histogram_text(metric, tables) for metric, tables in state.histograms.items()).encode()
    written: bytes = encode(registry)
    end = _END if written.endswith(_END) else b""
    return Exposition(body=written.removesuffix(_END) + histograms + end, content_type=content_type)


class StateCollector(Collector):
    """Counters and gauges of the catalogue. A family without a sample is left out."""

    def __init__(self, state: MetricState, snapshot: ServingSnapshot) -> None:
        self._state = state
        self._gauges = {**gauges_of(snapshot), **state.ratios, catalogue.BUILD: _build()}
        self._counters = {**state.counters, **_drops(snapshot), **_chip_counts(snapshot)}

    def collect(self) -> Iterator[Any]:
        """All families but the histograms, in the order of the catalogue."""
        for metric in catalogue.CATALOGUE:
            known = self._counters if metric.kind is Kind.COUNTER else self._gauges
            values = known.get(metric)
            if values:
                make = CounterMetricFamily if metric.kind is Kind.COUNTER else GaugeMetricFamily
                family = make(metric.name, metric.text, labels=metric.labels)
                for labels, value in values.items():
                    family.add_metric(labels, value)
                yield family


def gauges_of(snapshot: ServingSnapshot) -> dict[Metric, Counts]:
    """The gauges of the catalogue that a snapshot tells; what is unknown is absent."""
    versions = {(held.model, held.version): held for held in snapshot.versions}
    devices = {(*name, gauge.device): gauge for name, held in versions.items() for gauge in held.devices}
    return {
        catalogue.QUEUE: {name: held.queue_requests for name, held in versions.items()},
        catalogue.QUEUE_BYTES: {name: held.queue_bytes for name, held in versions.items()},
        catalogue.READY: {name: int(held.ready) for name, held in versions.items()},
        catalogue.LOADED: {(): len(versions)},
        catalogue.IN_FLIGHT: {name: gauge.in_flight for name, gauge in devices.items()},
        catalogue.SLOTS_HELD: {name: gauge.slots_held for name, gauge in devices.items()},
        catalogue.SLOTS: {name: gauge.slots for name, gauge in devices.items()},
        catalogue.DEVICE_STATE: {
            (*name, state): int(state == gauge.state)
            for name, gauge in devices.items()
            for state in dict.fromkeys((*snapshot.device_states, gauge.state))
        },
        catalogue.WORKER_MEMORY: {
            name: gauge.resident_bytes for name, gauge in devices.items() if gauge.resident_bytes is not None
        },
        catalogue.CPU_OPS: {
            name: gauge.cpu_ops_ratio for name, gauge in devices.items() if gauge.cpu_ops_ratio is not None
        },
        **_preprocessing(snapshot),
        catalogue.CONNECTIONS: {(protocol,): count for protocol, count in snapshot.connections.items()},
        **_chips(snapshot),
    }


def _chips(snapshot: ServingSnapshot) -> dict[Metric, Counts]:
    readings: dict[Metric, Callable[[ChipReading], float | None]] = {
        catalogue.CHIP_TEMPERATURE: lambda chip: chip.temperature_celsius,
        catalogue.CHIP_CLOCK: lambda chip: chip.clock_hertz,
        catalogue.CHIP_POWER: lambda chip: chip.power_watts,
        catalogue.CHIP_BUSY: lambda chip: chip.busy_ratio,
        catalogue.CHIP_MEMORY: lambda chip: chip.memory_used_bytes,
        catalogue.CHIP_MEMORY_TOTAL: lambda chip: chip.memory_total_bytes,
    }
    return {
        catalogue.CHIP_HEALTH: {
            (chip.device, chip.basis, health.value): int(health == chip.health)
            for chip in snapshot.chips
            for health in Health
        },
        **{metric: _known(snapshot, read) for metric, read in readings.items()},
    }


def _chip_counts(snapshot: ServingSnapshot) -> dict[Metric, Counts]:
    return {
        catalogue.CHIP_ENERGY: _known(snapshot, lambda chip: chip.energy_joules),
        **{
            metric: _known(snapshot, lambda chip, name=name: chip.counters.get(name))  # type: ignore[misc]
            for name, metric in catalogue.CHIP_COUNTERS.items()
        },
    }


def _known(snapshot: ServingSnapshot, read: Callable[[ChipReading], float | None]) -> Counts:
    return {(chip.device, chip.basis): value for chip in snapshot.chips if (value := read(chip)) is not None}


def _preprocessing(snapshot: ServingSnapshot) -> dict[Metric, Counts]:
    held = snapshot.preprocessing
    if held is None:
        return {}
    return {
        catalogue.PREPROCESSING_QUEUE: {(): held.waiting},
        catalogue.PREPROCESSING_PROCESSES: {(): held.processes},
    }


def _drops(snapshot: ServingSnapshot) -> dict[Metric, Counts]:
    counts = {catalogue.LOG_DROPS: snapshot.log_records_dropped, catalogue.SPAN_DROPS: snapshot.spans_dropped}
    return {metric: {(): count} for metric, count in counts.items() if count is not None}


def _build() -> Counts:
    return {(platform.python_version(), __version__): 1}
