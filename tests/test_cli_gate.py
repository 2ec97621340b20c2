"""`npuops gate` and `npuops compare` as CI starts them: exit codes, JUnit, JSON, signatures."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest

from npuops.artifacts.evidence import Gate, GateRule, Verdict
from npuops.artifacts.folder import open_artifact
from npuops.artifacts.keys import Algorithm, new_key, write_key
from npuops.artifacts.signature import sign
from toy_artifact import npuops, toy_artifact


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_artifact(tmp_path_factory.mktemp("gate") / "mlp.npuart").root


def policy(folder: Path, text: str) -> Path:
    path = folder / "gate.toml"
    path.write_text(text, encoding="utf-8")
    return path


def cases(path: Path) -> dict[str, str]:
    suite = ET.parse(path).getroot()[0]  # noqa: S314 - our own file
    return {str(case.get("name")): case[0].tag for case in suite}


def test_a_good_artifact_passes_the_default_policy(artifact: Path) -> None:
    done = npuops("gate", artifact)
    assert (done.returncode, done.stderr) == (0, "")
    assert "pass: mlp.npuart for toy" in done.stdout


def test_a_missed_limit_is_exit_code_one_in_json_and_junit(artifact: Path, tmp_path: Path) -> None:
    limits = policy(tmp_path, "[size]\nmax_bytes = 100\n[parity]\nmin_cosine = 0.99\n")
    done = npuops("gate", artifact, "--policy", limits, "--junit", tmp_path / "out.xml", "--json")
    answer = json.loads(done.stdout)
    assert done.returncode == 1
    assert answer["schema"] == "npuops.gate/1"
    assert answer["verdict"] == "fail"
    assert {rule["name"]: rule["verdict"] for rule in answer["rules"]}["size"] == "fail"
    assert answer["policy"]["size"]["max_bytes"] == 100
    assert answer["digest"] == open_artifact(artifact).manifest.digest
    found = cases(tmp_path / "out.xml")
    assert found["size"] == "failure"
    assert found["parity"] == "system-out"


def test_inconclusive_counts_as_no_unless_it_is_allowed(artifact: Path, tmp_path: Path) -> None:
    limits = policy(tmp_path, "[accuracy.top1]\nmax_drop = 0.01\n")
    refused = npuops("gate", artifact, "-p", limits, "--junit", tmp_path / "out.xml")
    assert refused.returncode == 1
    assert cases(tmp_path / "out.xml")["accuracy.top1.max_drop"] == "skipped"
    assert npuops("gate", artifact, "-p", limits, "--allow-inconclusive").returncode == 0


def test_allowing_the_inconclusive_does_not_allow_a_failure(artifact: Path, tmp_path: Path) -> None:
    limits = policy(tmp_path, "[accuracy.top1]\nmax_drop = 0.01\n[size]\nmax_bytes = 1\n")
    assert npuops("gate", artifact, "-p", limits, "--allow-inconclusive").returncode == 1


def test_a_slip_in_the_policy_is_wrong_use_and_names_the_nearest_key(artifact: Path, tmp_path: Path) -> None:
    done = npuops("gate", artifact, "-p", policy(tmp_path, "[parity]\nmin_cosin = 0.9\n"))
    assert done.returncode == 2
    assert "min_cosine" in done.stderr


def test_a_damaged_artifact_is_an_error_for_the_ci_server_too(artifact: Path, tmp_path: Path) -> None:
    broken = shutil.copytree(artifact, tmp_path / "broken")
    (broken / "program.toy").write_bytes(b"toy program 1\n")
    done = npuops("gate", broken, "--junit", tmp_path / "out.xml")
    assert done.returncode == 1
    assert "program.toy" in done.stderr
    assert cases(tmp_path / "out.xml") == {"integrity": "error"}


def test_a_refused_build_is_refused_by_the_gate(tmp_path: Path) -> None:
    rule = GateRule(name="fallback", verdict=Verdict.FAIL, wanted="none", found="8.0% of operators")
    refused = toy_artifact(tmp_path / "mlp", gate=Gate(verdict=Verdict.FAIL, rules=(rule,)))
    done = npuops("gate", refused.root)
    assert done.returncode == 1
    assert "fallback (fail)" in " ".join(done.stdout.split())


def test_a_demanded_signature_must_be_of_a_trusted_key(artifact: Path, tmp_path: Path) -> None:
    signed = shutil.copytree(artifact, tmp_path / "signed")
    key, other = new_key(Algorithm.ED25519), new_key(Algorithm.ED25519)
    write_key(key, tmp_path / "release")
    write_key(other, tmp_path / "other")
    limits = policy(tmp_path, '[signature]\nrequired = true\ntrusted_keys = ["release.pub"]\n')
    assert npuops("gate", signed, "-p", limits).returncode == 1

    sign(open_artifact(signed), other)
    assert npuops("gate", signed, "-p", limits).returncode == 1

    sign(open_artifact(signed), key)
    done = npuops("gate", signed, "-p", limits)
    assert done.returncode == 0, done.stdout
    assert key.public.keyid[:16] in done.stdout


def test_compare_prints_its_contract_and_a_table(artifact: Path, tmp_path: Path) -> None:
    other = toy_artifact(tmp_path / "other", seed=3).root
    answer = json.loads(npuops("compare", artifact, other, "--json").stdout)
    assert answer["schema"] == "npuops.compare/1"
    marks = {(row["group"], row["name"]): row["mark"] for row in answer["rows"]}
    assert marks["identity", "model digest"] == "different"
    assert marks["build", "target"] == "same"
    done = npuops("compare", artifact, artifact)
    assert done.returncode == 0
    assert "worse" not in done.stdout
