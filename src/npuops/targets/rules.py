"""Operator rules of a chip as data: which operators it takes, and under which conditions.

A target lists its rules once; `place` names every rule that a layer breaks, not only the first.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from npuops.models.model import AttributeValue, Layer, Model
from npuops.models.placement import Placement, RunsOn


@dataclass(frozen=True, slots=True)
class Rule:
    """A condition on a layer. `broken` returns what was found, or "" when the layer obeys."""

    words: str
    broken: Callable[[Layer], str]


OpRules = Mapping[str, tuple[Rule, ...]]
"""Operator name (ONNX words) → its rules; an operator that is absent is not supported."""


def place(model: Model, rules: OpRules, *, everywhere: tuple[Rule, ...] = ()) -> tuple[Placement, ...]:
    """Judge every layer of `model`; `everywhere` holds for all operators."""
    return tuple(_place_layer(layer, rules, everywhere) for layer in model.layers)


def _place_layer(layer: Layer, rules: OpRules, everywhere: tuple[Rule, ...]) -> Placement:
    op = layer.op if layer.domain in {"", "ai.onnx"} else f"{layer.domain}.{layer.op}"
    if op not in rules:
        return Placement(name=layer.name, op=op, runs_on=RunsOn.CPU, rule="operator is in the supported list", found=op)
    found = [(rule.words, rule.broken(layer)) for rule in (*everywhere, *rules[op])]
    broken = [(words, what) for words, what in found if what]
    if broken:
        return Placement(
            name=layer.name,
            op=op,
            runs_on=RunsOn.CPU,
            rule="; ".join(words for words, _ in broken),
            found="; ".join(what for _, what in broken),
        )
    return Placement(name=layer.name, op=op, runs_on=RunsOn.NPU, rule=f"{op} is supported")


def ints(layer: Layer, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An integer attribute as a tuple."""
    value = layer.attributes.get(name, default)
    return tuple(int(part) for part in value) if isinstance(value, tuple) else (int(value),)


def attribute_between(name: str, low: int, high: int, *, default: int = 1) -> Rule:
    """Every element of the integer attribute `name` is in `low..high`."""

    def broken(layer: Layer) -> str:
        values = ints(layer, name, (default,))
        return "" if all(low <= value <= high for value in values) else f"{name} {list(values)}"

    return Rule(f"{name} must be {low} to {high}", broken)


def attribute_is(name: str, *allowed: float | str, default: AttributeValue) -> Rule:
    """Every element of the attribute `name` is one of `allowed`; where it is left out it is `default`."""

    def broken(layer: Layer) -> str:
        value = layer.attributes.get(name, default)
        parts = value if isinstance(value, tuple) else (value,)
        return "" if all(part in allowed for part in parts) else f"{name} {list(parts) if parts != (value,) else value}"

    return Rule(f"{name} must be {' or '.join(map(str, allowed))}", broken)


def static_shapes() -> Rule:
    """Every activation has a fixed shape."""

    def broken(layer: Layer) -> str:
        loose = [tensor.name for tensor in (*layer.inputs, *layer.outputs) if not tensor.is_static]
        return f"dynamic: {', '.join(loose)}" if loose else ""

    return Rule("shapes must be static", broken)


def batch_one() -> Rule:
    """The first dimension of every activation of rank 4 is 1."""

    def broken(layer: Layer) -> str:
        wide = [t for t in layer.inputs if t.shape is not None and len(t.shape) == 4 and t.shape[0] != 1]
        return f"batch {wide[0].shape[0]}" if wide and wide[0].shape else ""

    return Rule("batch must be 1", broken)


def rank_at_most(limit: int) -> Rule:
    """No activation has more than `limit` dimensions."""

    def broken(layer: Layer) -> str:
        ranks = [len(t.shape) for t in (*layer.inputs, *layer.outputs) if t.shape is not None]
        return f"rank {max(ranks)}" if ranks and max(ranks) > limit else ""

    return Rule(f"rank must be at most {limit}", broken)


def dtypes_in(allowed: frozenset[str]) -> Rule:
    """Every activation has one of the allowed dtypes."""

    def broken(layer: Layer) -> str:
        odd = sorted({t.dtype for t in (*layer.inputs, *layer.outputs) if t.dtype not in allowed})
        return f"dtype {', '.join(odd)}" if odd else ""

    return Rule(f"dtype must be one of {', '.join(sorted(allowed))}", broken)


def constant_weights(what: str = "weights") -> Rule:
    """At least one operand is a constant."""

    def broken(layer: Layer) -> str:
        return "" if layer.weights else f"{what} computed at run time"

    return Rule(f"{what} must be constant", broken)
