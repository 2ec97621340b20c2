from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from npuops.errors import OptionError
from npuops.server.http2_frames import Http2Error
from npuops.server.http2_streams import Budget, Http2Limits, Remainder, StreamTable


@pytest.mark.parametrize("wrong", [{"frame_bytes": 100}, {"stream_window": 0}, {"connection_window": 1000}])
def test_limits_that_the_protocol_has_no_numbers_for_are_refused(wrong: dict[str, int]) -> None:
    with pytest.raises(OptionError):
        Http2Limits(**wrong)


def test_a_budget_comes_back_with_time_and_with_answers() -> None:
    budget = Budget(burst=2, refill=1)
    budget.spend("PING")
    budget.spend("PING")
    budget.earn()
    budget.refill()
    budget.spend("PING")
    budget.spend("PING")
    with pytest.raises(Http2Error, match="PING"):
        budget.spend("PING")


def test_a_budget_does_not_grow_beyond_its_burst() -> None:
    budget = Budget(burst=1, refill=100)
    for _ in range(5):
        budget.refill()
        budget.earn()
    budget.spend("PING")
    with pytest.raises(Http2Error):
        budget.spend("PING")


def test_numbers_that_were_left_out_are_remembered_and_so_are_resets() -> None:
    table = StreamTable()
    for number in (1, 3, 9):
        table.advance(number)
    table.remember_reset(3)
    assert [number for number in range(10) if table.was_left_out(number)] == [0, 4, 5, 6, 7, 8]
    assert (table.was_reset(3), table.was_reset(1), table.last_id) == (True, False, 9)


def test_what_is_remembered_is_bounded() -> None:
    table = StreamTable()
    for number in range(1, 100_000, 6):
        table.advance(number)
        table.remember_reset(number)
    assert len(table._gaps) <= 64
    assert len(table._resets) <= 1024


@given(st.lists(st.binary(min_size=1, max_size=9), min_size=1), st.integers(1, 50))
def test_a_remainder_is_given_back_when_it_is_enough(pieces: list[bytes], wanted: int) -> None:
    rest = Remainder()
    rest.keep(pieces[0], wanted)
    for count, piece in enumerate(pieces[1:], start=2):
        whole = rest.complete(piece)
        assert whole == (b"".join(pieces[:count]) if whole else b"")
        assert bool(whole) == (len(b"".join(pieces[:count])) >= wanted)
        if whole:
            assert rest.size == 0
            return
