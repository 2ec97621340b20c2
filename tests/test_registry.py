from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from npuops.errors import UnknownTargetError
from npuops.targets.registry import families, open_target
from onnx_models import mlp

THIRD_PARTY = """
from dataclasses import dataclass
from npuops.targets.protocol import Family
from npuops.targets.toy import ToyTarget

FAMILY = Family(name="acme", summary="somebody else's chip", variants=(), make=lambda variant: ToyTarget("acme"))
"""


@pytest.fixture
def third_party(tmp_path: Path) -> dict[str, str]:
    """An environment in which another distribution, `acme-npu`, provides the target `acme`."""
    site = tmp_path / "site"
    info = site / "acme_npu-1.0.dist-info"
    info.mkdir(parents=True)
    (site / "acme_npu.py").write_text(THIRD_PARTY)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: acme-npu\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[npuops.targets]\nacme = acme_npu:FAMILY\n")
    return {**os.environ, "PYTHONPATH": str(site)}


def python(code: str, environment: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=120, check=False
    )


def test_built_in_targets_are_found_by_entry_points() -> None:
    assert {"ethos-u", "openvino", "ort-cpu", "qnn-htp", "toy"} <= set(families())


@pytest.mark.slow
def test_a_target_of_another_package_is_listed_and_kept_to_its_promises(
    third_party: dict[str, str], tmp_path: Path
) -> None:
    listing = subprocess.run(
        [sys.executable, "-m", "npuops.cli.main", "targets", "--json"],
        env=third_party,
        capture_output=True,
        text=True,
        timeout=120,
        check=True,
    )
    assert "acme" in {row["family"] for row in json.loads(listing.stdout)["targets"]}
    model = mlp(tmp_path / "m.onnx")
    code = (
        "from pathlib import Path; from npuops.testing import check_target\n"
        f"print(check_target('acme', Path({str(model)!r})))"
    )
    done = python(code, third_party)
    assert done.returncode == 0, done.stderr
    assert "sessions_obey" in done.stdout


@pytest.mark.parametrize(
    "broken", ["import no_such_module_anywhere\n", "FAMILY = 1 / 0\n", "FAMILY =\n", "FAMIIY = 1\n"]
)
def test_a_package_that_does_not_import_is_named(third_party: dict[str, str], tmp_path: Path, broken: str) -> None:
    (tmp_path / "site" / "acme_npu.py").write_text(broken)
    done = python("from npuops.targets.registry import open_target; open_target('acme')", third_party)
    assert done.stderr.splitlines()[-1].startswith("npuops.errors.ToolchainError: target 'acme' (acme_npu:FAMILY)")


def test_a_broken_package_hides_no_other_target(third_party: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "site" / "acme_npu.py").write_text("FAMILY = 1 / 0\n")
    done = python(
        "import sys; sys.argv = ['npuops', 'targets', '--json']; from npuops.cli.main import main; main()", third_party
    )
    answer = json.loads(done.stdout)
    assert "toy" in {row["family"] for row in answer["targets"]}
    assert "ZeroDivisionError" in answer["broken"]["acme"]["message"]


def test_a_name_that_two_packages_claim_is_nobodys(third_party: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "site" / "acme_npu-1.0.dist-info" / "entry_points.txt").write_text(
        "[npuops.targets]\nort-cpu = acme_npu:FAMILY\n"
    )
    done = python("from npuops.targets.registry import open_target; open_target('ort-cpu')", third_party)
    assert "ToolchainError: two packages provide the target 'ort-cpu'" in done.stderr
    assert "acme_npu:FAMILY" in done.stderr


def test_no_target_is_chosen_silently() -> None:
    with pytest.raises(UnknownTargetError) as caught:
        open_target("qnn-http:sm8650")
    assert caught.value.advice == "did you mean 'qnn-htp'?"
    with pytest.raises(UnknownTargetError, match="no variant 'x'") as caught:
        open_target("toy:x")
    assert caught.value.advice == "it has none: the name is 'toy'"
