import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("numba", reason="the simulator takes minutes without numba")
pytest.importorskip("matplotlib", reason="the picture needs matplotlib")

VALIDATE = [sys.executable, "-m", "npuops.cli.main", "hostsched", "validate"]
SHORT = ["--repeats", "1", "--tries", "1", "--simulated", "1", "--mix", "interactive"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*VALIDATE, *words], capture_output=True, text=True, check=False, timeout=300)


@pytest.mark.slow
def test_what_was_played_is_told_kept_and_drawn(tmp_path: Path) -> None:
    out = tmp_path / "new" / "place"
    found = run(*SHORT, "--seconds", "0.5", "--setting", "hogs slice 20", "--out", str(out), "--json")
    assert found.returncode in (0, 1), found.stderr  # half a second says nothing about the promise
    told = json.loads(found.stdout)
    assert told["schema"] == "npuops.hostsched.validation/1"
    assert [row["setting"] for row in told["rows"]] == ["default", "hogs slice 20"]
    assert told == json.loads((out / "validation.json").read_text())
    assert len((out / "plays.jsonl").read_text().splitlines()) == 2
    assert "<svg" in (out / "validation.svg").read_text()


@pytest.mark.slow
def test_an_interruption_loses_nothing(tmp_path: Path) -> None:
    command = [*VALIDATE, *SHORT, "--seconds", "1", "--setting", "default", "--repeats", "60", "--out", str(tmp_path)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    plays = tmp_path / "plays.jsonl"
    while process.poll() is None and not (plays.exists() and plays.stat().st_size):
        os.sched_yield()
        signal.sigtimedwait([], 0.05)
    process.send_signal(signal.SIGINT)
    told, errors = process.communicate(timeout=120)
    assert process.returncode == 130, errors
    assert "interrupted" in told
    assert json.loads((tmp_path / "validation.json").read_text())["complete"] is False


def test_a_place_that_cannot_be_written_is_refused_before_anything_is_played(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    found = run(*SHORT, "--setting", "default", "--out", str(tmp_path / "file"))
    assert found.returncode > 1
    assert "file" in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize("words", [["--mix", "nonsense"], ["--setting", "nonsense"], ["--setting", "nice=99@A"]])
def test_what_is_not_there_is_refused(words: list[str]) -> None:
    found = run(*words)
    assert found.returncode == 2
    assert "Traceback" not in found.stderr
