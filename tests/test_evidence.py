from __future__ import annotations

import pytest

from npuops.devices.evidence import STATUS, Canary, Verdict, evidence
from npuops.devices.health import Signal, State
from npuops.devices.quantities import Quantity, Reading
from npuops.devices.readings import Readings


def readings(status: str | None = None, absent: dict[Quantity, str] | None = None, **values: float) -> Readings:
    return Readings(
        values={Quantity[name]: Reading(value, "/file") for name, value in values.items()},
        absent=absent or {},
        status=status,
    )


def signals(before: Readings | None, now: Readings, state: State = State.HEALTHY) -> list[Signal]:
    return [each.signal for each in evidence(state, before, now)]


@pytest.mark.parametrize(
    ("counter", "signal"),
    [
        ("RESETS", Signal.RESET),
        ("SOFT_RESETS", Signal.RESET),
        ("THROTTLES", Signal.THROTTLING),
        ("CORRECTED", Signal.CORRECTED),
        ("UNCORRECTED", Signal.UNCORRECTED),
        ("UNCORRECTED_NONFATAL", Signal.UNCORRECTED),
        ("TRIPS", Signal.TRIPPED),
        ("CANARY_FAILURES", Signal.WRONG),
    ],
)
def test_a_counter_that_rises_is_a_signal_and_one_that_stands_is_quiet(counter: str, signal: Signal) -> None:
    assert signals(readings(**{counter: 2}), readings(**{counter: 5})) == [signal]
    assert signals(readings(**{counter: 5}), readings(**{counter: 5})) == [Signal.QUIET]


def test_what_was_counted_before_the_first_look_is_history() -> None:
    assert signals(None, readings(RESETS=40, UNCORRECTED=3), State.UNKNOWN) == [Signal.QUIET]


def test_a_counter_that_starts_over_is_a_restart() -> None:
    found = evidence(State.HEALTHY, readings(BUSY=900), readings(BUSY=1))
    assert [each.signal for each in found] == [Signal.RESET]
    assert "busy_seconds started over" in found[0].words


def test_a_counter_of_limited_width_that_wrapped_between_rare_looks_is_no_restart() -> None:
    def traffic(value: float) -> Readings:
        reading = Reading(value, "/telem", wraps_at=4.3e12)
        return Readings(values={Quantity.MEMORY_TRAFFIC: reading, Quantity.RESETS: Reading(0, "/r")}, absent={})

    assert signals(traffic(1e12), traffic(0.9e12)) == [Signal.QUIET]


def test_canaries_that_the_driver_counts_speak_like_those_that_are_handed_in() -> None:
    before = readings(CANARIES=10, CANARY_FAILURES=1)
    assert signals(before, readings(CANARIES=12, CANARY_FAILURES=1)) == [Signal.PASSED]
    assert signals(before, readings(CANARIES=12, CANARY_FAILURES=3)) == [Signal.WRONG]
    assert signals(before, readings(CANARIES=12, CANARY_FAILURES=2)) == [Signal.WRONG, Signal.PASSED]
    assert signals(before, before) == [Signal.QUIET]


def test_a_workload_whose_sub_system_crashed_is_a_reset() -> None:
    found = evidence(State.HEALTHY, None, readings(CHANNELS_CRASHED=1, CORRECTED=0))
    assert [(each.signal, each.words) for each in found] == [
        (Signal.RESET, "the sub-system of 1 workload crashed (/file)")
    ]


def test_all_that_is_wrong_is_said_at_once() -> None:
    found = signals(readings(RESETS=0, CORRECTED=0), readings("offline", RESETS=1, CORRECTED=9))
    assert found == [Signal.RESET, Signal.CORRECTED, Signal.OFFLINE]


def test_heat_is_left_only_five_degrees_below_the_limit() -> None:
    hot, warm, cool = (readings(TEMPERATURE=value, TEMPERATURE_THROTTLE=85.0) for value in (85.0, 82.0, 80.0))
    assert signals(None, hot) == [Signal.THROTTLING]
    assert signals(None, warm) == [Signal.QUIET]
    assert signals(None, warm, State.THROTTLED) == [Signal.THROTTLING]
    assert signals(None, cool, State.THROTTLED) == [Signal.QUIET]


def test_the_critical_temperature_is_a_trip() -> None:
    found = evidence(State.THROTTLED, None, readings(TEMPERATURE=116.2, TEMPERATURE_CRITICAL=115.0))
    assert [(each.signal, each.words) for each in found] == [
        (Signal.TRIPPED, "116.2 °C, critical temperature is 115 °C")
    ]


@pytest.mark.parametrize("word", STATUS)
def test_the_drivers_word_is_understood_in_any_case(word: str) -> None:
    for spelt in (word, word.upper(), word.title()):
        assert signals(None, readings(spelt)) == [STATUS[word]]


def test_a_word_that_no_table_has_is_no_signal() -> None:
    assert signals(None, readings("sideways", RESETS=0)) == [Signal.QUIET]
    assert signals(None, readings("sideways")) == [Signal.BLIND]


@pytest.mark.parametrize(
    ("verdict", "signal"),
    [(Verdict.PASSED, Signal.PASSED), (Verdict.WRONG, Signal.WRONG), (Verdict.TIMED_OUT, Signal.HANG)],
)
def test_a_canary_speaks_where_telemetry_is_blind(verdict: Verdict, signal: Signal) -> None:
    found = evidence(State.UNKNOWN, None, readings(), canary=Canary(verdict, "class 3, wanted 7"))
    assert [each.signal for each in found] == [signal]
    assert "class 3, wanted 7" in found[0].words


def test_a_blind_look_says_what_refused_to_answer() -> None:
    found = evidence(State.UNKNOWN, None, readings(absent={Quantity.RESETS: "reset_counter: permission denied"}))
    assert [each.signal for each in found] == [Signal.BLIND]
    assert "permission denied" in found[0].words
    assert "canary" in found[0].words
