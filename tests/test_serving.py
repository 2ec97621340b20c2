"""The whole server under load: versions come and go, workers die, and no request is lost."""

from __future__ import annotations

import json
import os
import shutil
import signal
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from npuops.artifacts.manifest import Artifact
from npuops.build.engine import run_engine
from npuops.evaluate.samples import make_samples
from running_server import wait_for
from serve_process import Served, load, served
from served_artifacts import ort_artifact, tiny_cnn
from virtual_devices import is_alive

pytestmark = pytest.mark.slow
"""Whole servers and clients as processes: minutes together; CI runs them."""

X = np.linspace(-1, 1, 784, dtype=np.float32).reshape(1, 1, 28, 28)
COUNT = 100


@pytest.fixture(scope="module")
def artifacts(tmp_path_factory: pytest.TempPathFactory) -> list[Artifact]:
    """Three versions of a model that give different answers."""
    folder = tmp_path_factory.mktemp("artifacts")
    return [
        ort_artifact(folder / f"tiny-{seed}", tiny_cnn(folder / f"tiny-{seed}.onnx", seed=seed)) for seed in range(3)
    ]


@pytest.fixture(scope="module")
def right(artifacts: list[Artifact]) -> list[bytes]:
    """The bits of each version's answer to `X`."""
    samples = make_samples([{"x": X}], source="test")
    return [run_engine(artifact, samples).outputs["y"][0].tobytes() for artifact in artifacts]


@pytest.fixture
def repo(tmp_path: Path) -> Path:
    folder = tmp_path / "repo"
    folder.mkdir()
    return folder


def put(repo: Path, model: str, artifact: Artifact, version: str = "1", options: str = "") -> None:
    """Into place in one step, as docs/serving.md advises."""
    (repo / model).mkdir(exist_ok=True)
    if options:
        (repo / model / "model.toml").write_text(options)
    coming = repo / f".{model}-{version}"
    shutil.copytree(artifact.root, coming)
    coming.rename(repo / model / version)


def workers(server: Served) -> list[int]:
    """Processes that run a model, and those that wait for one."""
    command = b"npuops.runtime.worker"
    return [pid for pid in server.family() if command in Path(f"/proc/{pid}/cmdline").read_bytes()]


def resident_kib(pid: int) -> int:
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return int(next(line.split()[1] for line in lines if line.startswith("VmRSS")))


def ask(server: Served, model: str) -> tuple[int, bytes]:
    return server.infer(model, X)


