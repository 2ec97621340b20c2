from __future__ import annotations

import pytest

from npuops.build.fallback import ALLOW, FORBID, read_fallback_policy
from npuops.errors import OptionError
from npuops.models.placement import FallbackRatio


def test_forbid_refuses_even_an_operator_without_macs() -> None:
    assert FORBID.admits(FallbackRatio(ops=0.0, macs=0.0))
    assert not FORBID.admits(FallbackRatio(ops=0.01, macs=0.0))


def test_a_budget_is_counted_by_macs_where_they_are_known() -> None:
    policy = read_fallback_policy("budget=0.1")
    assert policy.admits(FallbackRatio(ops=0.5, macs=0.1))
    assert not policy.admits(FallbackRatio(ops=0.01, macs=0.2))
    assert not policy.admits(FallbackRatio(ops=0.2, macs=None))


def test_allow_admits_all() -> None:
    assert ALLOW.admits(FallbackRatio(ops=1.0, macs=1.0))


@pytest.mark.parametrize("words", ["forbid", "allow", "budget=0.25"])
def test_a_policy_reads_back_as_it_was_written(words: str) -> None:
    assert read_fallback_policy(words).words == words


@pytest.mark.parametrize(
    "words", ["", "never", "budget", "budget=", "budget=2", "budget=-1", "budget=nan", "limit=0.1"]
)
def test_any_other_words_are_an_error_with_the_choices(words: str) -> None:
    with pytest.raises(OptionError) as caught:
        read_fallback_policy(words)
    assert "budget=R" in caught.value.advice
