from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.devices.failure_modes import Mode
from npuops.devices.quantities import MEANINGS, Kind, Quantity, Reading, believed
from npuops.devices.readings import Readings
from npuops.devices.suspicions import Look, gone, history, suspicions
from npuops.devices.tenants import Tenant

REST = dict.fromkeys((quantity for quantity in Quantity if MEANINGS[quantity].kind is Kind.COUNTER), 100.0) | {
    Quantity.TEMPERATURE: 40.0,
    Quantity.TEMPERATURE_THROTTLE: 85.0,
    Quantity.TEMPERATURE_CRITICAL: 105.0,
    Quantity.MEMORY_USED: 90.0,
    Quantity.MEMORY_TOTAL: 100.0,
    Quantity.CHANNELS_CRASHED: 0.0,
}
"""A device with every counter there is."""


def look(status: str | None = "online", tenants: tuple[Tenant, ...] = (), **values: float) -> Look:
    found = REST | {Quantity[name]: value for name, value in values.items()}
    readings = {quantity: Reading(value, "/file") for quantity, value in found.items()}
    return Look(taken_us=0, readings=Readings(values=readings, absent={}, status=status), tenants=tenants)


def modes(*looks: Look) -> list[str]:
    return [each.mode.value for each in suspicions(looks)]


def said(*looks: Look) -> tuple[str, ...]:
    (only,) = suspicions(looks)
    return only.evidence


@pytest.mark.parametrize(
    ("after", "mode"),
    [
        ({"RESETS": 101}, "F1"),
        ({"SOFT_RESETS": 101}, "F1"),
        ({"TRIPS": 101}, "F1"),
        ({"UNCORRECTED": 101}, "F1"),
        ({"UNCORRECTED_NONFATAL": 101}, "F1"),
        ({"CHANNELS_CRASHED": 1}, "F1"),
        ({"BUSY": 1}, "F1"),
        ({"THROTTLES": 101}, "F2"),
        ({"TEMPERATURE": 85.0}, "F2"),
        ({"REFUSED_MEMORY": 101}, "F4"),
        ({"REFUSED_OPERATOR": 101}, "F5"),
        ({"REFUSED_VERSION": 101}, "F6"),
    ],
)
def test_one_sign_speaks_for_one_mode(after: dict[str, float], mode: str) -> None:
    assert modes(look(), look(**after)) == [mode]


@pytest.mark.parametrize("after", [{}, {"CORRECTED": 900}, {"INFERENCES": 900, "ENERGY": 900}, {"CANARIES": 900}])
def test_what_is_well_or_wear_speaks_for_none(after: dict[str, float]) -> None:
    assert modes(look(), look(**after)) == []


@pytest.mark.parametrize("status", ["offline", "Needs reset", "hung", "in reset", "DEAD"])
def test_a_status_that_is_not_well_is_the_device_offline(status: str) -> None:
    assert modes(look(status)) == ["F1"]
    assert modes(look(), look(status)) == ["F1"]


def test_a_reset_by_command_is_no_failure_and_hides_none_beside_it() -> None:
    ordered = {"RESETS": 101, "COMMANDED_RESETS": 101}
    assert modes(look(), look(**ordered)) == []
    assert modes(look(), look("resetting", **ordered)) == []
    assert modes(look(), look("offline", **ordered)) == ["F1"]
    assert said(look(), look("resetting", RESETS=102, COMMANDED_RESETS=101)) == (
        "the driver says 'resetting'",
        "1 reset",
    )
    assert modes(look(), look(UNCORRECTED=101, **ordered)) == ["F1"]
    assert modes(look(), look(COMMANDED_RESETS=101), look(**ordered)) == [], "files are written one after the other"


def test_files_of_a_dead_device_speak_for_nothing_else() -> None:
    dead = Look(taken_us=0, readings=Readings(values={}, absent={}, dead="it ended"))
    assert said(look(), dead) == ("it ended",)
    assert history(dead) == ()
    assert modes(look(), dead, look()) == []


def test_a_wrong_canary_that_is_seen_before_its_run_is_counted() -> None:
    story = [
        look(CANARIES=5, CANARY_FAILURES=0),
        look(CANARIES=6, CANARY_FAILURES=0),
        look(CANARIES=6, CANARY_FAILURES=1),
    ]
    assert modes(*story) == ["F3", "F8"]


def test_a_trip_is_a_device_offline_and_no_throttling() -> None:
    assert modes(look(), look("offline", TRIPS=101, THROTTLES=104, TEMPERATURE=105.0)) == ["F1"]


def test_a_boot_that_was_refused_for_a_version_is_no_device_offline_unless_more_is_wrong() -> None:
    assert modes(look(), look("offline", REFUSED_VERSION=101, RESETS=101)) == ["F6"]
    assert modes(look(), look("offline", REFUSED_VERSION=101, UNCORRECTED=101)) == ["F1", "F6"]
    assert modes(look(), look("offline", RESETS=101), look("online", REFUSED_VERSION=101, RESETS=101)) == ["F1", "F6"]


def canaries(*story: tuple[int, int]) -> list[Look]:
    """Looks between which so many canaries ran, and so many of them came out wrong."""
    runs, wrong, looks = 0, 0, [look(CANARIES=0, CANARY_FAILURES=0)]
    for ran, failed in story:
        runs, wrong = runs + ran, wrong + failed
        looks.append(look(CANARIES=runs, CANARY_FAILURES=wrong))
    return looks