def all_at_once(count: int, work: Callable[[], tuple[int, bytes]]) -> list[tuple[int, bytes]]:
    found: list[tuple[int, bytes]] = []
    together = threading.Barrier(count)

    def one() -> None:
        together.wait()
        found.append(work())

    threads = [threading.Thread(target=one) for _ in range(count)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
    return found


def test_a_hot_swap_under_load_fails_no_request_and_never_goes_back(
    repo: Path, tmp_path: Path, artifacts: list[Artifact], right: list[bytes]
) -> None:
    put(repo, "tiny", artifacts[0])
    with served(repo, tmp_path / "tmp") as server:
        server.ready("tiny")
        with load(server.http_port, "tiny", X) as told:
            for version in (1, 2):
                wait_for(lambda: told.answers[-COUNT:].count(right[version - 1]) == COUNT, "the old one is silent")  # noqa: B023
                put(repo, "tiny", artifacts[version], str(version + 1))
                server.process.send_signal(signal.SIGHUP)
                wait_for(lambda: told.answers[-COUNT:].count(right[version]) == COUNT, "the new one is silent")  # noqa: B023
        server.heard("VersionChanged", model="tiny", version="1", event="closed")
        server.heard("VersionChanged", model="tiny", version="2", event="closed")
        assert server.end() == 0
    assert told.problems == []
    order = [right.index(answer) for answer in told.answers]
    # Clients' threads note their answers a moment after they came, each its own.
    late = [version for index, version in enumerate(order) if version < max(order[: max(index - 50, 0)], default=0)]
    assert late == []


def test_new_content_of_the_same_version_is_swapped_the_same_way(
    repo: Path, tmp_path: Path, artifacts: list[Artifact], right: list[bytes]
) -> None:
    put(repo, "tiny", artifacts[0])
    with served(repo, tmp_path / "tmp") as server:
        server.ready("tiny")
        with load(server.http_port, "tiny", X) as told:
            wait_for(lambda: len(told.answers) > COUNT, "no answers")
            shutil.rmtree(repo / "tiny" / "1")
            put(repo, "tiny", artifacts[1])
            server.process.send_signal(signal.SIGHUP)
            wait_for(lambda: told.answers[-COUNT:].count(right[1]) == COUNT, "the new one is silent")
        assert server.end() == 0
    assert told.problems == []
    assert set(told.answers) == {right[0], right[1]}


@pytest.mark.parametrize("inline", ["never", "auto"])
def test_a_worker_that_is_killed_under_load_costs_no_request(
    repo: Path, tmp_path: Path, artifacts: list[Artifact], right: list[bytes], inline: str
) -> None:
    put(repo, "tiny", artifacts[0], options=f'inline = "{inline}"\n')
    with served(repo, tmp_path / "tmp") as server:
        server.ready("tiny")
        with load(server.http_port, "tiny", X) as told:
            for restart in range(1, 3):
                wait_for(lambda: len(told.answers) > COUNT * restart, "no answers")  # noqa: B023
                for pid in workers(server):
                    os.kill(pid, signal.SIGKILL)
                server.heard("WorkerEnded", model="tiny", wanted=False)
                wait_for(lambda: len(server.find("WorkerStarted", cause="crash")) == restart, "it does not come back")  # noqa: B023
                before = len(told.answers)
                wait_for(lambda: len(told.answers) > before + COUNT, "no answers after the restart")  # noqa: B023
        assert server.end() == 0
    assert told.problems == []
    assert set(told.answers) == {right[0]}


def test_loading_and_unloading_over_and_over_leaves_nothing(
    repo: Path, tmp_path: Path, artifacts: list[Artifact], right: list[bytes]
) -> None:
    put(repo, "tiny", artifacts[0])
    with served(repo, tmp_path / "tmp") as server:
        server.ready("tiny")
        pid = server.process.pid

        def cycle() -> None:
            assert server.http("POST", "/v2/repository/models/tiny/load")[0] == 200
            assert ask(server, "tiny") == (200, right[0])
            assert server.http("POST", "/v2/repository/models/tiny/unload")[0] == 200
            assert ask(server, "tiny")[0] == 404

        def held() -> tuple[int, int]:
            return len(list(Path(f"/proc/{pid}/fd").iterdir())), len(server.family())

        for _ in range(5):
            cycle()
        wait_for(lambda: len(workers(server)) == 1, "more than the spare is left")
        before, memory = held(), resident_kib(pid)
        for _ in range(15):
            cycle()
        wait_for(lambda: held() <= before, f"{held()} descriptors and processes, not {before}")
        assert resident_kib(pid) - memory < 2048
        assert server.end() == 0


def test_a_herd_at_a_cold_model_causes_one_load(
    repo: Path, tmp_path: Path, artifacts: list[Artifact], right: list[bytes]
) -> None:
    put(repo, "tiny", artifacts[0], options="[idle]\nprewarm = false\n")
    with served(repo, tmp_path / "tmp") as server:
        wait_for(lambda: server.http("GET", "/v2/health/ready")[0] == 200, "a cold model counts as ready")
        assert server.find("VersionChanged", event="load") == []
        found = all_at_once(32, lambda: ask(server, "tiny"))
        assert found == [(200, right[0])] * 32
        assert len(server.find("VersionChanged", event="load")) == 1
        assert server.heard("VersionChanged", event="loaded")["waiting"] > 0
        assert server.end() == 0


def test_a_model_at_rest_leaves_memory_and_comes_back_with_the_next_request(
    repo: Path, tmp_path: Path, artifacts: list[Artifact], right: list[bytes]
) -> None:
    put(repo, "tiny", artifacts[0], options="[idle]\nkeep_alive_s = 0.2\n")
    with served(repo, tmp_path / "tmp") as server:
        server.ready("tiny")
        for round_ in range(1, 3):
            wait_for(lambda: len(server.find("VersionChanged", event="closed")) == round_, "it does not rest")  # noqa: B023
            wait_for(lambda: len(workers(server)) == 1, "more than the spare is left")
            [line] = json.loads(server.http("POST", "/v2/repository/index")[1])
            assert (line["state"], line["reason"]) == ("READY", "cold: the next request loads it")
            assert ask(server, "tiny") == (200, right[0])
        assert server.end() == 0


def test_the_model_that_was_asked_for_least_lately_makes_room(
    repo: Path, tmp_path: Path, artifacts: list[Artifact], right: list[bytes]
) -> None:
    for name, artifact in zip("abc", artifacts, strict=True):
        put(repo, name, artifact)
    with served(repo, tmp_path / "tmp", "--max-loaded", "2") as server:
        server.ready("a")
        server.ready("b")
        assert ask(server, "b") == (200, right[1])
        assert ask(server, "a") == (200, right[0])
        assert ask(server, "c") == (200, right[2])
        server.heard("VersionChanged", model="b", event="closed")
        assert server.find("VersionChanged", model="a", event="unload") == []
        wait_for(lambda: len(workers(server)) == 3, "two models and a spare")
        assert ask(server, "b") == (200, right[1])
        assert server.end() == 0


def test_what_the_configuration_says_holds(
    repo: Path, tmp_path: Path, artifacts: list[Artifact], right: list[bytes]
) -> None:
    put(repo, "tiny", artifacts[0])
    config = tmp_path / "serve.toml"
    config.write_text(
        f'grpc = false\nwatch = false\nmax_loaded = 1\naccess_log = "{tmp_path / "log.jsonl"}"\n'
        f"[limits]\nbody_bytes = 4096\n[tenant.camera]\nconcurrency = 1\n"
    )
    with served(repo, tmp_path / "tmp", "--config", str(config)) as server:
        server.ready("tiny")
        assert server.heard("Listening")["grpc"] is None
        assert ask(server, "tiny") == (200, right[0])
        assert server.http("POST", "/v2/models/tiny/infer", bytes(5000))[0] == 413
        family = server.family()
        assert server.end() == 0
        assert [pid for pid in family if is_alive(pid)] == []
    lines = [json.loads(line) for line in (tmp_path / "log.jsonl").read_text().splitlines()]
    assert [line["http.response.status_code"] for line in lines] == [200, 413]
