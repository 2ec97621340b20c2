"""HRNet-W32 for pose estimation."""

from __future__ import annotations

import torch
from torch import nn


def conv(cin: int, cout: int, k: int = 3, s: int = 1, *, act: bool = True) -> nn.Sequential:
    layers = [nn.Conv2d(cin, cout, k, s, k // 2, bias=False), nn.BatchNorm2d(cout)]
    return nn.Sequential(*layers, *([nn.ReLU()] if act else []))


class Basic(nn.Module):
    """Two 3x3 convolutions with a shortcut."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.m = nn.Sequential(conv(c, c), conv(c, c, act=False))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(x + self.m(x))


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.m = nn.Sequential(conv(cin, 64, 1), conv(64, 64), conv(64, 256, 1, act=False))
        self.skip = conv(cin, 256, 1, act=False) if cin != 256 else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.skip(x) + self.m(x))


def _link(source: int, target: int, widths: tuple[int, ...]) -> nn.Module:
    cin, cout = widths[source], widths[target]
    if source == target:
        return nn.Identity()
    if source > target:
        return nn.Sequential(conv(cin, cout, 1, act=False), nn.Upsample(scale_factor=2 ** (source - target)))
    steps = [conv(cin, cin, 3, 2) for _ in range(target - source - 1)]
    return nn.Sequential(*steps, conv(cin, cout, 3, 2, act=False))


class Module(nn.Module):
    """Four basic blocks per branch, then every branch summed into every output."""

    def __init__(self, widths: tuple[int, ...], outputs: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(Basic(c) for _ in range(4))) for c in widths)
        rows = (nn.ModuleList(_link(j, i, widths) for j in range(len(widths))) for i in range(outputs))
        self.links = nn.ModuleList(rows)

    def forward(self, parts: list[torch.Tensor]) -> list[torch.Tensor]:
        parts = [branch(x) for branch, x in zip(self.branches, parts, strict=True)]
        outputs = []
        for row in self.links:
            total = row[0](parts[0])
            for link, part in zip(row[1:], parts[1:], strict=True):
                total = total + link(part)
            outputs.append(torch.relu(total))
        return outputs


class HRNetPose(nn.Module):
    """Stem, four stages (1, 1, 4 and 3 modules) and one heat map per joint."""

    def __init__(self, c: int = 32, joints: int = 17) -> None:
        super().__init__()
        widths = (c, 2 * c, 4 * c, 8 * c)
        self.stem = nn.Sequential(
            conv(3, 64, 3, 2), conv(64, 64, 3, 2), *(Bottleneck(64 if i == 0 else 256) for i in range(4))
        )
        self.split = nn.ModuleList((conv(256, widths[0]), conv(256, widths[1], 3, 2)))
        self.more = nn.ModuleList((conv(widths[1], widths[2], 3, 2), conv(widths[2], widths[3], 3, 2)))
        self.stage2 = nn.ModuleList((Module(widths[:2], 2),))
        self.stage3 = nn.ModuleList(Module(widths[:3], 3) for _ in range(4))
        self.stage4 = nn.ModuleList(Module(widths, 1 if i == 2 else 4) for i in range(3))
        self.out = nn.Conv2d(c, joints, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.stem(x)
        parts = [layer(x) for layer in self.split]
        for index, stage in enumerate((self.stage2, self.stage3, self.stage4)):
            if index:
                parts.append(self.more[index - 1](parts[-1]))
            for module in stage:
                parts = module(parts)
        return self.out(parts[0])
