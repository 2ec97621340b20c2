"""`npuops hostsched correct` as people type it: a policy is measured on this kernel, and built again."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from made_policy import made_policy
from npuops.errors import MissingToolchainError
from npuops.hostsched.policy_card import CARD_NAME, open_policy
from npuops.schedlab.load_program import load_program

LIMIT_S = 400.0


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    return made_policy(tmp_path / "policy", "ort-cpu").root


def correct(*arguments: str, user: int | None = None) -> subprocess.CompletedProcess[str]:
    words = [sys.executable, "-m", "npuops.cli.main", "hostsched", "correct", *arguments]
    return subprocess.run(words, capture_output=True, text=True, timeout=LIMIT_S, check=False, user=user)


@pytest.mark.slow
@pytest.mark.timeout(LIMIT_S)
@pytest.mark.skipif(os.geteuid() != 0, reason="CAP_SYS_NICE is missing: nice could not be taken back")
def test_a_policy_is_measured_and_built_again_with_all_that_its_card_said(policy: Path, tmp_path: Path) -> None:
    try:
        load_program()
    except MissingToolchainError as error:
        pytest.skip(error.message)
    out, before = tmp_path / "corrected", open_policy(policy)
    done = correct(str(policy), "--out", str(out), "--plays", "4", "--tries", "1", "--unclean", "--json")
    assert done.returncode == 0, done.stderr
    found, after = json.loads(done.stdout), open_policy(out)
    assert found["schema"] == "npuops.hostsched.correct/1"
    assert [one["target"] for one in found["artifacts"]] == ["ort-cpu"]
    correction = after.card.correction
    assert correction is not None
    assert correction.plays == 4
    assert correction.kernel == os.uname().release
    assert correction.miss.samples > 0
    assert correction.progress.samples > 0
    old, new = before.card, after.card
    assert (new.name, new.trust, new.trust_told, new.shape, new.candidates) == (
        old.name,
        old.trust,
        old.trust_told,
        old.shape,
        old.candidates,
    )
    assert (new.trained.data, new.trained.ranges) == (old.trained.data, old.trained.ranges)
    assert new.trained.metrics["loss"] == old.trained.metrics["loss"]
    scale = [correction.miss.scale, correction.progress.scale]
    assert abs(after.weights["faces"] - before.weights["faces"] * scale).max() < 1e-5
    assert open_policy(policy).card == old, "the policy that is measured stays as it is"


def test_the_measured_policy_is_never_replaced(policy: Path) -> None:
    before = (policy / CARD_NAME).read_bytes()
    done = correct(str(policy), "--out", str(policy / ".." / policy.name))
    assert done.returncode == 2
    assert "stays as it is" in done.stderr
    assert (policy / CARD_NAME).read_bytes() == before


def test_a_damaged_policy_is_told_before_anything_is_played(policy: Path, tmp_path: Path) -> None:
    (policy / "weights.npz").write_bytes(b"x")
    done = correct(str(policy), "--out", str(tmp_path / "out"))
    assert done.returncode != 0
    assert "differs from its card" in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_policy_that_is_corrected_already_is_not_corrected_again(policy: Path, tmp_path: Path) -> None:
    plain = json.loads((policy / CARD_NAME).read_bytes())
    plain["correction"] = {"miss": {"shift": 0.5}, "progress": {}, "plays": 8, "unclean": 0, "kernel": "6.18.0"}
    (policy / CARD_NAME).write_text(json.dumps(plain))
    done = correct(str(policy), "--out", str(tmp_path / "out"))
    assert done.returncode == 2
    assert "corrected already, on kernel 6.18.0" in done.stderr


def test_too_few_plays_are_refused(policy: Path, tmp_path: Path) -> None:
    done = correct(str(policy), "--out", str(tmp_path / "out"), "--plays", "3")
    assert done.returncode == 2
    assert "--plays" in done.stderr
