"""`npuops prune`: fewer weights or channels before quantization, with what it costs."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from npuops.cli.shape_flag import ShapeFlag, parse_shapes
from npuops.cli.show import EXIT_NO, JsonFlag, console, print_json, progress
from npuops.errors import OptionError, nearest

if TYPE_CHECKING:
    import onnx

    from npuops.rewrite.prune import PruneReport, Size

SEARCH_LIMIT = 0.95
"""The search with --max-drop looks no higher unless --sparsity tells it to."""


def command(
    model: Annotated[str, typer.Argument(help="Float ONNX file, or zoo:NAME (with its evaluation data).")],
    out: Annotated[Path, typer.Option("--output", "-o", help="The pruned model; never the model itself.")],
    sparsity: Annotated[
        float | None, typer.Option("--sparsity", help="Share to remove, 0.3 for 30 %; with --max-drop the highest.")
    ] = None,
    structured: Annotated[
        bool, typer.Option("--structured", help="Remove whole channels (less to compute) instead of single weights.")
    ] = False,
    scope: Annotated[str, typer.Option("--scope", help="Count the share per layer, or global.")] = "layer",
    evaluation: Annotated[
        str | None, typer.Option("--eval", "-e", help="Evaluation data: .npz, a folder, or module:function.")
    ] = None,
    max_drop: Annotated[
        str | None, typer.Option("--max-drop", help="Find the largest share that loses at most this, as 1%.")
    ] = None,
    metric: Annotated[
        str | None, typer.Option("--metric", help="top1, cosine, or module:function(outputs, labels).")
    ] = None,
    shape: ShapeFlag = None,
    as_json: JsonFlag = False,
) -> None:
    """Remove weights or channels, and report accuracy, MACs and size before and after."""
    from npuops.app import find_model, parse_drop  # noqa: PLC0415 - help stays fast
    from npuops.evaluate.sample_sources import load_samples  # noqa: PLC0415 - help stays fast
    from npuops.models.onnx_file import write_onnx  # noqa: PLC0415 - help stays fast
    from npuops.models.onnx_layers import graph_inputs  # noqa: PLC0415 - help stays fast
    from npuops.report.output_file import refuse_place  # noqa: PLC0415 - help stays fast
    from npuops.rewrite.prune import PruneMethod, PruneOptions, PruneScope, prune  # noqa: PLC0415 - help stays fast

    if scope not in set(PruneScope):
        raise OptionError(f"no scope {scope!r}", advice=nearest(scope, [known.value for known in PruneScope]))
    if sparsity is None and max_drop is None:
        raise OptionError("neither a share nor a limit is given", advice="give --sparsity 0.3, or --max-drop 1%")
    refuse_place(out)
    source = find_model(model)
    if out.resolve() == source.path.resolve():
        raise OptionError(f"{out} is the model itself", advice="write the pruned model to another file")
    options = PruneOptions(
        sparsity=SEARCH_LIMIT if sparsity is None else sparsity,
        method=PruneMethod.CHANNELS if structured else PruneMethod.MAGNITUDE,
        scope=PruneScope(scope),
        max_drop=None if max_drop is None else parse_drop(max_drop),
        metric=metric,
    )
    graph = _read(source.path, parse_shapes(shape))
    data = evaluation or source.evaluation
    samples = None if data is None else load_samples(data, graph_inputs(graph))
    with progress(quiet=as_json) as observe:
        pruned = prune(graph, options, name=model, samples=samples, observe=observe)
    if pruned.model is not None:
        write_onnx(pruned.model, out)
    if as_json:
        print_json(pruned.report)
    else:
        _show(pruned.report, out)
    if not pruned.report.met:
        raise typer.Exit(EXIT_NO)


def _read(path: Path, shapes: dict[str, tuple[int, ...]]) -> onnx.ModelProto:
    from npuops.models.onnx_file import read_onnx  # noqa: PLC0415 - help stays fast
    from npuops.models.shapes import fix_shapes  # noqa: PLC0415 - help stays fast

    graph = read_onnx(path)
    return fix_shapes(graph, shapes) if shapes else graph


def _show(report: PruneReport, out: Path) -> None:
    from rich.table import Table  # noqa: PLC0415 - help must not pay for it

    screen = console()
    if report.sparsity is None:
        screen.print(f"no: every share that was tried loses more than {report.max_drop:g}; nothing was written")
        for trial in sorted(report.tried, key=lambda trial: trial.sparsity):
            found = trial.accuracy
            words = "NaN or infinity" if found is None else f"{found.metric} {found.artifact:.4f}"
            screen.print(f"  {trial.sparsity:.0%} removed: {words}")
        return
    table = Table(title=f"{report.sparsity:.0%} removed ({report.method}, per {report.scope})")
    for heading in ("", "before", "after"):
        table.add_column(heading, justify="right" if heading else "left")
    for row in _rows(report.before, report.after):
        table.add_row(*row)
    if report.accuracy is not None:
        found = report.accuracy
        table.add_row(f"{found.metric} ({found.samples} samples)", f"{found.fp32:.4f}", f"{found.artifact:.4f}")
    screen.print(table)
    for layer in report.layers:
        if layer.left is not None:
            screen.print(f"left whole: {layer.node} ({layer.op}): {layer.left}")
    screen.print(f"wrote {out}")


def _rows(before: Size, after: Size) -> list[tuple[str, str, str]]:
    from npuops.units import format_bytes, format_count  # noqa: PLC0415 - help stays fast

    def words(macs: int | None) -> str:
        return "unknown" if macs is None else format_count(macs)

    return [
        ("MACs", words(before.macs), words(after.macs)),
        ("weights that are not zero", format_count(before.weights), format_count(after.weights)),
        ("bytes of constants", format_bytes(before.weight_bytes), format_bytes(after.weight_bytes)),
    ]
