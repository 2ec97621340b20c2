"""What OpenVINO's ONNX reader translates: operator rules, and the layers behind the plugin's own answer.

The lists were found with openvino 2026.4.1: one graph for each operator of onnx and of ONNX Runtime's contributed
domain, and the reader's own words ("No conversion rule found").
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, Final

from npuops.models.batch_axis import with_rows
from npuops.models.model import Layer, Model
from npuops.models.placement import Placement, RunsOn
from npuops.targets.ort_rules import by_rules
from npuops.targets.rules import Rule, attribute_is, dtypes_in, rank_at_most

_NO_TENSORS: Final = "sequences and optional types have no place in an OpenVINO model"
_NOT_TRANSLATED: Final = "not translated"

LEFT_OUT: Final[Mapping[str, str]] = {
    **dict.fromkeys(
        ("BitCast", "CumProd", "DeformConv", "Det", "ImageDecoder", "MaxUnpool", "MelWeightMatrix", "RegexFullMatch"),
        _NOT_TRANSLATED,
    ),
    **dict.fromkeys(
        ("StringConcat", "StringNormalizer", "StringSplit", "TensorScatter", "TfIdfVectorizer"), _NOT_TRANSLATED
    ),
    **dict.fromkeys(
        ("ConcatFromSequence", "SequenceAt", "SequenceConstruct", "SequenceEmpty", "SequenceErase", "SequenceInsert"),
        _NO_TENSORS,
    ),
    **dict.fromkeys(
        ("SequenceLength", "SequenceMap", "SplitToSequence", "Optional", "OptionalGetElement", "OptionalHasElement"),
        _NO_TENSORS,
    ),
    "Bernoulli": "its expansion is not translated",
}
"""Standard operators that are not taken, and why."""

CONTRIBUTED: Final = frozenset(
    {
        *("Attention", "BiasAdd", "BiasGelu", "DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul"),
        *("EmbedLayerNormalization", "FastGelu", "FusedConv", "FusedGemm", "FusedMatMul", "GatherBlockQuantized"),
        *("GatherND", "Gelu", "GroupNorm", "GroupQueryAttention", "MatMulIntegerToFloat", "MatMulNBits"),
        *("MultiHeadAttention", "Pad", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearLeakyRelu"),
        *("QLinearMul", "QLinearReduceMean", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QuantizeLinear"),
        *("QuickGelu", "Range", "RotaryEmbedding", "SkipLayerNormalization", "SkipSimplifiedLayerNormalization"),
        "Trilu",
    }
)
"""Operators of the domain `com.microsoft` that are taken."""

CLASSIC: Final = frozenset({"Normalizer"})
"""Operators of the domain `ai.onnx.ml` that are taken."""

_NO_WORK: Final = frozenset({"Constant", "Parameter", "Result"})
"""Parts of an OpenVINO graph that compute nothing: no plugin refuses a layer for them."""

_DTYPES: Final = dtypes_in(
    frozenset(
        {
            *("float32", "float16", "bfloat16", "float64", "bool"),
            *("int4", "uint4", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
        }
    )
)


def place_on_openvino(model: Model, *, any_batch: bool = False) -> tuple[Placement, ...]:
    """Judge every layer of `model` without OpenVINO; `any_batch`: the device takes an open first axis."""
    everywhere = (_fixed_inputs(model, any_batch=any_batch), _TRANSLATED, _DTYPES)
    return tuple(by_rules(layer, (*everywhere, *_MINDFUL.get(layer.op, ()))) for layer in model.layers)


def _fixed_inputs(model: Model, *, any_batch: bool) -> Rule:
    """A model is compiled as a whole or not at all, and our artifacts have fixed shapes, but for the batch."""
    inputs = with_rows(model.inputs) if any_batch else model.inputs
    loose = ", ".join(tensor.name for tensor in inputs if not tensor.is_static)
    words = "the model's inputs must have fixed shapes" + (" behind the batch axis" if any_batch else "")
    return Rule(words, lambda _: f"dynamic: {loose}" if loose else "")


def place_as_answered(model: Model, graph: Any, taken: Collection[str], device: str) -> tuple[Placement, ...]:
    """The plugin's own answer, told for every layer of `model`.

    OpenVINO takes an ONNX operator apart into several of its own: a layer is refused when any of its parts is.

    Args:
        model: what was read.
        graph: the `openvino.Model` that was made of it.
        taken: names of the graph's nodes that the plugin takes (`Core.query_model`).
        device: the plugin's name, for the words.
    """
    layer_of = {tensor.name: layer.name for layer in model.layers for tensor in layer.outputs}
    refused: dict[str, list[str]] = {}
    for node in graph.get_ordered_ops():
        if node.get_friendly_name() not in taken and node.get_type_name() not in _NO_WORK:
            for owner in _owners(node, layer_of):
                refused.setdefault(owner, []).append(str(node.get_type_name()))
    return tuple(_answered(layer, refused.get(layer.name, []), device) for layer in model.layers)


def _answered(layer: Layer, parts: list[str], device: str) -> Placement:
    return Placement(
        name=layer.name,
        op=layer.op,
        runs_on=RunsOn.CPU if parts else RunsOn.NPU,
        rule=f"{'not taken' if parts else 'taken'} by OpenVINO's {device} plugin",
        found=f"needs {', '.join(sorted(set(parts)))}" if parts else "",
    )


def _owners(node: Any, layer_of: Mapping[str, str]) -> Iterator[str]:
    """The layers that a node is a part of: the nearest ones, downstream, whose tensors carry an ONNX name."""
    waiting, seen = [node], set()
    while waiting:
        here = waiting.pop()
        if here.get_friendly_name() in seen:
            continue
        seen.add(here.get_friendly_name())
        names = {name for port in here.outputs() for name in port.get_names()}
        found = {layer_of[name] for name in names if name in layer_of}
        yield from found
        if not found:
            waiting += [target.get_node() for port in here.outputs() for target in port.get_target_inputs()]


def _untranslated(layer: Layer) -> str:
    if layer.op.startswith("CUSTOM:"):
        why = "custom operators of TFLite are not translated"
    elif layer.domain in {"", "ai.onnx"}:
        why = LEFT_OUT.get(layer.op, "")
    elif layer.domain == "com.microsoft":
        why = "" if layer.op in CONTRIBUTED else _NOT_TRANSLATED
    elif layer.domain == "ai.onnx.ml":
        why = "" if layer.op in CLASSIC else "classic machine learning is not translated"
    else:
        why = f"domain {layer.domain}"
    return f"{layer.op}: {why}" if why else ""


_TRANSLATED: Final = Rule("OpenVINO's reader translates the operator", _untranslated)


_COORDINATES: Final = "coordinate_transformation_mode"
_MINDFUL: Final[Mapping[str, tuple[Rule, ...]]] = {
    "GridSample": (rank_at_most(4),),
    "Resize": (
        attribute_is(
            _COORDINATES,
            *("half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "tf_half_pixel_for_nn"),
            default="half_pixel",
        ),
    ),
}
"""Operators with attributes or shapes that the reader does not translate."""
