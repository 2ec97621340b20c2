from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.runtime.replica_states import NEXT, Happening, State, after


def test_a_missing_pair_is_an_error() -> None:
    with pytest.raises(LookupError, match="no way leads from stopped by opened"):
        after(State.STOPPED, Happening.OPENED)


def test_the_usual_life() -> None:
    state = State.STOPPED
    for happening, wanted in [
        (Happening.STARTED, State.STARTING),
        (Happening.OPENED, State.READY),
        (Happening.LOST, State.SICK),
        (Happening.STARTED, State.PROBING),
        (Happening.FAILED, State.SICK),
        (Happening.STARTED, State.PROBING),
        (Happening.OPENED, State.READY),
        (Happening.DRAINED, State.DRAINING),
        (Happening.STOPPED, State.STOPPED),
    ]:
        state = after(state, happening)
        assert state is wanted


@pytest.mark.parametrize("state", State)
def test_every_state_can_be_stopped_and_drained(state: State) -> None:
    assert after(state, Happening.STOPPED) is State.STOPPED
    assert after(state, Happening.DRAINED) in {State.DRAINING, State.STOPPED}


@pytest.mark.parametrize("state", sorted(set(State) - {State.STOPPED}))
def test_the_end_of_a_worker_is_told_from_every_state_that_has_one(state: State) -> None:
    assert after(state, Happening.LOST) in {State.SICK, State.STOPPED}


def test_only_a_warm_worker_makes_a_device_ready() -> None:
    ways = {(state, happening) for (state, happening), to in NEXT.items() if to is State.READY}
    assert ways == {(State.STARTING, Happening.OPENED), (State.PROBING, Happening.OPENED)}


@given(st.lists(st.sampled_from(Happening), max_size=30))
def test_what_drains_or_was_sick_never_goes_straight_back_to_work(happenings: list[Happening]) -> None:
    state = State.STOPPED
    for happening in happenings:
        if (state, happening) not in NEXT:
            continue
        before, state = state, after(state, happening)
        if before in {State.SICK, State.DRAINING, State.STOPPED}:
            assert state is not State.READY
        if before is State.DRAINING:
            assert state in {State.DRAINING, State.STOPPED}
