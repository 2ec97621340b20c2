from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import OptionError, QuotaError
from npuops.runtime.facts import ShedReason
from npuops.runtime.quota import Quota, QuotaState

SECOND = 1_000_000


def test_a_burst_passes_and_then_the_rate() -> None:
    state = QuotaState(Quota(rate=10, burst=3))
    assert [state.try_take(0) is None for _ in range(4)] == [True, True, True, False]
    assert state.try_take(SECOND // 10) is None
    refusal = state.try_take(SECOND // 10)
    assert refusal is not None
    assert refusal.reason is ShedReason.QUOTA
    assert refusal.retry_after_s == pytest.approx(0.1)
    assert state.try_take(SECOND // 10 + int(refusal.retry_after_s * SECOND)) is None


def test_a_pause_saves_up_no_more_than_a_burst() -> None:
    state = QuotaState(Quota(rate=5))
    for _ in range(5):
        assert state.try_take(0) is None
    assert sum(state.try_take(3600 * SECOND) is None for _ in range(20)) == 5


def test_a_slow_rate_lets_one_pass() -> None:
    state = QuotaState(Quota(rate=0.1))
    assert state.try_take(0) is None
    refusal = state.try_take(0)
    assert refusal is not None
    assert refusal.retry_after_s == pytest.approx(10.0)


def test_only_so_many_at_once() -> None:
    state = QuotaState(Quota(concurrency=2))
    assert state.try_take(0) is None
    assert state.try_take(0) is None
    refusal = state.try_take(0)
    assert refusal is not None
    assert refusal.reason is ShedReason.CONCURRENCY
    state.give_back()
    assert state.try_take(0) is None


def test_a_refused_request_uses_nothing_up() -> None:
    state = QuotaState(Quota(rate=1, burst=2, concurrency=1))
    assert state.try_take(0) is None
    assert all(state.try_take(0) is not None for _ in range(10))
    state.give_back()
    assert state.try_take(0) is None
    assert state.under_way == 1


def test_the_error_says_when_to_come_back() -> None:
    state = QuotaState(Quota(rate=2, burst=1))
    assert state.try_take(0) is None
    refusal = state.try_take(0)
    assert refusal is not None
    with pytest.raises(QuotaError, match="2 requests a second") as caught:
        raise refusal.error()
    assert caught.value.retry_after_s == pytest.approx(0.5)


@pytest.mark.parametrize(
    "options",
    [
        {"rate": 0},
        {"rate": -1},
        {"rate": float("nan")},
        {"rate": float("inf")},
        {"burst": 3},
        {"rate": 1, "burst": 0.5},
        {"rate": 1, "burst": float("nan")},
        {"concurrency": 0},
    ],
)
def test_a_quota_that_makes_no_sense_is_refused(options: dict[str, float]) -> None:
    with pytest.raises(OptionError):
        Quota(**options)  # type: ignore[arg-type]


@given(
    st.floats(0.5, 1000),
    st.floats(1, 50),
    st.lists(st.integers(0, 2 * SECOND), min_size=1, max_size=100),
)
def test_no_more_pass_than_rate_and_burst_allow(rate: float, burst: float, pauses_us: list[int]) -> None:
    state = QuotaState(Quota(rate=rate, burst=burst))
    now_us, passed = 1_000_000_000, 0
    begun_us = now_us + pauses_us[0]
    for pause_us in pauses_us:
        now_us += pause_us
        passed += state.try_take(now_us) is None
        assert passed <= burst + rate * (now_us - begun_us) / SECOND + 0.01


@given(st.integers(1, 1000))
def test_who_keeps_to_the_rate_is_never_refused(rate: int) -> None:
    state = QuotaState(Quota(rate=rate, burst=1))
    for index in range(200):
        assert state.try_take(-(-index * SECOND // rate)) is None
