"""The report of `npuops bench` for people."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from rich.table import Table

from npuops.cli.show import console
from npuops.loadgen.latency_plot import text_plot
from npuops.loadgen.results import BenchReport, StageResult
from npuops.units import format_bytes

_PERCENTILES: Final = {
    "p50": "p50_ms",
    "p90": "p90_ms",
    "p95": "p95_ms",
    "p99": "p99_ms",
    "p99.9": "p999_ms",
    "max ms": "max_ms",
}
_GAP: Final = 2
_WAIT_TOLD: Final = 0.05
"""A client that waited longer than this share of the time for a processor says so."""


def show(report: BenchReport) -> None:
    """The stages, what went wrong in them, tenants, percentiles, the plot, and the client's own cost."""
    screen = console()
    screen.print(_title(report))
    for table in _stages(report, screen.width) if report.stages else ():
        screen.print(table)
    for stage in report.stages:
        for line in _findings(stage):
            screen.print(f"  {stage.load.words}: {line}")
    for stage in report.stages:
        if stage.tenants:
            screen.print(_tenants(stage))
        if stage.percentiles:
            screen.print(_percentiles(stage))
    plot = text_plot(report.stages)
    if plot:
        screen.print()
        screen.print(plot, soft_wrap=True)
    if report.capacity is not None:
        found = report.capacity
        rate = "none of the rates that were tried" if found.rate is None else f"{found.rate:.4g} req/s"
        screen.print(f"capacity: {rate} with p99 within {found.slo_ms:g} ms; {found.limit}")
    for warning in report.warnings:
        screen.print(f"warning: {warning}", style="yellow")
    if report.interrupted:
        screen.print("interrupted: this is what was measured so far", style="yellow")


def _title(report: BenchReport) -> str:
    inputs = ", ".join(f"{t.name} {t.datatype}[{','.join(map(str, t.shape))}]" for t in report.inputs)
    each = f"{format_bytes(report.request_bytes)} a request"
    return f"{report.url}: {report.format}, {each}{f', {inputs}' if inputs else ''}, seed {report.seed}"


def _stages(report: BenchReport, width: int) -> list[Table]:
    """One table, or two where it would not fit: figures that are cut off are no figures."""
    counted = {
        "req/s": [_rate(stage.throughput) for stage in report.stages],
        **(
            {}
            if report.slo_ms is None
            else {f"within {report.slo_ms:g} ms/s": [_rate(s.goodput) for s in report.stages]}
        ),
    }
    ends = {
        "ok": [str(stage.ok) for stage in report.stages],
        "shed": [str(sum(stage.shed.values())) for stage in report.stages],
        "failed": [str(stage.failed) for stage in report.stages],
        "client CPU": [_share(stage.client.cpu_share) for stage in report.stages],
    }
    latencies = {
        name: [_ms(None if stage.latency is None else getattr(stage.latency, field)) for stage in report.stages]
        for name, field in _PERCENTILES.items()
    }
    loads = [stage.load.words for stage in report.stages]
    whole = {**counted, **latencies, **ends}
    taken = sum(_GAP + max(map(len, (name, *cells))) for name, cells in whole.items()) + max(map(len, loads))
    parts = [whole] if taken <= width else [{**counted, **ends}, latencies]
    return [_table(loads, part) for part in parts]


def _table(loads: Sequence[str], columns: Mapping[str, Sequence[str]]) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("load")
    for name in columns:
        table.add_column(name, justify="right")
    for row in zip(loads, *columns.values(), strict=True):
        table.add_row(*row)
    return table


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.0%}"


def _findings(stage: StageResult) -> list[str]:
    found = []
    for words, counts in (("shed", stage.shed), ("errors", stage.errors), ("no answer", stage.transport)):
        if counts:
            found.append(f"{words}: {', '.join(f'{count} x {word}' for word, count in sorted(counts.items()))}")
    if stage.shed_latency is not None and stage.shed_latency.p50_ms is not None:
        found.append(f"a refusal took {_ms(stage.shed_latency.p50_ms)} ms (p50)")
    if stage.client.reconnects:
        found.append(f"{stage.client.reconnects} connections were opened again")
    if stage.client.lag_p99_ms is not None:
        found.append(f"the client was at most {_ms(stage.client.lag_p99_ms)} ms late (p99)")
    if (stage.client.cpu_wait_share or 0.0) > _WAIT_TOLD:
        found.append(f"the client was ready and got no processor {stage.client.cpu_wait_share:.0%} of the time")
    if stage.unanswered:
        found.append(f"{stage.unanswered} requests were cut off by its end: how slow they were is not known")
    if stage.client.waited:
        found.append(f"{stage.client.waited} requests were due while every connection was busy")
    if stage.agreement is not None:
        largest = stage.agreement.largest_difference
        by = "" if largest is None else f", by up to {largest:.3g}"
        found.append(f"{stage.agreement.differing} of {stage.agreement.compared} answers differ from the first{by}")
        if stage.agreement.differing:
            found.append(stage.agreement.first_difference)
    return found


def _tenants(stage: StageResult) -> Table:
    table = Table(title=f"tenants at {stage.load.words}", title_justify="left", box=None, pad_edge=False)
    table.add_column("tenant")
    for heading in ("weight", "req/s", "p50", "p99", "max ms", "ok", "shed", "failed"):
        table.add_column(heading, justify="right")
    for tenant in stage.tenants:
        latency = tenant.latency
        figures = ["-"] * 3 if latency is None else [_ms(latency.p50_ms), _ms(latency.p99_ms), _ms(latency.max_ms)]
        counts = (str(tenant.ok), str(tenant.shed), str(tenant.failed))
        table.add_row(tenant.name, f"{tenant.weight:g}", _rate(tenant.throughput), *figures, *counts)
    return table


def _percentiles(stage: StageResult) -> Table:
    table = Table(title=f"percentiles at {stage.load.words}", title_justify="left", box=None, pad_edge=False)
    for heading in ("ms", "percentile", "count", "1/(1-p)"):
        table.add_column(heading, justify="right")
    for row in stage.percentiles:
        rest = 1 - row.percentile / 100
        table.add_row(_ms(row.ms), f"{row.percentile:.4f}", str(row.count), f"{1 / rest:.1f}" if rest > 1e-12 else "")
    return table


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 else f"{value:.4g}"


def _ms(value: float | None) -> str:
    """Three digits that count; a percentile with too few values behind it is a dash."""
    if value is None:
        return "-"
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"
