"""The batch step of a build: whether the artifact's batch axis stays free, and the graph in which it is.

Everything before the compiler works with one row: calibration, quantization, parity. Then the axis is freed, in the
graph that is compiled.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from npuops.build.options import BuildOptions
from npuops.build.quantize_step import Prepared
from npuops.errors import OptionError
from npuops.models.batch_axis import free_batch, has_free_batch, one_row
from npuops.models.model import Model
from npuops.models.onnx_file import read_onnx, write_onnx
from npuops.models.open import Shapes
from npuops.models.shapes import infer_shapes
from npuops.targets.protocol import Target


def keeps_batch(model: Model, target: Target, options: BuildOptions) -> bool:
    """Whether the artifact takes a batch of any size: if it was asked for, or if the model leaves the axis open.

    Args:
        model: with the shapes that were given.
        target: its compiler must take open axes.
        options: see `BuildOptions.dynamic_batch`.

    Raises:
        OptionError: it was asked for, and the target compiles fixed shapes only.
    """
    if not options.dynamic_batch:
        return not target.traits.static_shapes and has_free_batch(model.inputs, model.outputs)
    if target.traits.static_shapes:
        raise OptionError(
            f"{target.name} compiles fixed shapes only: the batch cannot stay free",
            advice="leave --dynamic-batch out; a server fills a batch that you fix with --shape NAME=8x3x224x224",
        )
    return True


def shapes_of_one_row(model: Model, shapes: Shapes) -> Shapes:
    """The given shapes, and batch 1 for the inputs that leave nothing else open."""
    return one_row(model.inputs, shapes)


def freed(prepared: Prepared, folder: Path) -> Prepared:
    """What the compiler gets, with a free batch axis.

    Args:
        prepared: graphs at batch 1.
        folder: where `batch.onnx` is written.

    Raises:
        UnsupportedModelError: something in the graph holds the batch; the message says what.
    """
    graph = infer_shapes(read_onnx(prepared.compiled), trusted=True)
    out = folder / "batch.onnx"
    write_onnx(free_batch(graph), out)
    return replace(prepared, compiled=out)
