"""A recording belongs to its mix."""

from __future__ import annotations

import numpy as np
import pytest

from npuops.eevdf.mix import Activity, Doing, Mix, Player
from npuops.errors import DataError
from npuops.schedlab.recording import Origin, Record, Recording

MIX = Mix("m", (1000, 1000), (Player("A", (Activity(Doing.COMPUTE),) * 2),))


def record(name: str = "A", phases: int = 2, done: int = 0) -> Record:
    column = np.zeros(phases, np.int64)
    return Record(name, np.zeros(0, np.int64), np.zeros(done, np.int64), column * 1.0, column, column, column)


def recording(*records: Record) -> Recording:
    return Recording(MIX, 0, Origin.SIMULATOR, records, None, 10_000, np.zeros((1, 0)))


def test_a_record_is_found_by_the_players_name() -> None:
    one = record()
    assert recording(one).of("A") is one
    with pytest.raises(DataError, match="'B'"):
        recording(one).of("B")


@pytest.mark.parametrize("records", [(), (record("B"),), (record(), record()), (record(phases=3),), (record(done=1),)])
def test_records_that_do_not_fit_the_mix_are_refused(records: tuple[Record, ...]) -> None:
    with pytest.raises(DataError):
        recording(*records)
