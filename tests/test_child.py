from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from npuops.errors import DataError, StorageError, ToolchainCrashError, ToolchainError, ToolchainTimeoutError
from npuops.events import StepProgressed
from npuops.targets.child import call, progress
from npuops.testing import EventLog


def double(array: np.ndarray) -> np.ndarray:
    sys.stdout.write("the vendor speaks\n")
    for number in range(3):
        progress("work", number + 1, 3, "x")
    return array * 2


def die(signum: int) -> None:
    os.write(1, b"last words\n")
    os.kill(os.getpid(), signum)


def hang(pid_file: str) -> None:
    with subprocess.Popen(["sleep", "60"]) as grandchild:
        Path(f"{pid_file}.part").write_text(str(grandchild.pid))
        Path(f"{pid_file}.part").rename(pid_file)
        time.sleep(60)


def refuse() -> None:
    raise DataError("bad shape", advice="give another")


def break_down() -> None:
    raise ZeroDivisionError("vendor bug")


def litter(signum: int) -> None:
    """As vendor's tools do: temporary files that are removed at the end, if it comes."""
    Path(tempfile.mkdtemp(), "trace").write_text("x")
    if signum:
        os.kill(os.getpid(), signum)


def end_quietly() -> None:
    os._exit(7)


def speak_and_die() -> None:
    ctypes.CDLL(None).printf(b"the library speaks\n")
    sys.stdout.write("the program speaks\n")
    os.kill(os.getpid(), signal.SIGSEGV)


def babble(count: int) -> None:
    os.ftruncate(1, count)
    os.lseek(1, 0, os.SEEK_END)
    os.write(1, b"the last of it")


def leave_behind(pid_file: str, signum: int) -> None:
    """A fork, as a vendor's pool of workers makes it: it inherits the pipe."""
    pid = os.fork()
    if not pid:
        time.sleep(60)
        os._exit(0)
    Path(pid_file).write_text(str(pid))
    if signum:
        os.kill(os.getpid(), signum)


def close_everything(seconds: float) -> str:
    os.closerange(3, 64)
    time.sleep(seconds)
    return "done"


def fill_the_disk() -> None:
    Path("/dev/full").write_text("x" * 100_000)


def unpicklable() -> object:
    return lambda: None


def test_value_words_and_progress_come_back() -> None:
    log = EventLog()
    reply = call(double, {"array": np.arange(3)}, what="toy", timeout_s=60, observe=log)
    assert reply.value.tolist() == [0, 2, 4]
    assert reply.words == "the vendor speaks"
    assert [event.done for event in log.of(StepProgressed)] == [1, 2, 3]


@pytest.mark.slow
@pytest.mark.parametrize("signum", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_crash_ends_the_child_and_is_an_error_with_its_last_words(signum: signal.Signals) -> None:
    with pytest.raises(ToolchainCrashError, match=f"killed by {signum.name}.*\nlast words"):
        call(die, {"signum": int(signum)}, what="vendor", timeout_s=60)


def test_a_signal_without_a_name_is_a_crash_too() -> None:
    with pytest.raises(ToolchainCrashError, match="killed by signal 40"):
        call(die, {"signum": 40}, what="vendor", timeout_s=60)


def test_nothing_that_was_printed_before_a_crash_stays_in_a_buffer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHONUNBUFFERED", raising=False)
    with pytest.raises(ToolchainCrashError, match="the library speaks\nthe program speaks"):
        call(speak_and_die, {}, what="vendor", timeout_s=60)


def test_of_endless_words_the_end_is_kept_and_the_rest_is_never_in_memory() -> None:
    tracemalloc.start()
    try:
        reply = call(babble, {"count": 64 * 2**20}, what="vendor", timeout_s=60)
        assert tracemalloc.get_traced_memory()[1] < 4 * 2**20
    finally:
        tracemalloc.stop()
    assert reply.words.endswith("the last of it")


def test_modules_in_the_users_folder_are_not_mistaken_for_pythons(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "pickle.py").write_text("raise SystemExit('a stranger was imported')\n")
    monkeypatch.chdir(tmp_path)
    assert call(double, {"array": np.arange(2)}, what="toy", timeout_s=60).value.tolist() == [0, 2]


def test_a_child_that_ends_without_a_reply_is_a_crash() -> None:
    with pytest.raises(ToolchainCrashError, match="status 7"):
        call(end_quietly, {}, what="vendor", timeout_s=60)


def test_a_hang_is_ended_together_with_what_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    for timeout_s in (2, 10, 60):  # a busy machine may need the longer ones until the child has come to hang
        with pytest.raises(ToolchainTimeoutError, match=f"vendor did not end within {timeout_s} s"):
            call(hang, {"pid_file": str(pid_file)}, what="vendor", timeout_s=timeout_s)
        if pid_file.exists():
            break
    grandchild = int(pid_file.read_text())
    assert eventually(lambda: not is_alive(grandchild))


@pytest.mark.parametrize("signum", [0, signal.SIGSEGV])
def test_what_a_child_leaves_behind_ends_with_it_and_nobody_waits_for_it(tmp_path: Path, signum: int) -> None:
    pid_file = tmp_path / "pid"
    try:
        call(leave_behind, {"pid_file": str(pid_file), "signum": int(signum)}, what="vendor", timeout_s=30)
        ended = 0
    except ToolchainCrashError:
        ended = signal.SIGSEGV
    assert ended == signum
    assert eventually(lambda: not is_alive(int(pid_file.read_text())))


@pytest.mark.parametrize("signum", [0, signal.SIGSEGV])
def test_temporary_files_of_a_child_go_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, signum: int) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    if signum:
        with pytest.raises(ToolchainCrashError):
            call(litter, {"signum": int(signum)}, what="vendor", timeout_s=60)
    else:
        call(litter, {"signum": 0}, what="vendor", timeout_s=60)
    assert list(tmp_path.iterdir()) == []


