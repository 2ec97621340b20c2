"""The server against the OpenAPI document that it publishes, with requests that schemathesis makes up."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings
from onnx import TensorProto
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from protocol_table import ROWS
from running_server import Running, repository, serving
from served_artifacts import identity, ort_artifact

CHECKS = [
    not_a_server_error,
    status_code_conformance,
    response_headers_conformance,
    response_schema_conformance,
]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    folder = tmp_path_factory.mktemp("api")
    echo = ort_artifact(folder / "echo", identity(folder / "echo.onnx", TensorProto.FLOAT))
    with serving(repository(folder / "repository", "echo", {"ort": echo}), client_shared_memory=True) as it:
        it.settled("echo")
        yield it


@pytest.fixture(scope="module")
def document(running: Running) -> dict[str, Any]:
    return dict(json.loads(running.http("GET", "/openapi.json")[2]))


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_whatever_the_document_allows_is_answered_as_it_says(running: Running, document: dict[str, Any]) -> None:
    schema = schemathesis.openapi.from_dict(document)
    schema.config.update(base_url=f"http://127.0.0.1:{running.port}")
    operations = [each.ok() for each in schema.get_all_operations()]
    assert len(operations) > 25
    with requests.Session() as session:
        for operation in operations:

            @settings(
                max_examples=25,
                deadline=None,
                phases=[Phase.explicit, Phase.generate],
                suppress_health_check=list(HealthCheck),
                database=None,
            )
            @given(case=operation.as_strategy())
            def one(case: Any) -> None:
                response = case.call(session=session, timeout=30)
                case.validate_response(response, checks=CHECKS)

            one()
    assert running.http("GET", "/v2/health/live")[0] == 200


def test_every_route_answers_head_and_names_its_methods(running: Running, document: dict[str, Any]) -> None:
    for path, operations in document["paths"].items():
        real = path.replace("{model}", "echo").replace("{version}", "1").replace("{region}", "r")
        wrong = "DELETE"
        status, fields, _ = running.http(wrong, real)
        assert status == 405, real
        allowed = set(fields["allow"].split(", "))
        assert {method.upper() for method in operations if method != "parameters"} <= allowed


def test_the_document_knows_every_call_of_the_tests_table(document: dict[str, Any]) -> None:
    told = set(document["paths"])
    for row in ROWS:
        path = row.path.replace("models/wide", "models/{model}").replace("versions/1", "versions/{version}")
        path = path.replace("region/r/", "region/{region}/")
        if row.status in {200, 400} and "cuda" not in path:
            assert path in told, path
