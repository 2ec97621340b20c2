from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import DeadlineError, NotReadyError, OptionError, OverloadedError, QuotaError
from npuops.runtime.admission import LATEST_S, SOONEST_S, Limits, Refusal, admit
from npuops.runtime.facts import ShedReason
from npuops.runtime.job import NO_DEADLINE

LIMITS = Limits(max_queue_requests=100, max_queue_bytes=1000)


def asked(
    requests: int = 0,
    waiting_bytes: int = 0,
    job_bytes: int = 10,
    wait_us: float = 0.0,
    deadline_us: int = NO_DEADLINE,
    now_us: int = 0,
) -> Refusal | None:
    return admit(LIMITS, requests, waiting_bytes, job_bytes, wait_us, deadline_us, now_us)


def test_there_is_room() -> None:
    assert asked() is None
    assert asked(requests=99, waiting_bytes=990, wait_us=1e9) is None


def test_a_full_queue_refuses_and_says_when_half_of_it_is_worked_off() -> None:
    refusal = asked(requests=100, wait_us=4e6)
    assert refusal == Refusal(ShedReason.QUEUE_FULL, 2.0, "100 requests wait already, which is the limit")


def test_too_many_bytes_refuse() -> None:
    refusal = asked(requests=5, waiting_bytes=995)
    assert refusal is not None
    assert refusal.reason is ShedReason.QUEUE_FULL
    assert "995 B" in refusal.message


def test_a_request_larger_than_the_queue_waits_where_nobody_else_does() -> None:
    assert asked(job_bytes=5000) is None
    assert asked(requests=1, job_bytes=5000) is not None


def test_what_cannot_be_answered_in_time_is_refused_at_once() -> None:
    assert asked(wait_us=50_000, deadline_us=150_000, now_us=100_000) is None
    refusal = asked(wait_us=250_000, deadline_us=150_000, now_us=100_000)
    assert refusal is not None
    assert refusal.reason is ShedReason.DEADLINE
    assert refusal.retry_after_s == pytest.approx(0.2)
    assert "200.00 ms after the deadline" in refusal.message


def test_a_deadline_that_has_passed_is_told_as_such() -> None:
    refusal = asked(deadline_us=100, now_us=100)
    assert refusal is not None
    assert refusal.message == "the deadline had passed when the request came"


@pytest.mark.parametrize(
    ("reason", "kind"),
    [
        (ShedReason.QUEUE_FULL, OverloadedError),
        (ShedReason.QUOTA, QuotaError),
        (ShedReason.CONCURRENCY, QuotaError),
        (ShedReason.DEADLINE, DeadlineError),
        (ShedReason.NOT_READY, NotReadyError),
    ],
)
def test_each_reason_has_its_error(reason: ShedReason, kind: type[Exception]) -> None:
    error = Refusal(reason, 3.0, "words").error()
    assert type(error) is kind
    assert error.message == "words"
    assert getattr(error, "retry_after_s", 3.0) == 3.0


@pytest.mark.parametrize("limits", [{"max_queue_requests": 0}, {"max_queue_bytes": 0}])
def test_a_queue_that_holds_nothing_is_no_queue(limits: dict[str, int]) -> None:
    with pytest.raises(OptionError, match="nothing could ever wait"):
        Limits(**limits)


@given(st.integers(0, 200), st.integers(0, 2000), st.integers(0, 2000), st.floats(0, 1e9), st.integers(0, 10**9))
def test_the_bounds_hold_and_advice_is_within_reason(
    requests: int, waiting_bytes: int, job_bytes: int, wait_us: float, deadline_us: int
) -> None:
    refusal = asked(requests, waiting_bytes, job_bytes, wait_us, deadline_us)
    if refusal is None:
        assert requests < LIMITS.max_queue_requests
        assert not requests or waiting_bytes + job_bytes <= LIMITS.max_queue_bytes
        assert wait_us <= deadline_us
    else:
        assert SOONEST_S <= refusal.retry_after_s <= LATEST_S
