from __future__ import annotations

import asyncio
import json
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from onnx import TensorProto

from grpc_models import Lab, echo_model
from http_served import Served, http_served, request
from npuops.clock import SystemClock
from npuops.runtime.facts import RequestShed, ShedReason
from npuops.runtime.job import Bytes
from npuops.runtime.tenant_options import TenantOptions, Tenants
from npuops.server.access import TenantGate
from npuops.server.http_api import HttpApi
from npuops.server.http_connection import Connection
from npuops.server.http_infer import Exchange, HttpInfer
from npuops.server.http_known import HttpLimits, Known
from running_server import Running, repository, serving, wait_for
from served_artifacts import identity, ort_artifact, tiny_cnn

ECHO = "/v2/models/echo/infer"
LENGTH = "Inference-Header-Content-Length"
X = np.array([[1.5, -2.0, 0.0, 4.0]], np.float32)


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("infer")
    echo = ort_artifact(folder / "echo", identity(folder / "echo.onnx", TensorProto.FLOAT))
    text = ort_artifact(folder / "text", identity(folder / "text.onnx", TensorProto.STRING, shape=("N", 1)))
    fixed = ort_artifact(folder / "tiny", tiny_cnn(folder / "tiny.onnx"))
    root = folder / "repository"
    repository(root, "echo", {"ort": echo})
    repository(root, "text", {"ort": text})
    repository(root, "cold", {"ort": fixed}, "[idle]\nprewarm = false\nkeep_alive_s = 3600.0\n")
    return root


@pytest.fixture(scope="module")
def running(models: Path) -> Iterator[Running]:
    with serving(models, limits=HttpLimits(body_bytes=1 << 20)) as it:
        it.settled("echo")
        it.settled("text")
        yield it


def binary(x: np.ndarray[Any, Any] = X, **more: Any) -> tuple[bytes, dict[str, str]]:
    """A request with its tensor behind the JSON."""
    tensor = {
        "name": "x",
        "shape": list(x.shape),
        "datatype": "FP32",
        "parameters": {"binary_data_size": x.nbytes},
    }
    head = json.dumps({**more, "inputs": [tensor]}).encode()
    return head + x.tobytes(), {LENGTH: str(len(head))}


def plain(**more: Any) -> bytes:
    tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": X.reshape(-1).tolist()}
    return json.dumps({**more, "inputs": [tensor]}).encode()


def error_of(answer: tuple[int, dict[str, str], bytes], status: int) -> str:
    assert answer[0] == status, answer
    return str(json.loads(answer[2])["error"])


def test_json_in_json_out_flat_or_nested(running: Running) -> None:
    for data in (X.reshape(-1).tolist(), X.tolist()):
        tensor = {"name": "x", "shape": [1, 4], "datatype": "FP32", "data": data}
        status, fields, body = running.http("POST", ECHO, json.dumps({"id": "7", "inputs": [tensor]}).encode())
        said = json.loads(body)
        assert (status, fields["content-type"]) == (200, "application/json")
        assert LENGTH.lower() not in fields
        assert (said["id"], said["model_name"], said["model_version"]) == ("7", "echo", "1")
        assert said["outputs"] == [{"name": "y", "datatype": "FP32", "shape": [1, 4], "data": X.reshape(-1).tolist()}]


@pytest.mark.parametrize("identity", [None, "same", "ünï"])
@pytest.mark.parametrize("both", [True, False])
def test_bytes_in_and_bytes_or_json_out(running: Running, identity: str | None, both: bool) -> None:
    for number in range(3):
        x = X + number
        more: dict[str, Any] = {"parameters": {"binary_data_output": both}}
        body, fields = binary(x, **({"id": identity} if identity else {}), **more)
        status, got, data = running.http("POST", ECHO, body, fields)
        assert status == 200
        size = int(got.get(LENGTH.lower(), len(data)))
        said = json.loads(data[:size])
        assert said.get("id") == identity
        (output,) = said["outputs"]
        assert (data[size:] == x.tobytes()) is both
        assert output.get("data") == (None if both else x.reshape(-1).tolist())


