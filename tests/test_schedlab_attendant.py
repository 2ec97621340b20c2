"""What is started for a load is of a session of its own, and never outlives whoever started it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib.resources import files
from pathlib import Path

import pytest

from npuops.errors import StorageError, ToolchainCrashError
from npuops.schedlab.attendant import STAGE, attended
from npuops.schedlab.program_roles import family
from running_server import wait_for

FLEEING = "(setsid sleep 600 &) ; sleep 600 & echo up; wait"
"""A daemon that left the session and lost its parent, and a child."""


def alive(pid: int) -> bool:
    """Neither gone nor only waiting to be counted."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return text[text.rindex(")") + 2] not in "ZX"


def open_descriptors() -> int:
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def all_of(attendant: int) -> list[int]:
    """It, and whatever descends from it."""
    return list(family(attendant))


def test_a_program_leads_a_session_of_its_own(tmp_path: Path) -> None:
    with attended("sleep", ["sleep", 600], tmp_path) as program:
        assert os.getsid(program.pid) == program.pid != os.getsid(0)


def test_daemons_that_fled_are_ended_too(tmp_path: Path) -> None:
    with attended("sh", ["/bin/sh", "-c", FLEEING], tmp_path) as program:
        program.await_said("up")
        attendant = int(Path(f"/proc/{program.pid}/stat").read_text().split()[3])
        wait_for(lambda: len(all_of(attendant)) == 4, "the daemon is there")
        everybody = all_of(attendant)
    assert not [pid for pid in everybody if alive(pid)]


def test_nobody_outlives_a_maker_that_was_killed(tmp_path: Path) -> None:
    words = (
        "import os, pathlib, time\n"
        "from npuops.schedlab.attendant import attended\n"
        f"with attended('sh', ['/bin/sh', '-c', {FLEEING!r}], pathlib.Path({str(tmp_path)!r})) as program:\n"
        "    program.await_said('up')\n"
        "    print(program.pid, flush=True)\n"
        "    time.sleep(600)\n"
    )
    with subprocess.Popen([sys.executable, "-c", words], stdout=subprocess.PIPE) as maker:
        assert maker.stdout is not None
        pid = int(maker.stdout.readline())
        attendant = int(Path(f"/proc/{pid}/stat").read_text().split()[3])
        everybody = all_of(attendant)
        maker.send_signal(signal.SIGKILL)
    wait_for(lambda: not any(map(alive, everybody)), f"{everybody} are left")


def test_one_that_ignores_being_asked_is_made_to_end(tmp_path: Path) -> None:
    words = "import signal, time; signal.signal(15, signal.SIG_IGN); print('deaf', flush=True); time.sleep(600)"
    with attended("deaf", [sys.executable, "-c", words], tmp_path) as program:
        program.await_said("deaf")
        pid = program.pid
    assert not alive(pid)


def test_an_error_within_ends_it(tmp_path: Path) -> None:
    pids = []

    def interrupted() -> None:
        with attended("sleep", ["sleep", 600], tmp_path) as program:
            pids.append(program.pid)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert not alive(pids[0])


def test_a_command_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match="no-such-program"), attended("x", ["no-such-program"], tmp_path):
        pass


def test_one_that_ends_before_its_time_is_quoted(tmp_path: Path) -> None:
    words = ["/bin/sh", "-c", "echo the roof is on fire >&2; exit 7"]
    with attended("sh", words, tmp_path) as program, pytest.raises(ToolchainCrashError, match=r"exit 7.*roof"):
        program.await_said("never")


def test_no_descriptor_stays_open(tmp_path: Path) -> None:
    with attended("true", ["true"], tmp_path):
        pass
    before = open_descriptors()
    for _ in range(3):
        with attended("true", ["true"], tmp_path):
            pass
    assert open_descriptors() == before


def test_the_source_has_no_warning(tmp_path: Path) -> None:
    sources = [str(files(STAGE.package) / name) for name in STAGE.sources if name.endswith(".c")]
    strict = ["-O2", "-std=gnu11", "-Wall", "-Wextra", "-Wconversion", "-Werror", "-pthread"]
    subprocess.run(["cc", *strict, "-o", str(tmp_path / "stage"), *sources], check=True)
