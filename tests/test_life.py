"""The life of a device is its table, and nothing outside of it."""

from __future__ import annotations

import pytest

from npuops.errors import DeviceError
from npuops.vnpu.life import NEXT, STATUS, Life, Signal, next_life


@pytest.mark.parametrize("state", Life)
def test_from_everywhere_a_way_leads_back_to_ready(state: Life) -> None:
    reached, todo = {state}, [state]
    for here in todo:
        new = {after for (before, _), after in NEXT.items() if before is here} - reached
        reached |= new
        todo += new
    assert Life.READY in reached


def test_out_of_a_hang_leads_no_boot_and_no_waiting() -> None:
    assert {signal for state, signal in NEXT if state is Life.HUNG} == {
        Signal.RESET,
        Signal.TRIP,
        Signal.OFFLINE,
        Signal.CRASH,
    }


def test_every_state_can_be_reset_and_has_a_word_for_the_tree() -> None:
    assert all((state, Signal.RESET) in NEXT for state in Life)
    assert set(STATUS) == set(Life)
    assert set(STATUS.values()) == {"online", "offline", "resetting", "hung"}


def test_a_missing_pair_is_an_error() -> None:
    with pytest.raises(DeviceError, match="off cannot take 'hang'"):
        next_life(Life.OFF, Signal.HANG)
