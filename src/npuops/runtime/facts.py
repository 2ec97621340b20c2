"""What the runtime reports while it works: one frozen fact for a batch, not for a request, to stay cheap.

All `*_us` are microseconds on one clock (`SystemClock`, which all processes of a machine share).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from npuops.events import Event


class ShedReason(StrEnum):
    """Why a request was not run."""

    QUEUE_FULL = "queue_full"
    QUOTA = "quota"
    CONCURRENCY = "concurrency"
    DEADLINE = "deadline"
    NOT_READY = "not_ready"
    CANCELLED = "cancelled"


class ColdCause(StrEnum):
    """Why a worker had to start."""

    LOAD = "load"
    WAKE = "wake"
    CRASH = "crash"
    HEALTH = "health"
    """The device was not well, and is again."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelFact(Event):
    """Something about one version of one model."""

    model: str
    version: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRan(ModelFact):
    """One run on a device, with every request that shared it.

    Attributes:
        arrived_us: of each request.
        tenants: of each request, in the same order.
        rows: of all requests together.
        padded_rows: that the device computed besides, for nothing.
        elements: of all inputs, as the requests brought them; 0 where that is not known.
        padded_elements: that the inputs were filled up with, along the batch axis or any other.
        dispatched_us: left the queue; then the inputs are copied (dma in).
        started_us: the worker begins to compute.
        computed_us: the worker has the outputs; then they are copied (dma out).
        answered_us: the last receiver was called.
    """

    device: str
    fell_back: bool
    inline: bool
    arrived_us: tuple[int, ...]
    tenants: tuple[str, ...]
    rows: int
    padded_rows: int
    dispatched_us: int
    started_us: int
    computed_us: int
    answered_us: int
    elements: int = 0
    padded_elements: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestShed(ModelFact):
    """A request was refused or dropped before it ran."""

    tenant: str
    reason: ShedReason


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestFailed(ModelFact):
    """A request ran, and got an error."""

    tenant: str
    device: str
    error: str


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerStarted(ModelFact):
    """A worker process is ready: a cold start, with its phases in seconds (`spawn`, `verify`, `open`, `warm_up`, …)."""

    device: str
    cause: ColdCause
    seconds: float
    phases: Mapping[str, float]
    waiting: int
    """Requests that waited for it."""
    pid: int


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerEnded(ModelFact):
    """A worker process is gone; `replayed` batches start again on the next one."""

    device: str
    pid: int
    wanted: bool
    why: str
    replayed: int


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceChanged(ModelFact):
    """A device of a model went from one state to another."""

    device: str
    state: str
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class BatchRetried(ModelFact):
    """Requests of a device that failed go to another one."""

    device: str
    requests: int
    why: str
