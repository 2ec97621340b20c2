"""`npuops profile`: where an artifact's time goes, per operator, and the HTML report."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Final

import typer
from rich.table import Table

from npuops.artifacts.folder import opened
from npuops.cli.artifact_argument import ArtifactArgument
from npuops.cli.image_flag import ImageFlag
from npuops.cli.input_file import artifact_input
from npuops.cli.show import JsonFlag, console, print_json, progress
from npuops.cli.time_limit_flag import TimeLimitFlag
from npuops.cli.trust_flag import TrustFlag, trust_policy
from npuops.errors import UsageError
from npuops.evaluate.sample_sources import random_samples
from npuops.models.batch_axis import with_rows
from npuops.models.placement import RunsOn
from npuops.report.output_file import refuse_output
from npuops.report.profile import ProfileAnswer, cost_words, profile_answer, profile_artifact
from npuops.report.report import write_report
from npuops.report.report_placement import side_names
from npuops.targets.protocol import Tensors

RANDOM: Final = "random"


def command(
    artifact: ArtifactArgument,
    source: Annotated[
        str, typer.Option("--input", "-i", help="Input: .npz, .npy, an image, - for .npz on stdin, or `random`.")
    ] = RANDOM,
    top: Annotated[int, typer.Option("--top", "-n", min=1, help="How many of the slowest operators to show.")] = 10,
    output: Annotated[Path | None, typer.Option("--output", "-o", help="Write the HTML report to this file.")] = None,
    image: ImageFlag = None,
    time_limit: TimeLimitFlag = 600,
    key: TrustFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Verify, profile one inference in a child process, and show what costs most."""
    if source == RANDOM and image:
        raise UsageError("--image says how the pixels of --input become numbers", advice="name an image with --input")
    if output is not None:
        refuse_output(output, artifact)
    with opened(artifact, require=trust_policy(key)) as found, progress(quiet=as_json) as observe:
        inputs: Tensors
        if source == RANDOM:
            inputs = random_samples(with_rows(found.manifest.inputs), 1, 0).inputs[0]
        else:
            inputs = artifact_input(source, found.manifest, image, observe=observe)
        profile = profile_artifact(found, inputs, timeout_s=time_limit, observe=observe)
        answer = profile_answer(found, profile, name=str(artifact), source=source)
        if output is not None:
            write_report(found, output, profile=profile, name=artifact.name)
    if as_json:
        print_json(answer)
        return
    _show(answer, top)
    if output is not None:
        console().print(f"report: {output}")


def _show(answer: ProfileAnswer, top: int) -> None:
    screen = console()
    unit = f"{answer.unit} ({answer.basis})"
    screen.print(f"{answer.target}: {cost_words(answer.total)} {unit}, by {answer.source}")
    screen.print(_slowest(answer, top, unit))
    screen.print(_by_type(answer, unit))
    away = [island for island in answer.islands if island.runs_on is RunsOn.CPU]
    screen.print(f"CPU islands: {len(away)}")
    for island in away[:top]:
        screen.print(f"  {island.first} … {island.last}: {island.nodes} nodes, {island.work} compute")


def _slowest(answer: ProfileAnswer, top: int, unit: str) -> Table:
    names = side_names(answer.target)
    slowest = sorted(answer.ops, key=lambda op: -op.cost)[:top]
    table = _empty_table(f"slowest {len(slowest)} of {len(answer.ops)}", "operator", "type", unit)
    for op in slowest:
        table.add_row(op.name, op.op, names[op.runs_on], cost_words(op.cost), f"{op.share:.1%}")
    return table


def _by_type(answer: ProfileAnswer, unit: str) -> Table:
    names = side_names(answer.target)
    table = _empty_table("by type", "type", "count", unit)
    for group in answer.by_type:
        table.add_row(group.op, str(group.count), names[group.runs_on], cost_words(group.cost), f"{group.share:.1%}")
    return table


def _empty_table(title: str, first: str, second: str, unit: str) -> Table:
    table = Table(box=None, pad_edge=False, title=title, title_justify="left")
    for heading in (first, second, "on"):
        table.add_column(heading, overflow="fold")
    for heading in (unit, "share"):
        table.add_column(heading, justify="right")
    return table
