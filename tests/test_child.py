from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from npuops.errors import DataError, ToolchainCrashError, ToolchainError, ToolchainTimeoutError
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


def end_quietly() -> None:
    os._exit(7)


def test_value_words_and_progress_come_back() -> None:
    log = EventLog()
    reply = call(double, {"array": np.arange(3)}, what="toy", timeout_s=60, observe=log)
    assert reply.value.tolist() == [0, 2, 4]
    assert reply.words == "the vendor speaks"
    assert [event.done for event in log.of(StepProgressed)] == [1, 2, 3]


@pytest.mark.parametrize("signum", [signal.SIGSEGV, signal.SIGKILL, signal.SIGABRT])
def test_a_crash_ends_the_child_and_is_an_error_with_its_last_words(signum: signal.Signals) -> None:
    with pytest.raises(ToolchainCrashError, match=f"killed by {signum.name}.*\nlast words"):
        call(die, {"signum": int(signum)}, what="vendor", timeout_s=60)


def test_a_child_that_ends_without_a_reply_is_a_crash() -> None:
    with pytest.raises(ToolchainCrashError, match="status 7"):
        call(end_quietly, {}, what="vendor", timeout_s=60)


def test_a_hang_is_ended_together_with_what_it_started(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    with pytest.raises(ToolchainTimeoutError, match="vendor did not end within 3 s"):
        call(hang, {"pid_file": str(pid_file)}, what="vendor", timeout_s=3)
    grandchild = int(pid_file.read_text())
    assert eventually(lambda: not is_alive(grandchild))


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


def test_a_child_ends_with_its_parent_even_when_that_is_killed(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    code = PARENT.format(tests=str(Path(__file__).parent), pid_file=str(pid_file))
    with subprocess.Popen([sys.executable, "-c", code]) as parent:
        assert eventually(pid_file.exists)
        child = int(Path(f"/proc/{pid_file.read_text()}/stat").read_text().rsplit(")", 1)[1].split()[1])
        assert is_alive(child)
        parent.kill()
    assert eventually(lambda: not is_alive(child))
    os.kill(int(pid_file.read_text()), signal.SIGKILL)


def is_alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def eventually(holds: Callable[[], bool]) -> bool:
    for _ in range(100):
        if holds():
            return True
        time.sleep(0.1)
    return False
