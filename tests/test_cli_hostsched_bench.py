"""`npuops hostsched bench` as people type it."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

LIMIT_S = 900.0
FEW = ("--on", "simulator", "--quick", "--repeats", "1", "--hints", "all", "--rivals", "oracle")


def bench(*arguments: str) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "npuops.cli.main", "hostsched", "bench", *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False)


@pytest.mark.slow
def test_one_command_leaves_plays_tables_and_plots_and_goes_on_where_it_was(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = bench(*FEW, "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["schema"] == "npuops.hostsched.bench/1"
    assert {one["label"] for one in found["standings"]} == {"default", "oracle"}
    assert json.loads((out / "report.json").read_bytes()) == found
    assert "## four-phase" in (out / "report.md").read_text()
    before = (out / "plays.jsonl").read_bytes()
    assert bench(*FEW, "--out", str(out)).returncode != 0, "a second one must not write over the first"
    again = bench(*FEW, "--out", str(out), "--resume")
    assert again.returncode == 0, again.stderr
    assert (out / "plays.jsonl").read_bytes() == before
    other = bench(*FEW, "--out", str(out), "--resume", "--seed", "7")
    assert other.returncode != 0
    assert "--seed" in other.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("--mixes", "four-fase"), "four-phase"),
        (("--rivals", "orakle"), "oracle"),
        (("--on", "moon"), "kernel"),
        (("--hints", "some"), "none"),
        (("--rivals", ","), "names nobody"),
        (("--resume",), "plays.jsonl"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_played(tmp_path: Path, wrong: tuple[str, ...], told: str) -> None:
    done = bench("--on", "simulator", "--quick", "--out", str(tmp_path / "out"), *wrong)
    assert done.returncode not in (0, 1)
    assert told in done.stderr
    assert not (tmp_path / "out").exists()
