"""YOLOv6 release 4 (version 3.0) n, s and m in their deploy form: re-parameterised blocks are plain convolutions."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import torch
from spec import Spec, image
from torch import nn
from yolo_blocks import Conv
from yolo_heads import STRIDES, best_class
from zoo_yolo_v8 import SOURCE, Scale, Trunk

Make = Callable[[int, int, int], nn.Module]


def relu(cin: int, cout: int, k: int = 1, s: int = 1) -> Conv:
    return Conv(cin, cout, k, s, act=nn.ReLU())


def rep(cin: int, cout: int, s: int = 1) -> Conv:
    """A fused RepVGG block."""
    return relu(cin, cout, 3, s)


def rep_block(cin: int, cout: int, n: int) -> nn.Sequential:
    return nn.Sequential(rep(cin, cout), *(rep(cout, cout) for _ in range(n - 1)))


class BottleRep(nn.Module):
    """Two fused blocks and a weighted shortcut."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.m = nn.Sequential(rep(c, c), rep(c, c))
        self.alpha = nn.Parameter(torch.ones(1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.m(x) + self.alpha * x


class BepC3(nn.Module):
    """Cross-stage block of the medium model: `n` // 2 double blocks in one branch."""

    def __init__(self, cin: int, cout: int, n: int, e: float = 2 / 3) -> None:
        super().__init__()
        mid = int(cout * e)
        self.cv1, self.cv2, self.cv3 = relu(cin, mid), relu(cin, mid), relu(2 * mid, cout)
        self.m = nn.Sequential(*(BottleRep(mid) for _ in range(max(n // 2, 1))))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.cv3(torch.cat((self.m(self.cv1(x)), self.cv2(x)), 1))


class Pooling(nn.Module):
    """Three 5x5 poolings in a row between two convolutions."""

    def __init__(self, c: int, mid: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = relu(c, mid), relu(4 * mid, c)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.cv2(torch.cat(parts, 1))


class CSPPooling(nn.Module):
    """The small models' pooling inside a cross-stage block."""

    def __init__(self, c: int) -> None:
        super().__init__()
        mid = c // 2
        self.before = nn.Sequential(relu(c, mid), relu(mid, mid, 3), relu(mid, mid))
        self.after = nn.Sequential(relu(4 * mid, mid), relu(mid, mid, 3))
        self.skip, self.merge = relu(c, mid), relu(2 * mid, c)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.before(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.merge(torch.cat((self.skip(x), self.after(torch.cat(parts, 1))), 1))


class BiFusion(nn.Module):
    """Three neighbouring scales brought together."""

    def __init__(self, mid: int, fine: int, cout: int) -> None:
        super().__init__()
        self.cv1, self.cv2, self.cv3 = relu(mid, cout), relu(fine, cout), relu(3 * cout, cout)
        self.up, self.down = nn.ConvTranspose2d(cout, cout, 2, 2), relu(cout, cout, 3, 2)

    def forward(self, coarse: torch.Tensor, mid: torch.Tensor, fine: torch.Tensor) -> torch.Tensor:
        return self.cv3(torch.cat((self.up(coarse), self.cv1(mid), self.down(self.cv2(fine))), 1))


class V6Head(nn.Module):
    """Decoupled head: one 3x3 convolution per branch; 4 distances (n, s) or 17 bins each (m)."""

    def __init__(self, ch: tuple[int, ...], bins: int, form: str) -> None:
        super().__init__()
        self.form = form
        self.stem = nn.ModuleList(Conv(c, c) for c in ch)
        self.cls = nn.ModuleList(nn.Sequential(Conv(c, c, 3), nn.Conv2d(c, 80, 1)) for c in ch)
        self.reg = nn.ModuleList(nn.Sequential(Conv(c, c, 3), nn.Conv2d(c, 4 * bins, 1)) for c in ch)
        self.register_buffer("points", torch.zeros(1, 8400, 2))
        self.register_buffer("step", torch.cat([torch.full((1, (640 // s) ** 2, 1), float(s)) for s in STRIDES], 1))

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        stems = [stem(f) for stem, f in zip(self.stem, features, strict=True)]
        scores = [branch(f).sigmoid() for branch, f in zip(self.cls, stems, strict=True)]
        boxes = [branch(f) for branch, f in zip(self.reg, stems, strict=True)]
        if self.form == "raw":
            return [*boxes, *scores]
        box = torch.cat([part.flatten(2) for part in boxes], 2).permute(0, 2, 1)
        score = torch.cat([part.flatten(2) for part in scores], 2).permute(0, 2, 1)
        near, far = box.chunk(2, -1)
        low, high = self.points - near, self.points + far
        boxes = torch.cat(((low + high) / 2, high - low), -1) * self.step
        whole = torch.cat((boxes, torch.ones(1, 8400, 1), score), -1)
        return best_class(whole[..., :4], whole[..., 5:] * whole[..., 4:5])


class Neck(nn.Module):
    """Bi-directional neck over P2 to P5."""

    def __init__(self, c: Callable[[int], int], block: Callable[[int, int], nn.Module]) -> None:
        super().__init__()
        self.r5, self.r4 = relu(c(1024), c(256)), relu(c(256), c(128))
        self.fuse4, self.fuse3 = BiFusion(c(512), c(256), c(256)), BiFusion(c(256), c(128), c(128))
        self.t4, self.t3 = block(c(256), c(256)), block(c(128), c(128))
        self.d3, self.d4 = relu(c(128), c(128), 3, 2), relu(c(256), c(256), 3, 2)
        self.g4, self.g5 = block(c(256), c(256)), block(c(512), c(512))

    def forward(self, p2: torch.Tensor, p3: torch.Tensor, p4: torch.Tensor, p5: torch.Tensor) -> list[torch.Tensor]:
        r5 = self.r5(p5)
        t4 = self.t4(self.fuse4(r5, p4, p3))
        r4 = self.r4(t4)
        o3 = self.t3(self.fuse3(r4, p3, p2))
        o4 = self.g4(torch.cat((self.d3(o3), r4), 1))
        return [o3, o4, self.g5(torch.cat((self.d4(o4), r5), 1))]


class YoloV6(nn.Module):
    """Backbone with a P2 output, neck and head."""

    def __init__(self, size: str, form: str = "raw") -> None:
        super().__init__()
        depth, width = {"n": (0.33, 0.25), "s": (0.33, 0.5), "m": (0.6, 0.75)}[size]
        s = Scale(depth, width, 4096)
        c, n, csp = s.c, s.n, size == "m"

        def stage(cin: int, cout: int, repeats: int) -> list[nn.Module]:
            block = BepC3(cout, cout, n(repeats)) if csp else rep_block(cout, cout, n(repeats))
            return [rep(cin, cout, 2), block]

        pool = Pooling(c(1024), c(1024) // 2) if csp else CSPPooling(c(1024))
        self.to2 = nn.Sequential(rep(3, c(64), 2), *stage(c(64), c(128), 6))
        to5 = [*stage(c(512), c(1024), 6), pool]
        self.trunk = Trunk(stage(c(128), c(256), 12), stage(c(256), c(512), 18), to5)
        block = (lambda i, o: BepC3(i, o, n(12))) if csp else (lambda i, o: rep_block(i, o, n(12)))
        self.neck = Neck(c, block)
        self.head = V6Head((c(128), c(256), c(512)), 17 if csp else 1, form)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        p2 = self.to2(x)
        return tuple(self.head(self.neck(p2, *self.trunk(p2))))


def specs() -> Iterator[Spec]:
    """Sizes n, s and m; n also as on Qualcomm AI Hub."""
    for size, gops, mparams in (("n", 11.4, 4.7), ("s", 45.3, 18.5), ("m", 85.8, 34.9)):
        build = partial(YoloV6, size)
        yield Spec(f"yolov6{size}-640-raw", "yolo_v6", SOURCE, build, image(640), (), gops, mparams)
    yield Spec("yolov6n-640-hub", "yolo_v6", SOURCE, partial(YoloV6, "n", "hub"), image(640), (), 11.4, 4.7)
