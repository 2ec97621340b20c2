"""What the border between host and NPU costs a model: tensors that cross it, and layers that it parts. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from npuops.models.model import QDQ_OPS, Model
from npuops.models.placement import Placement, RunsOn
from npuops.vnpu.work import Fold, folds_of


@dataclass(frozen=True, slots=True, kw_only=True)
class Border:
    """Of one model as it is placed.

    Attributes:
        handed_elements: of the tensors that a layer on one side computes and one on the other side reads, each once.
            The model's inputs and outputs are not among them: the cost law has them already. A tensor of unknown size
            counts as nothing.
        unfolded: indices of layers on the NPU that a compiler would fold into a neighbour, were it not on the host.
    """

    handed_elements: int = 0
    unfolded: frozenset[int] = frozenset()


NO_BORDER = Border()
"""Where everything runs on one side."""


def border_of(model: Model, placed: Sequence[Placement]) -> Border:
    """The border that a placement draws through a model.

    Args:
        model: from a file.
        placed: where each layer runs, in the order of its layers.
    """
    return Border(handed_elements=_handed_elements(model, placed), unfolded=_unfolded(model, placed))


def _handed_elements(model: Model, placed: Sequence[Placement]) -> int:
    made_on: dict[str, RunsOn] = {}
    handed: dict[str, int] = {}
    for layer, place in zip(model.layers, placed, strict=True):
        for tensor in layer.inputs:
            if made_on.get(tensor.name, place.runs_on) is not place.runs_on:
                handed[tensor.name] = tensor.elements or 0
        made_on |= dict.fromkeys((tensor.name for tensor in layer.outputs), place.runs_on)
    return sum(handed.values())


def _unfolded(model: Model, placed: Sequence[Placement]) -> frozenset[int]:
    pairs = enumerate(zip(model.layers, placed, strict=True))
    kept = [at for at, (layer, place) in pairs if place.runs_on is RunsOn.NPU or layer.op in QDQ_OPS]
    if len(kept) == len(model.layers):
        return frozenset()
    whole, parted = folds_of(model.layers), folds_of([model.layers[at] for at in kept])
    return frozenset(at for at, fold in zip(kept, parted, strict=True) if whole[at] not in {fold, Fold.NO})
