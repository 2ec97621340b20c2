from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto

from npuops.errors import NotServedError
from npuops.server.http_head import Head, parse_head
from npuops.server.http_response import MethodError
from npuops.server.http_routes import INFER, PROTOCOL_ROUTES, find_route
from protocol_table import ROWS, Row, protocol_table
from running_server import Running, repository, serving
from served_artifacts import identity, ort_artifact

DOCS = Path(__file__).resolve().parent.parent / "docs" / "protocol.md"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("routes")
    wide = ort_artifact(folder / "wide", identity(folder / "wide.onnx", TensorProto.FLOAT, shape=("N", "W")))
    with serving(repository(folder / "repository", "wide", {"ort": wide})) as it:
        it.settled("wide")
        yield it


@pytest.fixture(scope="module")
def with_memory(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("memory")
    with serving(folder, client_shared_memory=True) as it:
        yield it


def head(method: str, path: str) -> Head:
    return parse_head(f"{method} {path} HTTP/1.1\r\nHost: h\r\n\r\n".encode())


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.method} {row.path}")
def test_every_call_in_the_docs_is_answered_as_they_say(running: Running, row: Row) -> None:
    status, fields, body = running.http(row.method, row.path, row.body.encode())
    assert status == row.status, body
    if status >= 400:
        assert json.loads(body)["error"]
    if row.method == "GET" and status == 200:
        again, told, nothing = running.http("HEAD", row.path)
        assert (again, nothing, told["content-type"]) == (200, b"", fields["content-type"])


def test_the_table_in_the_docs_is_the_one_that_is_tested() -> None:
    assert protocol_table() in DOCS.read_text(encoding="utf-8")


def test_every_route_is_in_the_table() -> None:
    for route in PROTOCOL_ROUTES:
        paths = [row.path.strip("/") for row in ROWS if row.method == route.method and row.status != 405]
        assert any(route.pattern.fullmatch(path) for path in paths), route.pattern.pattern
    assert any(INFER.fullmatch(row.path.strip("/")) for row in ROWS)


def test_a_path_with_another_method_names_those_it_takes_and_an_unknown_one_where_to_look() -> None:
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS", "TRACE"):
        with pytest.raises(MethodError, match="GET") as error:
            find_route(PROTOCOL_ROUTES, head(method, "/v2/health/live"))
        assert error.value.allowed == ("GET",)
    with pytest.raises(MethodError) as error:
        find_route(PROTOCOL_ROUTES, head("PUT", "/v2/logging"))
    assert error.value.allowed == ("GET", "POST")
    with pytest.raises(NotServedError) as missing:
        find_route(PROTOCOL_ROUTES, head("GET", "/v2/nothing"))
    assert "/openapi.json" in missing.value.advice


def test_names_are_decoded_once_and_never_hold_a_slash_of_the_path() -> None:
    _, names = find_route(PROTOCOL_ROUTES, head("GET", "/v2/models/a%2Fb%252F/versions/%31"))
    assert names == {"model": "a/b%2F", "version": "1"}


@given(st.from_regex(re.compile(r"/[!-~]{0,40}", re.ASCII), fullmatch=True))
def test_any_path_finds_a_route_or_is_told_so(path: str) -> None:
    asked = Head(
        method="GET",
        path=path,
        query="",
        headers={},
        content_length=0,
        encoding="",
        json_bytes=None,
        keep_alive=True,
        expects_continue=False,
    )
    try:
        route, names = find_route(PROTOCOL_ROUTES, asked)
    except NotServedError:
        return
    assert route.method == "GET"
    assert set(names) <= {"model", "version", "region", "kind"}


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{", "not JSON"),
        (b"[]", "object"),
        (b'{"ready":1}', "true or false"),
        (b"\xff", "not JSON"),
        (b"[" * 50_000, "not JSON"),
    ],
)
def test_a_body_that_is_not_what_the_call_takes_is_said(running: Running, body: bytes, words: str) -> None:
    status, _, data = running.http("POST", "/v2/repository/index", body)
    assert status == 400
    assert words in json.loads(data)["error"]


def test_load_takes_only_its_own_parameters(running: Running) -> None:
    for parameters, words in (
        ([], "object"),
        ({"config": 1}, "config"),
        ({"config": "{"}, "JSON"),
        ({"config": '{"instances": 3}'}, "instances"),
        ({"file:1/model": "YQ=="}, "file"),
    ):
        body = json.dumps({"parameters": parameters}).encode()
        status, _, data = running.http("POST", "/v2/repository/models/wide/load", body)
        assert (status, words in json.loads(data)["error"]) == (400, True), data
    assert running.http("GET", "/v2/models/wide/ready")[0] == 200


def test_regions_are_registered_with_what_they_need(with_memory: Running) -> None:
    register = "/v2/systemsharedmemory/region/r/register"
    for body in ({}, {"key": 1}, {"key": "/k"}, {"key": "/k", "byte_size": True}, {"key": "/k", "byte_size": -1}):
        assert with_memory.http("POST", register, json.dumps(body).encode())[0] == 400
    for key in ("../../etc/passwd", "/..", "a/b", "", "/absent-w2b", "npuops-1", "\x00"):
        body = {"key": key, "byte_size": 1}
        assert with_memory.http("POST", register, json.dumps(body).encode())[0] == 400
    assert with_memory.http("GET", "/v2/systemsharedmemory/region/r/status")[0] == 404
    assert with_memory.http("POST", "/v2/systemsharedmemory/region/r/unregister")[0] == 404
    assert with_memory.http("POST", "/v2/systemsharedmemory/register", b"{}")[0] == 404
    assert with_memory.http("GET", "/v2/systemsharedmemory/status")[2] == b"[]"
    assert with_memory.http("POST", "/v2/systemsharedmemory/unregister")[0] == 200
