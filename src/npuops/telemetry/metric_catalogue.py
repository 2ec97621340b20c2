"""Every metric of the server: name, kind, labels, meaning. `docs/metrics.md` lists the same; a test compares them."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Kind(StrEnum):
    """Prometheus' word."""

    COUNTER = "counter"
    GAUGE = "gauge"
    HISTOGRAM = "histogram"


@dataclass(frozen=True, slots=True)
class Metric:
    """A family of series.

    Attributes:
        name: as it is exposed; a counter's ends in `_total`.
        labels: in the order of the label values.
        text: what one value means.
    """

    name: str
    kind: Kind
    labels: tuple[str, ...]
    text: str


VERSION: Final = ("model", "version")
DEVICE: Final = (*VERSION, "device")

_COUNTER: Final = Kind.COUNTER
_GAUGE: Final = Kind.GAUGE
_HISTOGRAM: Final = Kind.HISTOGRAM

REQUESTS: Final = Metric(
    "npuops_requests_total",
    _COUNTER,
    (*VERSION, "outcome"),
    "Requests by outcome: success, failure (ran and got an error), shed (was not run).",
)
STAGES: Final = Metric(
    "npuops_request_stage_seconds",
    _HISTOGRAM,
    ("stage", *DEVICE),
    "Time of a successful request in each stage: queue, dma_in, compute, dma_out, and total, their sum.",
)
SHEDS: Final = Metric(
    "npuops_requests_shed_total", _COUNTER, (*VERSION, "reason"), "Requests that were refused or dropped unrun."
)
FAILURES: Final = Metric(
    "npuops_request_failures_total", _COUNTER, (*DEVICE, "error"), "Requests that ran and got an error, by its class."
)
BATCH_ROWS: Final = Metric("npuops_batch_rows", _HISTOGRAM, DEVICE, "Rows of a batch, without padding.")
PADDED_ROWS: Final = Metric(
    "npuops_padded_rows_total", _COUNTER, DEVICE, "Rows that a device computed only to fill a static shape."
)
ELEMENTS: Final = Metric(
    "npuops_input_elements_total", _COUNTER, DEVICE, "Elements of the inputs that ran, as the requests brought them."
)
PADDED_ELEMENTS: Final = Metric(
    "npuops_padded_elements_total",
    _COUNTER,
    DEVICE,
    "Elements that inputs were filled up with to fit a static shape, along the batch axis or any other.",
)
PADDING_RATIO: Final = Metric(
    "npuops_padding_ratio", _GAUGE, DEVICE, "Padded elements to all computed ones in the last minute."
)
FALLBACKS: Final = Metric(
    "npuops_fallback_requests_total", _COUNTER, DEVICE, "Successful requests that the model's fallback ran."
)
FALLBACK_RATIO: Final = Metric(
    "npuops_fallback_ratio", _GAUGE, VERSION, "Requests that the fallback ran to all successful ones, last minute."
)
COLD_STARTS: Final = Metric(
    "npuops_cold_start_seconds",
    _HISTOGRAM,
    (*DEVICE, "cause"),
    "Time until a worker was ready, by why it had to start: load, wake, crash, health.",
)
COLD_PHASES: Final = Metric(
    "npuops_cold_start_phase_seconds", _HISTOGRAM, (*DEVICE, "phase"), "Time of each phase of a cold start."
)
COLD_WAITS: Final = Metric(
    "npuops_cold_start_waiting_requests_total", _COUNTER, DEVICE, "Requests that waited for a worker to start."
)
RESTARTS: Final = Metric(
    "npuops_worker_restarts_total", _COUNTER, DEVICE, "Workers that were ready again after a crash."
)
EXITS: Final = Metric(
    "npuops_worker_exits_total", _COUNTER, (*DEVICE, "wanted"), "Workers that ended; wanted is true or false."
)
REPLAYS: Final = Metric(
    "npuops_replayed_batches_total", _COUNTER, DEVICE, "Batches that died with a worker and ran again."
)
RETRIES: Final = Metric(
    "npuops_retried_requests_total", _COUNTER, DEVICE, "Requests that left a failed device for another one."
)
STATE_CHANGES: Final = Metric(
    "npuops_device_state_changes_total", _COUNTER, (*DEVICE, "state"), "Times that a device went to a state."
)
PREPROCESSING: Final = Metric(
    "npuops_preprocessing_seconds",
    _HISTOGRAM,
    ("stage", *VERSION),
    "Time of a picture before it joins the model's queue: queue until a process takes it, then steps.",
)
PREPROCESSING_EXITS: Final = Metric(
    "npuops_preprocessing_process_exits_total", _COUNTER, (), "Processes for pictures that ended and were replaced."
)
PREPROCESSING_QUEUE: Final = Metric(
    "npuops_preprocessing_queue_pictures", _GAUGE, (), "Pictures that no process has begun."
)
PREPROCESSING_PROCESSES: Final = Metric(
    "npuops_preprocessing_processes", _GAUGE, (), "Processes that turn pictures into tensors."
)
TENANT_REQUESTS: Final = Metric(
    "npuops_tenant_requests_total", _COUNTER, ("tenant", "outcome"), "Requests of a tenant by outcome."
)
TENANT_SHEDS: Final = Metric(
    "npuops_tenant_requests_shed_total", _COUNTER, ("tenant", "reason"), "Requests of a tenant that were not run."
)
TENANT_TOTAL: Final = Metric(
    "npuops_tenant_request_seconds", _HISTOGRAM, ("tenant",), "Time of a tenant's successful request, all stages."
)
QUEUE: Final = Metric("npuops_queue_requests", _GAUGE, VERSION, "Requests that wait now.")
QUEUE_BYTES: Final = Metric("npuops_queue_bytes", _GAUGE, VERSION, "Bytes of the inputs of the requests that wait now.")
READY: Final = Metric("npuops_model_ready", _GAUGE, VERSION, "1 while the version answers requests, else 0.")
LOADED: Final = Metric("npuops_loaded_model_versions", _GAUGE, (), "Model versions that are loaded.")
IN_FLIGHT: Final = Metric("npuops_in_flight_requests", _GAUGE, DEVICE, "Requests that are with a worker now.")
SLOTS_HELD: Final = Metric("npuops_held_slots", _GAUGE, DEVICE, "Shared-memory slots in use.")
SLOTS: Final = Metric("npuops_slots", _GAUGE, DEVICE, "Shared-memory slots that there are.")
DEVICE_STATE: Final = Metric(
    "npuops_device_state", _GAUGE, (*DEVICE, "state"), "1 for the state that the device is in, 0 for the others."
)
WORKER_MEMORY: Final = Metric(
    "npuops_worker_resident_memory_bytes", _GAUGE, DEVICE, "Resident memory of the worker process."
)
CONNECTIONS: Final = Metric("npuops_connections", _GAUGE, ("protocol",), "Open connections.")
LOG_DROPS: Final = Metric(
    "npuops_access_log_dropped_total", _COUNTER, (), "Records that the access log could not write."
)
SPAN_DROPS: Final = Metric(
    "npuops_trace_dropped_requests_total", _COUNTER, (), "Sampled requests whose trace was not sent."
)
CHIP: Final = ("device", "basis")
CHIP_HEALTH: Final = Metric(
    "npu_health", _GAUGE, (*CHIP, "health"), "1 for the health that the chip is in, 0 for the others."
)
CHIP_TEMPERATURE: Final = Metric("npu_temperature_celsius", _GAUGE, CHIP, "Temperature of the chip.")
CHIP_CLOCK: Final = Metric("npu_clock_hertz", _GAUGE, CHIP, "Clock of the chip; many report 0 while they are idle.")
CHIP_POWER: Final = Metric("npu_power_watts", _GAUGE, CHIP, "Power that the chip draws.")
CHIP_ENERGY: Final = Metric(
    "npu_energy_joules_total", _COUNTER, CHIP, "Energy that the chip has used since its driver was loaded."
)
CHIP_BUSY: Final = Metric("npu_busy_ratio", _GAUGE, CHIP, "Share of the last second in which the chip had work.")
CHIP_MEMORY: Final = Metric("npu_memory_used_bytes", _GAUGE, CHIP, "Memory of the chip in use.")
CHIP_MEMORY_TOTAL: Final = Metric("npu_memory_total_bytes", _GAUGE, CHIP, "Memory that the chip has.")
CHIP_COUNTERS: Final = {
    "resets": Metric("npu_resets_total", _COUNTER, CHIP, "Resets of the chip, those that somebody ordered included."),
    "throttles": Metric("npu_throttles_total", _COUNTER, CHIP, "Times that heat or power lowered the chip's clock."),
    "corrected_errors": Metric(
        "npu_corrected_errors_total", _COUNTER, CHIP, "Memory errors that the chip has corrected."
    ),
    "uncorrected_errors": Metric(
        "npu_uncorrected_errors_total", _COUNTER, CHIP, "Memory errors that the chip could not correct."
    ),
    "refused_for_memory": Metric(
        "npu_refused_for_memory_total", _COUNTER, CHIP, "Programs and jobs that found no room on the chip."
    ),
    "refused_for_version": Metric(
        "npu_refused_for_version_total",
        _COUNTER,
        CHIP,
        "Programs, and firmware at boot, whose version does not fit the chip.",
    ),
}
"""By the name of the quantity."""
CPU_OPS: Final = Metric(
    "npuops_artifact_cpu_ops_ratio",
    _GAUGE,
    DEVICE,
    "Operators of the device's artifact that its compiler left to the CPU, to all of them.",
)
BUILD: Final = Metric("npuops_build_info", _GAUGE, ("python", "version"), "Always 1; the labels tell what runs.")

