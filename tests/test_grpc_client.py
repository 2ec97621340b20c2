"""gRPC lanes against grpcio's own server."""

from __future__ import annotations

import socket

import grpc
import pytest

from bench_server import grpc_server
from npuops.errors import NotServedError, OptionError, ServingError
from npuops.loadgen.endpoint import parse_url
from npuops.loadgen.grpc_client import code_of
from npuops.loadgen.load_controller import BenchOptions, bench
from npuops.loadgen.outcomes import GRPC, LOST, REFUSED
from npuops.loadgen.request_source import RequestOptions, prepare

OPTIONS = BenchOptions(concurrency=(2,), duration_s=0.2, warmup_s=0)


@pytest.mark.slow
def test_a_servers_refusal_is_shed_and_its_other_errors_have_their_words() -> None:
    with grpc_server() as (url, service):
        requests = prepare(parse_url(url), RequestOptions())
        service.status = (grpc.StatusCode.UNAVAILABLE, "queue is full")
        (shed,) = bench(requests, OPTIONS, lambda _: None).stages
        service.status = (grpc.StatusCode.INTERNAL, "oops")
        (failed,) = bench(requests, OPTIONS, lambda _: None).stages
    assert set(shed.shed) == {"UNAVAILABLE"}
    assert set(failed.errors) == {"INTERNAL"}
    assert shed.ok == failed.ok == 0


def test_a_server_that_is_gone_is_no_server_that_refuses() -> None:
    with grpc_server() as (url, _):
        requests = prepare(parse_url(url), RequestOptions())
    (stage,) = bench(requests, OPTIONS, lambda _: None).stages
    assert set(stage.transport) <= {"refused", "lost"}
    assert stage.failed == stage.requests > 0
    assert not stage.shed


@pytest.mark.parametrize(
    ("status", "details", "code"),
    [
        (14, "failed to connect to all addresses; last error: Connection refused", REFUSED),
        (14, "Socket closed", LOST),
        (14, "recvmsg:Connection reset by peer", LOST),
        (14, "the model is loading", GRPC + 14),
        (5, "Connection refused is my model's name", GRPC + 5),
    ],
)
def test_only_the_cores_own_words_mean_that_there_was_no_answer(status: int, details: str, code: int) -> None:
    assert code_of(status, details) == code


def test_an_unknown_model_and_a_dead_port_are_told_apart() -> None:
    with grpc_server() as (url, _), pytest.raises(NotServedError, match="no such model here"):
        prepare(parse_url(url.replace("double", "triple")), RequestOptions())
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        dead = f"grpc://127.0.0.1:{taken.getsockname()[1]}/m"
        with pytest.raises(ServingError, match="no answer"):
            prepare(parse_url(dead), RequestOptions(timeout_s=2))


def test_a_header_that_grpc_reserves_for_bytes_is_refused_in_words() -> None:
    with grpc_server() as (url, _), pytest.raises(OptionError, match="-bin"):
        prepare(parse_url(url), RequestOptions(headers={"X-Trace-Bin": "a"}))
