"""The report of `npuops bench` for people."""

from __future__ import annotations

from rich.table import Table

from npuops.cli.show import console
from npuops.loadgen.latency_plot import text_plot
from npuops.loadgen.results import BenchReport, StageResult
from npuops.units import format_bytes


def show(report: BenchReport) -> None:
    """The stages, what went wrong in them, tenants, percentiles, the plot, and the client's own cost."""
    screen = console()
    screen.print(_title(report))
    if report.stages:
        screen.print(_stages(report))
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


def _stages(report: BenchReport) -> Table:
    table = Table(box=None, pad_edge=False)
    table.add_column("load")
    headings = ["req/s", "p50", "p90", "p95", "p99", "p99.9", "max ms", "ok", "shed", "failed", "client CPU"]
    if report.slo_ms is not None:
        headings.insert(1, f"within {report.slo_ms:g} ms/s")
    for heading in headings:
        table.add_column(heading, justify="right")
    for stage in report.stages:
        latency = stage.latency
        figures = (
            ["-"] * 6
            if latency is None
            else [
                *(_ms(latency.p50_ms), _ms(latency.p90_ms), _ms(latency.p95_ms)),
                *(_ms(latency.p99_ms), _ms(latency.p999_ms), _ms(latency.max_ms)),
            ]
        )
        rates = [_rate(stage.throughput), *([_rate(stage.goodput)] if report.slo_ms is not None else [])]
        counts = [str(stage.ok), str(sum(stage.shed.values())), str(stage.failed)]
        share = "-" if stage.client.cpu_share is None else f"{stage.client.cpu_share:.0%}"
        table.add_row(stage.load.words, *rates, *figures, *counts, share)
    return table


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
    if stage.client.waited:
        found.append(f"{stage.client.waited} requests were due while every connection was busy (--connections)")
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
