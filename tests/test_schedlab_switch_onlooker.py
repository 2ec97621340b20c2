from __future__ import annotations

from npuops.schedlab.switch_onlooker import BOOKED, SWITCH, WAKE, Onlooker
from npuops.schedlab.switch_trace import NOBODY, OTHERS, Event

CPU = 1
IDLE, APP, HOG, STRANGER = 0, 41, 42, 99
ASLEEP, RUNNABLE = 1, 0


def onlooker() -> Onlooker:
    return Onlooker({APP: 0, HOG: 1}, {CPU: 0}, CPU)


def test_who_leaves_and_who_comes_is_told_with_what_was_booked() -> None:
    seen = onlooker()
    assert seen.look(SWITCH[0], 10, (IDLE, RUNNABLE, APP)) == [(10, Event.SWITCH, 0, NOBODY, 0, 1, 0)]
    assert seen.look(BOOKED[0], 20, (APP, 25)) == []
    assert seen.look(SWITCH[0], 30, (APP, ASLEEP, HOG)) == [(30, Event.SWITCH, 0, 0, 1, 0, 25)]
    assert seen.look(SWITCH[0], 40, (HOG, RUNNABLE, STRANGER)) == [(40, Event.SWITCH, 0, 1, OTHERS, 1, 0)]
    assert seen.inferred == 0


def test_a_player_whose_coming_is_hidden_at_the_start_came_when_its_booked_time_began() -> None:
    seen = onlooker()
    seen.look(BOOKED[0], 95, (HOG, 60))
    assert seen.look(SWITCH[0], 100, (HOG, RUNNABLE, APP)) == [
        (40, Event.SWITCH, 0, NOBODY, 1, 0, 0),
        (100, Event.SWITCH, 0, 1, 0, 1, 60),
    ]
    assert seen.inferred == 1


def test_one_whose_coming_is_hidden_later_came_after_the_last_that_was_seen() -> None:
    seen = onlooker()
    seen.look(SWITCH[0], 10, (IDLE, RUNNABLE, STRANGER))
    seen.look(BOOKED[0], 95, (APP, 1000))
    assert seen.look(SWITCH[0], 100, (APP, ASLEEP, IDLE)) == [
        (10, Event.SWITCH, 0, OTHERS, 0, 1, 0),
        (100, Event.SWITCH, 0, 0, NOBODY, 0, 1000),
    ]
    assert seen.inferred == 1


def test_what_is_not_of_this_play_is_no_event() -> None:
    seen = onlooker()
    assert seen.look(SWITCH[0], 1, (STRANGER, RUNNABLE, STRANGER + 1)) == []
    assert seen.look(WAKE[0], 2, (STRANGER, CPU, APP, 0)) == []
    assert seen.look(WAKE[0], 3, (APP, CPU + 1, HOG, 0)) == [], "it wakes elsewhere"


def test_who_woke_somebody_is_told_unless_an_interrupt_did() -> None:
    seen = onlooker()
    assert seen.look(WAKE[0], 5, (APP, CPU, HOG, 0)) == [(5, Event.WAKE, 0, 0, 1, 0, 0)]
    assert seen.look(WAKE[0], 6, (APP, CPU, STRANGER, 0)) == [(6, Event.WAKE, 0, 0, OTHERS, 0, 0)]
    assert seen.look(WAKE[0], 7, (APP, CPU, HOG, 0x10)) == [(7, Event.WAKE, 0, 0, NOBODY, 0, 0)]
