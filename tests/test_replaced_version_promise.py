"""A version that was replaced, and whose files are gone, dies with requests under way: its successor answers them."""

from __future__ import annotations

import os
import re
import shutil
import signal
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import tritonclient.grpc as triton

from running_server import Running, repository, serving, wait_for
from served_artifacts import ort_artifact, tiny_cnn

X = np.linspace(-1, 1, 784, dtype=np.float32).reshape(1, 1, 28, 28)
REQUESTS = 3


def there(running: Running) -> float:
    """Requests that wait, or are with a worker."""
    text = running.http("GET", "/metrics")[2].decode()
    gauges = r'^npuops_(?:in_flight|queue)_requests\{.*version="1".*\} (\S+)$'
    return sum(float(value) for value in re.findall(gauges, text, re.MULTILINE))


def by_http(running: Running) -> str:
    answer = running.ask("tiny", {"x": X})
    running.hang_up()
    assert answer.status == 200, answer.said
    return str(answer.said["model_version"])


def by_grpc(running: Running) -> str:
    with triton.InferenceServerClient(f"127.0.0.1:{running.grpc_port}") as client:
        asked = triton.InferInput("x", list(X.shape), "FP32")
        asked.set_data_from_numpy(X)
        return str(client.infer("tiny", [asked], client_timeout=60).get_response().model_version)


@pytest.mark.slow
def test_requests_of_a_version_that_cannot_come_back_go_to_the_one_that_replaced_it(tmp_path: Path) -> None:
    old, new = (ort_artifact(tmp_path / f"a{seed}", tiny_cnn(tmp_path / f"{seed}.onnx", seed=seed)) for seed in (1, 2))
    root = repository(tmp_path / "repo", "tiny", {"ort": old}, 'inline = "never"\n')
    with serving(root, grpc=True) as running, ThreadPoolExecutor(2 * REQUESTS) as pool:
        running.settled("tiny")
        (worker,) = running.starts("tiny")
        os.kill(worker.pid, signal.SIGSTOP)
        answers = [pool.submit(ask, running) for ask in (by_http, by_grpc) for _ in range(REQUESTS)]
        wait_for(lambda: there(running) == 2 * REQUESTS, "the requests did not come")
        shutil.copytree(new.root, root / "tiny" / "2" / "ort")
        assert running.http("POST", "/v2/repository/models/tiny/load", b"{}")[0] == 200
        shutil.rmtree(root / "tiny" / "1")
        os.kill(worker.pid, signal.SIGKILL)
        assert [answer.result(60) for answer in answers] == ["2"] * 2 * REQUESTS
