"""PP-YOLOE s and m in their deploy form, without the box decoding."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from spec import Spec, image
from torch import nn
from yolo_blocks import Conv
from zoo_yolo_v8 import SOURCE


class Basic(nn.Module):
    """3x3 convolution and a fused RepVGG block."""

    def __init__(self, c: int, *, add: bool) -> None:
        super().__init__()
        self.m, self.add = nn.Sequential(Conv(c, c, 3), Conv(c, c, 3)), add

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.m(x) if self.add else self.m(x)


class Squeeze(nn.Module):
    """Effective squeeze-excitation."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.fc, self.act = nn.Conv2d(c, c, 1), nn.Hardsigmoid()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x * self.act(self.fc(x.mean((2, 3), keepdim=True)))


class SPP(nn.Module):
    """Parallel poolings of 5, 9 and 13."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))
        self.conv = Conv(4 * c, c)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.conv(torch.cat([x, *(pool(x) for pool in self.pools)], 1))


class ResStage(nn.Module):
    """Backbone stage: strided convolution, two branches, squeeze-excitation."""

    def __init__(self, cin: int, cout: int, n: int) -> None:
        super().__init__()
        mid = (cin + cout) // 2
        self.down, self.cv1, self.cv2 = Conv(cin, mid, 3, 2), Conv(mid, mid // 2), Conv(mid, mid // 2)
        self.blocks = nn.Sequential(*(Basic(mid // 2, add=True) for _ in range(n)))
        self.attn, self.cv3 = Squeeze(mid), Conv(mid, cout)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.down(x)
        return self.cv3(self.attn(torch.cat((self.cv1(x), self.blocks(self.cv2(x))), 1)))


class NeckStage(nn.Module):
    """Neck stage; the deepest one pools in the middle."""

    def __init__(self, cin: int, cout: int, n: int, *, spp: bool = False) -> None:
        super().__init__()
        mid = cout // 2
        self.cv1, self.cv2, self.cv3 = Conv(cin, mid), Conv(cin, mid), Conv(2 * mid, cout)
        steps: list[nn.Module] = [Basic(mid, add=False) for _ in range(n)]
        if spp:
            steps.insert((n - 1) // 2 + 1, SPP(mid))
        self.blocks = nn.Sequential(*steps)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cv3(torch.cat((self.cv1(x), self.blocks(self.cv2(x))), 1))


class Gate(nn.Module):
    """The head's channel attention."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.fc, self.conv = nn.Conv2d(c, c, 1), Conv(c, c)

    def forward(self, x: torch.Tensor, mean: torch.Tensor) -> torch.Tensor:
        return self.conv(x * self.fc(mean).sigmoid())


class PPYoloE(nn.Module):
    """CSPResNet, path aggregation neck and the task-aligned head."""

    def __init__(self, depth: float, width: float) -> None:
        super().__init__()
        c = [max(round(x * width), 1) for x in (64, 128, 256, 512, 1024)]
        n = [max(round(x * depth), 1) for x in (3, 6, 6, 3)]
        half = c[0] // 2
        self.stem = nn.Sequential(Conv(3, half, 3, 2), Conv(half, half, 3), Conv(half, c[0], 3))
        self.stages = nn.ModuleList(ResStage(c[i], c[i + 1], n[i]) for i in range(4))
        w = [max(round(x * width), 1) for x in (768, 384, 192)]
        k = max(round(3 * depth), 1)
        self.t5, self.t4 = NeckStage(c[4], w[0], k, spp=True), NeckStage(c[3] + w[0] // 2, w[1], k)
        self.t3 = NeckStage(c[2] + w[1] // 2, w[2], k)
        self.r5, self.r4 = Conv(w[0], w[0] // 2), Conv(w[1], w[1] // 2)
        self.d3, self.d4 = Conv(w[2], w[2], 3, 2), Conv(w[1], w[1], 3, 2)
        self.g4, self.g5 = NeckStage(w[2] + w[1], w[1], k), NeckStage(w[1] + w[0], w[0], k)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")
        self.cls_gate, self.reg_gate = (nn.ModuleList(Gate(x) for x in w) for _ in range(2))
        self.cls = nn.ModuleList(nn.Conv2d(x, 80, 3, 1, 1) for x in w)
        self.reg = nn.ModuleList(nn.Conv2d(x, 68, 3, 1, 1) for x in w)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = [self.stages[0](self.stem(x))]
        for stage in self.stages[1:]:
            features.append(stage(features[-1]))
        _, p3, p4, p5 = features
        t5 = self.t5(p5)
        t4 = self.t4(torch.cat((self.up(self.r5(t5)), p4), 1))
        t3 = self.t3(torch.cat((self.up(self.r4(t4)), p3), 1))
        g4 = self.g4(torch.cat((self.d3(t3), t4), 1))
        g5 = self.g5(torch.cat((self.d4(g4), t5), 1))
        outputs = []
        for index, feature in enumerate((g5, g4, t3)):
            mean = feature.mean((2, 3), keepdim=True)
            outputs.append(self.cls[index](self.cls_gate[index](feature, mean) + feature).sigmoid())
            outputs.append(self.reg[index](self.reg_gate[index](feature, mean)))
        return tuple(outputs)


def specs() -> Iterator[Spec]:
    """Sizes s and m."""
    for size, depth, width, gops, mparams in (("s", 0.33, 0.5, 17.36, 7.93), ("m", 0.67, 0.75, 49.91, 23.43)):
        build = partial(PPYoloE, depth, width)
        yield Spec(f"ppyoloe_{size}-640-raw", "yolo_ppyoloe", SOURCE, build, image(640), (), gops, mparams)
