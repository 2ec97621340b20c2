"""`npuops bench`, as a user starts it, against real servers."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import signal
import ssl
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from bench_server import Answer, HttpServer, Request, double, grpc_server, http_server, infer_reply
from command_line import npuops

pytestmark = pytest.mark.slow
"""Whole servers and clients as processes: minutes together; CI runs them."""

QUICK = ("--duration", "0.3", "--warmup", "0")


def counted(requests: int) -> tuple[str, ...]:
    """A closed loop of so many: what a busy machine gets done in a time is not the promise."""
    return ("--requests", str(requests), "--warmup", "0")


def bench(*arguments: object, code: int = 0, **environment: str) -> Any:
    text = npuops("bench", *arguments, "--json", code=code, **environment)
    return json.loads(text[text.index("{") :])


def test_it_asks_the_model_and_sends_random_binary_tensors_that_the_server_understands() -> None:
    with http_server() as server:
        report = bench(server.url, *counted(60), "-c", "1,4", "--batch", "3", "--verify")
    assert report["schema"] == "npuops.bench/1"
    assert (report["format"], report["inputs"]) == ("binary", [{"name": "x", "datatype": "FP32", "shape": [3, 4]}])
    assert [stage["load"]["concurrency"] for stage in report["stages"]] == [1, 4]
    for stage in report["stages"]:
        assert stage["ok"] == stage["requests"] > 10
        assert stage["agreement"]["compared"] >= stage["ok"]
        assert stage["agreement"]["differing"] == 0
        assert stage["latency"]["min_ms"] <= stage["latency"]["p50_ms"] <= stage["latency"]["max_ms"]
    assert len({request.body for request in server.inferred}) == 8, "distinct inputs take turns"


def test_a_server_without_the_extension_gets_json() -> None:
    with http_server(extensions=()) as server:
        report = bench(server.url, *QUICK, "-c", "2", "--verify")
    assert report["format"] == "json"
    assert report["stages"][0]["agreement"]["differing"] == 0
    assert len(json.loads(server.inferred[0].body)["inputs"][0]["data"]) == 4


def test_it_speaks_grpc_to_a_server_built_from_the_protocols_own_classes() -> None:
    with grpc_server() as (url, service):
        report = bench(url, *counted(30), "-c", "3", "--verify", "-H", "X-Priority: 1")
    assert report["format"] == "grpc"
    stage = report["stages"][0]
    assert stage["ok"] == stage["requests"] > 10
    assert stage["agreement"]["differing"] == 0
    assert service.metadata[-1]["x-priority"] == "1"


def test_an_open_loop_keeps_its_rate_and_tells_the_clients_own_lag() -> None:
    with http_server() as server:
        report = bench(server.url, "-d", "1", "--warmup", "0", "-r", "200", "--arrivals", "constant")
    stage = report["stages"][0]
    assert stage["requests"] == stage["ok"] == 200
    assert stage["client"]["lag_p99_ms"] >= 0


async def stalls_once(server: HttpServer, request: Request) -> Answer:
    """The 10th request stops the whole server for 0.4 s."""
    if len(server.inferred) == 10:
        threading.Event().wait(0.4)
    return await double(server, request)


def test_requests_that_were_due_during_a_stall_count_it_although_they_were_not_sent() -> None:
    with http_server(stalls_once) as server:
        report = bench(
            server.url, "-d", "1", "--warmup", "0", "-r", "100", "--arrivals", "constant", "--connections", "1"
        )
    latency = report["stages"][0]["latency"]
    # A fifth of all requests were due in the stall; a client that waits for answers would have seen one slow one.
    assert latency["p90_ms"] > 100
    assert latency["count"] == 100


async def busy(server: HttpServer, request: Request) -> Answer:
    if len(server.inferred) > 1 and len(server.inferred) % 2:
        return 503, {"Retry-After": "1"}, b'{"error": "queue is full"}'
    return await double(server, request)


def test_what_the_server_sheds_is_counted_apart_from_errors() -> None:
    with http_server(busy) as server:
        stage = bench(server.url, *counted(40), "-c", "1")["stages"][0]
    assert stage["shed"]["503"] > 5
    assert stage["errors"] == stage["transport"] == {}
    assert stage["shed_latency"]["count"] == stage["shed"]["503"]
    assert stage["ok"] + stage["shed"]["503"] == stage["requests"]


async def wrong_later(server: HttpServer, request: Request) -> Answer:
    if len(server.inferred) == 20:
        return infer_reply(np.zeros((1, 4), np.float32), binary=True)
    return await double(server, request)


def test_a_wrong_answer_is_found_and_ends_with_1() -> None:
    with http_server(wrong_later) as server:
        report = bench(server.url, *counted(40), "-c", "1", "--verify", code=1)
    agreement = report["stages"][0]["agreement"]
    assert agreement["differing"] == 1
    assert agreement["largest_difference"] > 0
    assert "'y' differs by" in agreement["first_difference"]


def test_tenants_share_the_load_by_weight_and_are_reported_apart() -> None:
    with http_server() as server:
        stage = bench(server.url, *counted(300), "-c", "2", "--tenant", "a=1", "--tenant", "b=9")["stages"][0]
    one, other = stage["tenants"]
    assert one["requests"] + other["requests"] == stage["requests"]
    assert other["requests"] > 4 * one["requests"] > 0
    assert {request.headers["x-npuops-tenant"] for request in server.inferred} == {"a", "b"}


def test_a_fixed_body_goes_to_any_address_without_a_question_about_a_model(tmp_path: Path) -> None:
    async def echo(_: HttpServer, request: Request) -> Answer:
        return 200, {}, request.body

    body = tmp_path / "body.json"
    body.write_bytes(b'{"x": 1}')
    with http_server(echo) as server:
        url = f"http://127.0.0.1:{server.port}/predict?a=b"
        report = bench(
            url, "--body", body, "--content-type", "application/json", "-n", "50", "--warmup", "0", "-c", "2"
        )
    assert report["stages"][0]["ok"] == 50
    assert {(request.path, request.body) for request in server.seen} == {("/predict?a=b", b'{"x": 1}')}
    assert server.seen[-1].headers["content-type"] == "application/json"


def test_processes_share_the_load_exactly() -> None:
    with http_server() as server:
        report = bench(
            server.url, "-d", "0.5", "--warmup", "0", "-r", "100", "--arrivals", "constant", "--processes", "2"
        )
    assert report["stages"][0]["requests"] == report["stages"][0]["ok"] == 50
    assert report["stages"][0]["client"]["cpu_s"] > 0


def test_the_users_own_input_is_sent(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", x=np.array([[1, 2, 3, 4]], np.float32))
    with http_server() as server:
        bench(server.url, *QUICK, "-c", "1", "--input", tmp_path / "x.npz")
    assert np.frombuffer(server.inferred[-1].body[-16:], "<f4").tolist() == [1, 2, 3, 4]


def test_the_key_and_headers_are_on_every_request() -> None:
    with http_server() as server:
        bench(server.url, *QUICK, "-c", "1", "-H", "X-Trace: 7", NPUOPS_API_KEY="secret")
    assert {request.headers.get("authorization") for request in server.seen} == {"Bearer secret"}
    assert {request.headers.get("x-trace") for request in server.seen} == {"7"}


def own_certificate(folder: Path) -> ssl.SSLContext:
    """Of an authority that nobody knows."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .sign(key, hashes.SHA256())
    )
    pem, plain = serialization.Encoding.PEM, serialization.NoEncryption()
    (folder / "key.pem").write_bytes(key.private_bytes(pem, serialization.PrivateFormat.PKCS8, plain))
    (folder / "cert.pem").write_bytes(certificate.public_bytes(pem))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


