"""`npuops hostsched bench` as people type it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from conftest import ROOT
from npuops.schedlab.comparison import Estimate
from npuops.schedlab.energy_figures import EnergyStanding
from npuops.schedlab.experiment_figures import Standing
from npuops.schedlab.experiment_report import Report
from npuops.schedlab.harms import Harm
from npuops.schedlab.program_figures import ProgramFigures
from npuops.schedlab.switch_agreement import Agreement
from npuops.schedlab.validation_report import ClosedForm, Figures, Validation

LIMIT_S = 900.0
FEW = ("--on", "simulator", "--quick", "--repeats", "1", "--hints", "all", "--rivals", "oracle")


PROGRAMS = ("--mixes", "none", "--quick", "--tries", "1", "--repeats", "1", "--programs-seconds", "0.5")


def bench(*arguments: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "npuops.cli.main", "hostsched", "bench", *arguments]
    env = dict(os.environ) if path is None else {**os.environ, "PATH": path}
    return subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False, env=env)


def plays_in(out: Path) -> list[dict[str, object]]:
    return [json.loads(line) for line in (out / "plays.jsonl").read_text().splitlines()[1:]]


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


def test_the_keys_of_what_is_printed_are_documented() -> None:
    documented = (ROOT / "docs" / "hostsched.md").read_text()
    words = {word for span in re.findall(r"`([^`]*)`", documented) for word in re.findall(r"\w+", span)}
    documents: tuple[type[msgspec.Struct], ...] = (
        Report,
        Standing,
        Harm,
        EnergyStanding,
        Estimate,
        ProgramFigures,
        Validation,
        Figures,
        ClosedForm,
        Agreement,
    )
    for kind in documents:
        missing = {field.encode_name for field in msgspec.structs.fields(kind)} - words - {"schema"}
        assert not missing, f"{kind.__name__}: {missing}"


@pytest.mark.slow
def test_the_simulator_plays_by_the_rules_of_either_scheduler_and_tells_which(tmp_path: Path) -> None:
    found = {}
    for scheduler in ("eevdf", "cfs"):
        out = tmp_path / scheduler
        done = bench(
            *FEW[:-1], "default", "--mixes", "stationary", "--scheduler", scheduler, "--out", str(out), "--json"
        )
        assert done.returncode == 0, done.stderr
        report = json.loads(done.stdout)
        assert report["head"]["scheduler"] == scheduler
        assert f"in the simulator ({scheduler.upper()})" in (out / "report.md").read_text()
        (found[scheduler],) = (one["p50_us"]["median"] for one in report["standings"])
    assert found["cfs"] < found["eevdf"], "whoever slept goes ahead of those who ran: CFS gave that credit"
    other = bench(*FEW[:-1], "default", "--mixes", "stationary", "--resume", "--out", str(tmp_path / "cfs"))
    assert other.returncode != 0
    assert "--scheduler" in other.stderr


@pytest.mark.slow
def test_what_the_plays_were_made_with_is_what_resume_goes_on_with(tmp_path: Path) -> None:
    out, first, same, other = (tmp_path / name for name in ("out", "first.toml", "same.toml", "other.toml"))
    for path, quiet_us in ((first, 31_000), (same, 31_000), (other, 32_000)):
        path.write_text(f"quiet_us = {quiet_us}\n", encoding="utf-8")
    few = (*FEW, "--rivals", "tuned-reactive", "--out", str(out))
    done = bench(*few, "--thresholds", str(first))
    assert done.returncode == 0, done.stderr
    again = bench(*few, "--thresholds", str(same), "--resume")
    assert again.returncode == 0, again.stderr
    before = (out / "plays.jsonl").read_bytes()
    for changed in (("--thresholds", str(other)), ()):
        refused = bench(*few, *changed, "--resume")
        assert refused.returncode == 2
        assert "begun with another --thresholds for tuned-reactive" in refused.stderr
        assert "--out" in refused.stderr
    assert (out / "plays.jsonl").read_bytes() == before
    head, *lines = before.splitlines(keepends=True)
    old = {name: value for name, value in json.loads(head).items() if name != "contents"}
    (out / "plays.jsonl").write_bytes(json.dumps(old).encode() + b"\n" + b"".join(lines))
    unknown = bench(*few, "--thresholds", str(first), "--resume")
    assert unknown.returncode == 2
    assert "an older npuops began it" in unknown.stderr


@pytest.mark.slow
def test_real_programs_are_part_of_the_one_command(tmp_path: Path) -> None:
    if missing := [command for command in ("redis-server", "gcc", "make") if shutil.which(command) is None]:
        pytest.skip(f"not installed: {', '.join(missing)}")
    out = tmp_path / "out"
    done = bench(*PROGRAMS, "--programs", "redis-build", "--rivals", "reactive", "--out", str(out), "--json")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)["programs"]
    assert [(one["load"], one["label"], one["plays"]) for one in found["standings"]] == [
        ("redis-build", "default", 1),
        ("redis-build", "reactive", 1),
    ]
    assert found["standings"][1]["agent_share"]["median"] > 0
    assert "### redis-build" in (out / "report.md").read_text()
    assert {one["load"] for one in plays_in(out)} == {"redis-build"}
    assert (out / "programs.svg").stat().st_size > 0


@pytest.mark.slow
def test_when_the_minutes_are_over_the_report_tells_what_is_missing_and_resume_plays_it(tmp_path: Path) -> None:
    out = tmp_path / "out"
    few = (*PROGRAMS, "--programs", "messengers-hogs", "--rivals", "default-again", "--out", str(out))
    done = bench(*few, "--most-minutes", "0.01")
    assert done.returncode == 0, done.stderr
    assert "1 of messengers-hogs are missing" in done.stdout
    assert "--resume" in done.stdout
    assert "**Not finished**" in (out / "report.md").read_text()
    assert len(plays_in(out)) == 1
    again = bench(*few, "--resume")
    assert again.returncode == 0, again.stderr
    assert "missing" not in again.stdout
    assert {(one["load"], one["label"]) for one in plays_in(out)} == {
        ("messengers-hogs", "default"),
        ("messengers-hogs", "default-again"),
    }
    other = bench(*few, "--resume", "--programs-seconds", "1.5")
    assert other.returncode != 0
    assert "--programs-seconds" in other.stderr


@pytest.mark.slow
def test_programs_that_are_not_installed_are_left_out_loudly(tmp_path: Path) -> None:
    compiler = shutil.which("cc")
    if compiler is None:
        pytest.skip("not installed: cc")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "cc").symlink_to(compiler)
    out, path = tmp_path / "out", str(tmp_path / "bin")
    few = (*PROGRAMS, "--rivals", "default", "--out", str(out))
    done = bench(*few, "--programs", "redis-build,messengers-hogs", path=path)
    assert done.returncode == 0, done.stderr
    assert "redis-server" in done.stderr
    assert "redis-build was left out" in (out / "report.md").read_text()
    assert {one["load"] for one in plays_in(out)} == {"messengers-hogs"}
    none = bench(*few[:-1], str(tmp_path / "other"), "--programs", "redis-build", path=path)
    assert none.returncode == 3, "nothing is left to play"
    assert "apt install" in none.stderr


@pytest.mark.slow
@pytest.mark.parametrize(
    ("wrong", "told"),
    [
        (("--mixes", "four-fase"), "four-phase"),
        (("--rivals", "orakle"), "oracle"),
        (("--on", "moon"), "kernel"),
        (("--hints", "some"), "none"),
        (("--scheduler", "o1"), "eevdf or cfs"),
        (("--on", "kernel", "--scheduler", "cfs"), "--on simulator"),
        (("--rivals", ","), "names nobody"),
        (("--resume",), "plays.jsonl"),
        (("--programs", "all"), "--on kernel"),
        (("--on", "kernel", "--programs", "redis-bild"), "redis-build"),
        (("--mixes", "none"), "--programs"),
        (("--cpu-share", "nan"), "of a core"),
        (("--thresholds", "/nowhere/x.toml"), "/nowhere/x.toml"),
        (("--policy-folder", "/nowhere"), "/nowhere/card.json"),
        (("--on", "kernel", "--mixes", "none", "--programs", "messengers-hogs", "--rivals", "oracle"), "oracle"),
    ],
)
def test_what_cannot_be_is_refused_before_anything_is_played(tmp_path: Path, wrong: tuple[str, ...], told: str) -> None:
    done = bench("--on", "simulator", "--quick", "--out", str(tmp_path / "out"), *wrong)
    assert done.returncode not in (0, 1)
    assert told in done.stderr
    assert not (tmp_path / "out").exists()
