from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from npuops.devices.health import (
    BY_CANARY,
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


BAD = sorted(state for state, health in HEALTH_OF.items() if health not in {Health.HEALTHY, Health.UNKNOWN})


def condition(state: State = State.HEALTHY) -> Condition:
    return Condition(state=state, why="as the test says", since_us=0)


def after(start: State, *signals: Signal, every_s: int = 1) -> Condition:
    now = condition(start)
    for index, signal in enumerate(signals, start=1):
        now = step(now, [Observed(signal, signal.value)], index * every_s * SECOND)
    return now


def test_every_pair_is_in_the_table_but_settling_and_fading_where_nothing_does() -> None:
    missing = {(state, signal) for state in State for signal in Signal} - set(NEXT)
    unsettled = {(state, Signal.SETTLED) for state in State if state not in SETTLE_S}
    assert missing == unsettled | {(state, Signal.FADED) for state in set(State) - (set(SETTLE_S) - BY_CANARY)}


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
    assert [signal for signal in set(Signal) - good if NEXT.get((state, signal)) is State.HEALTHY] == []


@pytest.mark.parametrize("state", BAD)
def test_a_bad_state_is_left_for_healthy_only_by_being_quiet_for_long_enough(state: State) -> None:
    assert [signal for signal in Signal if NEXT.get((state, signal)) is State.HEALTHY] in ([], [Signal.SETTLED])


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
    moved = after(State.HUNG, *[Signal.QUIET] * 5000, Signal.PASSED)
    assert (moved.state, moved.why) == (State.RESETTING, "was hung; not yet quiet for 10 s")
    assert after(State.HUNG, Signal.PASSED, *[Signal.QUIET] * 9).state is State.RESETTING
    assert after(State.HUNG, Signal.PASSED, *[Signal.QUIET] * 10).state is State.HEALTHY


def test_wrong_answers_are_forgiven_after_a_minute_of_right_ones_and_never_by_silence_or_a_reset() -> None:
    assert after(State.WRONG, Signal.RESET, *[Signal.QUIET] * 1000).state is State.WRONG
    assert after(State.WRONG, Signal.PASSED, *[Signal.QUIET] * 1000).state is State.WRONG
    assert after(State.WRONG, *[Signal.PASSED] * 60).state is State.WRONG
    assert after(State.WRONG, *[Signal.PASSED] * 61).state is State.HEALTHY
    assert after(State.WRONG, Signal.PASSED, *[Signal.QUIET] * 100, Signal.PASSED).state is State.HEALTHY


def test_a_device_that_is_wrong_now_and_then_does_not_flap() -> None:
    assert {after(State.WRONG, *[Signal.PASSED, Signal.PASSED, Signal.WRONG] * n).state for n in range(40)} == {
        State.WRONG
    }


def test_other_trouble_does_not_hide_that_the_answers_are_right_again() -> None:
    now = condition(State.WRONG)
    hot = [Observed(Signal.PASSED, "right"), Observed(Signal.THROTTLING, "hot")]
    for second in range(1, 62):
        now = step(now, hot, second * SECOND)
    assert (now.state, now.why) == (State.WRONG, "as the test says"), "not healthy while it is hot"
    assert step(now, [Observed(Signal.PASSED, "right")], 62 * SECOND).state is State.HEALTHY


def test_a_state_that_lasts_keeps_its_reason_whatever_smaller_trouble_comes() -> None:
    hung = step(condition(), [Observed(Signal.HANG, "the driver says 'hung'")], SECOND)
    later = step(hung, [Observed(Signal.THROTTLING, "2 throttle events")], 2 * SECOND)
    assert (later.state, later.why) == (State.HUNG, "the driver says 'hung'")


def test_a_device_whose_files_cannot_be_read_any_more_is_bad_until_its_time_is_over_and_then_unknown() -> None:
    assert after(State.THROTTLED, *[Signal.BLIND] * 10).state is State.THROTTLED
    faded = after(State.THROTTLED, *[Signal.BLIND] * 11)
    assert (faded.state, faded.why) == (State.UNKNOWN, "was throttled; blind")
    assert after(State.HUNG, *[Signal.BLIND] * 5000).state is State.HUNG
    assert after(State.GONE, Signal.BLIND).state is State.RESETTING


def test_the_worst_signal_decides_and_the_words_of_all_are_kept() -> None:
    observed = [Observed(Signal.THROTTLING, "hot"), Observed(Signal.UNCORRECTED, "2 errors"), QUIET]
    found = step(condition(), observed, 5)
    assert (found.state, found.why, found.since_us) == (State.UNCORRECTED, "hot; 2 errors", 5)


def test_the_reason_of_a_bad_state_is_kept_while_it_is_quiet() -> None:
    bad = step(condition(), [Observed(Signal.CORRECTED, "3 corrected errors")], SECOND)
    later = step(bad, [QUIET], 2 * SECOND)
    assert (later.state, later.why, later.since_us) == (State.CORRECTING, "3 corrected errors", SECOND)


ANYTHING = st.sets(st.sampled_from(sorted(set(Signal) - {Signal.SETTLED, Signal.FADED})), min_size=1, max_size=4)
CALM = st.sampled_from([{Signal.QUIET}, {Signal.PASSED}, {Signal.PASSED, Signal.QUIET}])
LOOKS = st.lists(
    st.tuples(
        st.one_of(ANYTHING, CALM, CALM, CALM, st.just({Signal.WRONG})), st.sampled_from([0, 1, 4, 9, 40, 160, 300])
    ),
    max_size=40,
)
"""Mostly calm ones: else no quiet time ever comes to its end."""


@settings(max_examples=300)
@given(LOOKS)
def test_no_input_makes_it_throw_or_flap(looks: list[tuple[set[Signal], int]]) -> None:
    """Between a bad state and a good one lies the whole quiet time, and a look at which nothing was wrong."""
    now, moment_s, calm_from_s, right_from_s = condition(State.UNKNOWN), 0, None, None
    for signals, passed_s in looks:
        moment_s += passed_s
        before, now = now, step(now, [Observed(each, each.value) for each in signals], moment_s * SECOND)
        assert now.why
        assert before.since_us <= now.since_us <= moment_s * SECOND
        assert (now.since_us == before.since_us) or (now.state is not before.state) or not passed_s
        is_calm = signals <= {Signal.PASSED, Signal.QUIET, Signal.BLIND}
        calm_from_s = None if not is_calm else moment_s if calm_from_s is None else calm_from_s
        if Signal.WRONG in signals or (right_from_s is None and Signal.PASSED not in signals):
            right_from_s = None
        elif right_from_s is None:
            right_from_s = moment_s
        if before.state in BAD and now.state not in BAD:
            quiet_from_s = right_from_s if before.state is State.WRONG else calm_from_s
            assert quiet_from_s is not None
            assert moment_s - quiet_from_s >= SETTLE_S[before.state]
            assert signals <= {Signal.PASSED, Signal.QUIET, Signal.BLIND}
        if signals & {Signal.HANG, Signal.OFFLINE, Signal.ABSENT}:
            assert now.state in {State.HUNG, State.OFFLINE, State.GONE}
        if before.state is State.WRONG and now.state is State.HEALTHY:
            assert signals >= {Signal.PASSED}
