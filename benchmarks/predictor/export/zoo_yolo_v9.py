"""YOLOv9 (GELAN) t, s, m, c and e in their deploy form, detection and segmentation."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from spec import Spec, image
from torch import nn
from yolo_blocks import C3, Conv, Pyramid
from yolo_heads import Head, Proto
from zoo_yolo_v8 import MASKS, SOURCE, Network, Trunk


class Elan4(nn.Module):
    """Generalised ELAN block; `n` bottlenecks per inner step, or plain convolutions when `n` is 0."""

    def __init__(self, cin: int, cout: int, c3: int, c4: int, n: int) -> None:
        super().__init__()
        self.cv1, self.cv4 = Conv(cin, c3), Conv(c3 + 2 * c4, cout)
        self.cv2, self.cv3 = self.step(c3 // 2, c4, n), self.step(c4, c4, n)

    @staticmethod
    def step(cin: int, c: int, n: int) -> nn.Module:
        return nn.Sequential(C3(cin, c, n, add=True, k=(3, 3)), Conv(c, c, 3)) if n else Conv(cin, c, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = list(self.cv1(x).chunk(2, 1))
        parts.append(self.cv2(parts[-1]))
        parts.append(self.cv3(parts[-1]))
        return self.cv4(torch.cat(parts, 1))


class AConv(nn.Sequential):
    """Average pooling, then a strided convolution."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__(nn.AvgPool2d(2, 1, 0), Conv(cin, cout, 3, 2))


