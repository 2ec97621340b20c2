"""What a server tells the host's scheduler: who waits for which of its processes, and how many were served in time."""

from __future__ import annotations

import os
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from hint_agent import await_true, hear
from npuops.hostsched.hint import Hint, Kind
from npuops.hostsched.hint_socket import HintSocket
from npuops.runtime.facts import WorkerStarted
from running_server import Running, clients, repository, serving
from serve_process import served
from served_artifacts import ort_artifact, tiny_cnn

pytestmark = pytest.mark.slow
"""Servers with worker processes."""

X = {"x": np.zeros((1, 1, 28, 28), np.float32)}


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    return ort_artifact(folder / "tiny", tiny_cnn(folder / "tiny.onnx")).root


@pytest.fixture
def path() -> Iterator[Path]:
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder) / "h.sock"


def loop_of(running: Running) -> int:
    found: list[int] = []
    running.loop.call_soon_threadsafe(lambda: found.append(threading.get_native_id()))
    await_true(lambda: found)
    return found[0]


def worker_of(running: Running, model: str) -> int:
    running.settled(model)
    return running.events.of(WorkerStarted)[-1].pid


def served_of(found: dict[int, Hint], tid: int) -> int:
    return found[tid].served if tid in found else -1


def test_loop_and_worker_are_told_of_with_what_they_served(artifact: Path, path: Path, tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", "tiny", {"a": artifact}, 'inline = "never"\n')
    with HintSocket(str(path)) as listener, serving(repo, hint_socket=str(path), hint_slo_ms=60_000) as running:
        loop, worker = loop_of(running), worker_of(running, "tiny")
        hear(listener, lambda found: {loop, worker} <= set(found))
        for _ in range(20):
            assert running.ask("tiny", X).status == 200
        found = hear(listener, lambda found: served_of(found, loop) == served_of(found, worker) == 20)
        for tid in (loop, worker):
            assert (found[tid].kind, found[tid].slo_us, found[tid].missed) == (Kind.LATENCY, 60_000_000, 0)
        hear(listener, lambda found: found[loop].queued == 0 and found[worker].queued == 0)
        assert os.getpid() == loop or os.getpid() not in found, "other threads of the server's process are not told of"
        with clients(running, 4, lambda: running.ask("tiny", X)):
            busy = hear(listener, lambda found: found[loop].queued and found[loop].slack_us is not None)
            assert 0 < (busy[loop].slack_us or 0) <= 60_000_000
            assert (busy[loop].queued or 0) <= 4
        assert (listener.counts.malformed, listener.counts.foreign, listener.counts.flooded) == (0, 0, 0)
    with HintSocket(str(path)) as listener:
        assert listener.heard() == {}


def test_late_answers_and_shed_requests_are_misses(artifact: Path, path: Path, tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", "tiny", {"a": artifact})
    with HintSocket(str(path)) as listener, serving(repo, hint_socket=str(path), hint_slo_ms=0.001) as running:
        loop = loop_of(running)
        running.settled("tiny")
        hear(listener, lambda found: loop in found)
        for _ in range(5):
            assert running.ask("tiny", X).status == 200
        assert running.ask("tiny", X, timeout_us=1).status != 200
        found = hear(listener, lambda found: served_of(found, loop) == 6)
        assert found[loop].missed == 6


def test_a_model_with_a_time_of_its_own_has_that_as_its_slo(artifact: Path, path: Path, tmp_path: Path) -> None:
    repo = repository(tmp_path / "repo", "tiny", {"a": artifact}, "[queue]\ndefault_timeout_ms = 1500\n")
    with HintSocket(str(path)) as listener, serving(repo, hint_socket=str(path), hint_slo_ms=5.0) as running:
        worker = worker_of(running, "tiny")
        found = hear(listener, lambda found: worker in found)
        assert found[worker].slo_us == 1_500_000


def test_an_agent_that_comes_later_or_again_is_found_and_none_is_nothing(
    artifact: Path, path: Path, tmp_path: Path
) -> None:
    repo = repository(tmp_path / "repo", "tiny", {"a": artifact})
    with serving(repo, hint_socket=str(path)) as running:
        loop = loop_of(running)
        running.settled("tiny")
        assert running.ask("tiny", X).status == 200
        for _ in range(2):
            with HintSocket(str(path)) as listener:
                hear(listener, lambda found: loop in found)
                before = listener.heard()[loop].served
                assert running.ask("tiny", X).status == 200
                hear(listener, lambda found, before=before: found[loop].served == before + 1)
        assert running.ask("tiny", X).status == 200


def test_a_server_that_was_told_not_to_says_nothing(artifact: Path, path: Path, tmp_path: Path) -> None:
    with (
        HintSocket(str(path)) as listener,
        served(
            artifact, tmp_path / "silent", "--no-hints", "--no-grpc", environment={"NPUOPS_HINT_SOCKET": str(path)}
        ) as silent,
        served(artifact, tmp_path / "telling", "--no-grpc", environment={"NPUOPS_HINT_SOCKET": str(path)}) as telling,
    ):
        silent.ready("tiny")
        telling.ready("tiny")
        found = hear(listener, lambda found: telling.process.pid in found)
        assert not set(silent.family()) & set(found)
        assert listener.counts.clients == 1