def test_https_needs_a_good_certificate_or_the_word_insecure(tmp_path: Path) -> None:
    with http_server(tls=own_certificate(tmp_path)) as server:
        assert "certificate verify failed" in npuops("bench", server.url, *QUICK, code=1)
        report = bench(server.url, *counted(20), "-c", "2", "--insecure", "--verify")
    assert report["stages"][0]["ok"] == report["stages"][0]["requests"] > 5


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (("ftp://x/y",), 2, "is no address"),
        (("http://127.0.0.1:1/v2/models/m",), 1, "no answer from 127.0.0.1:1"),
        (("grpc://127.0.0.1:1/m", "--timeout", "2"), 1, "no answer from 127.0.0.1:1"),
        (("{base}/v2/models/nothing",), 1, "no such model here"),
        (("{base}",), 1, "double, triple"),
        (("{url}", "--rate", "x"), 2, "no list of numbers"),
        (("{url}", "-c", "1.5"), 2, "whole numbers"),
        (("{url}", "-c", "inf"), 2, "whole numbers"),
        (("{url}", "--rate", "0"), 2, "must be a positive number"),
        (("{url}", "--format", "xml"), 2, "no format"),
        (("{url}", "--arrivals", "poison"), 2, "did you mean 'poisson'"),
        (("{url}", "--find-capacity"), 2, "--slo"),
        (("{url}", "--shape", "z=1x4"), 2, "no input 'z'"),
        (("{url}", "--tenant", "a=x"), 2, "NAME=WEIGHT"),
        (("{url}", "--plot", "x.gif"), 2, ".svg"),
        (("{url}", "-H", "Host: x"), 2, "the client sets this one"),
        (("{url}", "--input", "absent.npz"), 2, "there is no file"),
    ],
)
def test_a_mistake_is_told_before_any_load(arguments: tuple[str, ...], code: int, words: str) -> None:
    with http_server() as server:
        base = f"http://127.0.0.1:{server.port}"
        said = npuops("bench", *(part.format(base=base, url=server.url) for part in arguments), code=code)
        assert server.inferred == []
    assert words in said


