"""What a server writes down of each request: a line in the access log, spans at a collector; over both protocols."""

from __future__ import annotations

import json
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
import tritonclient.http as http_client
from tritonclient.utils import InferenceServerException

from running_server import wait_for
from serve_process import Served, served
from served_artifacts import ort_artifact, tiny_cnn

pytest.importorskip("opentelemetry.sdk", reason="pip install 'npuops[otel]' to have traces")

from otlp_receiver import Receiver, receiving

pytestmark = pytest.mark.slow
"""Whole servers and clients as processes: minutes together; CI runs them."""

X = np.zeros((2, 1, 28, 28), np.float32)
TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
PARENT = f"00-{TRACE}-00f067aa0ba902b7-01"
Line = dict[str, Any]


@pytest.fixture(scope="module")
def artifact(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("artifact")
    return ort_artifact(folder / "tiny", tiny_cnn(folder / "tiny.onnx")).root


@pytest.fixture(params=["auto", "never"], ids=["inline", "worker"])
def logged(artifact: Path, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Served]:
    """A server with an access log, `log.jsonl` beside its scratch folder; small runs inline or in a worker."""
    log = str(tmp_path / "log.jsonl")
    with served(artifact, tmp_path / "tmp", "--access-log", log, "--inline", request.param) as server:
        server.ready("tiny")
        yield server


def lines(server: Served, count: int) -> list[Line]:
    """Wait for so many."""
    log = server.scratch.parent / "log.jsonl"
    wait_for(lambda: len(log.read_text().splitlines()) >= count, "the log is too short")
    found = [json.loads(line) for line in log.read_text().splitlines()]
    assert len(found) == count, found
    return found


def http_input() -> http_client.InferInput:
    tensor = http_client.InferInput("x", X.shape, "FP32")
    tensor.set_data_from_numpy(X)
    return tensor


def grpc_input() -> grpc_client.InferInput:
    tensor = grpc_client.InferInput("x", X.shape, "FP32")
    tensor.set_data_from_numpy(X)
    return tensor


def test_an_inference_over_http_is_a_line(logged: Served) -> None:
    with http_client.InferenceServerClient(f"127.0.0.1:{logged.http_port}") as client:
        headers = {"traceparent": PARENT, "X-Npuops-Tenant": "camera"}
        answer = client.infer("tiny", [http_input()], request_id="seven", headers=headers)
    [line] = lines(logged, 1)
    assert line["network.protocol.name"] == "http"
    assert (line["http.request.method"], line["url.path"]) == ("POST", "/v2/models/tiny/infer")
    assert line["http.response.status_code"] == 200
    assert line["client.address"] == "127.0.0.1"
    assert "http" in line["user_agent.original"]
    assert line["http.request.body.size"] > X.nbytes
    assert line["http.response.body.size"] > answer.as_numpy("y").nbytes
    named = [line[f"npuops.{key}"] for key in ("model", "version", "device", "tenant", "request.id")]
    assert named == ["tiny", "1", "ort-cpu", "default", "seven"]
    assert line["trace_id"] == TRACE
    assert 0 < line["duration_s"] < 60
    assert "error.type" not in line


def test_an_inference_over_grpc_is_a_line_and_a_stream_has_one_for_each_message(logged: Served) -> None:
    told: list[Any] = []
    with grpc_client.InferenceServerClient(f"127.0.0.1:{logged.grpc_port}") as client:
        client.infer("tiny", [grpc_input()], request_id="eight", headers={"traceparent": PARENT})
        client.start_stream(lambda result, error: told.append((result, error)))
        client.async_stream_infer("tiny", [grpc_input()], request_id="nine")
        client.async_stream_infer("nothing", [grpc_input()], request_id="ten")
        wait_for(lambda: len(told) == 2, "no answer in the stream")
        client.stop_stream()
    unary, *streamed = lines(logged, 3)
    first, second = sorted(streamed, key=lambda line: str(line.get("error.type", "")))
    assert unary["network.protocol.name"] == "grpc"
    assert unary["rpc.method"] == "inference.GRPCInferenceService/ModelInfer"
    assert (unary["rpc.grpc.status_code"], unary["npuops.request.id"], unary["trace_id"]) == (0, "eight", TRACE)
    assert (unary["npuops.model"], unary["npuops.version"], unary["npuops.device"]) == ("tiny", "1", "ort-cpu")
    assert unary["http.request.body.size"] > X.nbytes
    assert first["rpc.method"] == second["rpc.method"] == "inference.GRPCInferenceService/ModelStreamInfer"
    assert (first["rpc.grpc.status_code"], first["npuops.request.id"]) == (0, "nine")
    assert (second["rpc.grpc.status_code"], second["error.type"]) == (5, "NotServedError")


def test_small_and_refused_requests_are_lines_too(logged: Served) -> None:
    assert logged.http("GET", "/v2/health/ready?verbose=1")[0] == 200
    assert logged.http("POST", "/v2/models/nothing/infer", b"{}")[0] == 404
    assert logged.http("POST", "/v2/models/tiny/infer", b"{}")[0] == 400
    assert logged.http("GET", "/elsewhere")[0] == 404
    with socket.create_connection(("127.0.0.1", logged.http_port)) as client:
        client.sendall(b"nonsense\r\n\r\n")
        assert client.recv(100).startswith(b"HTTP/1.1 400")
    with grpc_client.InferenceServerClient(f"127.0.0.1:{logged.grpc_port}") as client:
        assert client.is_server_live()
        with pytest.raises(InferenceServerException):
            client.infer("nothing", [grpc_input()])
    found = lines(logged, 7)
    told = [
        (line.get("url.path", line.get("rpc.method", "")), line.get("error.type", ""), line.get("npuops.model", ""))
        for line in found
    ]
    assert told == [
        ("/v2/health/ready", "", ""),
        ("/v2/models/nothing/infer", "NotServedError", "nothing"),
        ("/v2/models/tiny/infer", "DataError", "tiny"),
        ("/elsewhere", "NotServedError", ""),
        ("", "DataError", ""),
        ("inference.GRPCInferenceService/ServerLive", "", ""),
        ("inference.GRPCInferenceService/ModelInfer", "NotServedError", ""),
    ]
    statuses = [line.get("http.response.status_code", line.get("rpc.grpc.status_code")) for line in found]
    assert statuses == [200, 404, 400, 404, 400, 0, 5]


def test_a_client_that_goes_in_the_middle_of_a_request_is_a_line_and_one_that_only_connects_is_none(
    logged: Served,
) -> None:
    head = b"POST /v2/models/tiny/infer HTTP/1.1\r\nHost: a\r\n"
    for sent in (b"", b"\r\n", head, head + b"Content-Length: 100\r\n\r\nabc"):
        with socket.create_connection(("127.0.0.1", logged.http_port)) as client:
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            assert client.recv(100) == b""
    told = [
        (line.get("url.path", ""), line["http.response.status_code"], line["error.type"]) for line in lines(logged, 2)
    ]
    assert told == [("", 499, "ClientGone"), ("/v2/models/tiny/infer", 499, "ClientGone")]


def test_sighup_goes_on_in_a_new_file(logged: Served) -> None:
    log = logged.scratch.parent / "log.jsonl"
    assert logged.http("GET", "/v2")[0] == 200
    lines(logged, 1)
    log.rename(log.with_suffix(".old"))
    logged.process.send_signal(signal.SIGHUP)
    wait_for(log.exists, "no new file")
    assert logged.http("GET", "/v2")[0] == 200
    lines(logged, 1)


@pytest.fixture
def collector() -> Iterator[Receiver]:
    with receiving() as receiver:
        yield receiver


@pytest.mark.parametrize("inline", ["auto", "never"])
def test_a_request_with_a_trace_is_told_to_the_collector_with_its_stages(
    artifact: Path, tmp_path: Path, collector: Receiver, inline: str
) -> None:
    config = tmp_path / "serve.toml"
    config.write_text(f'otlp_endpoint = "{collector.endpoint.removesuffix("/v1/traces")}"\n')
    with served(artifact, tmp_path / "tmp", "--config", str(config), "--inline", inline) as server:
        server.ready("tiny")
        with http_client.InferenceServerClient(f"127.0.0.1:{server.http_port}") as client:
            client.infer("tiny", [http_input()], headers={"traceparent": PARENT})
            client.infer("tiny", [http_input()], headers={"traceparent": f"{PARENT[:-1]}0"})
            with pytest.raises(InferenceServerException):
                client.infer("nothing", [http_input()], headers={"traceparent": PARENT})
        with grpc_client.InferenceServerClient(f"127.0.0.1:{server.grpc_port}") as rpc:
            rpc.infer("tiny", [grpc_input()], headers={"traceparent": PARENT})
        assert server.end() == 0
    spans = collector.spans
    assert {span.trace_id.hex() for span in spans} == {TRACE}
    roots = [span for span in spans if span.parent_span_id.hex() == "00f067aa0ba902b7"]
    names = ["POST /v2/models/{model}/infer", "POST /v2/models/{model}/infer"]
    assert sorted(span.name for span in roots) == [*names, "inference.GRPCInferenceService/ModelInfer"]
    for root in roots:
        stages = [span.name for span in spans if span.parent_span_id == root.span_id]
        failed = any(item.key == "error.type" for item in root.attributes)
        assert stages == ([] if failed else ["queue", "dma in", "compute", "dma out", "respond"])


def test_the_log_names_the_trace_that_the_server_began(
    artifact: Path, tmp_path: Path, collector: Receiver, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", collector.endpoint)
    monkeypatch.setenv("OTEL_TRACES_SAMPLER", "always_on")
    with served(artifact, tmp_path / "tmp", "--access-log", str(tmp_path / "log.jsonl")) as server:
        server.ready("tiny")
        with http_client.InferenceServerClient(f"127.0.0.1:{server.http_port}") as client:
            client.infer("tiny", [http_input()])
            client.infer("tiny", [http_input()])
        logged = [line["trace_id"] for line in lines(server, 2)]
        assert server.end() == 0
    traces = {span.trace_id.hex() for span in collector.spans}
    assert len(traces) == 2
    assert set(logged) == traces


def test_without_a_log_and_a_collector_nothing_is_recorded(artifact: Path, tmp_path: Path) -> None:
    with served(artifact, tmp_path / "tmp") as server:
        server.ready("tiny")
        metrics = server.http("GET", "/metrics")[1].decode()
        assert "npuops_access_log_dropped_total" not in metrics
        assert "npuops_trace_dropped_requests_total" not in metrics
        assert server.end() == 0
