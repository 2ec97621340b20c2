from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import OptionError
from npuops.server.version_policy import (
    All,
    Latest,
    Listed,
    VersionRule,
    default_version,
    in_order,
    keeps_all,
    kept,
    read_rule,
    ready,
    stand_in,
    wanted,
)

VERSIONS = st.sets(st.integers(0, 30).map(str), max_size=6)


def test_versions_are_ordered_by_number_not_by_text() -> None:
    assert in_order({"10", "9", "100", "1"}) == ["1", "9", "10", "100"]
    assert default_version({"9", "10"}) == "10"


@pytest.mark.parametrize(
    ("words", "rule"),
    [("latest", Latest(1)), ("latest 3", Latest(3)), ("all", All()), (["1", "7"], Listed(("1", "7")))],
)
def test_a_rule_is_read_from_words_or_a_list(words: str | list[str], rule: object) -> None:
    assert read_rule(words) == rule


@pytest.mark.parametrize(
    "words",
    ["", "newest", "latest 0", "latest -1", "latest two", "latest ٣", "all 2", [], ["01"], ["v1"], ["-1"], [""]],
)
def test_anything_else_is_refused(words: str | list[str]) -> None:
    with pytest.raises(OptionError):
        read_rule(words)


@pytest.mark.parametrize(
    ("rule", "loaded"),
    [
        (Latest(1), {"12", "13"}),
        (Latest(2), {"12", "3", "13"}),
        (All(), {"1", "2", "3", "12", "13"}),
        (Listed(("2", "99")), {"2", "13"}),
    ],
)
def test_the_rule_chooses_among_stable_versions_and_canaries_come_besides(rule: Latest, loaded: set[str]) -> None:
    assert wanted(rule, ["1", "2", "3", "12", "13"], canary=["13", "14"]) == loaded


@given(able=VERSIONS, canary=VERSIONS)
def test_the_default_is_the_highest_stable_version_that_can_answer(able: set[str], canary: set[str]) -> None:
    stable = {int(version) for version in able - canary}
    assert default_version(able, canary) == (str(max(stable)) if stable else None)


@given(held=VERSIONS, want=VERSIONS, able=VERSIONS, canary=VERSIONS)
def test_an_old_version_stays_exactly_until_a_stable_wanted_one_can_answer(
    held: set[str], want: set[str], able: set[str], canary: set[str]
) -> None:
    staying = kept(held, want, able, canary)
    assert staying <= held - want
    stable = want - canary
    assert bool(staying) == bool(held - want - canary and stable and not stable & able)


def test_before_the_first_readiness_every_stable_version_counts_and_no_canary() -> None:
    assert not ready({"1": True, "2": False}, proven=["1"], started=False)
    assert ready({"1": True, "2": False}, proven=["1"], canary=["2"], started=False)
    assert ready({}, proven=[], started=False)


def test_afterwards_a_new_version_that_fails_counts_no_more_but_one_that_was_lost_does() -> None:
    assert ready({"1": True, "2": False}, proven=["1"], started=True)
    assert not ready({"1": False, "2": False}, proven=["1"], started=True)


@pytest.mark.parametrize(
    ("rule", "available", "answer"),
    [
        (Listed(("9",)), {"1", "2"}, True),
        (Listed(("1", "9")), {"1", "2"}, False),
        (Listed(("9",)), {"7"}, False),
        (Listed(("9",)), set(), False),
        (Latest(), {"1"}, False),
    ],
)
def test_a_list_of_which_nothing_is_there_moves_nothing(rule: VersionRule, available: set[str], answer: bool) -> None:
    assert keeps_all(rule, available, canary={"7"}) is answer


@pytest.mark.parametrize(
    ("rule", "failed", "answer"),
    [
        (Latest(), {"4"}, "2"),
        (Latest(), {"4", "2"}, "1"),
        (Latest(), {"4", "2", "1"}, None),
        (Latest(), set(), None),
        (Latest(), {"2"}, None),
        (Latest(2), {"4"}, None),
        (Latest(2), {"4", "2"}, "1"),
        (All(), {"4"}, None),
        (Listed(("4",)), {"4"}, None),
    ],
)
def test_the_highest_sound_version_stands_in_where_all_of_the_latest_failed(
    rule: VersionRule, failed: set[str], answer: str | None
) -> None:
    assert stand_in(rule, {"1", "2", "3", "4"}, failed, canary={"3"}) == answer
