"""What a skeleton is built from: a name, a network with random weights and its input shapes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Spec:
    """One skeleton: how to build the network and what is published about it."""

    name: str
    family: str
    source: str
    build: Callable[[], nn.Module]
    shapes: tuple[Shape, ...]
    tokens: tuple[int, ...] = ()  # positions of the integer (token id) inputs
    published_gops: float | None = None  # 2 * GMACs, as vendors and papers count
    published_mparams: float | None = None
    note: str = ""
    export_shapes: tuple[Shape, ...] = ()  # trace at this smaller shape, then set the input dims (convolutional only)

    def inputs(self) -> tuple[torch.Tensor, ...]:
        """Example inputs for tracing."""
        shapes = self.export_shapes or self.shapes
        return tuple(
            torch.zeros(shape, dtype=torch.int64) if index in self.tokens else torch.zeros(shape)
            for index, shape in enumerate(shapes)
        )


def image(side: int, width: int | None = None, channels: int = 3) -> tuple[Shape, ...]:
    """Input shapes of a network that reads one image of `side` rows."""
    return ((1, channels, side, width or side),)


class Flat(nn.Module):
    """A network whose outputs come as a flat tuple of tensors, the form the exporter wants."""

    def __init__(self, network: nn.Module, pick: Callable[[object], object] | None = None) -> None:
        super().__init__()
        self.network = network
        self.pick = pick

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = self.network(*inputs)
        return tuple(_tensors(self.pick(result) if self.pick else result))


def _tensors(result: object) -> list[torch.Tensor]:
    if isinstance(result, torch.Tensor):
        return [result]
    if isinstance(result, dict):
        return [tensor for part in result.values() for tensor in _tensors(part)]
    if isinstance(result, list | tuple):
        return [tensor for part in result for tensor in _tensors(part)]
    return []
