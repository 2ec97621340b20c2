from __future__ import annotations

import asyncio
import hashlib
import http.client
import json
import queue
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tritonclient.grpc as grpc_client
from onnx import TensorProto
from tritonclient.utils import InferenceServerException

from npuops.errors import DataError, ForbiddenError, OptionError, UnauthenticatedError
from npuops.runtime.facts import RequestShed, ShedReason
from npuops.runtime.fair_queue import LOWEST_PRIORITY
from npuops.runtime.quota import QuotaState
from npuops.runtime.tenant_options import TenantOptions, Tenants
from npuops.server.access import Access, TenantGate, access_of, require_admin, timeout_us_of
from npuops.server.serve_options import ServeOptions, TlsOptions
from running_server import Running, clients, repository, serving, wait_for
from self_signed import self_signed
from served_artifacts import identity, ort_artifact

X = {"x": np.ones((1, 4), np.float32)}


def digest(key: str) -> str:
    return hashlib.sha256(key.encode()).hexdigest()


KEYED = {
    "camera": TenantOptions(api_key_sha256=(digest("sesame"),), priority=2, admin=True),
    "reindex": TenantOptions(api_key_sha256=(digest("tiger"),), rate=0.001, burst=2.0),
}


def test_without_tenants_everybody_is_one_whatever_name_they_give() -> None:
    gate = TenantGate(Tenants())
    for headers in ({}, {"x-npuops-tenant": "anybody"}, {"x-api-key": "whatever"}):
        assert access_of(gate, headers).tenant == "default"
    assert access_of(gate, {}).share is None


@pytest.mark.parametrize(
    "headers",
    [{"authorization": "Bearer sesame"}, {"authorization": "bearer  sesame "}, {"x-api-key": "sesame"}],
)
def test_a_key_is_taken_from_either_field_and_names_its_tenant(headers: dict[str, str]) -> None:
    gate = TenantGate(Tenants(KEYED))
    assert access_of(gate, headers).tenant == "camera"
    assert access_of(gate, {**headers, "x-npuops-tenant": "camera"}).tenant == "camera"
    with pytest.raises(UnauthenticatedError, match="does not belong"):
        access_of(gate, {**headers, "x-npuops-tenant": "reindex"})


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"x-npuops-tenant": "camera"},
        {"x-api-key": "sesam"},
        {"x-api-key": digest("sesame")},
        {"authorization": "Basic sesame"},
        {"authorization": "Bearer"},
        {"authorization": "sesame"},
        {"authorization": "Bearer wrong", "x-api-key": "sesame"},
    ],
)
def test_without_the_right_key_nobody_gets_in_and_no_name_is_told(headers: dict[str, str]) -> None:
    with pytest.raises(UnauthenticatedError) as error:
        access_of(TenantGate(Tenants(KEYED)), headers)
    assert "reindex" not in f"{error.value} {error.value.advice}"
    assert error.value.advice


def test_unknown_tenants_can_be_refused() -> None:
    gate = TenantGate(Tenants({"camera": TenantOptions()}, unknown="refuse"))
    assert access_of(gate, {"x-npuops-tenant": "camera"}).tenant == "camera"
    with pytest.raises(ForbiddenError):
        access_of(gate, {"x-npuops-tenant": "other"})


def test_where_no_tenant_has_a_key_everybody_may_load_and_else_who_has_the_right() -> None:
    assert access_of(TenantGate(Tenants({"camera": TenantOptions()})), {"x-npuops-tenant": "camera"}).admin
    gate = TenantGate(Tenants(KEYED))
    assert access_of(gate, {"x-api-key": "sesame"}).admin
    tiger = access_of(gate, {"x-api-key": "tiger"})
    assert not tiger.admin
    with pytest.raises(ForbiddenError, match="'reindex' may not") as caught:
        require_admin(tiger)
    assert "admin = true" in caught.value.advice


def test_a_request_may_ask_for_a_later_class_than_its_tenants_and_never_an_earlier_one() -> None:
    own = Access(priority=2)
    asked_and_got = [(0, 2), (1, 2), (2, 2), (3, 2), (4, 3), (2**30, LOWEST_PRIORITY)]
    assert [(asked, own.priority_of(asked)) for asked, _ in asked_and_got] == asked_and_got
    assert Access(priority=0).priority_of(1) == 0


