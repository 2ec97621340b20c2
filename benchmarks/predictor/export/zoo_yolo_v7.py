"""YOLOv7 and YOLOv7-tiny in their deploy form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from spec import Spec, image
from torch import nn
from yolo_blocks import Conv
from yolo_heads import AnchorHead
from zoo_yolo_v3 import leaky
from zoo_yolo_v5 import SOURCE

Make = Callable[..., nn.Module]


class Elan(nn.Module):
    """Two 1x1 branches and a chain of 3x3 convolutions; `taps` of the chain are concatenated."""

    def __init__(self, cin: int, mid: int, chain: int, n: int, taps: tuple[int, ...], cout: int, conv: Make) -> None:
        super().__init__()
        self.cv1, self.cv2 = conv(cin, mid), conv(cin, mid)
        self.chain = nn.ModuleList(conv(mid if i == 0 else chain, chain, 3) for i in range(n))
        widths = [mid, mid] + [chain] * n
        self.taps = taps
        self.out = conv(sum(widths[tap] for tap in taps), cout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.cv1(x), self.cv2(x)]
        for conv in self.chain:
            parts.append(conv(parts[-1]))
        return self.out(torch.cat([parts[tap] for tap in self.taps], 1))


class Down(nn.Module):
    """Pooling branch and strided branch side by side."""

    def __init__(self, cin: int, c: int) -> None:
        super().__init__()
        self.pool = nn.Sequential(nn.MaxPool2d(2), Conv(cin, c))
        self.conv = nn.Sequential(Conv(cin, c), Conv(c, c, 3, 2))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat((self.conv(x), self.pool(x)), 1)


class SPPCSPC(nn.Module):
    """Pyramid pooling inside a cross-stage block."""

    def __init__(self, cin: int, c: int) -> None:
        super().__init__()
        self.before = nn.Sequential(Conv(cin, c), Conv(c, c, 3), Conv(c, c))
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))
        self.after = nn.Sequential(Conv(4 * c, c), Conv(c, c, 3))
        self.skip, self.merge = Conv(cin, c), Conv(2 * c, c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.before(x)
        y = self.after(torch.cat([y, *(pool(y) for pool in self.pools)], 1))
        return self.merge(torch.cat((y, self.skip(x)), 1))


class YoloV7(nn.Module):
    """The base network."""

    def __init__(self, form: str = "raw") -> None:
        super().__init__()
        wide = partial(Elan, n=4, taps=(5, 3, 1, 0), conv=Conv)
        head = partial(Elan, n=4, taps=(5, 4, 3, 2, 1, 0), conv=Conv)
        stem = (Conv(3, 32, 3), Conv(32, 64, 3, 2), Conv(64, 64, 3), Conv(64, 128, 3, 2))
        self.to3 = nn.Sequential(*stem, wide(128, 64, 64, cout=256), Down(256, 128), wide(256, 128, 128, cout=512))
        self.to4 = nn.Sequential(Down(512, 256), wide(512, 256, 256, cout=1024))
        self.to5 = nn.Sequential(Down(1024, 512), wide(1024, 256, 256, cout=1024), SPPCSPC(1024, 512))
        self.r5, self.l4, self.r4, self.l3 = Conv(512, 256), Conv(1024, 256), Conv(256, 128), Conv(512, 128)
        self.t4, self.t3 = head(512, 256, 128, cout=256), head(256, 128, 64, cout=128)
        self.d3, self.d4 = Down(128, 128), Down(256, 256)
        self.g4, self.g5 = head(512, 256, 128, cout=256), head(1024, 512, 256, cout=512)
        self.rep = nn.ModuleList(Conv(c, 2 * c, 3) for c in (128, 256, 512))
        self.head = AnchorHead((256, 512, 1024), form=form)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        p3 = self.to3(x)
        p4 = self.to4(p3)
        p5 = self.to5(p4)
        t4 = self.t4(torch.cat((self.l4(p4), self.up(self.r5(p5))), 1))
        t3 = self.t3(torch.cat((self.l3(p3), self.up(self.r4(t4))), 1))
        g4 = self.g4(torch.cat((self.d3(t3), t4), 1))
        g5 = self.g5(torch.cat((self.d4(g4), p5), 1))
        return tuple(self.head([rep(f) for rep, f in zip(self.rep, (t3, g4, g5), strict=True)]))


class TinySPP(nn.Module):
    """The tiny network's pyramid pooling."""

    def __init__(self) -> None:
        super().__init__()
        self.skip, self.cv1, self.cv2, self.merge = leaky(512, 256), leaky(512, 256), leaky(1024, 256), leaky(512, 256)
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.cv1(x)
        y = self.cv2(torch.cat([*(pool(y) for pool in self.pools), y], 1))
        return self.merge(torch.cat((y, self.skip(x)), 1))


class YoloV7Tiny(nn.Module):
    """The tiny network (LeakyReLU)."""

    def __init__(self, form: str = "raw") -> None:
        super().__init__()
        elan = partial(Elan, n=2, taps=(3, 2, 1, 0), conv=leaky)
        stem = (leaky(3, 32, 3, 2), leaky(32, 64, 3, 2), elan(64, 32, 32, cout=64), nn.MaxPool2d(2))
        self.to3 = nn.Sequential(*stem, elan(64, 64, 64, cout=128))
        self.to4 = nn.Sequential(nn.MaxPool2d(2), elan(128, 128, 128, cout=256))
        self.to5 = nn.Sequential(nn.MaxPool2d(2), elan(256, 256, 256, cout=512), TinySPP())
        self.r5, self.l4, self.r4, self.l3 = leaky(256, 128), leaky(256, 128), leaky(128, 64), leaky(128, 64)
        self.t4, self.t3 = elan(256, 64, 64, cout=128), elan(128, 32, 32, cout=64)
        self.d3, self.d4 = leaky(64, 128, 3, 2), leaky(128, 256, 3, 2)
        self.g4, self.g5 = elan(256, 64, 64, cout=128), elan(512, 128, 128, cout=256)
        self.last = nn.ModuleList(leaky(c, 2 * c, 3) for c in (64, 128, 256))
        self.head = AnchorHead((128, 256, 512), form=form)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        p3 = self.to3(x)
        p4 = self.to4(p3)
        p5 = self.to5(p4)
        t4 = self.t4(torch.cat((self.l4(p4), self.up(self.r5(p5))), 1))
        t3 = self.t3(torch.cat((self.l3(p3), self.up(self.r4(t4))), 1))
        g4 = self.g4(torch.cat((self.d3(t3), t4), 1))
        g5 = self.g5(torch.cat((self.d4(g4), p5), 1))
        return tuple(self.head([last(f) for last, f in zip(self.last, (t3, g4, g5), strict=True)]))


def specs() -> Iterator[Spec]:
    """Raw maps for the zoos, decoded boxes for Qualcomm."""
    full, tiny = (104.7, 36.9), (13.7, 6.2)
    for name, build, (gops, mparams) in (
        ("yolov7-640-raw", YoloV7, full),
        ("yolov7_tiny-640-raw", YoloV7Tiny, tiny),
        ("yolov7_tiny-640-hub", partial(YoloV7Tiny, "hub"), tiny),
    ):
        yield Spec(name, "yolo_v7", SOURCE, build, image(640), (), gops, mparams)
