"""Operator rules of the engines that take (almost) all of ONNX: ORT's CPU engine, and OpenVINO."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from npuops.models.model import Layer, Model
from npuops.models.placement import Placement, RunsOn
from npuops.targets.rules import Rule, dtypes_in

STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})

OPENVINO_LEFT_OUT: Final[Mapping[str, str]] = {
    # Tried: one graph per operator, onnxruntime-ep-openvino 1.8.1, CPU device; these stayed on ORT or failed.
    "AffineGrid": "not translated",
    "Col2Im": "not translated",
    "Det": "not translated",
    "LpPool": "not translated",
    "MaxUnpool": "not translated",
    "STFT": "taken, then refused by the compiler",
    # Not tensors: their types have no place in an OpenVINO model.
    "SequenceMap": "sequences",
    "SequenceConstruct": "sequences",
    "SequenceEmpty": "sequences",
    "SequenceErase": "sequences",
    "SequenceInsert": "sequences",
    "SplitToSequence": "sequences",
    "Optional": "optional types",
    "OptionalGetElement": "optional types",
    "OptionalHasElement": "optional types",
}
"""Standard operators that OpenVINO does not take, and why."""

_NO_STRINGS: Final = dtypes_in(
    frozenset(
        {
            *("float32", "float16", "bfloat16", "float64", "bool"),
            *("int4", "uint4", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64"),
        }
    )
)


def place_on_ort(model: Model) -> tuple[Placement, ...]:
    """Everything of a domain that ORT carries runs on its CPU engine."""
    return tuple(_by_rules(layer, (_standard_domain(),)) for layer in model.layers)


def place_on_openvino(model: Model) -> tuple[Placement, ...]:
    """Everything standard except a handful, sequences, strings and classic machine learning."""
    return tuple(_by_rules(layer, (_standard_domain(), _translated(), _NO_STRINGS)) for layer in model.layers)


def _standard_domain() -> Rule:
    def broken(layer: Layer) -> str:
        return "" if layer.domain in STANDARD_DOMAINS else f"domain {layer.domain}"

    return Rule("operator is of a standard domain", broken)


def _translated() -> Rule:
    def broken(layer: Layer) -> str:
        why = OPENVINO_LEFT_OUT.get(layer.op)
        if layer.domain == "ai.onnx.ml":
            return f"{layer.op}: classic machine learning"
        return f"{layer.op}: {why}" if why else ""

    return Rule("OpenVINO takes the operator", broken)


def _by_rules(layer: Layer, rules: tuple[Rule, ...]) -> Placement:
    broken = [(rule.words, found) for rule in rules if (found := rule.broken(layer))]
    return Placement(
        name=layer.name,
        op=layer.op,
        runs_on=RunsOn.CPU if broken else RunsOn.NPU,
        rule="; ".join(words for words, _ in broken) or f"{layer.op} is a standard operator",
        found="; ".join(found for _, found in broken),
    )