@pytest.mark.parametrize(
    ("words", "us"), [("1", 1000), ("0.5", 500), ("1e3", 1_000_000), (" 20 ", 20_000), ("0.0001", 1)]
)
def test_a_time_limit_is_in_milliseconds(words: str, us: int) -> None:
    assert timeout_us_of({"x-request-timeout-ms": words}) == us
    assert timeout_us_of({}) == 0


@pytest.mark.parametrize("words", ["", "0", "-1", "nan", "inf", "1e12", "soon"])
def test_a_time_limit_that_is_none_is_refused(words: str) -> None:
    with pytest.raises(DataError, match="milliseconds"):
        timeout_us_of({"x-request-timeout-ms": words})


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("access")
    artifact = ort_artifact(folder / "made", identity(folder / "echo.onnx", TensorProto.FLOAT))
    return repository(folder / "repository", "echo", {"ort": artifact})


@pytest.fixture(scope="module")
def keyed(models: Path) -> Iterator[Running]:
    with serving(models, tenant=KEYED) as running:
        running.settled("echo")
        yield running


def test_with_keys_in_the_options_everything_but_health_needs_one(keyed: Running) -> None:
    for path in ("/v2/health/live", "/v2/health/ready", "//v2/health/live"[1:]):
        assert keyed.http("GET", path)[0] == 200
    for method, path in (
        ("GET", "/v2"),
        ("GET", "/v2/models/echo"),
        ("GET", "/v2/models/echo/ready"),
        ("GET", "/metrics"),
        ("GET", "/"),
        ("GET", "/openapi.json"),
        ("POST", "/v2/repository/index"),
        ("POST", "/v2/repository/models/echo/unload"),
        ("POST", "/v2/models/echo/infer"),
        ("GET", "/v2/health/ready/../../repository/index"),
    ):
        status, fields, body = keyed.http(method, path)
        assert (status, fields.get("www-authenticate")) in {(401, "Bearer"), (404, None)}, path
        assert b"echo" not in body or status == 404
        assert keyed.http(method, path, headers={"X-Api-Key": "sesame"})[0] != 401
        keyed.http("POST", "/v2/repository/models/echo/load", headers={"X-Api-Key": "sesame"})
    answer = keyed.ask("echo", X, headers={"Authorization": "Bearer sesame"})
    assert answer.status == 200
    assert np.array_equal(answer.outputs["y"], X["x"])


def test_a_key_without_the_right_loads_and_unloads_nothing_over_either_protocol(models: Path) -> None:
    with serving(models, tenant=KEYED, grpc=True) as running:
        running.settled("echo")
        for verb in ("unload", "load"):
            status, _, body = running.http("POST", f"/v2/repository/models/echo/{verb}", b"", {"X-Api-Key": "tiger"})
            assert status == 403
            assert b"admin = true" in body
        assert running.http("POST", "/v2/repository/index", b"", {"X-Api-Key": "tiger"})[0] == 200
        with grpc_client.InferenceServerClient(f"127.0.0.1:{running.grpc_port}") as client:
            for call in (client.unload_model, client.load_model):
                with pytest.raises(InferenceServerException) as refused:
                    call("echo", headers={"x-api-key": "tiger"})
                assert refused.value.status() == "StatusCode.PERMISSION_DENIED"
            assert client.is_model_ready("echo", headers={"x-api-key": "tiger"})
            client.unload_model("echo", headers={"x-api-key": "sesame"})
            assert not client.is_model_ready("echo", headers={"x-api-key": "sesame"})
        assert running.http("POST", "/v2/repository/models/echo/load", b"", {"X-Api-Key": "sesame"})[0] == 200
        assert running.ask("echo", X, headers={"X-Api-Key": "tiger"}).status == 200


def test_a_server_that_refuses_unknown_tenants_says_403_and_what_to_send(models: Path) -> None:
    with serving(models, tenant={"camera": TenantOptions()}, unknown_tenants="refuse") as running:
        running.settled("echo")
        refused = running.ask("echo", X, headers={"X-Npuops-Tenant": "eva"})
        assert refused.status == 403
        assert "X-Npuops-Tenant" in refused.said["error"]
        assert running.ask("echo", X, headers={"X-Npuops-Tenant": "camera"}).status == 200


