"""The CI example calls verbs and options that exist, in an order that cannot publish a refused artifact."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
from typer.main import get_command

from npuops.cli.main import app

EXAMPLE = Path(__file__).parent.parent / "examples" / "ci" / "github-actions.yml"


def calls() -> list[list[str]]:
    """Every call of npuops in the file; a folded scalar (`>`) is one line."""
    text = EXAMPLE.read_text(encoding="utf-8")
    folded = re.sub(r"run: >\n((?: {10}.*\n)+)", lambda match: "run: " + " ".join(match[1].split()) + "\n", text)
    return [shlex.split(line) for line in re.findall(r"run: (npuops .*)", folded)]


def test_the_example_builds_then_gates() -> None:
    assert [call[1] for call in calls()] == ["build", "gate", "profile"]


@pytest.mark.parametrize("call", calls(), ids=lambda call: call[1])
def test_each_call_is_understood_by_the_command_line(call: list[str]) -> None:
    group = get_command(app)
    context = group.make_context("npuops", call[1:], resilient_parsing=True)
    verb = group.get_command(context, call[1])  # type: ignore[attr-defined]
    parsed = verb.make_context(call[1], call[2:])
    assert "classifier.npuart" in map(str, parsed.params.values())


def test_the_artifact_is_kept_only_when_nothing_before_said_no() -> None:
    last = EXAMPLE.read_text(encoding="utf-8").split("- name: ")[-1]
    assert last.startswith("Keep the artifact")
    assert "if:" not in last.split("uses:")[0]
