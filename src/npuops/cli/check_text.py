"""How `npuops check` shows its answer to people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from npuops.cli.show import console
from npuops.models.placement import RunsOn
from npuops.units import Basis, format_bytes, format_us

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from npuops.models.placement import FallbackRatio, Placement
    from npuops.rewrite.rewrites import FixReport
    from npuops.targets.report import Advice, SupportReport
    from npuops.units import Energy, Latency

NO_FIGURE = "no honest figure"
NODES_NAMED = 4


def print_check(report: SupportReport, *, show_all: bool) -> None:
    """One target: what falls back, the ratios, the fit, the figures, the advice."""
    out = console()
    nodes = report.placement.nodes
    shown = nodes if show_all else tuple(node for node in nodes if node.runs_on is RunsOn.CPU)
    out.print(f"{report.model} on {report.target}: {_summary(nodes)}", style="bold", soft_wrap=True)
    if shown:
        _print_nodes(shown, grouped=not show_all)
    out.print(f"fallback  {_ratio_words(report.placement.fallback_ratio)}")
    out.print(f"fit       {_fit_words(report)}")
    for use in report.fits.uses:
        held, limit = format_bytes(use.bytes), format_bytes(use.limit_bytes)
        out.print(f"          {use.what}: {held} in {use.where} ({limit})", soft_wrap=True)
    if report.fits.note:
        out.print(f"          {report.fits.note}", soft_wrap=True)
    out.print(f"latency   {_latency_words(report.latency)}")
    out.print(f"energy    {_energy_words(report.energy)}")
    _print_advice(report.advice)


def print_matrix(reports: Sequence[SupportReport]) -> None:
    """Several targets, one line each."""
    from rich.table import Table  # noqa: PLC0415 - help must not pay for it
    from rich.text import Text  # noqa: PLC0415 - as above

    table = Table(box=None, pad_edge=False)
    for heading in ("target", "on the NPU", "fallback: ops", "MACs", "fits", "latency", "advice"):
        table.add_column(heading, overflow="fold", no_wrap=heading == "target")
    for report in reports:
        ratio = report.placement.fallback_ratio
        on_npu = sum(node.runs_on is RunsOn.NPU for node in report.placement.nodes)
        table.add_row(
            report.target,
            f"{on_npu}/{len(report.placement.nodes)}",
            f"{ratio.ops:.1%}",
            "unknown" if ratio.macs is None else f"{ratio.macs:.1%}",
            "yes" if report.fits.ok else Text("no", style="red"),
            _latency_words(report.latency),
            str(len(report.advice)),
        )
    console().print(reports[0].model, style="bold")
    console().print(table)


def print_fixes(report: FixReport) -> None:
    """What was rewritten, with its proof, and what was refused."""
    from rich.table import Table  # noqa: PLC0415 - help must not pay for it

    table = Table(box=None, pad_edge=False)
    for heading in ("fix", "", "places", "largest difference", "why"):
        table.add_column(heading, overflow="fold")
    for fix in report.fixes:
        figures = [difference.max_abs for difference in fix.proof if difference.max_abs is not None]
        worst = f"{max(figures):.3g}" if figures else "–"
        table.add_row(fix.name, str(fix.verdict), str(fix.sites), worst, fix.why)
    out = console()
    out.print(f"{report.out} from {report.model}: {len(report.applied)} fixes", style="bold", soft_wrap=True)
    if report.fixes:
        out.print(table)
    if report.applied:
        out.print(f"each proved on {report.samples} samples ({report.samples_source})")
    for name in report.constant_outputs:
        out.print(f"weak proof: output {name} is the same for every sample; give --samples", style="yellow")


def _print_nodes(nodes: Iterable[Placement], *, grouped: bool) -> None:
    from rich.table import Table  # noqa: PLC0415 - help must not pay for it

    table = Table(box=None, pad_edge=False)
    for heading in ("nodes", "operator", "runs on", "rule", "found"):
        table.add_column(heading, overflow="fold")
    if grouped:
        groups: dict[tuple[str, str, str, str], list[str]] = {}
        for node in nodes:
            groups.setdefault((node.op, str(node.runs_on), node.rule, node.found), []).append(node.name)
        for (op, where, rule, found), names in groups.items():
            label = names[0] if len(names) == 1 else f"{len(names)} × {names[0]} …"
            table.add_row(label, op, where, rule, found)
    else:
        for node in nodes:
            table.add_row(node.name, node.op, str(node.runs_on), node.rule, node.found)
    console().print(table)


def _print_advice(advice: Sequence[Advice]) -> None:
    out = console()
    for entry in advice:
        count = f" ({len(entry.nodes)} nodes)" if len(entry.nodes) > 1 else ""
        out.print(f"advice    {entry.pattern}{count}: {entry.message}", soft_wrap=True)
        if entry.nodes:
            rest = f", and {len(entry.nodes) - NODES_NAMED} more" if len(entry.nodes) > NODES_NAMED else ""
            names = ", ".join(entry.nodes[:NODES_NAMED])
            out.print(f"          at {names}{rest}", style="dim", soft_wrap=True)
        if entry.fix:
            out.print(f"          cure: --fix OUT.onnx (rewrite {entry.fix})", style="green")


def _summary(nodes: Sequence[Placement]) -> str:
    counts = Counter(node.runs_on for node in nodes)
    return f"{counts[RunsOn.NPU]} of {len(nodes)} nodes on the NPU, {counts[RunsOn.CPU]} on the CPU"


def _ratio_words(ratio: FallbackRatio) -> str:
    macs = "unknown" if ratio.macs is None else f"{ratio.macs:.1%}"
    return f"{ratio.ops:.1%} of operators, {macs} of MACs"


def _fit_words(report: SupportReport) -> str:
    fits = report.fits
    peak = "unknown" if fits.peak_activation_bytes is None else format_bytes(fits.peak_activation_bytes)
    limit = "no fixed limit" if fits.limit_bytes is None else f"limit {format_bytes(fits.limit_bytes)}"
    answer = f"{'yes' if fits.ok else 'no'}: weights {format_bytes(fits.weights_bytes)}, peak activations {peak}"
    return answer if fits.uses else f"{answer}, {limit}"


def _latency_words(latency: Latency | None) -> str:
    if latency is None:
        return NO_FIGURE
    spread = f"{format_us(latency.low_us)} to {format_us(latency.high_us)}"
    if latency.basis is Basis.MODELLED:
        spread = f"four of five within {spread}"
    return f"{format_us(latency.us)} ({spread}; {latency.basis}, {latency.source})"


def _energy_words(energy: Energy | None) -> str:
    return NO_FIGURE if energy is None else f"{energy.mj:.3g} mJ ({energy.basis}, {energy.source})"
