"""What Google's Edge TPU (Coral) takes, and that only the first stretch of a model runs on it.

Sources: developer.axis.com, "ARTPEC-7 supported ops" (its accelerator is an Edge TPU; the table down to ResizeBilinear
was readable, with limits), and an older copy of coral.ai/docs/edgetpu/models-intro kept in
dgist-datalab/Datalab_Intern `Edge_TPU/convert_model_for_Edge_TPU.md` (the whole older table and the demands on a
model). From memory, not verified: Rsqrt, SquaredDifference, Sum, Transpose and TransposeConv. That one stretch only is
compiled is edgetpu_compiler's own answer ("More than one subgraph is not supported"; google-coral/edgetpu issue 461:
what follows the first operator that can't be mapped stays on the CPU). Which layers the stretch holds is told by
TFLite's partitioner of delegates, whose errors the compiler prints.

ONNX operators are judged as the TFLite operators that a converter would make of them: a BatchNormalization is folded,
or becomes a product and a sum; Q/DQ pairs vanish.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import replace
from typing import Final

from npuops.models.model import QDQ_OPS, Layer, Model
from npuops.models.placement import Placement, RunsOn
from npuops.targets.rules import Rule, static_shapes
from npuops.vnpu import rule_conditions as that
from npuops.vnpu.layer_view import Window, axis_letter, first_in, first_out, integers, sizes, word

FORMATS: Final = ("int8",)

_FREE: Final = (
    "Add Sum Sigmoid Max Min Mul Relu Clip Sub Tanh Slice SpaceToDepth Unsqueeze Reshape Flatten LpNormalization "
    "QuantizeLinear DequantizeLinear BatchNormalization Identity Dropout Transpose"
)
_TFLITE_ONLY: Final = "RSQRT SQUARED_DIFFERENCE"


def place_on(model: Model, number_format: str = "int8") -> tuple[Placement, ...]:
    """Every layer of the model, placed."""
    kept = (that.same_batch(),)
    before_reciprocal, behind_root = _inverse_root(model)
    product = (that.constant_operand("weights"), _one_row())
    window = (that.flat_window(), that.constant_operand("weights"), _even_dilation())
    rules: dict[str, tuple[Rule, ...]] = {
        "AveragePool": (_no_activation(), that.dilations_within(1)),
        "Concat": (_no_activation(), _no_constants()),
        "Conv": (*window, that.plain_or_depthwise()),
        "ConvTranspose": (*window, that.plain_or_depthwise()),
        "Gemm": product,
        "GlobalAveragePool": (),
        "GlobalMaxPool": (),
        "LSTM": (),
        "MaxPool": (_no_activation(), that.dilations_within(1)),
        "Pad": (*kept, that.only_height_and_width_change()),
        "PRelu": (that.constant_operand("slopes"),),
        "ReduceMax": kept,
        "ReduceMean": (*kept, _channels_by_four()),
        "ReduceMin": kept,
        "ReduceSum": kept,
        "Reciprocal": (behind_root,),
        "Resize": (_image(),),
        "Softmax": (_one_line(),),
        "Sqrt": (before_reciprocal,),
        "Split": kept,
        "Squeeze": (_leading_ones(),),
        "Upsample": (_image(),),
    }
    rules |= dict.fromkeys(f"{_FREE} {_TFLITE_ONLY}".split(), ())
    rules["MatMul"] = product
    everywhere = (*that.computes_in(FORMATS, number_format), static_shapes(), _three_axes())
    placed = that.place_by(model, rules, list_name="the Edge TPU list", everywhere=everywhere)
    return one_stretch(model, placed)


def one_stretch(model: Model, placed: Iterable[Placement]) -> tuple[Placement, ...]:
    """Of all layers that the TPU would take, the first stretch only: the compiler makes a single subgraph.

    As TFLite partitions: the kind of the first layer goes first, with every layer of that kind that is ready; then the
    other kind. So layers on the CPU may come before the stretch if the model begins with one, and whatever needs a
    layer on the CPU after that is behind it. Q/DQ pairs, which vanish, belong to what is around them.
    """
    told = list(placed)
    pairs = list(zip(model.layers, told, strict=True))
    kinds = (place.runs_on for layer, place in pairs if layer.op not in QDQ_OPS)
    begins_on_cpu = next(kinds, RunsOn.NPU) is RunsOn.CPU
    before = _ready(pairs, RunsOn.CPU, frozenset()) if begins_on_cpu else frozenset()
    stretch = _ready(pairs, RunsOn.NPU, before)
    rule, found = "only the first stretch on the TPU is compiled", "behind a layer on the CPU"
    behind: set[str] = set()
    for at, (layer, place) in enumerate(pairs):
        if at in before or at in stretch:
            continue
        if place.runs_on is RunsOn.NPU:
            told[at] = replace(place, runs_on=RunsOn.CPU, rule=rule, found=found)
        elif {tensor.name for tensor in layer.inputs} & behind:
            told[at] = replace(place, rule=f"{place.rule}; {rule}", found=f"{place.found}; {found}")
        behind |= {tensor.name for tensor in layer.outputs}
    return tuple(told)


def _ready(pairs: list[tuple[Layer, Placement]], kind: RunsOn, done: frozenset[int]) -> frozenset[int]:
    """Layers of a kind that need nothing but the model's inputs, layers in `done` and each other."""
    missing = {tensor.name for at, (layer, _) in enumerate(pairs) if at not in done for tensor in layer.outputs}
    found: set[int] = set()
    for at, (layer, place) in enumerate(pairs):
        fits = place.runs_on is kind or layer.op in QDQ_OPS
        if at in done or not fits or missing & {tensor.name for tensor in layer.inputs}:
            continue
        found.add(at)
        missing -= {tensor.name for tensor in layer.outputs}
    return frozenset(found)


