"""YOLOv5 with its anchor head, and YOLOX."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from hub import Hub
from spec import Spec, image
from torch import nn
from yolo_blocks import C3, Conv
from yolo_heads import STRIDES, AnchorHead, Proto, best_class
from zoo_yolo_v8 import SCALES, SOURCE, Network, Scale, Trunk, V5Neck, v5_trunk


def v5(size: str, *, form: str = "raw", masks: bool = False, relu: bool = False) -> nn.Module:
    """YOLOv5 release 6; with masks: 32 coefficients per anchor and the prototypes."""
    s = Scale(*SCALES["v5"][size])
    head = AnchorHead((s.c(256), s.c(512), s.c(1024)), 117 if masks else 85, form=form)
    proto = Proto(s.c(256), s.c(256), nearest=True) if masks else None
    network = Network(v5_trunk(s), V5Neck(s), head, proto)
    return _relu(network) if relu else network


def _relu(network: nn.Module) -> nn.Module:
    for module in network.modules():
        for name, child in module.named_children():
            if isinstance(child, nn.SiLU):
                setattr(module, name, nn.ReLU())
    return network


class Focus(nn.Module):
    """Four sub-sampled copies side by side, then a convolution."""

    def __init__(self, cout: int) -> None:
        super().__init__()
        self.conv = Conv(12, cout, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = (x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2])
        return self.conv(torch.cat(parts, 1))


class SPP(nn.Module):
    """Parallel poolings of 5, 9 and 13."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.cv1, self.cv2 = Conv(c, c // 2), Conv(2 * c, c)
        self.pools = nn.ModuleList(nn.MaxPool2d(k, 1, k // 2) for k in (5, 9, 13))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.cv1(x)
        return self.cv2(torch.cat([x, *(pool(x) for pool in self.pools)], 1))


class XHead(nn.Module):
    """YOLOX head: stem, two convolutions per branch, class, box and objectness maps."""

    def __init__(self, ch: tuple[int, ...], mid: int, form: str) -> None:
        super().__init__()
        self.form = form
        self.stem = nn.ModuleList(Conv(c, mid) for c in ch)
        self.cls = nn.ModuleList(nn.Sequential(Conv(mid, mid, 3), Conv(mid, mid, 3)) for _ in ch)
        self.reg = nn.ModuleList(nn.Sequential(Conv(mid, mid, 3), Conv(mid, mid, 3)) for _ in ch)
        self.score = nn.ModuleList(nn.Conv2d(mid, 80, 1) for _ in ch)
        self.box = nn.ModuleList(nn.Conv2d(mid, 4, 1) for _ in ch)
        self.obj = nn.ModuleList(nn.Conv2d(mid, 1, 1) for _ in ch)
        self.register_buffer("grid", torch.zeros(1, 8400, 2))
        self.register_buffer("step", torch.cat([torch.full((1, (640 // s) ** 2, 1), float(s)) for s in STRIDES], 1))

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        outputs = []
        for index, feature in enumerate(features):
            x = self.stem[index](feature)
            score, reg = self.score[index](self.cls[index](x)), self.reg[index](x)
            outputs.append((self.box[index](reg), self.obj[index](reg).sigmoid(), score.sigmoid()))
        if self.form == "raw":
            return [torch.cat(parts, 1) for parts in outputs]
        if self.form == "decoded":
            merged = torch.cat([torch.cat(parts, 1).flatten(2) for parts in outputs], 2).permute(0, 2, 1)
            return [merged]
        box = torch.cat([parts[0].flatten(2) for parts in outputs], 2).permute(0, 2, 1)
        scores = torch.cat([torch.cat(parts[1:], 1).flatten(2) for parts in outputs], 2).permute(0, 2, 1)
        centre, size = (box[..., :2] + self.grid) * self.step, box[..., 2:].exp() * self.step
        conf, classes = scores.split((1, 80), -1)
        corners, top, index = best_class(torch.cat((centre, size), -1), classes)
        return [corners, top * conf.squeeze(-1), index]


def yolox(size: str, form: str = "raw") -> nn.Module:
    """YOLOX: Focus stem, CSP backbone and the neck of YOLOv5."""
    s = Scale(*SCALES["v5"][size])
    c, n = s.c, s.n
    to3 = [Focus(c(64)), Conv(c(64), c(128), 3, 2), C3(c(128), c(128), n(3), add=True)]
    to3 += [Conv(c(128), c(256), 3, 2), C3(c(256), c(256), n(9), add=True)]
    to4 = [Conv(c(256), c(512), 3, 2), C3(c(512), c(512), n(9), add=True)]
    to5 = [Conv(c(512), c(1024), 3, 2), SPP(c(1024)), C3(c(1024), c(1024), n(3), add=False)]
    head = XHead((c(256), c(512), c(1024)), c(256), form)
    return Network(Trunk(to3, to4, to5), V5Neck(s), head)


def _yolox_hub(size: str) -> nn.Module:
    return Hub(yolox(size, "hub"), "bytes")


_V5 = {"n": (4.5, 1.9), "s": (16.5, 7.2), "m": (49.0, 21.2)}
_MASKS = {"n": (7.1, 2.0), "s": (26.4, 7.6), "m": (70.8, 22.0)}
_X = {"s": (26.8, 9.0), "m": (73.8, 25.3)}


def _spec(name: str, build: partial, figures: tuple[float | None, float | None]) -> Spec:
    return Spec(name, "yolo_modern", SOURCE, build, image(640), (), figures[0], figures[1])


def specs() -> Iterator[Spec]:
    """Sizes n, s and m."""
    for size, figures in _V5.items():
        yield _spec(f"yolov5{size}-640-raw", partial(v5, size), figures)
        yield _spec(f"yolov5{size}_seg-640-raw", partial(v5, size, masks=True), _MASKS[size])
    yield _spec("yolov5s_relu-640-raw", partial(v5, "s", relu=True), _V5["s"])
    for size, figures in _X.items():
        yield _spec(f"yolox_{size}-640-raw", partial(yolox, size), figures)
    yield _spec("yolox_s-640", partial(yolox, "s", "decoded"), _X["s"])
    yield _spec("yolox_s-640-hub", partial(_yolox_hub, "s"), _X["s"])
