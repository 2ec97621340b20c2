"""`run` when npuops itself fails, or is told to end before the command is there: the command is what counts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

SESSION = """
import fcntl, os, signal, sys, termios
from npuops.cli.hostsched_session import Session
from npuops.errors import StorageError

class Ours(Session):
    def _run(self, wakeup, is_over, whom, *, quiet):
{body}

sys.exit(Ours(policy=None).run([sys.executable, "-c", sys.argv[1]]))
"""
COMMAND = "import sys; print('command', sys.stdin.read(), flush=True); sys.exit(7)"
TERMINAL = "        fcntl.ioctl(0, termios.TIOCSCTTY, 0)\n"


def script(body: str) -> list[str]:
    return [sys.executable, "-c", SESSION.format(body=body)]


@pytest.mark.parametrize("error", ["RuntimeError('odd')", "StorageError('no room')"])
def test_when_the_agent_fails_the_command_goes_on_and_its_end_is_ours(error: str) -> None:
    """The pipe is closed only by the command's own end, so what it says must come after ours."""
    words = [*script(f"        whom()\n        raise {error}"), COMMAND]
    with subprocess.Popen(
        words, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as one:
        assert one.stdin is not None
        assert one.stderr is not None
        said = ""
        while "goes on by itself" not in said:
            line = one.stderr.readline()
            assert line, f"it ended: {said}"
            said += line
        one.stdin.write("worked")
        one.stdin.close()
        assert one.stdout is not None
        assert one.stdout.read() == "command worked\n"
        assert one.wait(60) == 7
    assert ("Traceback" in said) is error.startswith("Runtime"), "a defect is told in full"


def test_a_failure_after_the_command_ended_is_told_and_its_exit_code_stays() -> None:
    body = (
        "        whom()\n"
        "        while not is_over(wakeup.caught()):\n"
        "            wakeup.sleep_until(self._clock.now_us() + 10_000)\n"
        "        raise StorageError('the plot has no room')"
    )
    ended = subprocess.run(
        [*script(body), "raise SystemExit(3)"], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 3
    assert "the plot has no room" in ended.stderr
    assert "goes on" not in ended.stderr


def test_the_keys_of_a_terminal_pressed_before_the_command_is_there_reach_it(tmp_path: Path) -> None:
    """A terminal sends them to the command itself once it is there, and nobody needs to hand them on; not before."""
    body = (
        f"{TERMINAL}        os.kill(os.getpid(), signal.SIGINT)\n        whom()\n"
        "        while not is_over(wakeup.caught()):\n"
        "            wakeup.sleep_until(self._clock.now_us() + 1_000_000)\n"
    )
    ours, its = os.openpty()
    said = (tmp_path / "said").open("wb")
    try:
        with (
            said,
            subprocess.Popen(
                [*script(body), "import signal; signal.pause()"],
                stdin=its,
                stdout=said,
                stderr=said,
                start_new_session=True,
            ) as one,
        ):
            assert one.wait(60) == 128 + signal.SIGINT
    finally:
        os.close(ours)
        os.close(its)
