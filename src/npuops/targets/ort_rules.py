"""Operator rules of ORT's CPU engine, which takes all of ONNX, and how rules make a placement."""

from __future__ import annotations

from typing import Final

from npuops.models.model import Layer, Model
from npuops.models.placement import Placement, RunsOn
from npuops.targets.rules import Rule

STANDARD_DOMAINS: Final = frozenset({"", "ai.onnx", "ai.onnx.ml", "com.microsoft"})


def place_on_ort(model: Model) -> tuple[Placement, ...]:
    """Everything of a domain that ORT carries runs on its CPU engine."""
    return tuple(by_rules(layer, (_standard_domain(),)) for layer in model.layers)


def _standard_domain() -> Rule:
    def broken(layer: Layer) -> str:
        return "" if layer.domain in STANDARD_DOMAINS else f"domain {layer.domain}"

    return Rule("operator is of a standard domain", broken)


def by_rules(layer: Layer, rules: tuple[Rule, ...]) -> Placement:
    """Where one layer of an engine without a list of operators runs; every broken rule is named."""
    broken = [(rule.words, found) for rule in rules if (found := rule.broken(layer))]
    return Placement(
        name=layer.name,
        op=layer.op,
        runs_on=RunsOn.CPU if broken else RunsOn.NPU,
        rule="; ".join(words for words, _ in broken) or f"{layer.op} is a standard operator",
        found="; ".join(found for _, found in broken),
    )
