"""A card tells what makes its policy again."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

from npuops.schedlab.recipe import commit_of, recipe_of
from npuops.schedlab.training import TrainingOptions


def git(folder: Path, *words: str) -> str:
    who = ["-c", "user.name=x", "-c", "user.email=x@y"]
    done = subprocess.run(["git", "-C", str(folder), *who, *words], check=True, capture_output=True, text=True)
    return done.stdout.strip()


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    package = tmp_path / "repo" / "src" / "package"
    package.mkdir(parents=True)
    (package / "__init__.py").write_text("")
    git(tmp_path / "repo", "init", "-q")
    git(tmp_path / "repo", "add", ".")
    git(tmp_path / "repo", "commit", "-qm", "first")
    git(tmp_path / "repo", "tag", "v1")
    return package


def test_a_checkout_is_told_by_its_commit_and_whether_files_were_changed_since(checkout: Path) -> None:
    commit = git(checkout, "rev-parse", "HEAD")
    assert commit_of(checkout) == commit
    (checkout / "__init__.py").write_text("changed = True\n")
    assert commit_of(checkout) == f"{commit}-dirty"


def test_a_package_that_only_lies_in_a_checkout_is_not_its_source(checkout: Path, tmp_path: Path) -> None:
    installed = checkout.parent / "venv" / "package"
    installed.mkdir(parents=True)
    (installed / "__init__.py").write_text("")
    assert commit_of(installed) is None
    assert commit_of(tmp_path / "nowhere") is None


def test_all_options_are_told_and_not_who_worked() -> None:
    options = recipe_of(TrainingOptions(seed=7, generations=3, processes=2)).options
    assert options["seed"] == 7
    assert options["generations"] == 3
    assert options["fit"]["epochs"] == TrainingOptions().fit.epochs
    assert "processes" not in options
