"""Will this model run there, and what should be changed first: the target's own check, with advice."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import onnx

from npuops.errors import UnsupportedModelError
from npuops.models.model import Model, ModelFormat
from npuops.models.onnx_file import read_onnx
from npuops.models.placement import PlacementReport
from npuops.models.shapes import fix_shapes
from npuops.rewrite.patterns import HOST_ENGINES, PATTERNS, family_of
from npuops.rewrite.rewrite_graph import Graph
from npuops.targets.protocol import Precision, Target
from npuops.targets.report import Advice, SupportReport

PRECISION = "precision"
"""The pattern of advice on number formats; a build that was told its precision does not repeat it."""

TRANSFORMER_OPS = frozenset({"LayerNormalization", "Gelu", "Erf", "Attention", "MultiHeadAttention", "SOFTMAX"})
RECURRENT_OPS = frozenset({"LSTM", "GRU", "RNN", "UNIDIRECTIONAL_SEQUENCE_LSTM"})
PICTURE_OPS = frozenset({"DepthToSpace", "DEPTH_TO_SPACE", "ConvTranspose", "TRANSPOSE_CONV"})


def analyse(model: Model, target: Target, *, proto: onnx.ModelProto | None = None) -> SupportReport:
    """`target.check` plus precision advice and known-bad patterns.

    Args:
        model: what to judge.
        target: where it should run.
        proto: the same model's graph, from `graph_of`; needed when dynamic shapes were fixed, and read from
            `model.path` otherwise. Patterns need the constants, which `model` does not hold; a TFLite model is
            judged by its layers alone.

    Raises:
        ModelError: the file cannot be read (again), or the target does not take its format.
    """
    report = target.check(model)
    if proto is None and model.format is ModelFormat.ONNX:
        proto = graph_of(model.path)
    found = (*precision_advice(model, target), *pattern_advice(proto, target, report.placement))
    named = {advice.pattern for advice in found}
    # A target judges by layers; where a pattern was found in the graph itself, that is the better advice.
    own = tuple(advice for advice in report.advice if advice.pattern not in named)
    return replace(report, advice=(*own, *found))


def graph_of(path: Path, shapes: Mapping[str, tuple[int, ...]] | None = None) -> onnx.ModelProto:
    """The graph of an ONNX file with these shapes fixed.

    Raises:
        ModelError: as `read_onnx`, but stripped weights are accepted: the structure can still be judged.
        OptionError: `shapes` do not fit.
    """
    try:
        proto = read_onnx(path)
    except UnsupportedModelError:
        proto = read_onnx(path, weights=False)
    return fix_shapes(proto, shapes) if shapes else proto


def pattern_advice(proto: onnx.ModelProto | None, target: Target, placement: PlacementReport) -> tuple[Advice, ...]:
    """One `Advice` for every known-bad pattern that the graph has and that matters to the target."""
    if proto is None:
        return ()
    graph = Graph(proto)
    placed = {place.name: place for place in placement.nodes}
    advice: list[Advice] = []
    for pattern in PATTERNS:
        if pattern.id == "einsum-other" and any(known.pattern == "einsum" for known in advice):
            continue  # the ones that MatMul can express are named already
        sites = pattern.sites(graph, target, placed)
        if sites:
            nodes = tuple(dict.fromkeys(name for names in sites for name in names))
            advice.append(Advice(pattern=pattern.id, nodes=nodes, message=pattern.message, fix=pattern.fix))
    return tuple(advice)


def precision_advice(model: Model, target: Target) -> Iterator[Advice]:
    """Which of the target's number formats suits the model, and what it needs."""
    if family_of(target) in HOST_ENGINES or model.is_quantized:
        return
    offered = target.traits.precisions
    default = target.traits.default_precision
    unbuilt = ", ".join(target.traits.unbuilt_precisions)
    if not any(kind in offered for kind in (Precision.FP32, Precision.FP16, Precision.BF16)):
        also = f" (the chip has {unbuilt}, too, which npuops does not build for it)" if unbuilt else ""
        yield _advice(
            f"npuops builds for {target.name} in integers only{also} and this model is float: give npuops build "
            "calibration data (--calibration), a hundred typical inputs"
        )
    elif default.is_quantized:
        floats = ", ".join(kind for kind in offered if not kind.is_quantized)
        yield _advice(f"{default} needs calibration data (--calibration); {floats} does not, and is slower")
    if any(kind.is_quantized for kind in offered):
        yield from _width_advice(model, offered, unbuilt)


def _width_advice(model: Model, offered: tuple[Precision, ...], unbuilt: str) -> Iterator[Advice]:
    ops = model.op_histogram
    kind = _outlier_kind(ops)
    wide = Precision.A16W8 in offered
    if kind and wide:
        yield _advice(
            f"{kind} need more than 8 bits of activation (MiniLM: cosine 0.84 in a8w8, 0.999 in a16w8): "
            "use --precision a16w8, or mixed with --max-drop for the cheapest mix"
        )
    elif kind:
        who = f"npuops does not build for this target (the chip has {unbuilt})"
        lacking = who if unbuilt else "this target does not have"
        yield _advice(f"{kind} need more than 8 bits of activation, which {lacking}: watch the gate")
    elif ops.get("Conv", 0) or ops.get("CONV_2D", 0):
        yield _advice(
            "a convolutional network suits a8w8 with per-channel weights (MobileNetV2: 98 % top-1 agreement; with "
            "per-tensor weights 0 %)"
        )


def _outlier_kind(ops: dict[str, int]) -> str:
    if TRANSFORMER_OPS & set(ops) and (ops.get("MatMul", 0) > 2 or ops.get("Softmax", 0) > 1):
        return "transformers"
    if ops.get("Softmax", 0) > 1 and ops.get("MatMul", 0) + ops.get("Gemm", 0) > 4:
        return "transformers"
    if RECURRENT_OPS & set(ops):
        return "recurrent states"
    return "pictures as outputs" if PICTURE_OPS & set(ops) else ""


def _advice(message: str) -> Advice:
    return Advice(pattern=PRECISION, nodes=(), message=message)
