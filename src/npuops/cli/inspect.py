"""`npuops inspect`: what a model is, what it costs, and what to know before taking it to an NPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from npuops.cli.model_argument import ModelArgument
from npuops.cli.shape_flag import ShapeFlag, parse_shapes
from npuops.cli.show import JsonFlag, console, print_json
from npuops.units import format_bytes, format_count

if TYPE_CHECKING:
    from npuops.models.model import Layer, Model, TensorInfo

SCHEMA: Final = "npuops.inspect/1"
_MAX_ROWS: Final = 20
"""Inputs, outputs and operator kinds shown to people; JSON has them all."""


def command(
    model: ModelArgument,
    shape: ShapeFlag = None,
    top: Annotated[int, typer.Option("--top", min=0, help="How many of the heaviest layers to show.")] = 10,
    as_json: JsonFlag = False,
) -> None:
    """A model's layers with shapes, MACs and bytes."""
    shapes = parse_shapes(shape)
    from npuops.models.open import open_model  # noqa: PLC0415 - help must not pay for onnx

    found = open_model(model, shapes=shapes)
    if as_json:
        print_json(describe(found, top))
    else:
        _show(found, top)


def describe(model: Model, top: int) -> dict[str, Any]:
    """The JSON form (docs/inspect.md)."""
    return {
        "schema": SCHEMA,
        "model": str(model.path),
        "format": model.format,
        "digest": model.digest,
        "opset": model.opset,
        "producer": model.producer,
        "file_bytes": model.file_bytes,
        "inputs": model.inputs,
        "outputs": model.outputs,
        "static": model.is_static,
        "quantized": model.is_quantized,
        "layers": len(model.layers),
        "ops": model.op_histogram,
        "macs": model.macs,
        "weight_bytes": model.weight_bytes,
        "peak_activation_bytes": model.peak_activation_bytes,
        "heaviest": [_layer(layer) for layer in heaviest(model, top)],
        "facts": model.facts,
    }


def heaviest(model: Model, top: int) -> list[Layer]:
    """Layers with the most MACs, then the most weights."""
    costly = [layer for layer in model.layers if layer.macs or layer.weight_bytes]
    return sorted(costly, key=lambda layer: (-(layer.macs or 0), -layer.weight_bytes))[:top]


def _layer(layer: Layer) -> dict[str, Any]:
    return {
        "name": layer.name,
        "op": layer.op,
        "outputs": layer.outputs,
        "macs": layer.macs,
        "weight_bytes": layer.weight_bytes,
        "activation_bytes": layer.activation_bytes,
    }


def _show(model: Model, top: int) -> None:
    screen = console()
    opset = f", opset {model.opset}" if model.opset else ""
    origin = f", by {_short(model.producer)}" if model.producer else ""
    screen.print(
        f"{model.path}: {model.format.upper()}{opset}{origin}, {format_bytes(model.file_bytes)}\n{model.digest}",
        soft_wrap=True,
    )
    screen.print(_io_table(model))
    known = format_count(model.macs) if model.macs is not None else "unknown"
    peak = format_bytes(model.peak_activation_bytes) if model.peak_activation_bytes is not None else "unknown"
    screen.print(
        f"{len(model.layers)} layers · MACs {known} · weights {format_bytes(model.weight_bytes)} · "
        f"peak activations {peak}"
    )
    ops = list(model.op_histogram.items())
    rest = f", and {len(ops) - _MAX_ROWS} more kinds" if len(ops) > _MAX_ROWS else ""
    screen.print("operators: " + ", ".join(f"{op[:60]} {count}" for op, count in ops[:_MAX_ROWS]) + rest)
    if top:
        screen.print(_layer_table(model, top))
    for fact in model.facts:
        screen.print(f"{fact.kind}: {fact.message}", style="yellow")
        if fact.advice:
            screen.print(f"  {fact.advice}", style="dim")


def _io_table(model: Model) -> Any:
    from rich.table import Table  # noqa: PLC0415 - JSON must not pay for it

    table = Table("", "name", "dtype", "shape", box=None, pad_edge=False)
    for role, tensors in (("input", model.inputs), ("output", model.outputs)):
        for tensor in tensors[:_MAX_ROWS]:
            table.add_row(role, _short(tensor.name), tensor.dtype, _short(shape_words(tensor)))
        if len(tensors) > _MAX_ROWS:
            table.add_row(role, _short(f"and {len(tensors) - _MAX_ROWS} more"), "", "")
    return table


def _layer_table(model: Model, top: int) -> Any:
    from rich.table import Table  # noqa: PLC0415 - JSON must not pay for it

    table = Table(title=f"the {top} heaviest layers", title_justify="left", box=None, pad_edge=False)
    for heading in ("layer", "op", "output"):
        table.add_column(heading)
    for heading in ("MACs", "share", "weights"):
        table.add_column(heading, justify="right")
    total = sum(layer.macs or 0 for layer in model.layers)
    for layer in heaviest(model, top):
        share = f"{(layer.macs or 0) / total:.1%}" if total and layer.macs is not None else ""
        table.add_row(
            _short(layer.name),
            _short(layer.op),
            _short(shape_words(layer.outputs[0])) if layer.outputs else "",
            format_count(layer.macs) if layer.macs is not None else "unknown",
            share,
            format_bytes(layer.weight_bytes),
        )
    return table


def shape_words(tensor: TensorInfo) -> str:
    """`1x3x224x224`, `batch` for a symbol, `?` for nothing known."""
    if tensor.shape is None:
        return "?"
    return "x".join("?" if dim is None else str(dim) for dim in tensor.shape) or "scalar"


def _short(text: str, limit: int = 60) -> str:
    clean = "".join(letter if letter.isprintable() else "?" for letter in text)
    return clean if len(clean) <= limit else f"{clean[: limit - 1]}…"