def test_every_answer_bears_the_id_of_its_own_request(running: Running) -> None:
    for name in ["a", "b", "", "ab", None, "ba", "ünï", "a" * 300, 'say "a"', "b"]:
        named = {} if name is None else {"id": name}
        body, fields = binary(**named, parameters={"binary_data_output": True})
        status, got, data = running.http("POST", ECHO, body, fields)
        size = int(got[LENGTH.lower()])
        assert (status, data[size:]) == (200, X.tobytes())
        assert json.loads(data[:size]).get("id", "") == (name or "")


def test_a_body_without_json_is_the_only_input_and_the_answer_is_bytes(running: Running) -> None:
    for _ in range(2):
        status, got, data = running.http("POST", ECHO, X.tobytes(), {LENGTH: "0"})
        assert status == 200
        assert data[int(got[LENGTH.lower()]) :] == X.tobytes()
    assert "fits no shape" in error_of(running.http("POST", ECHO, b"12345", {LENGTH: "0"}), 400)
    status, got, data = running.http("POST", "/v2/models/text/infer", b"hello", {LENGTH: "0"})
    assert data[int(got[LENGTH.lower()]) :] == struct.pack("<I", 5) + b"hello"


def test_lengths_that_contradict_the_body_say_so(running: Running) -> None:
    body, fields = binary()
    size = int(fields[LENGTH])
    assert "the body has" in error_of(running.http("POST", ECHO, body, {LENGTH: str(len(body) + 1)}), 400)
    assert "JSON" in error_of(running.http("POST", ECHO, body, {LENGTH: str(size - 1)}), 400)
    assert "JSON" in error_of(running.http("POST", ECHO, body, {LENGTH: str(size + 3)}), 400)
    assert "binary_data_size" in error_of(running.http("POST", ECHO, body[:-1], fields), 400)
    assert "binary_data_size" in error_of(running.http("POST", ECHO, body + b"x", fields), 400)
    assert "number of bytes" in error_of(running.http("POST", ECHO, body, {LENGTH: "-1"}), 400)
    assert running.http("POST", ECHO, *binary())[0] == 200


@pytest.mark.parametrize(
    "body", [b"", b"{", b"[]", b"null", b'"x"', b"{}", b'{"inputs":[]}', b'{"inputs":{}}', b"\xff\xfe", b"[" * 100_000]
)
def test_what_is_no_request_is_400_and_the_connection_goes_on(running: Running, body: bytes) -> None:
    assert error_of(running.http("POST", ECHO, body), 400)
    assert running.http("POST", ECHO, plain())[0] == 200


def test_more_than_the_server_takes_is_413(running: Running) -> None:
    assert "limits.body_bytes" in error_of(running.http("POST", ECHO, bytes(2 << 20)), 413)
    running.hang_up()
    assert running.http("POST", ECHO, plain())[0] == 200


def test_names_in_the_path_are_decoded_and_lead_nowhere_but_to_models(running: Running) -> None:
    assert running.http("POST", "/v2/models/%65cho/versions/%31/infer", plain())[0] == 200
    assert running.http("POST", f"http://elsewhere:1{ECHO}", plain())[0] == 200
    for name in ("..", "%2e%2e", "..%2fecho", "echo%00", "echo%2f1", "%ff", "%", "%zz", "e" * 3000, "%E2%98%83"):
        words = error_of(running.http("POST", f"/v2/models/{name}/infer", plain()), 404)
        assert "no model" in words
        error_of(running.http("POST", f"/v2/repository/models/{name}/load"), 404)
    error_of(running.http("POST", "/v2/models/../models/echo/infer", plain()), 404)


