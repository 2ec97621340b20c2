"""What was played stays played: through interruptions, torn lines and full disks."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from made_plays import made_head, made_plays, made_program_plays
from npuops.errors import DataError, OptionError, StorageError
from npuops.schedlab.play_log import new_log, open_log
from npuops.schedlab.played import AnyPlayed

PLAYS = made_plays("default")


def plays_in(path: Path) -> list[AnyPlayed]:
    with open_log(path) as log:
        return [*log.plays.values()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "out" / "plays.jsonl"
    with new_log(path, made_head()) as log:
        for played in PLAYS:
            log.append(played)
    return path


def test_what_was_appended_is_read_again(path: Path) -> None:
    with open_log(path) as log:
        assert (log.head, [*log.plays.values()]) == (made_head(), PLAYS)


def test_plays_of_mixes_and_of_programs_stand_side_by_side(path: Path) -> None:
    theirs = made_program_plays("default")
    with open_log(path) as log:
        for played in theirs:
            log.append(played)
    assert plays_in(path) == [*PLAYS, *theirs]
    with open_log(path) as log:
        assert (log.mixes, log.programs) == (PLAYS, theirs)


def test_a_log_of_before_plays_had_their_fields_in_this_order_is_still_read(path: Path) -> None:
    """As those were written that the published figures are from."""
    head = (
        b'{"schema":"npuops.hostsched.experiment/1","on":"kernel","seed":1,"quick":false,"kernel":"6.18","cpus":2,'
        b'"version":"0","began_unix_us":1,"calibration":null,"statics":{},"statics_here":{},"control_share":0.0}\n'
    )
    mix = b'{"mix":"crowd","label":"learned","repeat":1,"tries":0,"outcome":null,"skipped":"none","failed":""}\n'
    load = (
        b'{"load":"redis-build","label":"default","repeat":0,"tries":1,"outcome":null,"skipped":"","failed":"fell"}\n'
    )
    path.write_bytes(head + mix + load)
    with open_log(path) as log:
        assert log.head.contents is None
    assert [(one.key, one.skipped, one.failed) for one in plays_in(path)] == [
        (("crowd", "learned", 1), "none", ""),
        (("redis-build", "default", 0), "", "fell"),
    ]


@pytest.mark.parametrize("lost", [1, 2, 100])
def test_a_torn_last_line_is_taken_back_and_the_rest_stays(path: Path, lost: int) -> None:
    os.truncate(path, path.stat().st_size - lost)
    assert plays_in(path) == PLAYS[:-1]
    with open_log(path) as log:
        log.append(PLAYS[-1])
    assert plays_in(path) == PLAYS


def test_a_log_is_never_begun_over_another(path: Path) -> None:
    with pytest.raises(OptionError, match="has plays already"):
        new_log(path, made_head())
    assert plays_in(path) == PLAYS


def test_a_damaged_line_in_the_middle_is_told_by_its_number(path: Path) -> None:
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(b"".join([*lines[:2], b'{"mix": 7}\n', *lines[3:]]))
    with pytest.raises(DataError, match="line 3"):
        open_log(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[]\n", b'{"schema": "x"}\n', b"\xff\n"])
def test_what_is_no_log_is_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "plays.jsonl"
    path.write_bytes(content)
    with pytest.raises(DataError):
        open_log(path)


def test_another_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "plays.jsonl"
    new_log(path, made_head(schema="other/9")).__exit__(None, None, None)
    with pytest.raises(DataError, match="other/9"):
        open_log(path)


def test_a_log_that_is_not_there_cannot_be_gone_on_with(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        open_log(tmp_path / "nothing")


def test_a_play_for_which_there_is_no_room_leaves_the_log_whole(path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    before = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    with open_log(path) as log:
        resource.setrlimit(resource.RLIMIT_FSIZE, (path.stat().st_size + 20, hard))
        try:
            with pytest.raises(StorageError, match="cannot be written"):
                log.append(PLAYS[0])
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
            signal.signal(signal.SIGXFSZ, before)
    assert plays_in(path) == PLAYS
