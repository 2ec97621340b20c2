"""Pages of other sites, as a browser lets them ask."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto

from npuops.errors import OptionError
from npuops.runtime.tenant_options import TenantOptions
from npuops.server.cors import check_origins
from running_server import Running, repository, serving
from served_artifacts import identity, ort_artifact
from test_access import digest

APP, EVIL = "https://app.example", "https://evil.example"
X = {"x": np.ones((1, 4), np.float32)}
ASKS = {"Access-Control-Request-Method": "POST", "Access-Control-Request-Headers": "content-type,x-api-key"}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cors")
    artifact = ort_artifact(folder / "made", identity(folder / "echo.onnx", TensorProto.FLOAT))
    return repository(folder / "repository", "echo", {"ort": artifact})


@pytest.fixture(scope="module", params=["plain", "recorded"])
def open_to_app(
    models: Path, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Running]:
    log = {} if request.param == "plain" else {"access_log": str(tmp_path_factory.mktemp("log") / "access.log")}
    keyed = {"app": TenantOptions(api_key_sha256=(digest("sesame"),), admin=True)}
    with serving(models, cors_origins=(APP,), tenant=keyed, **log) as running:
        running.settled("echo")
        yield running


def origins(fields: Mapping[str, str]) -> str | None:
    return fields.get("access-control-allow-origin")


def test_a_page_of_a_named_site_asks_first_without_a_key_and_then_reads_answers_and_errors(
    open_to_app: Running,
) -> None:
    status, fields, body = open_to_app.http("OPTIONS", "/v2/models/echo/infer", headers={"Origin": APP, **ASKS})
    assert (status, origins(fields), body) == (200, APP, b"")
    assert fields["access-control-allow-headers"] == "content-type,x-api-key"
    assert "POST" in fields["access-control-allow-methods"]
    page = {"Origin": APP, "X-Api-Key": "sesame"}
    for _ in range(2):  # the second time by a head that is known
        answer = open_to_app.ask("echo", X, headers=page)
        assert (answer.status, origins(answer.headers)) == (200, APP)
        assert answer.headers["vary"] == "Origin"
        assert "Inference-Header-Content-Length" in answer.headers["access-control-expose-headers"]
        assert np.array_equal(answer.outputs["y"], X["x"])
    for method, path, key, expected in (
        ("GET", "/v2", "sesame", 200),
        ("GET", "/v2", "wrong", 401),
        ("GET", "/v2/models/nobody", "sesame", 404),
        ("POST", "/v2/models/echo/infer", "sesame", 400),
    ):
        got, fields, _ = open_to_app.http(method, path, headers={"Origin": APP, "X-Api-Key": key})
        assert (got, origins(fields)) == (expected, APP)


def test_others_get_no_such_fields(open_to_app: Running) -> None:
    status, fields, body = open_to_app.http("OPTIONS", "/v2", headers={"Origin": EVIL, **ASKS})
    assert (status, origins(fields)) == (403, None)
    assert b"cors_origins" in body
    for headers in ({"Origin": EVIL}, {"Origin": "null"}, {}):
        status, fields, _ = open_to_app.http("GET", "/v2", headers={"X-Api-Key": "sesame", **headers})
        assert (status, origins(fields)) == (200, None)
    assert open_to_app.http("OPTIONS", "/v2", headers={"X-Api-Key": "sesame"})[0] == 405


def test_no_page_of_another_site_loads_or_unloads_models_but_those_of_a_named_one(open_to_app: Running) -> None:
    path = "/v2/repository/models/echo/load"
    key = {"X-Api-Key": "sesame"}
    for origin, expected in ((EVIL, 403), ("null", 403), (APP, 200), (f"http://127.0.0.1:{open_to_app.port}", 200)):
        assert open_to_app.http("POST", path, headers={"Origin": origin, **key})[0] == expected


def test_without_origins_no_server_answers_pages_of_others(models: Path) -> None:
    with serving(models) as running:
        assert running.http("OPTIONS", "/v2", headers={"Origin": APP, **ASKS})[0] == 405
        assert origins(running.http("GET", "/v2", headers={"Origin": APP})[1]) is None
        assert running.http("POST", "/v2/repository/models/echo/unload", headers={"Origin": APP})[0] == 403


def test_every_site_may_ask_where_the_options_say_so(models: Path) -> None:
    with serving(models, cors_origins=("*",)) as running:
        asks = {"Origin": EVIL, "Access-Control-Request-Private-Network": "true", **ASKS}
        status, fields, _ = running.http("OPTIONS", "/v2", headers=asks)
        assert (status, origins(fields), fields["access-control-allow-private-network"]) == (200, "*", "true")
        assert origins(running.http("GET", "/v2", headers={"Origin": EVIL})[1]) == "*"


@pytest.mark.parametrize("origin", ["https://app.example/", "app.example", "HTTPS://app.example", "", "https://a b"])
def test_what_no_browser_sends_is_refused_as_an_option(origin: str) -> None:
    with pytest.raises(OptionError, match="cors_origins"):
        check_origins([origin])
    check_origins(["https://app.example", "http://localhost:3000", "http://[::1]:80", "*"])
