"""YOLO12: attention over areas of the feature map inside C2f."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from spec import Spec, image
from torch import nn
from yolo_blocks import C3, C3k2, C3k2Deep, Conv, Pyramid, linear
from yolo_heads import Head
from zoo_yolo_v8 import SCALES, SOURCE, Network, Scale, Trunk


class AreaAttention(nn.Module):
    """Self-attention inside `area` horizontal bands, with a 7x7 depthwise position term."""

    def __init__(self, c: int, area: int) -> None:
        super().__init__()
        self.area, self.heads = area, c // 32
        self.qkv, self.proj, self.pe = linear(c, 3 * c), linear(c, c), linear(c, c, 7, g=c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        _, c, h, w = x.shape
        count = h * w // self.area
        qkv = self.qkv(x).flatten(2).transpose(1, 2).reshape(self.area, count, 3 * c)
        q, k, v = qkv.view(self.area, count, self.heads, 96).permute(0, 2, 3, 1).split((32, 32, 32), dim=2)
        attention = ((q.transpose(-2, -1) @ k) * 32**-0.5).softmax(dim=-1)
        y = (v @ attention.transpose(-2, -1)).permute(0, 3, 1, 2)
        v = v.permute(0, 3, 1, 2)
        y = y.reshape(1, h, w, c).permute(0, 3, 1, 2)
        v = v.reshape(1, h, w, c).permute(0, 3, 1, 2)
        return self.proj(y + self.pe(v))


class ABlock(nn.Module):
    """Area attention and a feed-forward part."""

    def __init__(self, c: int, area: int, ratio: float) -> None:
        super().__init__()
        self.attn = AreaAttention(c, area)
        self.mlp = nn.Sequential(Conv(c, int(c * ratio)), linear(int(c * ratio), c))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = x + self.attn(x)
        return x + self.mlp(x)


class A2C2f(nn.Module):
    """Pairs of attention blocks (area > 0) or small C3 blocks, every step concatenated."""

    def __init__(self, cin: int, cout: int, n: int, area: int = 0, *, scaled: bool = False, ratio: float = 2.0) -> None:
        super().__init__()
        c = cout // 2
        self.cv1, self.cv2 = Conv(cin, c), Conv((1 + n) * c, cout)
        self.gamma = nn.Parameter(torch.ones(cout)) if scaled and area else None
        self.m = nn.ModuleList(
            nn.Sequential(ABlock(c, area, ratio), ABlock(c, area, ratio)) if area else C3(c, c, 2, add=True, k=(3, 3))
            for _ in range(n)
        )

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.cv1(x)]
        for step in self.m:
            parts.append(step(parts[-1]))
        y = self.cv2(torch.cat(parts, 1))
        return y if self.gamma is None else x + self.gamma.view(1, -1, 1, 1) * y


def yolo12(size: str, form: str = "raw") -> nn.Module:
    s = Scale(*SCALES["11"][size])
    c, n = s.c, s.n
    plain = C3k2Deep if size in "mlx" else C3k2
    area = partial(A2C2f, scaled=size in "lx", ratio=1.2 if size in "lx" else 2.0)
    stem = [Conv(3, c(64), 3, 2), Conv(c(64), c(128), 3, 2), plain(c(128), c(256), n(2), add=True, e=0.25)]
    to3 = [*stem, Conv(c(256), c(256), 3, 2), plain(c(256), c(512), n(2), add=True, e=0.25)]
    to4 = [Conv(c(512), c(512), 3, 2), area(c(512), c(512), n(4), 4)]
    to5 = [Conv(c(512), c(1024), 3, 2), area(c(1024), c(1024), n(4), 1)]
    blocks = [
        area(c(1024) + c(512), c(512), n(2)),
        area(c(512) + c(512), c(256), n(2)),
        area(c(256) + c(512), c(512), n(2)),
        C3k2Deep(c(512) + c(1024), c(1024), n(2), add=True),
    ]
    neck = Pyramid(blocks, [Conv(c(256), c(256), 3, 2), Conv(c(512), c(512), 3, 2)])
    return Network(Trunk(to3, to4, to5), neck, Head((c(256), c(512), c(1024)), light=True, form=form))


def specs() -> Iterator[Spec]:
    """Every size, raw maps."""
    figures = {"n": (6.5, 2.6), "s": (21.4, 9.3), "m": (67.5, 20.2), "l": (88.9, 26.4), "x": (199.0, 59.1)}
    note = "published figure leaves the attention products out"
    for size, (gops, mparams) in figures.items():
        name = f"yolo12{size}-640-raw"
        yield Spec(name, "yolo_modern", SOURCE, partial(yolo12, size), image(640), (), gops, mparams, note)
