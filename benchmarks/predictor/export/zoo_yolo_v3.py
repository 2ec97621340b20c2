"""YOLOv2, YOLOv3, YOLOv3-tiny and YOLOv4 (Darknet networks)."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from spec import Spec, image
from torch import nn
from yolo_blocks import Conv
from yolo_heads import Head

SOURCE = "own module, published architecture"


def leaky(cin: int, cout: int, k: int = 1, s: int = 1) -> Conv:
    return Conv(cin, cout, k, s, act=nn.LeakyReLU(0.1))


def mish(cin: int, cout: int, k: int = 1, s: int = 1) -> Conv:
    return Conv(cin, cout, k, s, act=nn.Mish())


class Residual(nn.Module):
    """1x1 and 3x3 convolution with a shortcut."""

    def __init__(self, c: int, mid: int, conv: type = leaky) -> None:
        super().__init__()
        self.m = nn.Sequential(conv(c, mid, 1), conv(mid, c, 3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.m(x)


def _five(cin: int, c: int) -> nn.Sequential:
    wide = 2 * c
    return nn.Sequential(leaky(cin, c), leaky(c, wide, 3), leaky(wide, c), leaky(c, wide, 3), leaky(wide, c))


def _out(c: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(leaky(c, 2 * c, 3), nn.Conv2d(2 * c, outputs, 1))


class Darknet53(nn.Module):
    """YOLOv3's backbone: 1, 2, 8, 8 and 4 residual blocks."""

    def __init__(self) -> None:
        super().__init__()
        stages, cin = [], 32
        for c, n in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
            stages.append(nn.Sequential(leaky(cin, c, 3, 2), *(Residual(c, c // 2) for _ in range(n))))
            cin = c
        self.to3 = nn.Sequential(leaky(3, 32, 3), *stages[:3])
        self.to4, self.to5 = stages[3], stages[4]

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        p3 = self.to3(x)
        p4 = self.to4(p3)
        return p3, p4, self.to5(p4)


class YoloV3(nn.Module):
    """Darknet-53 with three top-down scales."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        self.trunk = Darknet53()
        self.f5, self.f4, self.f3 = _five(1024, 512), _five(768, 256), _five(384, 128)
        self.o5, self.o4, self.o3 = _out(512, outputs), _out(256, outputs), _out(128, outputs)
        self.r5, self.r4 = leaky(512, 256), leaky(256, 128)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        p3, p4, p5 = self.trunk(x)
        f5 = self.f5(p5)
        f4 = self.f4(torch.cat((self.up(self.r5(f5)), p4), 1))
        f3 = self.f3(torch.cat((self.up(self.r4(f4)), p3), 1))
        return self.o5(f5), self.o4(f4), self.o3(f3)


class YoloV3Tiny(nn.Module):
    """Seven convolutions with pooling, two scales; the original head or (hub) the decoupled one."""

    def __init__(self, *, hub: bool = False) -> None:
        super().__init__()
        conv = Conv if hub else leaky
        layers: list[nn.Module] = []
        for cin, c in ((3, 16), (16, 32), (32, 64), (64, 128)):
            layers += [conv(cin, c, 3), nn.MaxPool2d(2)]
        self.to4 = nn.Sequential(*layers, conv(128, 256, 3))
        tail = (nn.MaxPool2d(2), conv(256, 512, 3), nn.ZeroPad2d((0, 1, 0, 1)), nn.MaxPool2d(2, 1))
        self.to5 = nn.Sequential(*tail, conv(512, 1024, 3), conv(1024, 256, 1))
        self.o5, self.r5, self.o4 = conv(256, 512, 3), conv(256, 128, 1), conv(384, 256, 3)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.hub = Head((256, 512), form="hub") if hub else None
        self.heads = nn.ModuleList(() if hub else (nn.Conv2d(512, 255, 1), nn.Conv2d(256, 255, 1)))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        p4 = self.to4(x)
        p5 = self.to5(p4)
        o5, o4 = self.o5(p5), self.o4(torch.cat((self.up(self.r5(p5)), p4), 1))
        if self.hub is not None:
            return tuple(self.hub([o4, o5]))
        return self.heads[0](o5), self.heads[1](o4)


class CSPStage(nn.Module):
    """YOLOv4's cross-stage stage: strided convolution, two 1x1 branches, `n` residual blocks in one of them."""

    def __init__(self, cin: int, c: int, n: int, conv: type) -> None:
        super().__init__()
        mid = c if n == 1 else c // 2
        inner = c // 2
        self.down, self.skip, self.main = conv(cin, c, 3, 2), conv(c, mid), conv(c, mid)
        self.blocks = nn.Sequential(*(Residual(mid, inner, conv) for _ in range(n)))
        self.after, self.merge = conv(mid, mid), conv(2 * mid, c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(x)
        return self.merge(torch.cat((self.after(self.blocks(self.main(x))), self.skip(x)), 1))


class YoloV4(nn.Module):
    """CSPDarknet-53, spatial pyramid pooling and a path aggregation neck."""

    def __init__(self, outputs: int, conv: type) -> None:
        super().__init__()
        plan = ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4))
        cins = (32, *(c for c, _ in plan))
        stages = [CSPStage(cin, c, n, conv) for cin, (c, n) in zip(cins, plan, strict=False)]
        self.to3 = nn.Sequential(conv(3, 32, 3), *stages[:3])
        self.to4, self.to5 = stages[3], stages[4]
        self.before = nn.Sequential(leaky(1024, 512), leaky(512, 1024, 3), leaky(1024, 512))
        self.after = nn.Sequential(leaky(2048, 512), leaky(512, 1024, 3), leaky(1024, 512))
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (13, 9, 5))
        self.r5, self.r4, self.l4, self.l3 = leaky(512, 256), leaky(256, 128), leaky(512, 256), leaky(256, 128)
        self.f4, self.f3, self.g4, self.g5 = _five(512, 256), _five(256, 128), _five(512, 256), _five(1024, 512)
        self.d3, self.d4 = leaky(128, 256, 3, 2), leaky(256, 512, 3, 2)
        self.o3, self.o4, self.o5 = _out(128, outputs), _out(256, outputs), _out(512, outputs)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        p3 = self.to3(x)
        p4 = self.to4(p3)
        p5 = self.before(self.to5(p4))
        p5 = self.after(torch.cat([pool(p5) for pool in self.pools] + [p5], 1))
        f4 = self.f4(torch.cat((self.l4(p4), self.up(self.r5(p5))), 1))
        f3 = self.f3(torch.cat((self.l3(p3), self.up(self.r4(f4))), 1))
        g4 = self.g4(torch.cat((self.d3(f3), f4), 1))
        g5 = self.g5(torch.cat((self.d4(g4), p5), 1))
        return self.o3(f3), self.o4(g4), self.o5(g5)


class YoloV2(nn.Module):
    """Darknet-19 with the pass-through layer."""

    def __init__(self, outputs: int) -> None:
        super().__init__()
        first: list[nn.Module] = [leaky(3, 32, 3), nn.MaxPool2d(2), leaky(32, 64, 3), nn.MaxPool2d(2)]
        for c in (128, 256):
            first += [leaky(c // 2, c, 3), leaky(c, c // 2), leaky(c // 2, c, 3), nn.MaxPool2d(2)]
        self.fine = nn.Sequential(*first, leaky(256, 512, 3), *_twice(512, 256))
        self.coarse = nn.Sequential(
            nn.MaxPool2d(2), leaky(512, 1024, 3), *_twice(1024, 512), leaky(1024, 1024, 3), leaky(1024, 1024, 3)
        )
        self.passing, self.reorg = leaky(512, 64), nn.PixelUnshuffle(2)
        self.out = nn.Sequential(leaky(1280, 1024, 3), nn.Conv2d(1024, outputs, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        fine = self.fine(x)
        return self.out(torch.cat((self.reorg(self.passing(fine)), self.coarse(fine)), 1))


def _twice(c: int, mid: int) -> list[nn.Module]:
    return [leaky(c, mid), leaky(mid, c, 3), leaky(c, mid), leaky(mid, c, 3)]


def _spec(name: str, build: partial, shape: tuple, figures: tuple[float | None, float | None], note: str = "") -> Spec:
    return Spec(name, "yolo_darknet", SOURCE, build, shape, (), figures[0], figures[1], note)


def specs() -> Iterator[Spec]:
    """The Darknet family; GOPs from darknet and the Vitis-AI names."""
    yield _spec("yolov3-608-raw", partial(YoloV3, 255), image(608), (140.69, 61.9))
    yield _spec("yolov3_voc-416-raw", partial(YoloV3, 75), image(416), (65.42, None), "20 classes")
    bdd = "10 classes; the published count is lower by a reason unknown"
    yield _spec("yolov3_bdd-288x512-raw", partial(YoloV3, 45), image(288, 512), (53.7, None), bdd)
    yield _spec("yolov3_tiny-416-raw", partial(YoloV3Tiny), image(416), (5.56, 8.85))
    yield _spec("yolov3_tinyu-640-hub", partial(YoloV3Tiny, hub=True), image(640), (None, 12.17))
    yield _spec("yolov4-416-raw", partial(YoloV4, 255, mish), image(416), (60.1, 64.4))
    yield _spec("yolov4_leaky-416-raw", partial(YoloV4, 255, leaky), image(416), (60.1, 64.4), "LeakyReLU for Mish")
    yield _spec("yolov2_voc-448-raw", partial(YoloV2, 125), image(448), (34.0, None))