def test_a_time_limit_by_field_or_parameter_is_kept_and_the_shorter_one_counts(running: Running) -> None:
    late = {"X-Request-Timeout-Ms": "0.001"}
    assert "deadline" in error_of(running.http("POST", ECHO, plain(), late), 504)
    body, fields = binary(parameters={"timeout": 1})
    assert "deadline" in error_of(running.http("POST", ECHO, body, fields), 504)
    body, fields = binary(parameters={"timeout": 60_000_000})
    assert "deadline" in error_of(running.http("POST", ECHO, body, {**fields, **late}), 504)
    assert running.http("POST", ECHO, body, {**fields, "X-Request-Timeout-Ms": "60000"})[0] == 200
    assert "milliseconds" in error_of(running.http("POST", ECHO, plain(), {"X-Request-Timeout-Ms": "soon"}), 400)
    reasons = {event.reason for event in running.events.of(RequestShed)}
    assert reasons == {ShedReason.DEADLINE}


@pytest.mark.slow
def test_a_cold_model_is_loaded_once_for_all_who_ask(models: Path) -> None:
    x = np.zeros((1, 1, 28, 28), np.float32)
    with serving(models) as running:
        got: list[int] = []

        def ask() -> None:
            got.append(running.ask("cold", {"x": x}).status)
            running.hang_up()

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert got == [200] * 8
        assert len(running.starts("cold")) == 1


@pytest.mark.slow
def test_a_cold_model_that_takes_too_long_for_the_request_is_504_and_loads_on(models: Path) -> None:
    x = np.zeros((1, 1, 28, 28), np.float32)
    with serving(models) as running:
        late = running.ask("cold", {"x": x}, headers={"X-Request-Timeout-Ms": "1"})
        assert late.status == 504
        assert "loaded" in late.said["error"] or "deadline" in late.said["error"]
        assert running.ask("cold", {"x": x}).status == 200
        assert len(running.starts("cold")) == 1


