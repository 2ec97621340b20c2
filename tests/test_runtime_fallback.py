from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.build.fallback import ALLOW, FORBID, read_fallback_policy
from npuops.runtime.fallback import FallbackBudget

SECOND = 1_000_000
TENTH = read_fallback_policy("budget=0.1")


def test_forbid_forbids_and_no_request_can_change_that() -> None:
    budget = FallbackBudget(FORBID)
    verdict = budget.may_take(1, "allow", 0)
    assert (verdict.allowed, verdict.why) == (False, "the model's policy forbids the fallback")


def test_allow_allows_but_a_request_may_be_stricter() -> None:
    budget = FallbackBudget(ALLOW)
    assert budget.may_take(1, "", 0).allowed
    verdict = budget.may_take(1, "forbid", 0)
    assert (verdict.allowed, verdict.why) == (False, "the request forbids the fallback")


def test_a_budget_is_a_share_of_recent_rows() -> None:
    budget = FallbackBudget(TENTH)
    assert not budget.may_take(1, "", 0).allowed
    budget.ran(90, False, 0)
    assert budget.may_take(10, "", SECOND).allowed
    budget.ran(10, True, SECOND)
    verdict = budget.may_take(1, "allow", SECOND)
    assert not verdict.allowed
    assert verdict.why == "10 of the last 100 rows (60 s) fell back, and the model's policy is budget=0.1"
    assert budget.ratio(SECOND) == pytest.approx(0.1)


def test_old_work_is_forgotten() -> None:
    budget = FallbackBudget(TENTH)
    budget.ran(100, False, 0)
    assert budget.may_take(5, "", 59 * SECOND).allowed
    assert not budget.may_take(5, "", 61 * SECOND).allowed
    assert budget.ratio(61 * SECOND) is None


def test_during_an_outage_a_tenth_of_what_is_asked_for_is_answered() -> None:
    budget = FallbackBudget(TENTH)
    answered = 0
    for now_us in range(0, 300 * SECOND, SECOND // 10):
        if budget.may_take(1, "", now_us).allowed:
            budget.ran(1, True, now_us)
            answered += 1
        else:
            budget.refused(1, now_us)
    assert 250 <= answered <= 300


@given(
    st.floats(0.01, 0.99),
    st.lists(st.tuples(st.integers(1, 32), st.integers(0, 5 * SECOND), st.booleans()), max_size=100),
)
def test_the_share_never_exceeds_the_budget_while_nothing_is_forgotten(
    share: float, works: list[tuple[int, int, bool]]
) -> None:
    budget = FallbackBudget(read_fallback_policy(f"budget={share}"), window_us=10**15)
    now_us = 0
    for rows, pause_us, healthy in works:
        now_us += pause_us
        if healthy:
            budget.ran(rows, False, now_us)
        elif budget.may_take(rows, "", now_us).allowed:
            budget.ran(rows, True, now_us)
        else:
            budget.refused(rows, now_us)
        assert (budget.ratio(now_us) or 0.0) <= share + 1e-9