def test_a_child_that_closes_our_pipe_still_has_its_time() -> None:
    assert call(close_everything, {"seconds": 0.3}, what="vendor", timeout_s=60).value == "done"
    with pytest.raises(ToolchainTimeoutError, match="within 2 s"):
        call(close_everything, {"seconds": 60}, what="vendor", timeout_s=2)


def test_a_full_disk_is_not_the_vendors_fault() -> None:
    with pytest.raises(StorageError, match="No space left on device"):
        call(fill_the_disk, {}, what="vendor", timeout_s=60)


def test_without_a_place_for_temporary_files_the_error_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "absent"))
    with pytest.raises(StorageError, match="no temporary folder") as caught:
        call(refuse, {}, what="vendor", timeout_s=60)
    assert "TMPDIR" in caught.value.advice


def test_a_reply_that_cannot_travel_is_an_error_without_a_traceback() -> None:
    with pytest.raises(ToolchainError, match=r"^test_child\.unpicklable: AttributeError: Can't pickle") as caught:
        call(unpicklable, {}, what="vendor", timeout_s=60)
    assert "Traceback" not in caught.value.message


def test_our_errors_keep_their_kind_and_others_become_toolchain_errors() -> None:
    with pytest.raises(DataError) as caught:
        call(refuse, {}, what="vendor", timeout_s=60)
    assert caught.value.advice == "give another"
    with pytest.raises(ToolchainError, match="ZeroDivisionError: vendor bug"):
        call(break_down, {}, what="vendor", timeout_s=60)


PARENT = """
import sys
sys.path.insert(0, {tests!r})
from test_child import hang
from npuops.targets.child import call
call(hang, {{"pid_file": {pid_file!r}}}, what="vendor", timeout_s=60)
"""


def test_a_child_ends_with_its_parent_even_when_that_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pid_file, place = tmp_path / "pid", tmp_path / "place"
    place.mkdir()
    code = PARENT.format(tests=str(Path(__file__).parent), pid_file=str(pid_file))
    with subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "TMPDIR": str(place)}) as parent:
        assert eventually(pid_file.exists)
        child = int(Path(f"/proc/{pid_file.read_text()}/stat").read_text().rsplit(")", 1)[1].split()[1])
        assert is_alive(child)
        parent.kill()
    assert eventually(lambda: not is_alive(child))
    os.kill(int(pid_file.read_text()), signal.SIGKILL)
    assert len(list(place.iterdir())) == 1
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    call(litter, {"signum": 0}, what="vendor", timeout_s=60)
    assert list(place.iterdir()) == []


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(holds: Callable[[], bool]) -> bool:
    for _ in range(600):
        if holds():
            return True
        time.sleep(0.1)
    return False
