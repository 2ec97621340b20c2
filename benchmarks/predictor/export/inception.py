"""Inception V1 as in Caffe and Inception V2 (BN-Inception) as in TF-slim and Caffe."""

from __future__ import annotations

import torch
from torch import nn


class Conv(nn.Sequential):
    """Convolution, batch norm, ReLU."""

    def __init__(self, cin: int, cout: int, k: int = 1, s: int = 1) -> None:
        super().__init__(nn.Conv2d(cin, cout, k, s, k // 2, bias=False), nn.BatchNorm2d(cout), nn.ReLU())


class Branches(nn.Module):
    """Branches side by side."""

    def __init__(self, *branches: nn.Module) -> None:
        super().__init__()
        self.branches = nn.ModuleList(branches)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([branch(x) for branch in self.branches], 1)


# per block: 1x1, 3x3 reduce, 3x3, 5x5 reduce, 5x5, pooled
_V1 = (
    (64, 96, 128, 16, 32, 32),
    (128, 128, 192, 32, 96, 64),
    (192, 96, 208, 16, 48, 64),
    (160, 112, 224, 24, 64, 64),
    (128, 128, 256, 24, 64, 64),
    (112, 144, 288, 32, 64, 64),
    (256, 160, 320, 32, 128, 128),
    (256, 160, 320, 32, 128, 128),
    (384, 192, 384, 48, 128, 128),
)


class InceptionV1(nn.Sequential):
    """GoogLeNet with 5x5 convolutions."""

    def __init__(self) -> None:
        def pool() -> nn.Module:
            return nn.MaxPool2d(3, 2, ceil_mode=True)

        layers: list[nn.Module] = [Conv(3, 64, 7, 2), pool(), Conv(64, 64), Conv(64, 192, 3), pool()]
        cin = 192
        for index, (a, b, c, d, e, f) in enumerate(_V1):
            pooled = nn.Sequential(nn.MaxPool2d(3, 1, 1), Conv(cin, f))
            three, five = nn.Sequential(Conv(cin, b), Conv(b, c, 3)), nn.Sequential(Conv(cin, d), Conv(d, e, 5))
            layers.append(Branches(Conv(cin, a), three, five, pooled))
            if index in {1, 6}:
                layers.append(pool())
            cin = a + c + e + f
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000), nn.Softmax(1))


# per block: 1x1, 3x3 reduce, 3x3, double reduce, double 3x3, pooled (negative: max pooling); None strides
_V2: tuple[tuple[int | None, int, int, int, int, int], ...] = (
    (64, 64, 64, 64, 96, 32),
    (64, 64, 96, 64, 96, 64),
    (None, 128, 160, 64, 96, 0),
    (224, 64, 96, 96, 128, 128),
    (192, 96, 128, 96, 128, 128),
    (160, 128, 160, 128, 160, 96),
    (96, 128, 192, 160, 192, 96),
    (None, 128, 192, 192, 256, 0),
    (352, 192, 320, 160, 224, 128),
    (352, 192, 320, 192, 224, -128),
)


class InceptionV2(nn.Sequential):
    """BN-Inception; the first convolution is separable in TF-slim and dense in Caffe."""

    def __init__(self, *, separable: bool) -> None:
        depthwise = nn.Conv2d(3, 24, 7, 2, 3, groups=3, bias=False)
        first = nn.Sequential(depthwise, Conv(24, 64)) if separable else Conv(3, 64, 7, 2)
        layers: list[nn.Module] = [first, nn.MaxPool2d(3, 2, 1), Conv(64, 64), Conv(64, 192, 3), nn.MaxPool2d(3, 2, 1)]
        cin = 192
        for one, b, c, d, e, f in _V2:
            stride = 2 if one is None else 1
            three = nn.Sequential(Conv(cin, b), Conv(b, c, 3, stride))
            double = nn.Sequential(Conv(cin, d), Conv(d, e, 3), Conv(e, e, 3, stride))
            if one is None:
                layers.append(Branches(three, double, nn.MaxPool2d(3, 2, 1)))
                cin = c + e + cin
                continue
            pool: nn.Module = nn.AvgPool2d(3, 1, 1, count_include_pad=False) if f > 0 else nn.MaxPool2d(3, 1, 1)
            layers.append(Branches(Conv(cin, one), three, double, nn.Sequential(pool, Conv(cin, abs(f)))))
            cin = one + c + e + abs(f)
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(1024, 1000), nn.Softmax(1))
