"""What a server holds at one moment: the gauges that are read when somebody asks, not reported while it works."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceGauges:
    """One device of one model version.

    Attributes:
        device: as in the facts.
        state: the word of the runtime's table of states.
        why: it is in that state; "" where all is well.
        in_flight: requests that are with the worker.
        slots_held: shared-memory slots in use.
        slots: that there are.
        resident_bytes: of the worker process; None where it has none, or it is unknown.
        cpu_ops_ratio: operators of its artifact that the compiler left to the CPU, to all of them; None is unknown.
    """

    device: str
    state: str
    in_flight: int
    why: str = ""
    slots_held: int = 0
    slots: int = 0
    resident_bytes: int | None = None
    cpu_ops_ratio: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionGauges:
    """One model version.

    Attributes:
        ready: it answers requests now.
        queue_requests: that wait.
        queue_bytes: of their inputs.
    """

    model: str
    version: str
    ready: bool
    queue_requests: int
    queue_bytes: int
    devices: tuple[DeviceGauges, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class ChipReading:
    """What the chip behind a device says of itself; None is unknown, never 0.

    Attributes:
        device: as in the facts where a model uses it, otherwise its address.
        label: for people, for example `Intel NPU (ivpu)`.
        basis: `measured`, or `modelled` for a virtual device.
        health: `healthy`, `degraded`, `unhealthy`, `gone` or `unknown`.
        state: more exactly, for example `throttled`.
        why: it is in that state.
        busy_ratio: since the look before.
        energy_joules: since its driver was loaded.
        counters: what it counts of its troubles since then, by the name of the quantity; what it does not count is
            not there.
    """

    device: str
    label: str
    basis: str
    health: str = "unknown"
    state: str = "unknown"
    why: str = ""
    temperature_celsius: float | None = None
    clock_hertz: float | None = None
    power_watts: float | None = None
    busy_ratio: float | None = None
    memory_used_bytes: float | None = None
    memory_total_bytes: float | None = None
    energy_joules: float | None = None
    counters: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class PreprocessingGauges:
    """The steps before an inference.

    Attributes:
        processes: that run them.
        waiting: pictures that no process has begun.
    """

    processes: int
    waiting: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ServingSnapshot:
    """The whole server.

    Attributes:
        versions: of all models that are loaded.
        device_states: all words of the runtime's table, so that each can be shown as 0 or 1.
        connections: open ones by protocol (`http`, `grpc`).
        log_records_dropped: by the access log since the start; None where it is off.
        spans_dropped: by the traces since the start; None where they are off.
        chips: as the device sampler saw them last.
        preprocessing: None before the first model that has such steps.
    """

    versions: tuple[VersionGauges, ...] = ()
    device_states: tuple[str, ...] = ()
    connections: Mapping[str, int] = field(default_factory=dict)
    log_records_dropped: int | None = None
    spans_dropped: int | None = None
    chips: tuple[ChipReading, ...] = ()
    preprocessing: PreprocessingGauges | None = None


Snapshot = Callable[[], ServingSnapshot]
"""Called in the event loop's thread, once a second and once for each scrape."""
