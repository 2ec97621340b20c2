"""Whether a request may wait. Refusing at once is kinder than a queue whose end nobody reaches in time."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from npuops.errors import DeadlineError, NotReadyError, OptionError, OverloadedError, QuotaError, ServingError
from npuops.runtime.facts import ShedReason
from npuops.runtime.job import NO_DEADLINE
from npuops.units import format_bytes, format_us

SOONEST_S: Final = 0.05
LATEST_S: Final = 30.0
"""Who is sent away is asked back within these: sooner would be a busy loop, later no use to a client."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """Of the queue of one model version.

    Attributes:
        max_queue_requests: that wait.
        max_queue_bytes: of their inputs.
    """

    max_queue_requests: int = 1024
    max_queue_bytes: int = 256 << 20

    def __post_init__(self) -> None:
        for name, value in (
            ("max_queue_requests", self.max_queue_requests),
            ("max_queue_bytes", self.max_queue_bytes),
        ):
            if value < 1:
                raise OptionError(f"{name} = {value}: nothing could ever wait", advice="1 or more")


@dataclass(frozen=True, slots=True)
class Refusal:
    """Why a request is sent away.

    Attributes:
        retry_after_s: seconds after which asking again makes sense.
        message: for the client.
    """

    reason: ShedReason
    retry_after_s: float
    message: str

    def error(self) -> ServingError:
        """As the client gets it."""
        if self.reason is ShedReason.DEADLINE:
            return DeadlineError(self.message, advice="allow more time, or send less at once")
        if self.reason in {ShedReason.QUOTA, ShedReason.CONCURRENCY}:
            return QuotaError(self.message, retry_after_s=self.retry_after_s)
        if self.reason is ShedReason.NOT_READY:
            return NotReadyError(self.message, retry_after_s=self.retry_after_s)
        return OverloadedError(self.message, retry_after_s=self.retry_after_s)


def retry_after_s(wait_us: float) -> float:
    """Seconds after which to ask again, where `wait_us` must pass first."""
    return min(max(wait_us / 1e6, SOONEST_S), LATEST_S)


def admit(
    limits: Limits,
    queued_requests: int,
    queued_bytes: int,
    job_bytes: int,
    predicted_wait_us: float,
    deadline_us: int,
    now_us: int,
) -> Refusal | None:
    """None: it may wait.

    Args:
        limits: of the queue.
        queued_requests: that wait now.
        queued_bytes: of their inputs.
        job_bytes: of the request. One that is larger than the whole queue may be still waits, but alone.
        predicted_wait_us: until it would be answered: what waits, at the measured rate, and its own run.
        deadline_us: on the same clock as `now_us`; `NO_DEADLINE` where it has none.
        now_us: the moment.
    """
    if deadline_us < NO_DEADLINE:
        late_us = now_us + predicted_wait_us - deadline_us
        if deadline_us <= now_us:
            return Refusal(ShedReason.DEADLINE, retry_after_s(late_us), "the deadline had passed when the request came")
        if late_us > 0:
            told = f"{format_us(predicted_wait_us)} from now, {format_us(late_us)} after the deadline"
            return Refusal(ShedReason.DEADLINE, retry_after_s(late_us), f"the answer would come {told}")
    if queued_requests < limits.max_queue_requests and (
        not queued_requests or queued_bytes + job_bytes <= limits.max_queue_bytes
    ):
        return None
    # When half of what waits is gone there is room for a while; when one place is free, others are faster.
    after_s = retry_after_s(predicted_wait_us / 2)
    if queued_requests >= limits.max_queue_requests:
        return Refusal(ShedReason.QUEUE_FULL, after_s, f"{queued_requests} requests wait already, which is the limit")
    return Refusal(
        ShedReason.QUEUE_FULL,
        after_s,
        f"requests of {format_bytes(queued_bytes)} wait already, the limit is {format_bytes(limits.max_queue_bytes)}",
    )
