"""The server's story in the demo: what it shows comes from processes that really did it, and none of them stays."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from npuops.cli.demo_serve import Served, ServingStory, missing, tell_serving
from npuops.cli.demo_serve_text import plain_serving, show_serving
from npuops.cli.screen import Screen
from npuops.errors import RunError
from npuops.events import StepStarted
from npuops.testing import EventLog
from served_artifacts import ort_artifact, tiny_cnn

pytestmark = pytest.mark.slow
"""Whole servers and clients as processes: minutes together; CI runs them."""

STEPS = ["serve", "ask", "kill", "swap"]


def served(folder: Path, seed: int) -> Served:
    model = tiny_cnn(folder / f"tiny{seed}.onnx", seed=seed)
    return Served(name=f"tiny {seed}", artifact=ort_artifact(folder / f"artifact{seed}", model))


@pytest.fixture(scope="module")
def told(tmp_path_factory: pytest.TempPathFactory) -> tuple[ServingStory, EventLog, Path]:
    folder, events = tmp_path_factory.mktemp("demo"), EventLog()
    (folder / "scratch").mkdir()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("tempfile.tempdir", str(folder / "scratch"))
        patch.setattr("npuops.cli.demo_serve.STAGE_S", 1.0)
        story = tell_serving(served(folder, 1), served(folder, 2), events)
    return story, events, folder / "scratch"


def test_a_killed_worker_and_a_new_version_cost_no_request(told: tuple[ServingStory, EventLog, Path]) -> None:
    story, events, _ = told
    assert story.is_as_promised
    assert [stage.title for stage in story.stages] == ["alone", "worker killed", "version 2"]
    assert [(stage.lost, stage.differing) for stage in story.stages] == [(0, 0), (0, 0), (0, None)]
    assert all(stage.asked > 300 and stage.p50_ms <= stage.p99_ms <= stage.max_ms for stage in story.stages)
    assert story.recovery_s is not None
    assert story.version == "2"
    assert [event.step for event in events.of(StepStarted)] == STEPS


def test_nothing_stays(told: tuple[ServingStory, EventLog, Path]) -> None:
    _, _, scratch = told
    assert list(scratch.iterdir()) == []
    left = [folder for folder in Path("/proc").glob("[0-9]*") if str(scratch) in _command(folder)]
    assert left == []


def test_people_and_programs_are_told_of_every_loss(
    told: tuple[ServingStory, EventLog, Path], capsys: pytest.CaptureFixture[str]
) -> None:
    story, _, _ = told
    first, *others = story.stages
    bad = replace(story, stages=(replace(first, answered=first.asked - 3, differing=2), *others), recovery_s=None)
    assert not bad.is_as_promised
    plain = plain_serving(bad)
    assert plain["as_promised"] is False
    assert plain["stages"][0]["lost"] == 3  # type: ignore[index]
    show_serving(Screen(stderr=False), bad, 8)
    shown = capsys.readouterr().out
    assert f"3 of {sum(stage.asked for stage in bad.stages)} requests" in shown
    assert "2 answers differ" in shown
    assert "the worker did not come back" in shown


@pytest.mark.parametrize("change", [{"version": "1"}, {"ended": 1}, {"recovery_s": None}])
def test_it_is_as_promised_only_to_the_end(
    told: tuple[ServingStory, EventLog, Path], change: dict[str, object]
) -> None:
    assert not replace(told[0], **change).is_as_promised  # type: ignore[arg-type]


def test_a_server_that_cannot_serve_is_told_in_its_own_words(tmp_path: Path) -> None:
    one = served(tmp_path, 3)
    (one.artifact.root / one.artifact.manifest.entry).write_bytes(b"something else")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("npuops.cli.demo_serve.LIMIT_S", 5.0)
        with pytest.raises(RunError, match="is not ready"):
            tell_serving(one, one, EventLog())


def test_everything_that_it_needs_is_installed_here() -> None:
    assert missing() == ""


def _command(folder: Path) -> str:
    try:
        return (folder / "cmdline").read_bytes().decode(errors="replace")
    except OSError:
        return ""
