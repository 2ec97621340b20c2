"""`npuops demo`: the whole story on one real model: every target that is installed, a device, and a server."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table
from rich.text import Text

from npuops import app
from npuops.artifacts.evidence import Verdict
from npuops.artifacts.latency_figures import LatencyFigure, latency_figures
from npuops.artifacts.manifest import Manifest
from npuops.build.fallback import ALLOW
from npuops.build.gate import compiled_bytes
from npuops.build.options import BuildOptions
from npuops.build.pipeline import BuildResult
from npuops.cli.demo_device import Story, enclosed, tell
from npuops.cli.demo_device_text import plain_story, show_story
from npuops.cli.demo_models import DemoModel, blank_calibration, digits, mobilenet
from npuops.cli.demo_serve import CLIENTS, Served, ServingStory, missing, tell_serving
from npuops.cli.demo_serve_text import plain_serving, show_serving
from npuops.cli.screen import Screen, verdict_text
from npuops.cli.serve import INSTALL
from npuops.cli.show import EXIT_NO, JsonFlag, console, print_hanging, print_json, progress
from npuops.errors import UsageError, nearest
from npuops.events import Observer
from npuops.models.open import open_model
from npuops.report.against_fp32 import worst_agreement, worst_cosine
from npuops.report.report import write_report
from npuops.targets.protocol import Precision
from npuops.targets.registry import open_target
from npuops.units import Latency, format_bytes, format_us

SCHEMA = "npuops.demo/1"
MODELS = {"digits": digits, "mobilenet": mobilenet}
PLAN: tuple[tuple[str, Precision], ...] = (
    ("ort-cpu", Precision.FP32),
    ("ort-cpu", Precision.A8W8),
    ("openvino", Precision.A8W8),
    ("qnn-htp:sm8650", Precision.A8W8),
    ("qnn-htp:sm8750", Precision.A16W8),
    ("ethos-u:ethos-u55-128", Precision.A8W8),
    ("ethos-u:ethos-u85-256", Precision.A8W8),
    ("vnpu:rk3588", Precision.A8W8),
)
DEVICE: Final = PLAN[-1]
"""The row whose artifact then runs on a device."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """One line of the cross-vendor table."""

    target: str
    precision: Precision
    result: BuildResult | None
    why_not: str = ""
    report: Path | None = None
    modelled: Latency | None = None
    """Of a chip that is not here: a clock on this host says nothing about it."""


def command(
    name: Annotated[str, typer.Argument(help=f"Which model: {', '.join(MODELS)}.")] = "digits",
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for artifacts and reports.")] = Path(
        "demo-out"
    ),
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Do everything again.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """One model to every installed target, a mistake caught, a device that throttles, a server that loses nothing."""
    if name not in MODELS:
        raise UsageError(f"no demo {name!r}", advice=nearest(name, MODELS))
    model = MODELS[name]()
    screen = console()
    if not as_json:
        screen.print(f"{model.title}\n", style="bold")
    rows = []
    for target, precision in PLAN:
        if not as_json:
            screen.print(f"{target} {precision}", style="bold")
        with progress(quiet=as_json) as observe:
            rows.append(_row(model, target, precision, output, no_cache, observe))
    if not as_json:
        screen.print("a mistake: ort-cpu a8w8, calibrated on blank inputs", style="bold")
    with progress(quiet=as_json) as observe:
        failure = _failure(model, output, no_cache, observe)
    if not as_json:
        screen.print(f"a device: {DEVICE[0]}", style="bold")
    with progress(quiet=as_json) as observe:
        story = _on_device(model, rows, observe)
    if not as_json:
        screen.print("a server", style="bold")
    with progress(quiet=as_json) as observe:
        serving = None if missing() else _served(rows, observe)
    if as_json:
        plain = {"rows": [_plain(row) for row in rows], "failure": _plain(failure), "device": plain_story(story)}
        served = plain_serving(serving) if serving is not None else None
        print_json({"schema": SCHEMA, "model": name, **plain, "serving": served})
    else:
        _show(screen, rows, failure)
        show_story(screen, story)
        _show_end(screen, serving, [row.report for row in (*rows, failure) if row.report])
    caught = failure.result is not None and _verdict(failure.result) is Verdict.FAIL
    passed = all(_verdict(row.result) is Verdict.PASS for row in rows if row.result is not None)
    if not (caught and passed and story.is_as_promised and (serving is None or serving.is_as_promised)):
        raise typer.Exit(EXIT_NO)


def _row(model: DemoModel, target: str, precision: Precision, output: Path, no_cache: bool, observe: Observer) -> Row:
    opened = open_target(target)
    probe = opened.probe()
    if not probe.available:
        return Row(target=target, precision=precision, result=None, why_not=f"{probe.why_not}: {probe.install}")
    out = output / f"{model.name}-{target.replace(':', '-')}-{precision}"
    options = BuildOptions(precision=precision, use_cache=not no_cache)
    result = app.run_request(model.request(target, options), out, observe=observe)
    return Row(
        target=target,
        precision=precision,
        result=result,
        report=write_report(result.artifact, out.with_name(f"{out.name}.report.html")),
        modelled=opened.check(open_model(model.path)).latency if target == DEVICE[0] else None,
    )


def _failure(model: DemoModel, output: Path, no_cache: bool, observe: Observer) -> Row:
    """A mistake that compiles without a word and answers nonsense: calibration on blank inputs."""
    out = output / f"{model.name}-blank-calibration"
    options = BuildOptions(precision=Precision.A8W8, use_cache=not no_cache, fallback=ALLOW)
    request = model.request("ort-cpu", options, calibration=blank_calibration(model))
    result = app.run_request(request, out, observe=observe)
    report = write_report(result.artifact, out.with_name(f"{out.name}.report.html"))
    return Row(target="ort-cpu", precision=Precision.A8W8, result=result, report=report)


def _on_device(model: DemoModel, rows: list[Row], observe: Observer) -> Story:
    artifact = next(row.result.artifact for row in rows if (row.target, row.precision) == DEVICE and row.result)
    return tell(artifact, model.evaluation, enclosed(DEVICE[0]), observe)


def _served(rows: list[Row], observe: Observer) -> ServingStory:
    """The first artifact that something here runs, and the next one as its new version."""
    built = [row for row in rows if row.result is not None and open_target(row.target).runner is not None]
    served = [Served(name=f"{row.target} {row.precision}", artifact=row.result.artifact) for row in built if row.result]
    return tell_serving(served[0], served[1 if len(served) > 1 else 0], observe)


def _verdict(result: BuildResult | None) -> Verdict:
    gate = result.artifact.manifest.gate if result is not None else None
    return gate.verdict if gate is not None else Verdict.INCONCLUSIVE


def _plain(row: Row) -> Mapping[str, object]:
    manifest = row.result.artifact.manifest if row.result else None
    return {
        "target": row.target,
        "precision": row.precision,
        "why_not": row.why_not,
        "artifact": str(row.result.artifact.root) if row.result else None,
        "report": str(row.report) if row.report else None,
        "accuracy": manifest.accuracy if manifest else None,
        "fallback_ratio": manifest.placement.fallback_ratio if manifest else None,
        "latency": _latencies(row),
        "verdict": _verdict(row.result) if row.result else None,
        "cached": row.result.cached if row.result else None,
    }


def _show(screen: Screen, rows: list[Row], failure: Row) -> None:
    screen.print()
    screen.print(_table([row for row in rows if row.result is not None]))
    for row in rows:
        if row.result is None:
            screen.print(f"skipped {row.target} {row.precision}: {row.why_not}", style="yellow")
    screen.print(
        "\nOnly `measured` is a clock on the device that is named. `emulated` is a clock around a"
        "\nvendor's emulator, `vendor-estimate` the vendor's own model, `modelled` ours: do not compare them."
        "\n`top-1` is accuracy where the samples have labels, else agreement with fp32.",
        style="dim",
    )
    _show_failure(screen, failure)


def _show_end(screen: Screen, serving: ServingStory | None, reports: list[Path]) -> None:
    if serving is not None:
        show_serving(screen, serving, CLIENTS)
    else:
        screen.print(f"\nskipped the server: {missing()} is not installed: {INSTALL}", style="yellow")
    screen.print(f"\n{len(reports)} reports with graphs, tables and evidence: {reports[0].parent}/*.report.html")


def _table(rows: list[Row]) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 1, 0, 0))
    for heading in ("target", "", "NPU", "top-1", "cosine", "one inference", "size", "gate"):
        table.add_column(heading, no_wrap=heading != "one inference")
    for row in rows:
        table.add_row(row.target, row.precision, *_cells(row))
    return table


def _show_failure(screen: Screen, failure: Row) -> None:
    gate = failure.result.artifact.manifest.gate if failure.result is not None else None
    screen.print("\nAnd one mistake, caught: the same model, calibrated on blank inputs.", style="bold")
    screen.print("It compiles without a word from the toolchain. The gate says:")
    for rule in gate.rules if gate is not None else ():
        if rule.verdict is not Verdict.PASS:
            print_hanging(screen, f"  {rule.verdict}  ", f"{rule.name}: {rule.found}", "red")


def _cells(row: Row) -> tuple[str | Text, ...]:
    manifest = row.result.artifact.manifest if row.result is not None else None
    if manifest is None:
        return ()
    verdict = _verdict(row.result)
    figures = _latencies(row)
    return (
        f"{1 - manifest.placement.fallback_ratio.ops:.0%}",
        _top1(manifest),
        _figure(worst_cosine(manifest)),
        f"{format_us(figures[0].us)} {figures[0].basis}" if figures else "no device here",
        format_bytes(compiled_bytes(manifest)),
        verdict_text(verdict),
    )


def _latencies(row: Row) -> Sequence[LatencyFigure | Latency]:
    """The manifest's, but of a chip that is modelled only the model's."""
    if row.modelled is not None:
        return (row.modelled,)
    return () if row.result is None else latency_figures(row.result.artifact.manifest)


def _top1(manifest: Manifest) -> str:
    """Accuracy where the samples have labels, else agreement with fp32."""
    if manifest.accuracy is not None:
        return f"{manifest.accuracy.artifact:.4f}"
    return _figure(worst_agreement(manifest))


def _figure(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