def _inverse_root(model: Model) -> tuple[Rule, Rule]:
    """RSQRT in ONNX words: a root that only reciprocals read, and a reciprocal of a root."""
    makers = {tensor.name: layer.op for layer in model.layers for tensor in layer.outputs}
    readers: dict[str, set[str]] = {tensor.name: {"an output"} for tensor in model.outputs}
    for layer in model.layers:
        for tensor in layer.inputs:
            readers.setdefault(tensor.name, set()).add(layer.op)

    def before(layer: Layer) -> str:
        others = {op for tensor in layer.outputs for op in readers.get(tensor.name, ())} - {"Reciprocal"}
        return f"read by {', '.join(sorted(others))}" if others else ""

    def behind(layer: Layer) -> str:
        roots = [makers.get(tensor.name) == "Sqrt" for tensor in layer.inputs]
        return "" if all(roots) else "of no root"

    return Rule("a root must be half of an inverse root", before), Rule("a reciprocal must be one of a root", behind)


def _three_axes() -> Rule:
    def broken(layer: Layer) -> str:
        flowing = (*layer.inputs, *layer.outputs) if layer.inputs else ()
        shapes = [sizes(tensor) for tensor in flowing]
        wide = [shape for shape in shapes if any(dim > 1 for dim in shape[:-3])]
        return f"shape {list(wide[0])}" if wide else ""

    return Rule("only the three inner axes may be longer than 1", broken)


def _no_activation() -> Rule:
    def broken(layer: Layer) -> str:
        fused = word(layer, "fused_activation_function", "NONE")
        return "" if fused == "NONE" else f"fused {fused}"

    return Rule("no fused activation", broken)


def _no_constants() -> Rule:
    """Zeros beside one activation would do; their values can't be seen here."""

    def broken(layer: Layer) -> str:
        many = layer.weights and len(layer.inputs) + len(layer.weights) > 2
        return f"{len(layer.weights)} constants" if many else ""

    return Rule("a constant may be joined to one activation only (and must be zeros)", broken)


def _even_dilation() -> Rule:
    def found(window: Window) -> str:
        return f"dilations {list(window.dilations)}" if len(set(window.dilations)) > 1 else ""

    return that.window_obeys("dilations must be equal along height and width", found)


def _channels_by_four() -> Rule:
    def broken(layer: Layer) -> str:
        before, after = first_in(layer), first_out(layer)
        channels = before[-1] if before else 0
        reduced = bool(before) and (not after or after[-1] != channels)
        return f"{channels} channels" if layer.op == "MEAN" and reduced and channels % 4 else ""

    return Rule("a mean over channels needs a multiple of 4", broken)


def _one_row() -> Rule:
    def broken(layer: Layer) -> str:
        shape = first_out(layer)
        return f"shape {list(shape)}" if math.prod(shape[:-1]) != 1 else ""

    return Rule("the result must be one line", broken)


def _image() -> Rule:
    def broken(layer: Layer) -> str:
        return "" if that.resize_scales(layer) is not None else f"rank {len(first_in(layer))}"

    return Rule("only height and width of an image may change", broken)


def _one_line() -> Rule:
    def broken(layer: Layer) -> str:
        shape = first_in(layer)
        count = max(shape, default=0)
        line = sum(dim > 1 for dim in shape) <= 1
        axis = axis_letter(layer, integers(layer, "axis", (-1,))[0], len(shape)) if len(shape) != 4 else "last"
        return "" if line and count <= 16_000 and axis == "last" else f"shape {list(shape)}"

    return Rule("one line of at most 16,000 values", broken)


def _leading_ones() -> Rule:
    def broken(layer: Layer) -> str:
        before, after = first_in(layer), first_out(layer)
        return "" if before[len(before) - len(after) :] == after else f"{list(before)} to {list(after)}"

    return Rule("only leading axes of size 1 may go", broken)
