"""Facts that a machine reports: what `Machine.advance` returns, in the order of time. Pure.

Moments are microseconds of the clock that the machine is driven by, exact to the nanosecond.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from npuops.events import Event
from npuops.vnpu.conditions import Corruption
from npuops.vnpu.faults import Kind
from npuops.vnpu.life import Life


class Failure(StrEnum):
    """Why a job failed."""

    DEVICE_LOST = "device lost"
    """The device was reset, went off or disappeared (Level Zero: ZE_RESULT_ERROR_DEVICE_LOST)."""
    MEMORY_ERROR = "memory error"
    """An uncorrectable one."""


@dataclass(frozen=True, slots=True, kw_only=True)
class DeviceEvent(Event):
    """Base of these facts."""

    at_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class JobCompleted(DeviceEvent):
    """A job is through.

    Attributes:
        submitted_us, started_us: `at_us` is its end.
        busy_us: time on a core.
        energy_mj: above the idle power of the device.
        preemptions: how often it had to leave a core.
        corruption: silent: whoever computes the outputs applies it and tells nobody.
    """

    job: int
    context: int
    submitted_us: float
    started_us: float
    busy_us: float
    energy_mj: float
    preemptions: int
    corruption: Corruption | None


@dataclass(frozen=True, slots=True, kw_only=True)
class JobFailed(DeviceEvent):
    """A job will not complete."""

    job: int
    context: int
    failure: Failure
    message: str


@dataclass(frozen=True, slots=True, kw_only=True)
class LifeChanged(DeviceEvent):
    """The device went from one state to another, and why."""

    before: Life
    after: Life
    why: str


@dataclass(frozen=True, slots=True, kw_only=True)
class ClockChanged(DeviceEvent):
    """The governor moved the clock's cap."""

    before_mhz: float
    after_mhz: float
    temperature_c: float


@dataclass(frozen=True, slots=True, kw_only=True)
class MemoryErrors(DeviceEvent):
    """The memory found wrong bits."""

    corrected: int = 0
    uncorrected: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class ContextLost(DeviceEvent):
    """The driver crashed, and a context with it."""

    context: int


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultBegan(DeviceEvent):
    """A fault of the plan, or an injected one."""

    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultEnded(DeviceEvent):
    """A lasting fault is over."""

    kind: Kind


@dataclass(frozen=True, slots=True, kw_only=True)
class FaultHadNoEffect(DeviceEvent):
    """It came at a device that couldn't take it, for example a hang at one that is off."""

    kind: Kind
    why: str
