"""Where each node of a model runs, and why: the placement report and its fallback ratios."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum

from npuops.models.model import QDQ_OPS, Model


class RunsOn(StrEnum):
    """Where a node runs."""

    NPU = "npu"
    CPU = "cpu"


@dataclass(frozen=True, slots=True, kw_only=True)
class Placement:
    """One node: where it runs, by which rule, and what was found that broke it.

    `rule` is the broken rule in words, or the rule that admits the node; every broken rule
    is named, joined by "; ". `found` is empty when nothing broke.
    """

    name: str
    op: str
    runs_on: RunsOn
    rule: str
    found: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class FallbackRatio:
    """Share of the work that does not run on the NPU, 0 to 1. Q/DQ nodes are not work."""

    ops: float
    macs: float | None
    """None where the MACs of a layer are unknown."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PlacementReport:
    """Every node with its place, and the ratios over them."""

    nodes: tuple[Placement, ...]
    fallback_ratio: FallbackRatio


def placement_report(model: Model, nodes: Iterable[Placement]) -> PlacementReport:
    """Ratios over `nodes`, which are in the order of `model.layers`.

    The ratio by ops counts layers other than Q/DQ; by MACs it weighs each with its MACs.
    """
    placed = tuple(nodes)
    layers = list(zip(model.layers, placed, strict=True))
    work = [(layer, place) for layer, place in layers if layer.op not in QDQ_OPS]
    away = [layer for layer, place in work if place.runs_on is RunsOn.CPU]
    macs: float | None = None
    if model.macs is not None:
        macs = sum(layer.macs or 0 for layer in away) / model.macs if model.macs else 0.0
    ops = len(away) / len(work) if work else 0.0
    return PlacementReport(nodes=placed, fallback_ratio=FallbackRatio(ops=ops, macs=macs))