def test_a_tenant_beyond_its_rate_gets_429_with_when_to_come_back_and_others_go_on(keyed: Running) -> None:
    tiger = {"X-Api-Key": "tiger"}
    assert [keyed.ask("echo", X, headers=tiger).status for _ in range(3)] == [200, 200, 429]
    refused = keyed.ask("echo", X, headers=tiger)
    assert int(refused.headers["retry-after"]) >= 1
    assert "0.001 requests a second" in refused.said["error"]
    assert keyed.ask("echo", X, headers={"X-Api-Key": "sesame"}).status == 200
    sheds = [(event.tenant, event.reason) for event in keyed.events.of(RequestShed)]
    assert sheds == [("reindex", ShedReason.QUOTA)] * 2
    # What is refused for another reason uses nothing up, and is told first.
    assert keyed.http("POST", "/v2/models/echo/infer", b"{}", tiger)[0] == 400


def test_requests_that_are_answered_or_given_up_make_room_for_the_tenants_next(models: Path) -> None:
    with serving(models, tenant={"one": TenantOptions(concurrency=1)}) as running:
        running.settled("echo")
        one = {"X-Npuops-Tenant": "one"}
        for _ in range(20):
            assert running.ask("echo", X, headers=one).status == 200
            assert running.http("POST", "/v2/models/echo/infer", b"{}", one)[0] == 400
        statuses: queue.Queue[int] = queue.Queue()
        start = threading.Barrier(8)

        def ask() -> None:
            start.wait()
            for _ in range(20):
                statuses.put(running.ask("echo", X, headers=one).status)
            running.hang_up()

        threads = [threading.Thread(target=ask) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        got = [statuses.get() for _ in range(160)]
        assert set(got) <= {200, 429}
        assert running.ask("echo", X, headers=one).status == 200


@pytest.mark.slow
def follow(running: Running, **options: Any) -> list[str]:
    """Options that the file has now, as after SIGHUP."""

    async def call() -> list[str]:
        quiet: dict[str, Any] = {"http_port": 0, "grpc_port": 0, "grpc": False, "watch": False}
        return running.server.follow(ServeOptions(**{**quiet, **options}))

    return asyncio.run_coroutine_threadsafe(call(), running.loop).result(30)


def test_keys_rights_and_limits_follow_the_options_on_connections_that_are_known(models: Path) -> None:
    old, new = {"X-Api-Key": "sesame"}, {"X-Api-Key": "tiger"}
    grpc_x = grpc_client.InferInput("x", [1, 4], "FP32")
    grpc_x.set_data_from_numpy(X["x"])

    def tenant(*keys: str, **options: Any) -> dict[str, TenantOptions]:
        return {"camera": TenantOptions(api_key_sha256=tuple(map(digest, keys)), **options)}

    with (
        serving(models, grpc=True, tenant=tenant("sesame", admin=True)) as running,
        grpc_client.InferenceServerClient(f"127.0.0.1:{running.grpc_port}") as client,
    ):
        running.settled("echo")

        def answered(headers: dict[str, str]) -> set[object]:
            statuses: set[object] = {running.ask("echo", X, headers=headers).status for _ in range(3)}
            statuses.add(running.http("GET", "/v2/models/echo", headers=headers)[0])
            statuses.add(running.http("POST", "/v2/repository/index", headers=headers)[0])
            try:
                client.infer("echo", [grpc_x], headers={"x-api-key": headers["X-Api-Key"]})
            except InferenceServerException as error:
                return statuses | {error.status()}
            return statuses | {200}

        assert answered(old) == {200}
        assert answered(new) == {401, "StatusCode.UNAUTHENTICATED"}
        follow(running, grpc=True, tenant=tenant("sesame", "tiger"))
        assert answered(old) == answered(new) == {200}
        assert running.http("POST", "/v2/repository/models/echo/load", headers=old)[0] == 403
        follow(running, grpc=True, tenant=tenant("tiger", admin=True))
        assert answered(old) == {401, "StatusCode.UNAUTHENTICATED"}
        assert answered(new) == {200}
        assert running.http("POST", "/v2/repository/models/echo/load", headers=new)[0] == 200
        follow(running, grpc=True, tenant=tenant("tiger", rate=0.001, burst=1.0))
        assert [running.ask("echo", X, headers=new).status for _ in range(3)] == [200, 429, 429]
        changed = follow(running, grpc=True, tenant=tenant("sesame", "tiger"), max_loaded=3, http_port=1)
        assert changed == ["http_port", "max_loaded"]
        assert answered(old) == answered(new) == {200}


def test_keys_change_under_load_and_whoever_has_one_all_the_time_loses_no_request(models: Path) -> None:
    def tenant(*keys: str) -> dict[str, TenantOptions]:
        return {"camera": TenantOptions(api_key_sha256=tuple(map(digest, keys)), concurrency=16)}

    with serving(models, tenant=tenant("sesame", "tiger")) as running:
        running.settled("echo")
        asking = clients(running, 4, lambda: running.ask("echo", X, headers={"X-Api-Key": "sesame"}))
        leaving = clients(running, 2, lambda: running.ask("echo", X, headers={"X-Api-Key": "tiger"}))
        with asking as kept, leaving as gone:
            for turn in range(20):
                follow(running, tenant=tenant("sesame") if turn % 2 else tenant("sesame", "tiger"))
                enough = len(kept) + 20
                wait_for(lambda enough=enough: len(kept) > enough, "no answers")  # type: ignore[misc]
            wait_for(lambda: {answer.status for answer in gone} == {200, 401}, "the other key is never refused")
        assert {answer.status for answer in kept} == {200}
        share = access_of(running.server.gate, {"x-api-key": "sesame"}).share
        assert isinstance(share, QuotaState)
        assert share.under_way == 0


def test_a_renewed_certificate_is_what_the_next_client_gets(models: Path, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    tls = TlsOptions(cert=str(certificate), key=str(key))
    with serving(models, tls=tls) as running:

        def trusted() -> bool:
            context = ssl.create_default_context(cafile=str(certificate))
            connection = http.client.HTTPSConnection("localhost", running.port, timeout=30, context=context)
            try:
                connection.request("GET", "/v2")
                return connection.getresponse().status == 200
            except ssl.SSLCertVerificationError:
                return False
            finally:
                connection.close()

        assert trusted()
        renewed = tmp_path / "renewed"
        renewed.mkdir()
        for new, place in zip(self_signed(renewed), (certificate, key), strict=True):
            place.write_bytes(new.read_bytes())
        assert not trusted()
        assert follow(running, tls=tls) == []
        assert trusted()
        key.write_text("half a key")
        with pytest.raises(OptionError):
            follow(running, tls=tls)
        assert trusted()


def test_tls_and_a_key_together(models: Path, tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    tls = TlsOptions(cert=str(certificate), key=str(key))
    with serving(models, tenant=KEYED, tls=tls) as running:
        running.settled("echo")
        context = ssl.create_default_context(cafile=str(certificate))
        connection = http.client.HTTPSConnection("localhost", running.port, timeout=30, context=context)

        def told(path: str, **headers: str) -> tuple[int, Any]:
            connection.request("GET", path, headers={name.replace("_", "-"): value for name, value in headers.items()})
            response = connection.getresponse()
            return response.status, json.loads(response.read())

        assert told("/v2")[0] == 401
        assert told("/v2", X_Api_Key="sesame")[1]["name"] == "npuops"
        connection.close()
        with pytest.raises(ssl.SSLCertVerificationError):
            http.client.HTTPSConnection("localhost", running.port, timeout=30).request("GET", "/v2")
        assert told_plainly(running.port) != b"HTTP/1.1 200"


def told_plainly(port: int) -> bytes:
    """What a client without TLS gets."""
    plain = http.client.HTTPConnection("localhost", port, timeout=30)
    try:
        plain.request("GET", "/v2")
        return plain.getresponse().read(12)
    except (http.client.HTTPException, ConnectionError):
        return b""
    finally:
        plain.close()