class ADown(nn.Module):
    """Half of the channels by strided convolution, half by pooling."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.mean, self.top = nn.AvgPool2d(2, 1, 0), nn.MaxPool2d(3, 2, 1)
        self.cv1, self.cv2 = Conv(cin // 2, cout // 2, 3, 2), Conv(cin // 2, cout // 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        a, b = self.mean(x).chunk(2, 1)
        return torch.cat((self.cv1(a), self.cv2(self.top(b))), 1)


class SPPElan(nn.Module):
    """Three 5x5 poolings in a row between two 1x1 convolutions."""

    def __init__(self, cin: int, cout: int, mid: int) -> None:
        super().__init__()
        self.cv1, self.cv5 = Conv(cin, mid), Conv(4 * mid, cout)
        self.pool = nn.MaxPool2d(5, 1, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [self.cv1(x)]
        for _ in range(3):
            parts.append(self.pool(parts[-1]))
        return self.cv5(torch.cat(parts, 1))


def _elan(cin: int, c: int, n: int) -> Elan4:
    return Elan4(cin, c, c, c // 2, n)


# stem width, channels of P2 to P5, bottlenecks, downsampling widths of the neck
_SMALL = {
    "t": (16, (32, 64, 96, 128), 3, (48, 64)),
    "s": (32, (64, 128, 192, 256), 3, (96, 128)),
    "m": (32, (128, 240, 360, 480), 1, (180, 240)),
}


def small(size: str, form: str = "raw") -> nn.Module:
    """The t, s and m networks."""
    stem, (c2, c3, c4, c5), n, (d3, d4) = _SMALL[size]
    first = Elan4(2 * stem, c2, c2, c2 // 2, 0 if size in "ts" else n)
    to3 = [Conv(3, stem, 3, 2), Conv(stem, 2 * stem, 3, 2), first, AConv(c2, c3), _elan(c3, c3, n)]
    to4 = [AConv(c3, c4), _elan(c4, c4, n)]
    to5 = [AConv(c4, c5), _elan(c5, c5, n), SPPElan(c5, c5, c5 // 2)]
    blocks = [_elan(c5 + c4, c4, n), _elan(c4 + c3, c3, n), _elan(d3 + c4, c4, n), _elan(d4 + c5, c5, n)]
    neck = Pyramid(blocks, [AConv(c3, d3), AConv(c4, d4)])
    return Network(Trunk(to3, to4, to5), neck, Head((c3, c4, c5), form=form))


def compact(form: str = "raw", *, masks: bool = False) -> nn.Module:
    """The c network."""
    to3 = [Conv(3, 64, 3, 2), Conv(64, 128, 3, 2), Elan4(128, 256, 128, 64, 1), ADown(256, 256)]
    to3.append(Elan4(256, 512, 256, 128, 1))
    to4 = [ADown(512, 512), Elan4(512, 512, 512, 256, 1)]
    to5 = [ADown(512, 512), Elan4(512, 512, 512, 256, 1), SPPElan(512, 512, 256)]
    return _wide(Trunk(to3, to4, to5), (512, 512, 512), 1, form, masks=masks)


def _wide(trunk: nn.Module, ch: tuple[int, int, int], n: int, form: str, *, masks: bool) -> nn.Module:
    c3, c4, c5 = ch
    last = Elan4(512 + c5, 512, 1024 if n == 2 else 512, 512 if n == 2 else 256, n)
    blocks = [
        Elan4(c5 + c4, 512, 512, 256, n),
        Elan4(512 + c3, 256, 256, 128, n),
        Elan4(256 + 512, 512, 512, 256, n),
        last,
    ]
    neck = Pyramid(blocks, [ADown(256, 256), ADown(512, 512)])
    head = Head((256, 512, 512), extra=32 if masks else 0, form=form)
    return Network(trunk, neck, head, Proto(256, 256) if masks else None)


class TwinTrunk(nn.Module):
    """The e network's backbone: two branches; the second is fed with sums over every scale of the first."""

    widths = (64, 256, 512, 1024, 1024)
    sums = (64, 128, 256, 512, 1024)

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = self.branch(), self.branch()
        self.links = nn.ModuleList(
            nn.Conv2d(width, sum(self.sums[: index + 1]), 1) for index, width in enumerate(self.widths)
        )
        self.pool = SPPElan(1024, 512, 256)

    @staticmethod
    def branch() -> nn.ModuleList:
        return nn.ModuleList(
            (
                Conv(3, 64, 3, 2),
                nn.Sequential(Conv(64, 128, 3, 2), Elan4(128, 256, 128, 64, 2)),
                nn.Sequential(ADown(256, 256), Elan4(256, 512, 256, 128, 2)),
                nn.Sequential(ADown(512, 512), Elan4(512, 1024, 512, 256, 2)),
                nn.Sequential(ADown(1024, 1024), Elan4(1024, 1024, 512, 256, 2)),
            )
        )

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        linked, y = [], x
        for index, stage in enumerate(self.first):
            y = stage(y)
            linked.append(self.links[index](y).split(self.sums[: index + 1], 1))
        outputs, y = [], x
        for index, stage in enumerate(self.second):
            head, tail = (stage, None) if index == 0 else (stage[0], stage[1])
            y = head(y)
            for deeper in range(index, 5):
                part = linked[deeper][index]
                y = y + (part if deeper == index else nn.functional.interpolate(part, size=y.shape[2:], mode="nearest"))
            y = tail(y) if tail is not None else y
            outputs.append(y)
        return outputs[2], outputs[3], self.pool(outputs[4])


def extended(form: str = "raw", *, masks: bool = False) -> nn.Module:
    """The e network."""
    return _wide(TwinTrunk(), (512, 1024, 512), 2, form, masks=masks)


def specs() -> Iterator[Spec]:
    """Raw maps of every size; decoded boxes where Sophgo publishes them."""
    figures = {"t": (8.2, 2.1), "s": (26.9, 7.2), "m": (76.8, 20.1), "c": (102.7, 25.3), "e": (189.5, 57.4)}
    builds = {**{size: partial(small, size) for size in "tsm"}, "c": compact, "e": extended}
    for size, (gops, mparams) in figures.items():
        yield Spec(f"yolov9{size}-640-raw", "yolo_modern", SOURCE, builds[size], image(640), (), gops, mparams)
    for name, build, (gops, mparams) in (
        ("yolov9s-640", partial(small, "s", "decoded"), figures["s"]),
        ("yolov9c-640", partial(compact, "decoded"), figures["c"]),
        ("yolov9c_seg-640-raw", partial(compact, masks=True), (158.0, 27.7)),
        ("yolov9e_seg-640-raw", partial(extended, masks=True), (244.8, 59.7)),
    ):
        yield Spec(name, "yolo_modern", SOURCE, build, image(640), (), gops, mparams, MASKS if "_seg" in name else "")
