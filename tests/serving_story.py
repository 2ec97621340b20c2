"""Every kind of fact once, and a server that holds something of everything: no metric stays without a sample."""

from __future__ import annotations

from npuops.events import Event
from npuops.runtime.facts import (
    BatchRetried,
    ColdCause,
    DeviceChanged,
    RequestFailed,
    RequestShed,
    ShedReason,
    WorkerEnded,
    WorkerStarted,
)
from npuops.runtime.step_facts import StepProcessEnded, StepsRan
from npuops.telemetry.serving_snapshot import (
    ChipReading,
    DeviceGauges,
    PreprocessingGauges,
    ServingSnapshot,
    VersionGauges,
)
from serving_facts import batch_ran

_WHERE = {"model": "mobilenet", "version": "1", "device": "npu0"}


def _started(cause: ColdCause, waiting: int) -> WorkerStarted:
    return WorkerStarted(
        **_WHERE, cause=cause, seconds=0.4, phases={"spawn": 0.15, "open": 0.25}, waiting=waiting, pid=7
    )


EVERY_FACT: tuple[Event, ...] = (
    _started(ColdCause.LOAD, 1),
    batch_ran(arrived_us=(1_000, 1_001), padded_rows=6, elements=30, padded_elements=90, fell_back=True),
    RequestShed(model="mobilenet", version="1", tenant='new"\n\\line', reason=ShedReason.QUEUE_FULL),
    RequestFailed(**_WHERE, tenant="camera", error="RunError"),
    WorkerEnded(**_WHERE, pid=7, wanted=False, why="killed", replayed=2),
    DeviceChanged(**_WHERE, state="sick", why="killed"),
    BatchRetried(**_WHERE, requests=4, why="lost"),
    StepsRan(
        model="mobilenet",
        version="1",
        tenant="camera",
        requested_us=1_000,
        arrived_us=1_100,
        started_us=1_600,
        ended_us=4_600,
    ),
    StepProcessEnded(pid=8, why="signal 11"),
    _started(ColdCause.CRASH, 2),
)

HELD = ServingSnapshot(
    versions=(
        VersionGauges(
            model="mobilenet",
            version="1",
            ready=True,
            queue_requests=3,
            queue_bytes=4096,
            devices=(
                DeviceGauges(
                    device="npu0",
                    state="ready",
                    in_flight=2,
                    slots_held=1,
                    slots=8,
                    resident_bytes=1 << 20,
                    cpu_ops_ratio=0.25,
                ),
                DeviceGauges(device="cpu", state="stopped", in_flight=0, slots=8),
            ),
        ),
    ),
    device_states=("ready", "stopped", "sick"),
    connections={"http": 5, "grpc": 1},
    log_records_dropped=0,
    spans_dropped=0,
    chips=(
        ChipReading(
            device="npu0",
            label="virtual rk3588",
            basis="modelled",
            health="degraded",
            state="throttled",
            why="85.1 °C, throttling temperature is 85 °C",
            temperature_celsius=85.1,
            clock_hertz=6e8,
            power_watts=1.5,
            busy_ratio=0.75,
            memory_used_bytes=float(1 << 20),
            memory_total_bytes=float(1 << 30),
            energy_joules=12.5,
            counters={
                "resets": 1.0,
                "throttles": 3.0,
                "corrected_errors": 4.0,
                "uncorrected_errors": 0.0,
                "refused_for_memory": 1.0,
                "refused_for_version": 0.0,
            },
        ),
    ),
    preprocessing=PreprocessingGauges(processes=1, waiting=2),
)