CATALOGUE: Final = (
    REQUESTS,
    STAGES,
    SHEDS,
    FAILURES,
    BATCH_ROWS,
    PADDED_ROWS,
    ELEMENTS,
    PADDED_ELEMENTS,
    PADDING_RATIO,
    FALLBACKS,
    FALLBACK_RATIO,
    COLD_STARTS,
    COLD_PHASES,
    COLD_WAITS,
    RESTARTS,
    EXITS,
    REPLAYS,
    RETRIES,
    STATE_CHANGES,
    PREPROCESSING,
    PREPROCESSING_EXITS,
    PREPROCESSING_QUEUE,
    PREPROCESSING_PROCESSES,
    TENANT_REQUESTS,
    TENANT_SHEDS,
    TENANT_TOTAL,
    QUEUE,
    QUEUE_BYTES,
    READY,
    LOADED,
    IN_FLIGHT,
    SLOTS_HELD,
    SLOTS,
    DEVICE_STATE,
    WORKER_MEMORY,
    CPU_OPS,
    CONNECTIONS,
    LOG_DROPS,
    SPAN_DROPS,
    CHIP_HEALTH,
    CHIP_TEMPERATURE,
    CHIP_CLOCK,
    CHIP_POWER,
    CHIP_ENERGY,
    CHIP_BUSY,
    CHIP_MEMORY,
    CHIP_MEMORY_TOTAL,
    *CHIP_COUNTERS.values(),
    BUILD,
)
