"""What is reported of the steps before an inference, which no device spends its time on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from npuops.errors import DeadlineError, NotReadyError, NpuopsError, OverloadedError, QuotaError
from npuops.events import Event
from npuops.runtime.facts import ModelFact, RequestFailed, RequestShed, ShedReason


@dataclass(frozen=True, slots=True, kw_only=True)
class StepsRan(ModelFact):
    """One picture became a tensor, and joins the model's queue.

    Attributes:
        requested_us: its request came.
        arrived_us: it began to wait for a process.
        started_us: a process took it.
        ended_us: its tensor was there; the model counts this as the arrival.
    """

    tenant: str
    requested_us: int
    arrived_us: int
    started_us: int
    ended_us: int


@dataclass(frozen=True, slots=True, kw_only=True)
class StepProcessEnded(Event):
    """A process that prepares pictures is gone, and replaced."""

    pid: int
    why: str


_REASONS: Final[Mapping[type[NpuopsError], ShedReason]] = {
    OverloadedError: ShedReason.QUEUE_FULL,
    QuotaError: ShedReason.QUOTA,
    DeadlineError: ShedReason.DEADLINE,
    NotReadyError: ShedReason.NOT_READY,
}


def unanswered(identity: tuple[str, str], tenant: str, device: str, error: NpuopsError) -> RequestShed | RequestFailed:
    """The fact about a request that got this error: it was not run, or it ran and failed.

    Args:
        identity: model and version.
        tenant: whose request.
        device: that it failed on.
        error: that it got.
    """
    model, version = identity
    reason = _REASONS.get(type(error))
    if reason is not None:
        return RequestShed(model=model, version=version, tenant=tenant, reason=reason)
    return RequestFailed(model=model, version=version, tenant=tenant, device=device, error=type(error).__name__)


def cancelled(identity: tuple[str, str], tenant: str) -> RequestShed:
    """The fact about a request that nobody waits for any more."""
    model, version = identity
    return RequestShed(model=model, version=version, tenant=tenant, reason=ShedReason.CANCELLED)
