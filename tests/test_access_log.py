"""The access log writes every record, follows logrotate, and gives way to a full disk instead of the server."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from npuops.errors import StorageError
from npuops.telemetry.access_log import PENDING, AccessLog
from npuops.telemetry.access_record import AccessRecord

LONG_REST_S = 60.0
"""Longer than a test: only a flush, a reopening or the end makes the writer write."""


def record(number: int) -> AccessRecord:
    return AccessRecord(unix_us=number, duration_us=1, protocol="http", request_id=str(number))


def numbers(path: Path) -> list[int]:
    return [int(json.loads(line)["npuops.request.id"]) for line in path.read_text(encoding="utf-8").splitlines()]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "access.jsonl"


@pytest.fixture
def log(path: Path) -> Iterator[AccessLog]:
    made = AccessLog(str(path), rest_s=LONG_REST_S)
    yield made
    made.close()


def test_every_record_is_written_in_order(log: AccessLog, path: Path) -> None:
    for number in range(5000):
        log.log(record(number))
    assert log.flush()
    assert numbers(path) == list(range(5000))
    assert log.dropped == 0


def test_the_end_writes_the_rest_and_may_come_twice(log: AccessLog, path: Path) -> None:
    log.log(record(1))
    log.close()
    log.close()
    assert numbers(path) == [1]


def test_the_writer_writes_by_itself(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(pipe), rest_s=0.001)
    log.log(record(1))
    os.set_blocking(reader, True)
    assert json.loads(os.read(reader, 65536))["npuops.request.id"] == "1"
    log.close()
    os.close(reader)


@pytest.mark.parametrize("how", ["rename", "delete"])
def test_a_file_that_was_moved_away_is_begun_anew(log: AccessLog, path: Path, how: str) -> None:
    log.log(record(1))
    assert log.flush()
    old = path.with_suffix(".1")
    path.rename(old) if how == "rename" else path.unlink()
    log.log(record(2))
    assert log.flush()
    assert numbers(path) == [2]
    if how == "rename":
        assert numbers(old) == [1]


def test_what_was_logged_before_a_reopening_is_in_the_old_file_if_nothing_was_moved_it_goes_on(
    log: AccessLog, path: Path
) -> None:
    log.log(record(1))
    log.reopen()
    log.log(record(2))
    assert log.flush()
    assert numbers(path) == [1, 2]


def test_a_folder_that_is_gone_keeps_the_old_file_open(tmp_path: Path) -> None:
    folder, moved = tmp_path / "logs", tmp_path / "moved"
    folder.mkdir()
    log = AccessLog(str(folder / "access.jsonl"), rest_s=LONG_REST_S)
    log.log(record(1))
    assert log.flush()
    folder.rename(moved)
    log.log(record(2))
    assert log.flush()
    log.close()
    assert numbers(moved / "access.jsonl") == [1, 2]
    assert log.dropped == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this kernel has no /dev/full")
def test_a_full_disk_drops_and_counts_and_the_server_goes_on() -> None:
    log = AccessLog("/dev/full", rest_s=LONG_REST_S)
    for number in range(3000):
        log.log(record(number))
    assert log.flush()
    assert log.dropped == 3000
    log.log(record(1))
    log.close()
    assert log.dropped == 3001


def test_a_line_that_was_cut_is_ended_before_the_next(path: Path) -> None:
    """A limit on the size of files cuts the write in the middle of a line, as a disk that fills up does."""
    program = f"""
import json, resource, signal
from npuops.telemetry.access_log import AccessLog
from npuops.telemetry.access_record import AccessRecord
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, resource.RLIM_INFINITY))
log = AccessLog({str(path)!r}, rest_s=60.0)
for number in range(100):
    log.log(AccessRecord(unix_us=0, duration_us=1, protocol="http", request_id=str(number)))
log.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
log.log(AccessRecord(unix_us=0, duration_us=1, protocol="http", request_id="7777"))
log.close()
print(log.dropped)
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    *whole, cut, last = path.read_text(encoding="utf-8").splitlines()
    assert json.loads(last)["npuops.request.id"] == "7777"
    assert [int(json.loads(line)["npuops.request.id"]) for line in whole] == list(range(len(whole)))
    with pytest.raises(json.JSONDecodeError):
        json.loads(cut)
    assert int(done.stdout) == 100 - len(whole)


def test_a_disk_that_is_too_slow_drops_instead_of_filling_the_memory(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    reader = os.open(pipe, os.O_RDONLY | os.O_NONBLOCK)
    log = AccessLog(str(pipe), rest_s=0.0)
    one = record(1)
    while not log.dropped:  # nobody reads: the pipe fills up, the writer waits, then the queue is full
        log.log(one)
    assert len(log._records) <= PENDING
    os.close(reader)  # the waiting write fails now, so the end comes
    log.close()


def test_standard_output_is_a_destination() -> None:
    program = """
from npuops.telemetry.access_log import AccessLog
from npuops.telemetry.access_record import AccessRecord
log = AccessLog("-")
log.log(AccessRecord(unix_us=0, duration_us=1, protocol="http"))
log.close()
print("still open")
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    first, second = done.stdout.splitlines()
    assert json.loads(first)["network.protocol.name"] == "http"
    assert second == "still open"


def test_a_folder_that_does_not_exist_is_told_at_once(tmp_path: Path) -> None:
    with pytest.raises(StorageError) as caught:
        AccessLog(str(tmp_path / "nowhere" / "access.jsonl"))
    assert caught.value.advice
