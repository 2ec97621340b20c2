"""A server that adapts sets what a policy says on its engines, and takes it back; others are left as they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from hint_agent import await_true
from npuops.serving_adaptive import AdaptiveServing
from running_server import Running, repository, serving
from served_artifacts import ort_artifact, tiny_cnn

pytestmark = pytest.mark.slow
"""Servers with worker processes."""

X = {"x": np.zeros((1, 1, 28, 28), np.float32)}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    return ort_artifact(folder / "tiny", tiny_cnn(folder / "tiny.onnx")).root


def adaptive_of(running: Running) -> AdaptiveServing:
    found = running.server._adaptive
    assert found is not None
    return found


def test_a_model_with_an_slo_gets_a_queue_as_long_as_can_be_answered_in_time(artifact: Path, tmp_path: Path) -> None:
    options = 'inline = "never"\n[queue]\ndefault_timeout_ms = 50.0\nmax_requests = 100000\n'
    repo = repository(tmp_path / "repo", "tiny", {"a": artifact}, options)
    with serving(repo, adapt=True) as running:
        running.settled("tiny")
        await_true(lambda: adaptive_of(running).settings())
        await_true(lambda: adaptive_of(running).settings()["tiny", "1"].queue_requests < 100_000)
        assert running.ask("tiny", X).status == 200
        running.hang_up()


def test_a_model_without_an_slo_is_left_alone(artifact: Path, tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", "tiny", {"a": artifact}, 'inline = "never"\n')
    with serving(repo, adapt=True) as running:
        running.settled("tiny")
        assert running.ask("tiny", X).status == 200
        assert adaptive_of(running).settings() == {}
        running.hang_up()


def test_nobody_who_did_not_ask_for_it_is_adapted(artifact: Path, tmp_path: Path) -> None:
    with serving(repository(tmp_path / "repo", "tiny", {"a": artifact})) as running:
        assert running.server._adaptive is None
