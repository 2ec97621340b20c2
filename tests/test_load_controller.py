"""Stages over several processes, and what a run refuses."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

from bench_server import http_server
from npuops.errors import OptionError
from npuops.events import StepFinished, Warned
from npuops.loadgen.endpoint import parse_url
from npuops.loadgen.load_controller import BenchOptions, StopSignals, bench
from npuops.loadgen.load_worker import run_loop
from npuops.loadgen.request_source import RequestOptions, Tenant, prepare
from npuops.testing import EventLog


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"duration_s": 0}, "--duration"),
        ({"duration_s": float("inf")}, "--duration"),
        ({"warmup_s": -1}, "--warmup"),
        ({"timeout_s": float("nan")}, "--timeout"),
        ({"concurrency": (0,)}, "--concurrency"),
        ({"processes": 0}, "--processes"),
        ({"tenants": (Tenant(name="a", weight=0),)}, "--tenant a"),
        ({"find_capacity": True}, "limit for p99"),
        ({"find_capacity": True, "slo_ms": 5, "concurrency": (1,)}, "chooses the load by itself"),
        ({"requests": 5, "rates": (1.0,)}, "--requests counts a closed loop"),
    ],
)
def test_an_impossible_load_is_refused(changes: dict[str, Any], words: str) -> None:
    with pytest.raises(OptionError, match=words):
        BenchOptions(**changes)


def test_more_processes_than_connections_leave_some_idle_and_count_exactly() -> None:
    with http_server() as server:
        requests = prepare(parse_url(server.url), RequestOptions(verify=True))
        options = BenchOptions(concurrency=(1, 3), requests=20, warmup_s=0, processes=2)
        first, second = bench(requests, options, lambda _: None).stages
    assert (first.ok, second.ok) == (20, 20)
    assert second.agreement is not None
    assert second.agreement.compared == 20


@pytest.mark.slow
def test_each_stage_is_told_when_it_ends_and_so_is_what_is_off() -> None:
    with http_server() as server:
        requests = prepare(parse_url(server.url), RequestOptions(distinct=10**9, shapes={"x": (2**20, 4)}))
        log = EventLog()
        report = bench(requests, BenchOptions(concurrency=(1,), requests=1, warmup_s=0), log)
    assert [event.detail.partition(":")[0] for event in log.events if isinstance(event, StepFinished)] == [
        "concurrency 1"
    ]
    assert any("distinct inputs instead of" in event.message for event in log.events if isinstance(event, Warned))
    assert report.distinct_inputs == 16
    assert report.warnings


def test_a_signal_that_is_passed_on_when_the_stage_is_over_already_is_not_a_second_one() -> None:
    told: list[str] = []

    async def run() -> None:
        async with StopSignals(lambda by: told.append(by.name)):
            os.kill(os.getpid(), signal.SIGINT)
            while not told:
                await asyncio.sleep(0)
            asyncio.get_running_loop().call_later(0.05, os.kill, os.getpid(), signal.SIGTERM)

    run_loop(run)
    assert told == ["SIGINT"]


def test_the_signals_are_as_before_when_nothing_came() -> None:
    async def run() -> None:
        before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
        async with StopSignals(lambda _by: None):
            assert signal.getsignal(signal.SIGTERM) != before[1]
        assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before

    run_loop(run)