async def page(*_: object) -> Answer:
    return 200, {"Content-Type": "text/html"}, b"<html>welcome</html>"


def test_a_page_that_is_no_metadata_is_told_as_such() -> None:
    with http_server(page) as server:
        assert "is not metadata of the Open Inference Protocol" in npuops("bench", server.url, code=1)


async def dies(server: HttpServer, request: Request) -> Answer | None:
    if len(server.inferred) > 50:
        return None
    return await double(server, request)


def test_a_server_that_dies_midway_is_counted_and_what_was_measured_is_kept() -> None:
    with http_server(dies) as server:
        stage = bench(server.url, *counted(60), "-c", "2")["stages"][0]
    assert stage["ok"] == 49, "one of the fifty was the first try"
    assert stage["transport"]["lost"] >= 2
    assert stage["client"]["reconnects"] >= 1


def test_ctrl_c_prints_what_was_measured_so_far() -> None:
    started = threading.Event()

    async def told(server: HttpServer, request: Request) -> Answer:
        if len(server.inferred) > 20:
            started.set()
        return await double(server, request)

    with http_server(told) as server:
        command = [sys.executable, "-c", "from npuops.cli.main import main; main()", "bench", server.url]
        process = subprocess.Popen(
            [*command, "-d", "60", "--warmup", "0", "-c", "1,2", "--json"], stdout=subprocess.PIPE, text=True
        )
        assert started.wait(30)
        process.send_signal(signal.SIGINT)
        report = json.loads(process.communicate(timeout=30)[0])
    assert process.returncode == 130
    assert report["interrupted"] == "SIGINT"
    assert [stage["load"]["concurrency"] for stage in report["stages"]] == [1]
    assert report["stages"][0]["ok"] > 10
    assert report["stages"][0]["window_s"] < 60


async def slow(server: HttpServer, request: Request) -> Answer:
    """One at a time, 10 ms each: 100 requests/s and no more."""
    if request.path.endswith("/infer"):
        async with LOCK:
            await asyncio.sleep(0.01)
    return await double(server, request)


LOCK = asyncio.Lock()


@pytest.mark.parametrize("processes", [1, 2])
def test_a_ctrl_c_that_a_wrapper_passes_on_a_second_time_does_not_lose_the_report(processes: int) -> None:
    started = threading.Event()

    async def told(server: HttpServer, request: Request) -> Answer:
        if len(server.inferred) > 20:
            started.set()
        return await double(server, request)

    with http_server(told) as server:
        command = [sys.executable, "-c", "from npuops.cli.main import main; main()", "bench", server.url]
        options = ["-d", "60", "--warmup", "0", "-c", "2", "--json", "--processes", str(processes)]
        process = subprocess.Popen([*command, *options], stdout=subprocess.PIPE, text=True)
        assert started.wait(30)
        process.send_signal(signal.SIGSTOP)  # both wait for it, however busy the machine is
        process.send_signal(signal.SIGINT)
        process.send_signal(signal.SIGTERM)  # another number: two of one may arrive as one
        process.send_signal(signal.SIGCONT)
        report = json.loads(process.communicate(timeout=30)[0])
    assert report["interrupted"] in {"SIGINT", "SIGTERM"}
    assert report["stages"][0]["ok"] > 10


async def dies_for_good(server: HttpServer, request: Request) -> Answer | None:
    """Closes its door after fifty answers."""
    if len(server.inferred) > 50 and server.listening is not None:
        server.listening.close()
        return None
    return await double(server, request)


def test_a_server_that_is_gone_ends_the_run_with_1_and_what_was_measured() -> None:
    with http_server(dies_for_good) as server:
        report = bench(server.url, "-d", "60", "--warmup", "0", "-c", "2,4", code=1)
    (stage,) = report["stages"]
    assert "the server is gone" in stage["ended_early"]
    assert stage["ok"] == 49
    assert stage["transport"]["refused"] > 0


@pytest.mark.slow
def test_the_capacity_of_a_server_that_answers_100_requests_a_second_is_found() -> None:
    with http_server(slow) as server:
        report = bench(server.url, "-d", "2", "--warmup", "0.3", "--find-capacity", "--slo", "150")
    # 110 could hold for two seconds: its queue grows by ten requests, 100 ms, in each.
    assert 50 < report["capacity"]["rate"] < 125


def test_the_report_for_people_has_a_table_a_plot_and_percentiles(tmp_path: Path) -> None:
    with http_server() as server:
        drawn = tmp_path / "plot.svg"
        said = npuops("bench", server.url, "-d", "0.5", "--warmup", "0", "-c", "1,4", "--percentiles", "--plot", drawn)
    assert "concurrency 4" in said
    assert "# p99" in said
    assert "100.0000" in said
    assert drawn.read_text(encoding="utf-8").startswith("<svg")
