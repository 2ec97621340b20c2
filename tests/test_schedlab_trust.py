"""How far a network is followed: as far as playing shows that it pays, and never at the price of many late answers."""

from __future__ import annotations

from npuops.hostsched.objective import Trust
from npuops.schedlab.lessons import lesson
from npuops.schedlab.trust import TRUSTS, Followed, best_trust, lessons_for_trust

BOLD, SHY = TRUSTS[0], TRUSTS[-1]


def test_the_trust_that_is_worth_most_is_taken_if_it_answers_as_much_in_time_as_the_rule() -> None:
    rule = Followed(worth=-0.3, in_time=0.9)
    found = {None: rule, BOLD: Followed(worth=-0.1, in_time=0.91), SHY: Followed(worth=-0.2, in_time=0.99)}
    assert best_trust(found) == BOLD
    found[BOLD] = Followed(worth=-0.1, in_time=0.85)
    assert best_trust(found) == SHY


def test_if_none_answers_as_much_in_time_the_one_that_answers_most_is_taken() -> None:
    found: dict[Trust | None, Followed] = {None: Followed(worth=-0.3, in_time=0.9)}
    found |= {BOLD: Followed(worth=-0.1, in_time=0.5), SHY: Followed(worth=-0.9, in_time=0.8)}
    assert best_trust(found) == SHY


def test_lessons_are_those_in_which_everybody_tells_or_nobody() -> None:
    told, untold = (lessons_for_trust(600_000, 5, told=told) for told in (True, False))
    assert not set(told) & set(untold)
    for number in told:
        assert len(lesson(number).telling) == len(lesson(number).mix.players)
    assert not any(lesson(number).telling for number in untold)
