"""Detection heads of the YOLO networks, with and without the box decoding."""

from __future__ import annotations

import torch
from torch import nn
from yolo_blocks import Conv

STRIDES = (8, 16, 32)


def _anchors(side: int, steps: tuple[int, ...]) -> tuple[torch.Tensor, torch.Tensor]:
    points, strides = [], []
    for stride in steps:
        axis = torch.arange(side // stride) + 0.5
        y, x = torch.meshgrid(axis, axis, indexing="ij")
        points.append(torch.stack((x.flatten(), y.flatten())))
        strides.append(torch.full((1, points[-1].shape[1]), float(stride)))
    return torch.cat(points, 1)[None], torch.cat(strides, 1)[None]


def best_class(box: torch.Tensor, score: torch.Tensor) -> list[torch.Tensor]:
    """From centre boxes and class scores to corner boxes, the best score and its class."""
    centre, half = box[..., :2], box[..., 2:] / 2
    top, index = score.max(-1)
    return [torch.cat((centre - half, centre + half), -1), top, index.to(torch.int32)]


class Head(nn.Module):
    """Decoupled head with 16-bin box distances (YOLOv8 and later).

    The form is `raw` (convolutions only), `decoded` (boxes and scores) or `hub` (decoded, best class per box).
    """

    def __init__(
        self,
        ch: tuple[int, ...],
        nc: int = 80,
        *,
        light: bool = False,
        extra: int = 0,
        side: int = 640,
        form: str = "raw",
    ) -> None:
        super().__init__()
        c2, c3 = max(16, ch[0] // 4, 64), max(ch[0], min(nc, 100))
        self.nc, self.form = nc, form
        self.box = nn.ModuleList(nn.Sequential(Conv(c, c2, 3), Conv(c2, c2, 3), nn.Conv2d(c2, 64, 1)) for c in ch)
        self.cls = nn.ModuleList(_light_cls(c, c3, nc) if light else _cls(c, c3, nc) for c in ch)
        c4 = max(ch[0] // 4, extra)
        branches = (nn.Sequential(Conv(c, c4, 3), Conv(c4, c4, 3), nn.Conv2d(c4, extra, 1)) for c in ch)
        self.extra = nn.ModuleList(branches if extra else ())
        points, strides = _anchors(side, STRIDES[-len(ch) :])
        self.register_buffer("points", points)
        self.register_buffer("strides", strides)
        self.register_buffer("bins", torch.arange(16.0).view(1, 16, 1, 1))

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        boxes = [branch(f) for branch, f in zip(self.box, features, strict=True)]
        scores = [branch(f) for branch, f in zip(self.cls, features, strict=True)]
        extras = [branch(f) for branch, f in zip(self.extra, features, strict=False)]
        if self.form == "raw":
            return [*boxes, *scores, *extras]
        if self.form == "hub":
            box, score = (torch.cat([part.flatten(2) for part in parts], 2) for parts in (boxes, scores))
            return self.best(self.decode(box), score.sigmoid(), extras)
        merged = torch.cat([torch.cat(pair, 1).flatten(2) for pair in zip(boxes, scores, strict=True)], 2)
        box, score = merged.split((64, self.nc), 1)
        flat = [torch.cat([extra.flatten(2) for extra in extras], 2)] if extras else []
        return [self.decode(box), score.sigmoid(), *flat]

    @staticmethod
    def best(box: torch.Tensor, score: torch.Tensor, extras: list[torch.Tensor]) -> list[torch.Tensor]:
        """Corner boxes and the best class of each, as Qualcomm AI Hub exports them."""
        flat = [torch.cat([extra.flatten(2) for extra in extras], 2).permute(0, 2, 1)] if extras else []
        return [*best_class(box.permute(0, 2, 1), score.permute(0, 2, 1)), *flat]

    def decode(self, box: torch.Tensor) -> torch.Tensor:
        """Expected distance per side, then centre and size in pixels."""
        bins = box.view(1, 4, 16, -1).transpose(2, 1).softmax(1)
        weight = self.bins.view(1, 16, 1, 1)
        sides = nn.functional.conv2d(bins, weight).view(1, 4, -1)
        near, far = sides.chunk(2, 1)
        low, high = self.points - near, self.points + far
        return torch.cat(((low + high) / 2, high - low), 1) * self.strides


def _cls(c: int, c3: int, nc: int) -> nn.Sequential:
    return nn.Sequential(Conv(c, c3, 3), Conv(c3, c3, 3), nn.Conv2d(c3, nc, 1))


def _light_cls(c: int, c3: int, nc: int) -> nn.Sequential:
    first = nn.Sequential(Conv(c, c, 3, g=c), Conv(c, c3))
    return nn.Sequential(first, Conv(c3, c3, 3, g=c3), Conv(c3, c3), nn.Conv2d(c3, nc, 1))


class Proto(nn.Sequential):
    """Mask prototypes: 32 maps at twice the resolution of P3."""

    def __init__(self, cin: int, mid: int, *, nearest: bool = False) -> None:
        up = nn.Upsample(scale_factor=2, mode="nearest") if nearest else nn.ConvTranspose2d(mid, mid, 2, 2)
        super().__init__(Conv(cin, mid, 3), up, Conv(mid, mid, 3), Conv(mid, 32))


class AnchorHead(nn.Module):
    """Three anchors per cell, one 1x1 convolution per scale (YOLOv3 to v7); raw maps or decoded boxes."""

    def __init__(self, ch: tuple[int, ...], outputs: int = 85, *, form: str = "raw", side: int = 640) -> None:
        super().__init__()
        self.form, self.outputs = form, outputs
        self.m = nn.ModuleList(nn.Conv2d(c, 3 * outputs, 1) for c in ch)
        for index in range(len(ch)):
            cells = side // STRIDES[index]
            self.register_buffer(f"grid{index}", torch.zeros(1, 3, cells, cells, 2))
            self.register_buffer(f"size{index}", torch.ones(1, 3, cells, cells, 2))

    def forward(self, features: list[torch.Tensor]) -> list[torch.Tensor]:
        maps = [conv(f) for conv, f in zip(self.m, features, strict=True)]
        if self.form == "raw":
            return maps
        parts = [self.decode(index, x) for index, x in enumerate(maps)]
        if self.form == "decoded":
            return [torch.cat([torch.cat(part, -1) for part in parts], 1)]
        xy, wh, rest = (torch.cat(group, 1) for group in zip(*parts, strict=True))
        conf, classes = rest.split((1, self.outputs - 5), -1)
        box, top, index = best_class(torch.cat((xy, wh), -1), classes)
        return [box, top * conf.squeeze(-1), index]

    def decode(self, index: int, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Sigmoid, then cell offset and anchor size, as YOLOv5 does."""
        _, _, h, w = x.shape
        y = x.view(1, 3, self.outputs, h, w).permute(0, 1, 3, 4, 2).sigmoid()
        xy, wh, rest = y.split((2, 2, self.outputs - 4), 4)
        xy = (xy * 2 + getattr(self, f"grid{index}")) * float(STRIDES[index])
        wh = (wh * 2) ** 2 * getattr(self, f"size{index}")
        return tuple(part.reshape(1, 3 * h * w, -1) for part in (xy, wh, rest))
