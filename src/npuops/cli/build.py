"""`npuops build`: from a model file to one verified, gated artifact."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from npuops import app
from npuops.artifacts.evidence import Verdict
from npuops.build import serving_steps
from npuops.build.fallback import read_fallback_policy
from npuops.build.options import BuildOptions
from npuops.build.pipeline import BuildResult
from npuops.cli.image_flag import ImageFlag, parse_image_options
from npuops.cli.shape_flag import ShapeFlag, parse_shapes
from npuops.cli.show import EXIT_NO, JsonFlag, console, print_json, progress
from npuops.cli.target_words import complete_target
from npuops.cli.time_limit_flag import TimeLimitFlag
from npuops.errors import UsageError
from npuops.report.output_file import refuse_place
from npuops.report.report import write_report
from npuops.targets.protocol import Precision
from npuops.units import Basis, format_bytes, format_us

SCHEMA = "npuops.build/1"

LabelsFlag = Annotated[Path | None, typer.Option(help="Class names, one a line; subfolders of images are matched.")]
PipelineFlag = Annotated[
    str | None,
    typer.Option("--pipeline", help=f"Steps of a server around an inference: {', '.join(serving_steps.KINDS)}."),
]
DynamicBatchFlag = Annotated[bool, typer.Option("--dynamic-batch", help="Any batch size; proved, or refused.")]


def command(
    model: Annotated[str, typer.Argument(help="ONNX or TFLite file, or zoo:NAME.")],
    target: Annotated[
        str, typer.Option("--target", "-t", autocompletion=complete_target, help="See `npuops targets`.")
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="Folder for the artifact, or a file X.npuart.")],
    calibration: Annotated[
        str | None, typer.Option("--calibration", "-c", help=".npz, folder of images or .npy, or module:function.")
    ] = None,
    evaluation: Annotated[str | None, typer.Option("--eval", "-e", help="Held-out inputs, same forms.")] = None,
    precision: Annotated[Precision | None, typer.Option(help="The target's default if left out.")] = None,
    method: Annotated[str, typer.Option(help="Calibration: minmax, percentile, entropy, mse.")] = "minmax",
    per_tensor: Annotated[bool, typer.Option("--per-tensor", help="One scale per weight tensor.")] = False,
    max_drop: Annotated[str | None, typer.Option(help="Accepted loss of the metric: 1% or 0.01.")] = None,
    metric: Annotated[str, typer.Option(help="top1, cosine, or module:function.")] = "top1",
    fallback: Annotated[str, typer.Option(help="forbid, allow, or budget=R.")] = "forbid",
    vendor: Annotated[list[str] | None, typer.Option("--set", help="Option of the target's compiler, K=V.")] = None,
    policy: Annotated[Path | None, typer.Option(help="Gate policy (TOML).")] = None,
    image: ImageFlag = None,
    labels: LabelsFlag = None,
    pipeline: PipelineFlag = None,
    shape: ShapeFlag = None,
    dynamic_batch: DynamicBatchFlag = False,
    calibration_limit: Annotated[int, typer.Option(help="Most calibration samples.")] = app.CALIBRATION_LIMIT,
    eval_limit: Annotated[int | None, typer.Option(help="Most evaluation samples.")] = None,
    time_limit: TimeLimitFlag = 900,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Do everything again.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Build, print the verdict, and write the report beside the artifact."""
    refuse_place(_report_of(output))
    words = app.BuildWords(
        model=model,
        target=target,
        calibration=calibration,
        evaluation=evaluation,
        image=parse_image_options(image) if image else None,
        labels=labels,
        pipeline=pipeline,
        policy=policy,
        calibration_limit=calibration_limit,
        evaluation_limit=eval_limit,
        shapes=parse_shapes(shape),
    )
    options = BuildOptions(
        precision=precision,
        method=method,
        per_channel=not per_tensor,
        max_drop=None if max_drop is None else app.parse_drop(max_drop),
        metric=metric,
        dynamic_batch=dynamic_batch,
        fallback=read_fallback_policy(fallback),
        vendor=dict(_pair(one) for one in vendor or []),
        time_limit_s=time_limit,
        use_cache=not no_cache,
    )
    with progress(quiet=as_json) as observe:
        result = app.run_build(words, options, output, observe=observe)
    _answer(result, output, as_json=as_json)


def _report_of(output: Path) -> Path:
    return output.parent / f"{output.name}.report.html"


def _answer(result: BuildResult, output: Path, *, as_json: bool) -> None:
    report = write_report(result.artifact, _report_of(output), name=output.name)
    if as_json:
        print_json(_plain(result, output, report))
    else:
        _show(result, output, report)
    gate = result.artifact.manifest.gate
    if gate is None or gate.verdict is not Verdict.PASS:
        raise typer.Exit(EXIT_NO)


def _pair(words: str) -> tuple[str, str]:
    name, sign, value = words.partition("=")
    if not sign or not name:
        raise UsageError(f"--set {words!r} is not of the form K=V")
    return name, value


def _plain(result: BuildResult, output: Path, report: Path) -> dict[str, object]:
    manifest = result.artifact.manifest
    return {
        "schema": SCHEMA,
        "artifact": str(output),
        "digest": manifest.digest,
        "cached": result.cached,
        "seconds": result.seconds,
        "report": str(report),
        "target": manifest.target,
        "precision": manifest.precision,
        "image": manifest.image,
        "fallback_ratio": manifest.placement.fallback_ratio,
        "parity": manifest.parity,
        "accuracy": manifest.accuracy,
        "gate": manifest.gate,
    }


def _show(result: BuildResult, output: Path, report: Path) -> None:
    from rich.table import Table  # noqa: PLC0415 - help must not pay for it
    from rich.text import Text  # noqa: PLC0415 - as above

    from npuops.cli.screen import verdict_text  # noqa: PLC0415 - as above

    manifest = result.artifact.manifest
    screen = console()
    table = Table("", "rule", "wanted", "found", box=None, pad_edge=False, header_style="dim")
    for rule in manifest.gate.rules if manifest.gate else ():
        table.add_row(verdict_text(rule.verdict), rule.name, Text(rule.wanted, style="dim"), rule.found)
    screen.print(table)
    for tensor in manifest.parity.first_divergence if manifest.parity else ():
        level = "equal" if tensor.sqnr_db is None else f"{tensor.sqnr_db:.1f} dB"
        screen.print(Text.assemble(f"  {level:>9}  {tensor.node}  ", (tensor.tensor, "dim")))
    parity = manifest.parity
    if parity is not None and parity.run_us is not None:
        note = " (an emulator's clock says nothing about silicon)" if parity.run_basis == Basis.EMULATED else ""
        screen.print(f"run        {format_us(parity.run_us)}, {parity.run_basis}{note}")
    size = sum(record.bytes for record in manifest.files)
    cached = ", from the cache" if result.cached else ""
    verdict = manifest.gate.verdict if manifest.gate else Verdict.INCONCLUSIVE
    screen.print(f"artifact   {output}  {format_bytes(size)}", soft_wrap=True)
    screen.print(f"report     {report}", soft_wrap=True)
    screen.print(Text.assemble(verdict_text(verdict, bold=True), f"       {result.seconds:.2f} s{cached}"))