@pytest.mark.slow
def test_a_client_that_leaves_while_a_cold_model_loads_harms_nobody(models: Path) -> None:
    with serving(models) as running:
        raw = socket.create_connection(("127.0.0.1", running.port))
        body = plain()
        raw.sendall(b"POST /v2/models/cold/infer HTTP/1.1\r\nHost: h\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        loading = running.server.repository._models
        wait_for(lambda: loading["cold"].waiting, "nobody waits")
        raw.close()
        wait_for(lambda: not loading["cold"].waiting, "it waits on")
        assert running.ask("cold", {"x": np.zeros((1, 1, 28, 28), np.float32)}).status == 200


def test_an_answered_request_leaves_no_body_behind(running: Running) -> None:
    """A thousand idle connections must not hold a thousand bodies."""
    assert running.http("POST", ECHO, *binary())[0] == 200
    assert running.http("POST", ECHO, b"{}")[0] == 400
    connections = running.server._http._alive
    exchanges = [each.exchange for each in connections if isinstance(each.exchange, Exchange)]
    assert exchanges
    assert all(each._job is None and each._held is None for each in exchanges)
    assert all(not each._body and each._known is None for each in connections)


def test_values_that_json_does_not_have_are_an_error_that_says_what_to_do(running: Running) -> None:
    body, fields = binary(np.array([[np.nan, np.inf, 0, 1]], np.float32))
    assert "binary" in error_of(running.http("POST", ECHO, body, fields), 400)
    body, fields = binary(np.array([[np.nan, np.inf, 0, 1]], np.float32), parameters={"binary_data_output": True})
    status, got, data = running.http("POST", ECHO, body, fields)
    assert status == 200
    assert np.isnan(np.frombuffer(data[int(got[LENGTH.lower()]) :], np.float32)[0])


class Failing(Exchange):
    """Has a defect."""

    __slots__ = ()

    def _answer_alone(self, *_: Any, **__: Any) -> None:
        raise ZeroDivisionError("secret")


class FailingInfer(HttpInfer):
    """Makes exchanges with a defect."""

    def begin(self, connection: Connection, known: Known, body: Bytes) -> None:
        connection.exchange = connection.exchange or Failing(self, connection)
        super().begin(connection, known, body)


@contextmanager
def lab_served(lab: Lab, kind: type[HttpInfer] = HttpInfer) -> Iterator[Served]:
    """An engine that the test steers, behind the real front end."""

    def make(loop: asyncio.AbstractEventLoop) -> HttpApi:
        infer = kind(lab, SystemClock(), loop, None, lambda _: None)  # type: ignore[arg-type]
        return HttpApi(lab, infer, lab.gate, loop, ())  # type: ignore[arg-type]

    with http_served(make=make) as served:
        yield served


PLAIN = json.dumps(
    {"inputs": [{"name": "x0", "shape": [1, 4], "datatype": "FP32", "data": X.reshape(-1).tolist()}]}
).encode()


def test_a_defect_while_an_answer_is_written_is_500_and_not_silence(caplog: pytest.LogCaptureFixture) -> None:
    with lab_served(Lab([echo_model("echo", "float32")]), FailingInfer) as served:
        client = served.client()
        for _ in range(2):
            reply = client.ask(ECHO, PLAIN)
            assert reply.status == 500
            assert b"secret" not in reply.body
        assert "ZeroDivisionError" in caplog.text


def test_a_client_that_leaves_takes_its_request_back_once_and_makes_room_in_its_share() -> None:
    lab = Lab([echo_model("echo", "float32")], gate=TenantGate(Tenants({"default": TenantOptions(concurrency=1)})))
    (model,) = lab.models
    model.engine.is_held = True
    with lab_served(lab) as served:
        client = served.client().send(request(ECHO, PLAIN))
        wait_for(lambda: model.engine.waiting, "it does not come")
        busy = served.client().ask(ECHO, PLAIN)
        assert (busy.status, busy.fields["retry-after"]) == (429, "1")
        client.close()
        wait_for(lambda: model.engine.cancelled, "it is not taken back")
        assert len(model.engine.cancelled) == 1
        second = served.client().send(request(ECHO, PLAIN))
        wait_for(lambda: model.engine.waiting, "there is no room")
        served.run(model.engine.go_on)
        assert second.reply().status == 200
        assert served.client().ask(ECHO, PLAIN).status == 200
        assert len(model.engine.cancelled) == 1


def test_an_answer_after_the_end_took_too_long_gives_nothing_back_twice() -> None:
    lab = Lab([echo_model("echo", "float32")], gate=TenantGate(Tenants({"default": TenantOptions(concurrency=1)})))
    (model,) = lab.models
    model.engine.is_held = True
    with lab_served(lab) as served:
        client = served.client().send(request(ECHO, PLAIN))
        wait_for(lambda: model.engine.waiting, "it does not come")
        (connection,) = served.server._alive

        def hang_up_and_answer() -> None:
            connection.hang_up()
            model.engine.go_on()

        served.run(hang_up_and_answer)
        assert client.is_closed()
        wait_for(lambda: not served.server._alive, "it stays")
        share = lab.gate.access("", "").share
        assert share is not None
        assert share.under_way == 0  # type: ignore[attr-defined]
        assert model.engine.cancelled == []


def test_a_defect_in_waking_a_model_is_500() -> None:
    class Broken(Lab):
        async def wake(self, name: str, version: str) -> Any:
            raise KeyError(name, version)

    with lab_served(Broken([])) as served:
        assert served.client().ask(ECHO, PLAIN).status == 500


@pytest.mark.slow
def test_answers_while_the_server_ends_tell_that_the_connection_ends() -> None:
    lab = Lab([echo_model("echo", "float32")])
    (model,) = lab.models
    with lab_served(lab) as served:
        client = served.client()
        assert "connection" not in client.ask(ECHO, PLAIN).fields
        model.engine.is_held = True
        client.send(request(ECHO, PLAIN))
        wait_for(lambda: model.engine.waiting, "it does not come")
        done = served.drain(30)
        wait_for(lambda: next(iter(served.server._alive)).ending, "it does not begin to end")
        served.run(model.engine.go_on)
        reply = client.reply()
        assert (reply.status, reply.fields["connection"]) == (200, "close")
        done.result(30)
