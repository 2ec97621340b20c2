"""The report for people, at any width."""

from __future__ import annotations

import pytest

from npuops.cli.bench_text import show
from npuops.loadgen.percentiles import LatencySummary
from npuops.loadgen.results import BenchReport, ClientCost, Load, StageResult


def report() -> BenchReport:
    latency = LatencySummary(
        count=5000,
        mean_ms=1.11,
        min_ms=0.5,
        p50_ms=1.23,
        p90_ms=2.34,
        p95_ms=3.45,
        p99_ms=4.56,
        p999_ms=5.67,
        max_ms=6.78,
    )
    cost = ClientCost(
        cpu_s=1,
        cpu_share=0.25,
        cpu_wait_share=0.4,
        lag_p50_ms=None,
        lag_p99_ms=None,
        lag_max_ms=None,
        keeps_up=True,
        reconnects=0,
        received_bytes=10,
    )
    stage = StageResult(
        load=Load(kind="closed", concurrency=32),
        window_s=5,
        requests=12345,
        ok=12345,
        shed={},
        errors={},
        transport={},
        throughput=2469,
        goodput=2468,
        latency=latency,
        shed_latency=None,
        client=cost,
        unanswered=7,
    )
    return BenchReport(
        schema="npuops.bench/1",
        url="http://h/v2/models/m",
        model="m",
        version="",
        format="binary",
        request_bytes=100,
        inputs=(),
        distinct_inputs=1,
        seed=0,
        processes=1,
        timeout_s=10,
        warmup_s=1,
        slo_ms=20,
        stages=(stage,),
        capacity=None,
        interrupted="SIGINT",
        warnings=(),
    )


@pytest.mark.parametrize("columns", [72, 80, 100, 200])
def test_no_figure_is_cut_off_at_any_width(
    columns: int, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", str(columns))
    show(report())
    said = capsys.readouterr().out
    for figure in ("1.23", "2.34", "3.45", "4.56", "5.67", "6.78", "2,469", "2,468", "12345", "25%", "within 20 ms/s"):
        assert figure in said
    assert "…" not in said


def test_what_was_cut_off_and_what_held_the_client_up_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    show(report())
    said = capsys.readouterr().out
    assert "7 requests were cut off" in said
    assert "got no processor 40% of the time" in said
