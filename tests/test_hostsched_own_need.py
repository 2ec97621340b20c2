from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from npuops.hostsched.own_need import BEARABLE_US, FIRST_STAY_US, LONGEST_STAY_US, OwnNeed

LOOK_US = 100_000
TOP = 2


def test_short_waits_move_nothing() -> None:
    need = OwnNeed()
    assert {need.after(at * LOOK_US, BEARABLE_US, TOP) for at in range(1000)} == {0}


def test_one_long_wait_is_one_rung_and_one_more_is_the_next() -> None:
    need = OwnNeed()
    assert [need.after(at * LOOK_US, 100_000, TOP) for at in range(4)] == [1, 2, 2, 2]


def test_one_of_some_milliseconds_is_none_and_many_are() -> None:
    need = OwnNeed()
    assert need.after(0, 33_000, TOP) == 0
    assert [need.after(at * LOOK_US, 20_000, TOP) for at in range(1, 20)][-1] > 0


def test_it_comes_down_rung_by_rung_once_nothing_waits() -> None:
    need = OwnNeed()
    need.after(0, 100_000, TOP)
    need.after(LOOK_US, 100_000, TOP)
    places = [need.after(LOOK_US + at * FIRST_STAY_US, 0, TOP) for at in range(1, 4)]
    assert places == [1, 0, 0]


def stays(rounds: int, quiet_us: int) -> list[int]:
    """How long it stays up, if it is starved again so long after each time it came down."""
    need, now, found = OwnNeed(), 0, []
    for _ in range(rounds):
        assert need.after(now, 1_000_000, 1) == 1
        up = now
        while need.after(now, 0, 1) == 1:
            now += LOOK_US
        found.append(now - up)
        now += quiet_us
    return found


def test_whoever_starves_it_again_soon_has_it_stay_twice_as_long_up_to_a_limit() -> None:
    found = stays(8, LOOK_US)
    assert found[:3] == [FIRST_STAY_US, 2 * FIRST_STAY_US, 4 * FIRST_STAY_US]
    assert max(found) == LONGEST_STAY_US


def test_whoever_starves_it_again_much_later_begins_anew() -> None:
    assert set(stays(5, 3 * FIRST_STAY_US)) == {FIRST_STAY_US}


def test_a_rung_that_is_gone_is_left() -> None:
    need = OwnNeed()
    need.after(0, 1_000_000, TOP)
    assert need.after(1, 0, 0) == 0


@given(
    waits=st.lists(st.tuples(st.integers(0, 10_000_000), st.integers(-5, 2_000_000), st.integers(0, TOP)), max_size=60)
)
def test_it_moves_one_rung_at_a_time_within_the_ladder(waits: list[tuple[int, int, int]]) -> None:
    need, now, before, highest_before = OwnNeed(), 0, 0, TOP
    for step_us, waited_us, drawn in waits:
        now, highest = now + step_us, min(drawn, highest_before)  # a rung that was refused is gone for good
        rung = need.after(now, waited_us, highest)
        assert 0 <= rung <= highest
        assert abs(rung - before) <= 1 or highest < highest_before
        assert rung <= before or waited_us > 0
        before, highest_before = rung, highest
