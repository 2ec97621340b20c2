"""Bottleneck residual networks that differ in where they stride and normalise."""

from __future__ import annotations

import torch
from torch import nn


class Conv(nn.Sequential):
    """Convolution, batch norm and, unless `plain`, ReLU."""

    def __init__(self, cin: int, cout: int, k: int, s: int = 1, *, plain: bool = False) -> None:
        conv = nn.Conv2d(cin, cout, k, s, k // 2, bias=False)
        super().__init__(conv, nn.BatchNorm2d(cout), nn.Identity() if plain else nn.ReLU())


class Unit(nn.Module):
    """Bottleneck unit; `first` puts the stride into the 1x1 convolution instead of the 3x3 one."""

    def __init__(self, cin: int, mid: int, stride: int, *, first: bool) -> None:
        super().__init__()
        one, three = (stride, 1) if first else (1, stride)
        self.m = nn.Sequential(Conv(cin, mid, 1, one), Conv(mid, mid, 3, three), Conv(mid, 4 * mid, 1, plain=True))
        self.skip: nn.Module = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()
        if cin != 4 * mid:
            self.skip = Conv(cin, 4 * mid, 1, stride, plain=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.m(x) + self.skip(x))


def strides(units: tuple[int, ...], stride_at: str) -> list[list[int]]:
    """The stride of every unit: in a block's first unit, or (TF-slim) in its last one."""
    if stride_at == "last_unit":
        return [[1] * (n - 1) + [2 if block < len(units) - 1 else 1] for block, n in enumerate(units)]
    return [[2 if block else 1] + [1] * (n - 1) for block, n in enumerate(units)]


class ResNet(nn.Sequential):
    """ResNet v1: stride in the `first` 1x1 convolution (Caffe, Keras) or in each block's `last_unit` (TF-slim)."""

    def __init__(self, units: tuple[int, ...], stride_at: str, classes: int = 1000) -> None:
        layers: list[nn.Module] = [Conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1)]
        cin = 64
        for mid, steps in zip((64, 128, 256, 512), strides(units, stride_at), strict=True):
            for stride in steps:
                layers.append(Unit(cin, mid, stride, first=stride_at == "first"))
                cin = 4 * mid
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, classes), nn.Softmax(1))


class PreActUnit(nn.Module):
    """Pre-activation bottleneck; the projection reads the activated input."""

    def __init__(self, cin: int, mid: int, stride: int, *, project: bool, bias: bool) -> None:
        super().__init__()
        self.pre = nn.Sequential(nn.BatchNorm2d(cin), nn.ReLU())
        self.m = nn.Sequential(Conv(cin, mid, 1), Conv(mid, mid, 3, stride), nn.Conv2d(mid, 4 * mid, 1, bias=bias))
        self.project = nn.Conv2d(cin, 4 * mid, 1, stride, bias=bias) if project else None
        self.pool = nn.MaxPool2d(1, stride) if stride > 1 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.pre(x)
        skip = self.pool(x) if self.project is None else self.project(y)
        return self.m(y) + skip


def _preact(units: tuple[int, ...], stride_at: str, *, bias: bool) -> list[nn.Module]:
    layers: list[nn.Module] = []
    cin = 64
    for mid, steps in zip((64, 128, 256, 512), strides(units, stride_at), strict=True):
        for stride in steps:
            layers.append(PreActUnit(cin, mid, stride, project=cin != 4 * mid, bias=bias))
            cin = 4 * mid
    return [*layers, nn.BatchNorm2d(cin), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(cin, 1000)]


class SlimResNetV2(nn.Sequential):
    """TF-slim ResNet v2."""

    def __init__(self, units: tuple[int, ...]) -> None:
        stem = (nn.Conv2d(3, 64, 7, 2, 3), nn.MaxPool2d(3, 2, 1))
        super().__init__(*stem, *_preact(units, "last_unit", bias=True), nn.Softmax(1))


class PreActResNet(nn.Sequential):
    """Gluon ResNet v2 with batch norm on the data."""

    def __init__(self, units: tuple[int, ...]) -> None:
        stem = (nn.BatchNorm2d(3), Conv(3, 64, 7, 2), nn.MaxPool2d(3, 2, 1))
        super().__init__(*stem, *_preact(units, "first_unit", bias=False))
