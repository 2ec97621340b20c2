"""`npuops serve` with pipelines and chains, as clients of both protocols meet it: pictures in, labels out."""

from __future__ import annotations

import asyncio
import base64
import json
import math
import os
import shutil
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as triton_grpc
import tritonclient.http as triton_http
from onnx import TensorProto
from tritonclient.utils import InferenceServerException

from command_line import npuops
from npuops.models.zoo import zoo_model
from npuops.server.pipeline_launcher import PipelinedVersion
from running_server import Answer, Running, serving, wait_for
from running_server import clients as clients_of
from serve_process import Served, served
from served_artifacts import identity, ort_artifact

pytestmark = pytest.mark.slow
"""Whole servers and clients as processes: minutes together; CI runs them."""

image: Any = pytest.importorskip("PIL.Image", reason="images need the extra `images`")

RAW = {"Inference-Header-Content-Length": "0"}
CHAIN = """
inputs = ["picture"]
outputs = ["digit", "passed"]
[[step]]
model = "pass"
inputs = { x = "sureness" }
outputs = { y = "passed" }
[[step]]
model = "digits"
inputs = { image = "picture" }
outputs = { label = "digit", score = "sureness" }
"""


def build(model: object, folder: Path, *flags: object) -> Path:
    steps = ("--pipeline", "image-classification")
    npuops("build", model, "-t", "ort-cpu", "--precision", "fp32", *steps, *flags, "-o", folder)
    return folder


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Handwritten digits as PNG files."""
    folder = tmp_path_factory.mktemp("pictures")
    with np.load(zoo_model("digits-cnn").evaluation) as data:
        pixels = (data["image"][:6].reshape(-1, 8, 8) * 255).round().astype(np.uint8)
    paths = [folder / f"{index}.png" for index in range(len(pixels))]
    for path, one in zip(paths, pixels, strict=True):
        image.fromarray(one).save(path)
    return paths


@pytest.fixture(scope="module")
def repo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repo")
    build("zoo:digits-cnn", folder / "digits/1", "--image", "resize=1")
    (folder / "pass").mkdir()
    path = identity(folder.parent / "pass.onnx", TensorProto.FLOAT, shape=("N", 5))
    ort_artifact(folder / "pass/1", path)
    (folder / "reader").mkdir()
    (folder / "reader/chain.toml").write_text(CHAIN)
    return folder


@pytest.fixture(scope="module")
def server(repo: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(repo, tmp_path_factory.mktemp("scratch")) as running:
        for model in ("digits", "pass", "reader"):
            running.ready(model)
        yield running


@pytest.fixture(scope="module")
def runs(repo: Path, pictures: list[Path]) -> list[list[dict[str, Any]]]:
    """Of the first pictures; each costs the start of a process."""
    return [run_of(repo / "digits/1", picture) for picture in pictures[:2]]


def run_of(artifact: Path, picture: Path) -> list[dict[str, Any]]:
    """What `npuops run` says of a picture: labels and scores, best first."""
    found: list[dict[str, Any]] = json.loads(npuops("run", artifact, "-i", picture, "--json"))["top_k"]
    return found


def clients(server: Served) -> list[tuple[Any, Any]]:
    return [
        (triton_http, triton_http.InferenceServerClient(f"127.0.0.1:{server.http_port}")),
        (triton_grpc, triton_grpc.InferenceServerClient(f"127.0.0.1:{server.grpc_port}")),
    ]


def ask(module: Any, client: Any, model: str, data: list[bytes], name: str = "image") -> Any:
    given = module.InferInput(name, [len(data)], "BYTES")
    given.set_data_from_numpy(np.array(data, dtype=object))
    return client.infer(model, [given])


def metric(server: Served, name: str) -> float:
    """Sum of all samples that begin like this."""
    text = server.http("GET", "/metrics")[1].decode()
    return sum(float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(name))


def test_metadata_and_configuration_show_pictures_and_labels(server: Served) -> None:
    said = json.loads(server.http("GET", "/v2/models/digits")[1])
    assert said["inputs"] == [{"name": "image", "datatype": "BYTES", "shape": [-1]}]
    assert {out["name"]: (out["datatype"], out["shape"]) for out in said["outputs"]} == {
        "label": ("BYTES", [-1, 5]),
        "score": ("FP32", [-1, 5]),
        "index": ("INT64", [-1, 5]),
    }
    config = json.loads(server.http("GET", "/v2/models/digits/config")[1])
    assert config["max_batch_size"] == 64
    assert config["input"][0]["data_type"] == "TYPE_STRING"


def test_clients_of_both_protocols_get_what_npuops_run_says(
    server: Served, runs: list[list[dict[str, Any]]], pictures: list[Path]
) -> None:
    for module, client in clients(server):
        found = ask(module, client, "digits", [picture.read_bytes() for picture in pictures])
        labels, scores = found.as_numpy("label"), found.as_numpy("score")
        assert labels.shape == (len(pictures), 5)
        for names, row, run in zip(labels, scores, runs, strict=False):
            assert [name.decode() for name in names] == [one["label"] for one in run]
            for score, one in zip(row, run, strict=True):  # probabilities of the logits that `run` shows
                assert math.log(row[0] / score) == pytest.approx(run[0]["score"] - one["score"], abs=1e-3)


def test_a_picture_may_be_the_whole_body_or_base64_in_json(
    server: Served, runs: list[list[dict[str, Any]]], pictures: list[Path]
) -> None:
    best = runs[0][0]["label"]
    status, body = server.http("POST", "/v2/models/digits/infer", pictures[0].read_bytes(), RAW)
    assert status == 200
    assert best.encode() in body
    text = base64.b64encode(pictures[0].read_bytes()).decode()
    request = {"inputs": [{"name": "image", "datatype": "BYTES", "shape": [1], "data": [text]}]}
    status, body = server.http("POST", "/v2/models/digits/infer", json.dumps(request).encode())
    outputs = {output["name"]: output["data"] for output in json.loads(body)["outputs"]}
    assert (status, outputs["label"][0]) == (200, best)


def test_a_broken_picture_is_the_clients_error_and_names_the_step(server: Served, pictures: list[Path]) -> None:
    data = pictures[0].read_bytes()
    status, body = server.http("POST", "/v2/models/digits/infer", data[:60], RAW)
    assert status == 400
    assert "step decode_image: the picture is no readable image" in json.loads(body)["error"]
    for module, client in clients(server):
        with pytest.raises(InferenceServerException, match=r"picture 2 of 2: step decode_image") as caught:
            ask(module, client, "digits", [data, data[:60]])
        assert caught.value.status() in {"400", "StatusCode.INVALID_ARGUMENT"}
    assert metric(server, 'npuops_request_failures_total{device="host",error="DataError",model="digits"') >= 3


def test_a_deadline_holds_for_the_steps_too(server: Served, pictures: list[Path]) -> None:
    headers = {**RAW, "X-Request-Timeout-Ms": "0.001"}
    status, _ = server.http("POST", "/v2/models/digits/infer", pictures[0].read_bytes(), headers)
    assert status == 504


def test_steps_are_measured_apart_from_the_device(server: Served, pictures: list[Path]) -> None:
    server.http("POST", "/v2/models/digits/infer", pictures[0].read_bytes(), RAW)
    where = 'model="digits",version="1"'
    assert metric(server, f'npuops_preprocessing_seconds_count{{stage="steps",{where}') >= 1
    device = f'{where},device="ort-cpu"'
    steps = metric(server, f'npuops_preprocessing_seconds_sum{{stage="steps",{where}')
    compute = metric(server, f'npuops_request_stage_seconds_sum{{stage="compute",{device}')
    assert steps > compute, "decoding costs more than this small model"
    assert metric(server, "npuops_preprocessing_processes ") >= 1


def test_a_process_that_is_killed_is_replaced_and_told(server: Served, pictures: list[Path]) -> None:
    before = metric(server, "npuops_preprocessing_process_exits_total ")
    (pid, *_) = step_processes(server)
    os.kill(pid, signal.SIGKILL)
    for _ in range(3):
        assert server.http("POST", "/v2/models/digits/infer", pictures[0].read_bytes(), RAW)[0] == 200
    assert metric(server, "npuops_preprocessing_process_exits_total ") == before + 1
    assert server.heard("StepProcessEnded", pid=pid)["why"] == "signal 9"


def test_no_picture_is_lost_when_processes_are_killed_under_load(
    repo: Path, tmp_path: Path, pictures: list[Path]
) -> None:
    (tmp_path / "serve.toml").write_text("step_processes = 2\n")
    with served(repo, tmp_path / "scratch", "-c", str(tmp_path / "serve.toml")) as running:
        running.ready("reader")
        data = [pictures[place % len(pictures)].read_bytes() for place in range(100)]
        assert len(step_processes(running)) == 2, "as many as were asked for"
        alone = [running.http("POST", "/v2/models/reader/infer", one, RAW) for one in data[: len(pictures)]]
        done: list[bool] = []

        def send(place: int) -> None:
            answer = running.http("POST", "/v2/models/reader/infer", data[place], RAW)
            done.append(answer == alone[place % len(pictures)] and answer[0] == 200)

        with ThreadPoolExecutor(20) as pool:
            sending = [pool.submit(send, place) for place in range(100)]
            for before in (10, 40, 70):
                wait_for(lambda before=before: len(done) >= before, "nobody answers")
                for pid in step_processes(running):
                    with suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
            for one in sending:
                one.result()
        assert all(done)


def step_processes(server: Served) -> list[int]:
    return [pid for pid in server.family() if "npuops.runtime.step_process" in command_of(pid)]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_text()
    except OSError:
        return ""


def test_a_chain_is_served_like_any_model(server: Served, pictures: list[Path]) -> None:
    said = json.loads(server.http("GET", "/v2/models/reader")[1])
    assert (said["platform"], said["versions"]) == ("npuops_chain", ["1"])
    assert [port["name"] for port in said["outputs"]] == ["digit", "passed"]
    data = [picture.read_bytes() for picture in pictures]
    for module, client in clients(server):
        assert client.is_model_ready("reader")
        direct, found = ask(module, client, "digits", data), ask(module, client, "reader", data, "picture")
        assert found.as_numpy("digit").tolist() == direct.as_numpy("label").tolist()
        np.testing.assert_array_equal(found.as_numpy("passed"), direct.as_numpy("score"))
    assert metric(server, 'npuops_requests_total{model="reader",outcome="success"') >= 2


def test_a_broken_picture_in_a_chain_is_400_as_well(server: Served) -> None:
    status, body = server.http("POST", "/v2/models/reader/infer", b"nothing", RAW)
    assert status == 400
    assert "decode_image" in json.loads(body)["error"]


def test_a_chain_comes_and_goes_with_its_models(server: Served, pictures: list[Path]) -> None:
    _, client = clients(server)[0]
    client.unload_model("pass")
    wait_for(lambda: states(server)["reader"] == "UNAVAILABLE", "a chain without a model is not ready")
    status, body = server.http("POST", "/v2/models/reader/versions/1/infer", pictures[0].read_bytes(), RAW)
    assert status == 503
    assert "model 'pass' was unloaded" in json.loads(body)["error"]
    assert server.http("GET", "/v2/health/ready")[0] == 200
    client.load_model("reader")  # and what it is made of
    assert states(server) == {"digits": "READY", "pass": "READY", "reader": "READY"}
    client.unload_model("reader")
    assert states(server) == {"digits": "READY", "pass": "READY", "reader": "UNAVAILABLE"}
    client.load_model("reader")
    assert server.http("POST", "/v2/models/reader/infer", pictures[0].read_bytes(), RAW)[0] == 200


def states(server: Served) -> dict[str, str]:
    return {line["name"]: line["state"] for line in json.loads(server.http("POST", "/v2/repository/index")[1])}


def test_a_new_version_and_other_options_cost_no_request(repo: Path, tmp_path: Path, pictures: list[Path]) -> None:
    shutil.copytree(repo / "digits", tmp_path / "repo/digits")
    data = pictures[0].read_bytes()
    with serving(tmp_path / "repo") as running:
        running.settled("digits")
        old = pipelined(running)
        with clients_of(running, 3, lambda: raw_answer(running, data)) as answers:
            wait_for(lambda: len(answers) > 5, "nobody answers")
            (tmp_path / "repo/digits/model.toml").write_text("[queue]\nmax_requests = 7\n")
            look(running)
            wait_for(lambda: old.inner.spec.options.queue.max_requests == 7, "the engine does not follow")
            shutil.copytree(repo / "digits/1", tmp_path / "repo/digits/2")
            look(running)
            wait_for(lambda: answers[-1].said["model_version"] == "2", "the new version is not used")
        assert {answer.status for answer in answers} == {200}
        wait_for(lambda: not old.ready, "the old version is not closed")
        assert old.in_flight == 0


def pipelined(running: Running) -> PipelinedVersion:
    found = running.server.repository.serving["digits", ""]
    assert isinstance(found, PipelinedVersion)
    return found


def look(running: Running) -> None:
    asyncio.run_coroutine_threadsafe(running.server.repository.refresh(), running.loop).result(60)


def raw_answer(running: Running, data: bytes) -> Answer:
    status, headers, body = running.http("POST", "/v2/models/digits/infer", data, RAW)
    size = int(headers.get("inference-header-content-length", len(body)))
    return Answer(status, 0.0, headers, {}, json.loads(body[:size]))


def test_no_process_outlives_the_server(repo: Path, tmp_path: Path, pictures: list[Path]) -> None:
    for number, code in ((signal.SIGTERM, 0), (signal.SIGKILL, -signal.SIGKILL)):
        with served(repo / "digits/1", tmp_path / str(number)) as running:
            running.ready("digits-cnn")
            assert running.http("POST", "/v2/models/digits-cnn/infer", pictures[0].read_bytes(), RAW)[0] == 200
            family = running.family()
            assert step_processes(running)
            assert running.end(number) == code
            wait_for(lambda family=family: not any("step_process" in command_of(pid) for pid in family), "orphans")


@pytest.mark.slow
def test_a_photo_is_what_npuops_run_says_it_is(mobilenet: Path, shared_models: Path, tmp_path: Path) -> None:
    photos = sorted((shared_models / "inputs/photos").glob("*.jpg"))
    values = ("--image", "mean=0.5,0.5,0.5", "--image", "std=0.5,0.5,0.5")
    labels = shared_models / "inputs/imagenet_labels.txt"
    art = build(mobilenet, tmp_path / "mobilenet", *values, "--labels", labels)
    with served(art, tmp_path / "scratch") as running:
        (name,) = {line["model"] for line in [running.heard("VersionChanged", event="loaded")]}
        for module, client in clients(running):
            found = ask(module, client, name, [photo.read_bytes() for photo in photos])
            for row, scores, photo in zip(found.as_numpy("label"), found.as_numpy("score"), photos, strict=True):
                run = run_of(art, photo)
                assert [label.decode() for label in row] == [one["label"] for one in run]
                np.testing.assert_allclose(scores, [one["score"] for one in run], atol=1e-4)
