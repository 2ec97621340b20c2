from __future__ import annotations

import os
import signal
import sys
from pathlib import Path

import pytest

from npuops.hostsched.command import Command, NoSuchCommandError, NotACommandError

WAITS = (
    "import signal, sys, time\n"
    "signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))\n"
    "signal.signal(signal.SIGUSR1, lambda *_: sys.exit(6))\n"
    "print('ready', flush=True)\n"
    "time.sleep(120)\n"
)


@pytest.mark.parametrize("code", [0, 1, 3, 255])
def test_the_exit_code_is_the_commands(code: int) -> None:
    command = Command([sys.executable, "-c", f"raise SystemExit({code})"])
    assert command.exit_code() == code
    assert command.is_over(())
    assert command.is_over((signal.SIGTERM,))  # too late: nobody else gets it


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 5), (signal.SIGUSR1, 6), (signal.SIGHUP, 129)])
def test_signals_reach_the_command(number: signal.Signals, code: int, capfd: pytest.CaptureFixture[str]) -> None:
    command = Command([sys.executable, "-c", WAITS])
    said = ""
    while "ready" not in said:
        said += capfd.readouterr().out
    command.is_over((number,))
    assert command.exit_code() == code


def test_a_command_that_is_not_there_ends_as_in_a_shell() -> None:
    with pytest.raises(NoSuchCommandError, match="no such command") as caught:
        Command(["no-such-command-here"])
    assert caught.value.exit_code == 127
    assert caught.value.advice


@pytest.mark.parametrize("kind", ["folder", "text", "garbage", "nul"])
def test_what_cannot_be_run_ends_as_in_a_shell(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    if kind == "text":
        file.write_text("echo")
    elif kind == "garbage":
        file.write_bytes(os.urandom(64))
        file.chmod(0o755)
    word = {"folder": str(tmp_path), "nul": "a\0b"}.get(kind, str(file))
    with pytest.raises(NotACommandError, match="cannot be run") as caught:
        Command([word])
    assert caught.value.exit_code == 126
