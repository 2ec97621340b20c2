"""Profiles: shares that add up, islands in graph order, and figures that are figures."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from manifest_examples import placement, profile
from npuops.artifacts.folder import open_artifact
from npuops.errors import DataError
from npuops.models.placement import Placement, RunsOn
from npuops.report.profile import islands, op_shares, profile_artifact, slowest, type_shares
from npuops.targets.protocol import Profile
from npuops.units import Basis
from toy_artifact import npuops, sample_input, toy_artifact


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return toy_artifact(tmp_path_factory.mktemp("profile") / "mlp.npuart").root


def test_shares_add_up_to_one_by_operator_and_by_type() -> None:
    assert sum(op.share for op in op_shares(profile())) == pytest.approx(1)
    groups = type_shares(profile())
    assert sum(group.share for group in groups) == pytest.approx(1)
    assert sum(group.count for group in groups) == 60
    assert [group.cost for group in groups] == sorted((group.cost for group in groups), reverse=True)


def test_the_slowest_come_first() -> None:
    costs = [op.cost for op in slowest(profile(), 7)]
    assert costs == sorted((op.cost for op in profile().ops), reverse=True)[:7]


def test_a_profile_of_zeros_has_shares_of_zero() -> None:
    still = profile()
    zero = Profile(basis=still.basis, unit=still.unit, source=still.source, ops=())
    assert op_shares(zero) == ()


def test_islands_are_runs_of_nodes_on_one_side() -> None:
    found = islands(placement(cpu=(0, 30, 31, 58, 59)).nodes)
    assert [(island.runs_on.value, island.nodes) for island in found] == [
        ("cpu", 1),
        ("npu", 29),
        ("cpu", 2),
        ("npu", 26),
        ("cpu", 2),
    ]
    assert found[2].first == "features.30/conv"
    assert found[2].last == "features.31/clip"
    assert islands(()) == ()


def test_an_island_of_format_changes_has_no_work() -> None:
    nodes = [
        Placement(name=op, op=op, runs_on=RunsOn.CPU, rule="graph input")
        for op in ("QuantizeLinear", "Cast", "QUANTIZE")
    ]
    assert islands(nodes)[0].work == 1


def test_the_toy_target_profiles_every_node_in_a_child(artifact: Path) -> None:
    found = profile_artifact(open_artifact(artifact), {"x": sample_input()}, timeout_s=60)
    assert [op.name for op in found.ops] == ["gemm_1", "relu", "gemm_2", "softmax"]
    assert found.basis is Basis.MEASURED


def test_a_wrong_input_is_refused_before_the_child_starts(artifact: Path) -> None:
    with pytest.raises(DataError, match="shape"):
        profile_artifact(open_artifact(artifact), {"x": np.zeros((1, 3), np.float32)}, timeout_s=60)


def test_the_verb_prints_its_contract(artifact: Path, tmp_path: Path) -> None:
    report = tmp_path / "report.html"
    done = npuops("profile", artifact, "--json", "-o", report)
    answer = json.loads(done.stdout)
    assert done.returncode == 0
    assert answer["schema"] == "npuops.profile/1"
    assert (answer["basis"], answer["unit"], answer["input"]) == ("measured", "us", "random")
    assert [op["name"] for op in answer["ops"]] == ["gemm_1", "relu", "gemm_2", "softmax"]
    assert "gemm_2" in report.read_text(encoding="utf-8")


def test_the_verb_shows_the_slowest_with_unit_and_basis(artifact: Path) -> None:
    done = npuops("profile", artifact, "--top", "2")
    assert done.returncode == 0, done.stderr
    assert "slowest 2 of 4" in done.stdout
    assert "us (measured)" in done.stdout
    assert "CPU islands: 0" in done.stdout


def test_a_report_is_never_written_into_an_artifact(artifact: Path) -> None:
    done = npuops("profile", artifact, "-o", artifact / "report.html")
    assert done.returncode == 2
    assert "inside the artifact" in done.stderr
    assert open_artifact(artifact)
