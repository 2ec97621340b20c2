from pathlib import Path

import numpy as np
import pytest

from npuops.eevdf.setting import Setting
from npuops.errors import DataError, StorageError
from npuops.schedlab.switch_trace import NOBODY, OTHERS, Actor, Event, Play, SwitchTrace, read_trace, write_trace

ACTORS = tuple(Actor(name=name, session=0, setting=Setting(), group_nice=0, naps=False) for name in "AB")
PLAY = Play(
    mix="made",
    treatment="default",
    seed=0,
    actors=ACTORS,
    cpus=1,
    duration_ns=100,
    inferred=0,
    base_slice_ns=0,
    kernel="6.18",
    machine="made",
)
ROWS = [
    (10, Event.WAKE, 0, 0, NOBODY, 0, 0),
    (10, Event.SWITCH, 0, OTHERS, 0, 1, 0),
    (30, Event.WAKE, 0, 1, 0, 0, 0),
    (40, Event.SWITCH, 0, 0, 1, 1, 29),
    (70, Event.SWITCH, 0, 1, 0, 0, 30),
    (90, Event.SWITCH, 0, 0, NOBODY, 0, 20),
]


def made(rows: list[tuple[int, ...]] = ROWS) -> SwitchTrace:
    return SwitchTrace(PLAY, np.array(rows, np.int64).reshape(-1, 7))


def test_stretches_and_waits_follow_from_the_changes() -> None:
    assert made().stretches().tolist() == [
        [0, 10, 0, OTHERS, 1],
        [10, 40, 0, 0, 1],
        [40, 70, 0, 1, 0],
        [70, 90, 0, 0, 0],
        [90, 100, 0, NOBODY, 1],
    ]
    assert made().waits(0).tolist() == [[10, 10, 1], [40, 70, 0]]
    assert made().waits(1).tolist() == [[30, 40, 1]]


def test_a_kept_trace_is_read_as_it_was(tmp_path: Path) -> None:
    write_trace(made(), tmp_path / "a.npz")
    found = read_trace(tmp_path / "a.npz")
    assert found.play == PLAY
    assert found.events.tolist() == made().events.tolist()


def test_what_is_no_trace_or_contradicts_itself_is_refused(tmp_path: Path) -> None:
    write_trace(made(), tmp_path / "a.npz")
    whole = (tmp_path / "a.npz").read_bytes()
    for number in range(0, len(whole), 97):
        (tmp_path / "cut.npz").write_bytes(whole[:number])
        with pytest.raises(DataError):
            read_trace(tmp_path / "cut.npz")
    for rows in (ROWS[:3] + ROWS[4:], [(1, Event.WAKE, 0, 7, NOBODY, 0, 0)], [(1, Event.WAKE, 3, 0, NOBODY, 0, 0)]):
        write_trace(made(rows), tmp_path / "wrong.npz")
        with pytest.raises(DataError):
            read_trace(tmp_path / "wrong.npz")
    with pytest.raises(DataError):
        read_trace(tmp_path / "none.npz")
    with pytest.raises(StorageError):
        write_trace(made(), tmp_path / "no folder" / "a.npz")