@pytest.mark.parametrize(
    ("story", "found"),
    [
        ([(5, 0), (5, 0)], []),
        ([(1, 1)], ["F3", "F8"]),
        ([(5, 0), (5, 2)], ["F3", "F8"]),
        ([(5, 0), (0, 0), (1, 1), (0, 0), (1, 1), (1, 1)], ["F3"]),
        ([(5, 0), (5, 2), (5, 5), (5, 5)], ["F3"]),
        ([(3, 3)], ["F3"]),
        ([(5, 0), (5, 2), (5, 0)], ["F8"]),
        ([(5, 2), (5, 1)], ["F8"]),
        ([(1, 0), (1, 1), (1, 0), (1, 0), (1, 1)], ["F8"]),
        ([(5, 0), (5, 5), (5, 5), (5, 0), (5, 0)], []),
        ([(5, 5), (5, 5), (5, 0), (5, 2), (5, 0)], ["F8"]),
    ],
)
def test_all_wrong_from_some_moment_on_is_accuracy_and_wrong_now_and_then_is_firmware(
    story: list[tuple[int, int]], found: list[str]
) -> None:
    assert modes(*canaries(*story)) == found


def test_wrong_answers_beside_broken_memory_are_the_memorys() -> None:
    before, after = canaries((5, 5))
    values = {**after.readings.values, Quantity.UNCORRECTED: Reading(101, "/file")}
    assert modes(before, replace(after, readings=replace(after.readings, values=values))) == ["F1"]


def tenant(client: str, busy_s: float, wait_s: float | None) -> Tenant:
    return Tenant(client=client, pid=int(client), busy_seconds=busy_s, wait_seconds=wait_s)


@pytest.mark.parametrize(
    ("loud", "other", "found"),
    [
        ((0.80, 0.0), (0.10, 0.50), True),
        ((0.80, 0.0), (0.00, 0.90), True),
        ((0.80, 0.0), (0.10, 0.04), False),  # it hardly waits
        ((0.50, 0.5), (0.50, 0.50), False),  # two that want everything
        ((0.60, 0.0), (0.40, 0.30), False),  # no more than two thirds
        ((0.80, 0.0), (0.10, None), False),  # a driver that does not say who waits
        ((0.00, 0.0), (0.00, 0.90), False),  # a device that hangs is nobody's neighbour
    ],
)
def test_a_neighbour_is_noisy_when_it_has_most_and_somebody_waits(
    loud: tuple[float, float], other: tuple[float, float | None], found: bool
) -> None:
    before = look(tenants=(tenant("1", 7.0, 3.0), tenant("2", 7.0, None if other[1] is None else 3.0)))
    waited = None if other[1] is None else 3.0 + other[1]
    after = look(tenants=(tenant("1", 7.0 + loud[0], 3.0 + loud[1]), tenant("2", 7.0 + other[0], waited)))
    assert modes(before, after) == (["F7"] if found else [])


def test_the_neighbour_and_its_victim_are_named() -> None:
    before = look(tenants=(tenant("1", 0, 0),))
    after = look(tenants=(tenant("1", 0.1, 0.5), tenant("2", 0.8, 0.1)))
    assert said(before, after) == (
        "client 2 (process 2) has 89% of the busy time",
        "client 1 (process 1) waited 0.50 s and worked 0.10 s",
    )


def test_history_is_what_the_counters_have_counted_and_not_what_is_now() -> None:
    now = look("offline", TEMPERATURE=99.0, CHANNELS_CRASHED=1, **dict.fromkeys(COUNTERS, 0))
    assert history(now) == ()
    assert [(each.mode, each.evidence) for each in history(look(**{**dict.fromkeys(COUNTERS, 0), "RESETS": 2}))] == [
        (Mode.OFFLINE, ("2 resets",))
    ]


COUNTERS = [quantity.name for quantity in Quantity if MEANINGS[quantity].kind is Kind.COUNTER]


def test_a_device_that_is_gone_is_offline() -> None:
    assert [(each.mode, each.evidence) for each in gone("it left")] == [(Mode.OFFLINE, ("it left",))]


VALUES = st.dictionaries(st.sampled_from(Quantity), st.floats(0, 1e6))
TENANTS = st.builds(
    Tenant,
    client=st.sampled_from("ab"),
    pid=st.sampled_from([None, 0, 1]),
    busy_seconds=st.none() | st.floats(0, 1e6),
    wait_seconds=st.none() | st.floats(0, 1e6),
)


@given(
    st.lists(
        st.tuples(VALUES, st.sampled_from([None, "", "online", "hung"]), st.lists(TENANTS, max_size=3)), min_size=1
    )
)
def test_no_looks_make_it_throw_and_every_suspicion_has_evidence(
    made: list[tuple[dict[Quantity, float], str | None, list[Tenant]]],
) -> None:
    looks = []
    for values, status, tenants in made:
        readings = {
            key: found for key, value in values.items() if isinstance(found := believed(key, value, "/f"), Reading)
        }
        looks.append(
            Look(taken_us=0, readings=Readings(values=readings, absent={}, status=status), tenants=tuple(tenants))
        )
    for each in (*suspicions(looks), *history(looks[-1])):
        assert each.evidence
        assert all(each.evidence)
