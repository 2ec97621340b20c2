"""What host and NPU hand each other inside a model. Pure."""

from __future__ import annotations

from collections.abc import Sequence

from npuops.models.model import Model
from npuops.models.placement import Placement, RunsOn


def handed_elements(model: Model, placed: Sequence[Placement]) -> int:
    """Elements of the tensors that a layer on one side computes and one on the other side reads, each once.

    The model's inputs and outputs are not among them: the cost law has them already. A tensor of unknown size counts
    as nothing.

    Args:
        model: from a file.
        placed: where each layer runs, in the order of its layers.
    """
    made_on: dict[str, RunsOn] = {}
    handed: dict[str, int] = {}
    for layer, place in zip(model.layers, placed, strict=True):
        for tensor in layer.inputs:
            if made_on.get(tensor.name, place.runs_on) is not place.runs_on:
                handed[tensor.name] = tensor.elements or 0
        made_on |= dict.fromkeys((tensor.name for tensor in layer.outputs), place.runs_on)
    return sum(handed.values())
