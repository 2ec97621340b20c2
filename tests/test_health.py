from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.devices.health import (
    HEALTH_OF,
    NEXT,
    SETTLE_S,
    TABLE,
    Condition,
    Health,
    Observed,
    Signal,
    State,
    next_state,
    step,
)

PAGE = Path(__file__).resolve().parent.parent / "docs" / "devices.md"
QUIET = Observed(Signal.QUIET, "nothing wrong")
SECOND = 1_000_000


def condition(state: State = State.HEALTHY) -> Condition:
    return Condition(state=state, why="as the test says", since_us=0)


def after(start: State, *signals: Signal, every_s: int = 1) -> Condition:
    now = condition(start)
    for index, signal in enumerate(signals, start=1):
        now = step(now, [Observed(signal, signal.value)], index * every_s * SECOND)
    return now


def test_every_pair_is_in_the_table_but_settling_where_nothing_settles() -> None:
    missing = {(state, signal) for state in State for signal in Signal} - set(NEXT)
    assert missing == {(state, Signal.SETTLED) for state in State if state not in SETTLE_S}


def test_a_missing_pair_is_an_error() -> None:
    with pytest.raises(LookupError, match="no way leads from healthy by settled"):
        next_state(State.HEALTHY, Signal.SETTLED)


def test_every_state_has_a_health() -> None:
    assert set(HEALTH_OF) == set(State)


def test_the_page_shows_this_table() -> None:
    rows = [line.split() for line in TABLE.strip().splitlines()]
    shown = [
        [cell.strip(" `") for cell in line.strip("|").split("|")]
        for line in PAGE.read_text(encoding="utf-8").splitlines()
        if line.startswith("| ")
    ]
    assert [row for row in rows if row not in shown] == []
    levels = [
        [state.value, HEALTH_OF[state].value, f"{SETTLE_S[state]} s" if state in SETTLE_S else ""] for state in State
    ]
    assert [row for row in levels if row not in [each[:3] for each in shown]] == []


@pytest.mark.parametrize("signal", [Signal.OFFLINE, Signal.HANG, Signal.ABSENT])
@pytest.mark.parametrize("state", State)
def test_what_is_worst_is_told_from_everywhere(state: State, signal: Signal) -> None:
    wanted = {Signal.OFFLINE: State.OFFLINE, Signal.HANG: State.HUNG, Signal.ABSENT: State.GONE}
    assert next_state(state, signal) is wanted[signal]


@pytest.mark.parametrize("state", State)
def test_no_state_is_healthy_while_something_is_wrong(state: State) -> None:
    good = {Signal.SETTLED, Signal.PASSED, Signal.QUIET}
    assert [signal for signal in set(Signal) - good if NEXT[state, signal] is State.HEALTHY] == []


@pytest.mark.parametrize("state", sorted(set(State) - {State.UNKNOWN}))
def test_every_state_can_be_left_for_healthy(state: State) -> None:
    reached, frontier = {state}, [state]
    while frontier:
        here = frontier.pop()
        for signal in (Signal.SETTLED, Signal.PASSED, Signal.QUIET):
            found = NEXT.get((here, signal))
            if found is not None and found not in reached:
                reached.add(found)
                frontier.append(found)
    assert State.HEALTHY in reached


def test_a_throttled_device_recovers_only_after_ten_quiet_seconds() -> None:
    nine = [Signal.THROTTLING, *[Signal.QUIET] * 10]
    assert after(State.HEALTHY, *nine).state is State.THROTTLED
    recovered = after(State.HEALTHY, *nine, Signal.QUIET)
    assert (recovered.state, recovered.why) == (State.HEALTHY, "nothing wrong seen for 10 s")


def test_one_more_bad_look_starts_the_quiet_time_again() -> None:
    signals = [Signal.THROTTLING, *[Signal.QUIET] * 9, Signal.THROTTLING, *[Signal.QUIET] * 9]
    assert after(State.HEALTHY, *signals).state is State.THROTTLED


def test_a_device_that_comes_back_is_not_healthy_at_once() -> None:
    back = after(State.HEALTHY, Signal.ABSENT, Signal.QUIET)
    assert (back.state, back.health) == (State.RESETTING, Health.UNHEALTHY)
    assert back.why == "was gone; not yet quiet for 10 s"


def test_a_hung_device_is_cured_by_a_reset_or_a_canary_and_not_by_silence() -> None:
    assert after(State.HUNG, *[Signal.QUIET] * 5000).state is State.HUNG
    assert after(State.HUNG, Signal.RESET).state is State.RESETTING
    assert after(State.HUNG, Signal.PASSED).state is State.HEALTHY


def test_wrong_answers_are_forgiven_only_by_a_right_one() -> None:
    assert after(State.WRONG, Signal.RESET, *[Signal.QUIET] * 1000).state is State.WRONG
    assert after(State.WRONG, Signal.PASSED).state is State.HEALTHY


def test_the_worst_signal_decides_and_the_words_of_all_are_kept() -> None:
    observed = [Observed(Signal.THROTTLING, "hot"), Observed(Signal.UNCORRECTED, "2 errors"), QUIET]
    found = step(condition(), observed, 5)
    assert (found.state, found.why, found.since_us) == (State.UNCORRECTED, "hot; 2 errors", 5)


def test_the_reason_of_a_bad_state_is_kept_while_it_is_quiet() -> None:
    bad = step(condition(), [Observed(Signal.CORRECTED, "3 corrected errors")], SECOND)
    later = step(bad, [QUIET], 2 * SECOND)
    assert (later.state, later.why, later.since_us) == (State.CORRECTING, "3 corrected errors", SECOND)


@given(st.lists(st.sampled_from(sorted(set(Signal) - {Signal.SETTLED})), max_size=40), st.integers(1, 400))
def test_no_sequence_of_signals_leads_out_of_the_table(signals: list[Signal], every_s: int) -> None:
    found = after(State.UNKNOWN, *signals, every_s=every_s)
    assert found.why
    assert found.since_us <= len(signals) * every_s * SECOND
