"""`npuops check`: will the model run there, what falls back, and what should be changed first."""

from __future__ import annotations

from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from npuops.cli.model_argument import ModelArgument
from npuops.cli.shape_flag import ShapeFlag, parse_shapes
from npuops.cli.show import EXIT_NO, JsonFlag, print_json, progress
from npuops.cli.target_words import complete_target
from npuops.private_folder import private_folder

if TYPE_CHECKING:
    from collections.abc import Iterator

    from npuops.rewrite.rewrites import FixReport
    from npuops.targets.protocol import Target
    from npuops.targets.report import SupportReport

MATRIX_SCHEMA = "npuops.check-matrix/1"


def command(
    model: ModelArgument,
    target: Annotated[
        list[str],
        typer.Option(
            "--target", "-t", autocompletion=complete_target, help="Where it should run; repeat it for a matrix."
        ),
    ],
    shape: ShapeFlag = None,
    fix: Annotated[
        Path | None, typer.Option("--fix", help="Write the model with every safe rewrite that is proved equal.")
    ] = None,
    only: Annotated[
        list[str] | None, typer.Option("--only", help="With --fix: only this rewrite (repeatable).")
    ] = None,
    samples: Annotated[
        str | None, typer.Option("--samples", help="With --fix: inputs of the proof (.npz, folder, module:function).")
    ] = None,
    max_fallback: Annotated[
        float | None,
        typer.Option("--max-fallback", min=0.0, max=1.0, help="Say no above this share of work on the CPU."),
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show every node, also those on the NPU.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Judge by published rules; no toolchain is needed and nothing is compiled."""
    from npuops.cli.check_text import print_check, print_fixes, print_matrix  # noqa: PLC0415 - as above
    from npuops.models.open import open_model  # noqa: PLC0415 - as above
    from npuops.rewrite.analyse import analyse, graph_of  # noqa: PLC0415 - help must not pay for it
    from npuops.targets.registry import open_target  # noqa: PLC0415 - as above

    _refuse_mixed(model, target, fix, only, samples)
    targets = [open_target(name) for name in dict.fromkeys(target)]
    shapes = parse_shapes(shape)
    with _as_graph(model, shapes, must=fix is not None) as (source, loose):
        fixes = None if fix is None else _fix(source, fix, targets[0], only, samples, loose, quiet=as_json)
        path, rest = (source, loose) if fix is None else (fix, {})
        if fixes is not None:
            fixes = replace(fixes, model=model.name)
        opened = open_model(path, shapes=rest)
        proto = graph_of(path, rest) if opened.format == "onnx" else None
        reports = [replace(analyse(opened, one, proto=proto), model=(fix or model).name) for one in targets]
    refusals = [no for report in reports for no in refused(report, max_fallback)]
    if as_json:
        print_json(_plain(reports, fixes))
    else:
        if fixes is not None:
            print_fixes(fixes)
        if len(reports) > 1:
            print_matrix(reports)
        else:
            print_check(reports[0], show_all=show_all)
        for refusal in refusals:
            typer.echo(f"no: {refusal}")
    if refusals:
        raise typer.Exit(EXIT_NO)


def refused(report: SupportReport, max_fallback: float | None) -> list[str]:
    """Why the check says no, one sentence each; empty when it says yes.

    Without a limit it says no only to what cannot be meant: a model that does not fit, or of which nothing at
    all runs on the NPU. A host engine (`ort-cpu`) has no NPU to miss.
    """
    from npuops.rewrite.patterns import HOST_ENGINES  # noqa: PLC0415 - help must not pay for it
    from npuops.units import format_bytes  # noqa: PLC0415 - as above

    found = []
    if not report.fits.ok:
        need = report.fits.weights_bytes + (report.fits.peak_activation_bytes or 0)
        limit = report.fits.limit_bytes
        room = f" of {format_bytes(limit)}" if limit is not None else ""
        why = report.fits.note or f"it needs {format_bytes(need)}{room}"
        found.append(f"{report.target}: the model does not fit: {why}")
    if report.target.partition(":")[0] in HOST_ENGINES:
        return found
    ratio = report.placement.fallback_ratio
    worst = max(ratio.ops, ratio.macs or 0.0)
    if max_fallback is not None and worst > max_fallback:
        found.append(f"{report.target}: {worst:.1%} of the work runs on the CPU, allowed {max_fallback:.1%}")
    elif ratio.ops == 1.0:
        found.append(f"{report.target}: nothing of this model runs on the NPU")
    return found


def _refuse_mixed(
    model: Path, targets: list[str], fix: Path | None, only: list[str] | None, samples: str | None
) -> None:
    from npuops.errors import UsageError  # noqa: PLC0415 - help must not pay for it
    from npuops.report.output_file import refuse_place  # noqa: PLC0415 - as above

    if fix is not None:
        refuse_place(fix)
    if fix is not None and fix.resolve() == model.resolve():
        raise UsageError(f"{fix} is the source model", advice="name another file: the source is never overwritten")
    if fix is None and (only or samples):
        raise UsageError("--only and --samples belong to --fix", advice="add --fix OUT.onnx")
    if fix is not None and len(set(targets)) > 1:
        raise UsageError("--fix works for one --target", advice="its patterns differ from target to target")


@contextmanager
def _as_graph(
    model: Path, shapes: dict[str, tuple[int, ...]], *, must: bool
) -> Iterator[tuple[Path, dict[str, tuple[int, ...]]]]:
    """The file to judge, and the shapes still to fix. TFLite goes through the importer, as `build` does.

    What cannot be imported is judged by its own layers, unless it `must` become a graph; not every target does that.
    """
    from npuops.errors import UnsupportedModelError  # noqa: PLC0415 - help must not pay for it
    from npuops.models.open import as_onnx  # noqa: PLC0415 - as above

    if not _is_tflite(model):
        yield model, shapes
        return
    with private_folder() as folder:
        path, rest = folder / "model.onnx", dict[str, tuple[int, ...]]()
        try:
            as_onnx(model, path, shapes=shapes)
        except UnsupportedModelError:
            if must:
                raise
            path, rest = model, shapes
        yield path, rest


def _is_tflite(path: Path) -> bool:
    from npuops.models.content import format_of, read_content  # noqa: PLC0415 - help must not pay for it
    from npuops.models.model import ModelFormat  # noqa: PLC0415 - as above

    return format_of(read_content(path), str(path)) is ModelFormat.TFLITE


def _fix(
    path: Path,
    out: Path,
    target: Target,
    only: list[str] | None,
    samples: str | None,
    shapes: dict[str, tuple[int, ...]],
    *,
    quiet: bool,
) -> FixReport:
    from npuops.evaluate.sample_sources import load_samples  # noqa: PLC0415 - as above
    from npuops.models.open import open_model  # noqa: PLC0415 - as above
    from npuops.rewrite.rewrites import apply_fixes  # noqa: PLC0415 - it loads ONNX Runtime

    loaded = None
    if samples is not None:
        loaded = load_samples(samples, open_model(path, shapes=shapes).inputs)
    with progress(quiet=quiet) as observe:
        return apply_fixes(path, out, target=target, only=only, samples=loaded, shapes=shapes, observe=observe)


def _plain(reports: list[SupportReport], fixes: FixReport | None) -> Any:
    """The JSON contract of docs/check.md."""
    import msgspec  # noqa: PLC0415 - help must not pay for it

    plain = [msgspec.to_builtins(report) for report in reports]
    if len(plain) > 1:
        return {"schema": MATRIX_SCHEMA, "reports": plain}
    return plain[0] if fixes is None else {**plain[0], "fixes": msgspec.to_builtins(fixes)}
