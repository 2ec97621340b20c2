"""The search for the highest rate that holds."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from npuops.loadgen.capacity import LEAST_RATE, PRECISION, Trial, highest, next_rate


def search(limit: float, start: float) -> list[Trial]:
    trials: list[Trial] = []
    while (rate := next_rate(trials, start)) is not None:
        trials.append(Trial(rate=rate, why="" if rate <= limit else "too slow"))
    return trials


@given(limit=st.floats(1, 1e5), start=st.floats(1, 1e5))
def test_the_search_ends_just_below_the_limit_wherever_it_begins(limit: float, start: float) -> None:
    held, why = highest(search(limit, start))
    assert held is not None
    assert held <= limit <= held * PRECISION * 1.001
    assert "too slow" in why


def test_a_server_that_holds_nothing_has_no_capacity() -> None:
    trials = search(0, 100)
    assert highest(trials)[0] is None
    assert min(trial.rate for trial in trials) >= LEAST_RATE
