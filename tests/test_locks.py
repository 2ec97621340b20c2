from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from npuops.artifacts.locks import alone_in, held, release, try_lock
from npuops.clock import SystemClock
from npuops.errors import StorageError
from npuops.events import Event, StepStarted, ignore
from npuops.testing import EventLog, ManualClock

HOLD = """
import pathlib, sys
from npuops.artifacts.locks import try_lock
assert try_lock(pathlib.Path(sys.argv[1])) is not None
print("held", flush=True)
sys.stdin.read()
"""


def holder(path: Path) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", HOLD, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_lock_is_held_once_and_its_file_vanishes_when_it_is_free(tmp_path: Path):
    path = tmp_path / "k.lock"
    with held(path, timeout_s=0, clock=ManualClock(), observe=ignore):
        assert try_lock(path) is None
    assert list(tmp_path.iterdir()) == []


def test_who_waits_says_so_once_and_for_whom_and_gives_up_in_time(tmp_path: Path):
    path, clock, events = tmp_path / "k.lock", ManualClock(), EventLog()
    with holder(path) as process:
        with (
            pytest.raises(StorageError, match=f"process {process.pid} has held .* longer than 5 s") as caught,
            held(path, timeout_s=5, clock=clock, observe=events),
        ):
            pass
        assert "end it if it hangs" in caught.value.advice
        process.kill()
    assert clock.now_us() == 5_000_000
    assert events.events == [
        StepStarted(step="cache", detail=f"waiting for process {process.pid}, which works on the same thing")
    ]


def test_the_lock_of_a_process_that_was_killed_is_free(tmp_path: Path):
    path = tmp_path / "k.lock"
    with holder(path) as process:
        process.kill()
    assert path.exists()
    with held(path, timeout_s=0, clock=ManualClock(), observe=ignore):
        pass


def test_a_waiting_process_gets_the_lock_as_soon_as_it_is_free(tmp_path: Path):
    path = tmp_path / "k.lock"
    with holder(path) as process:
        assert process.stdin is not None
        told = list[Event]()

        def observe(event: Event) -> None:
            told.append(event)
            process.kill()

        with held(path, timeout_s=60, clock=SystemClock(), observe=observe):
            assert len(told) == 1


def test_a_lock_on_a_file_that_its_holder_removed_does_not_count(tmp_path: Path):
    path = tmp_path / "k.lock"
    first = try_lock(path)
    assert first is not None
    path.unlink()
    second = try_lock(path)
    assert second is not None
    release(path, first)
    assert try_lock(path) is not None


def test_the_lock_is_free_again_after_an_error_inside(tmp_path: Path):
    path = tmp_path / "k.lock"
    with pytest.raises(ZeroDivisionError), held(path, timeout_s=0, clock=ManualClock(), observe=ignore):
        raise ZeroDivisionError
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_is_a_storage_error(tmp_path: Path):
    with pytest.raises(StorageError, match="cannot lock"):
        try_lock(tmp_path / "absent" / "k.lock")


def test_a_link_is_not_followed(tmp_path: Path):
    (tmp_path / "precious").write_text("years of work")
    (tmp_path / "k.lock").symlink_to(tmp_path / "precious")
    with pytest.raises(StorageError, match="cannot lock"):
        try_lock(tmp_path / "k.lock")
    assert (tmp_path / "precious").read_text() == "years of work"


def test_two_are_never_inside_at_once_although_the_file_comes_and_goes(tmp_path: Path):
    code = """
import os, pathlib, sys
from npuops.artifacts.locks import release, try_lock
path, inside = pathlib.Path(sys.argv[1]) / "k.lock", pathlib.Path(sys.argv[1]) / "inside"
for number in range(4):
    if os.fork() == 0:
        for _ in range(400):
            while (descriptor := try_lock(path)) is None:
                os.sched_yield()
            os.close(os.open(inside, os.O_CREAT | os.O_EXCL))  # fails if somebody else is inside
            os.sched_yield()
            inside.unlink()
            release(path, descriptor)
        os._exit(0)
sys.exit(any([os.wait()[1] for number in range(4)]))
"""
    done = subprocess.run([sys.executable, "-c", code, tmp_path], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_is_not_there_cannot_be_locked(tmp_path: Path):
    with pytest.raises(StorageError, match="cannot lock"), alone_in(tmp_path / "absent"):
        pass
