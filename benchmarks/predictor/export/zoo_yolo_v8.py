"""YOLOv8, YOLO11, YOLOv10 and YOLOv5u: detection, segmentation, pose, oriented boxes and classification."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
from spec import Spec, image
from torch import nn
from yolo_blocks import C2PSA, C3, SPPF, C2f, C2fCIB, C2fCIBLarge, C3k2, C3k2Deep, Conv, Pyramid, SCDown, divisible
from yolo_heads import Head, Proto

SOURCE = "own module, published architecture"
SCALES = {
    "v8": {
        "n": (0.33, 0.25, 1024),
        "s": (0.33, 0.5, 1024),
        "m": (0.67, 0.75, 768),
        "l": (1, 1, 512),
        "x": (1, 1.25, 512),
    },
    "v10": {
        "n": (0.33, 0.25, 1024),
        "s": (0.33, 0.5, 1024),
        "m": (0.67, 0.75, 768),
        "b": (0.67, 1, 512),
        "l": (1, 1, 512),
        "x": (1, 1.25, 512),
    },
    "11": {"n": (0.5, 0.25, 1024), "s": (0.5, 0.5, 1024), "m": (0.5, 1, 512), "l": (1, 1, 512), "x": (1, 1.5, 512)},
    "v5": {
        "n": (0.33, 0.25, 1024),
        "s": (0.33, 0.5, 1024),
        "m": (0.67, 0.75, 1024),
        "l": (1, 1, 1024),
        "x": (1.33, 1.25, 1024),
    },
}


class Scale:
    """Depth and width multipliers of one model size."""

    def __init__(self, depth: float, width: float, limit: int) -> None:
        self.depth, self.width, self.limit = depth, width, limit

    def c(self, channels: int) -> int:
        return divisible(min(channels, self.limit) * self.width)

    def n(self, repeats: int) -> int:
        return max(round(repeats * self.depth), 1)


class Trunk(nn.Module):
    """Five strided stages; answers P3, P4 and P5."""

    def __init__(self, to3: list[nn.Module], to4: list[nn.Module], to5: list[nn.Module]) -> None:
        super().__init__()
        self.to3, self.to4, self.to5 = nn.Sequential(*to3), nn.Sequential(*to4), nn.Sequential(*to5)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        p3 = self.to3(x)
        p4 = self.to4(p3)
        return p3, p4, self.to5(p4)


class Network(nn.Module):
    """Trunk, neck and head; with mask prototypes when `proto` is given."""

    def __init__(self, trunk: Trunk, neck: nn.Module, head: nn.Module, proto: nn.Module | None = None) -> None:
        super().__init__()
        self.trunk, self.neck, self.head, self.proto = trunk, neck, head, proto

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = self.neck(*self.trunk(x))
        outputs = self.head(features)
        if self.proto is not None:
            outputs = [*outputs, self.proto(features[0])]
        return tuple(outputs)


class Classifier(nn.Module):
    """Trunk, 1280-channel pooling and 1000 classes."""

    def __init__(self, trunk: nn.Module, cin: int) -> None:
        super().__init__()
        self.trunk, self.conv, self.fc = trunk, Conv(cin, 1280), nn.Linear(1280, 1000)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.conv(self.trunk(x))
        return self.fc(nn.functional.adaptive_avg_pool2d(x, 1).flatten(1)).softmax(1)


def v8_trunk(s: Scale, *, sppf: bool = True) -> Trunk:
    c, n = s.c, s.n
    stem = [Conv(3, c(64), 3, 2), Conv(c(64), c(128), 3, 2), C2f(c(128), c(128), n(3), add=True)]
    to3 = [*stem, Conv(c(128), c(256), 3, 2), C2f(c(256), c(256), n(6), add=True)]
    to4 = [Conv(c(256), c(512), 3, 2), C2f(c(512), c(512), n(6), add=True)]
    to5 = [Conv(c(512), c(1024), 3, 2), C2f(c(1024), c(1024), n(3), add=True)]
    return Trunk(to3, to4, [*to5, SPPF(c(1024), c(1024))] if sppf else to5)


def v8_neck(s: Scale) -> Pyramid:
    c, n = s.c, s.n
    blocks = [
        C2f(c(1024) + c(512), c(512), n(3), add=False),
        C2f(c(512) + c(256), c(256), n(3), add=False),
        C2f(c(256) + c(512), c(512), n(3), add=False),
        C2f(c(512) + c(1024), c(1024), n(3), add=False),
    ]
    return Pyramid(blocks, [Conv(c(256), c(256), 3, 2), Conv(c(512), c(512), 3, 2)])


def v11_trunk(s: Scale, size: str, *, sppf: bool = True) -> Trunk:
    c, n = s.c, s.n
    plain = C3k2Deep if size in "mlx" else C3k2
    stem = [Conv(3, c(64), 3, 2), Conv(c(64), c(128), 3, 2), plain(c(128), c(256), n(2), add=True, e=0.25)]
    to3 = [*stem, Conv(c(256), c(256), 3, 2), plain(c(256), c(512), n(2), add=True, e=0.25)]
    to4 = [Conv(c(512), c(512), 3, 2), C3k2Deep(c(512), c(512), n(2), add=True)]
    to5: list[nn.Module] = [Conv(c(512), c(1024), 3, 2), C3k2Deep(c(1024), c(1024), n(2), add=True)]
    return Trunk(to3, to4, [*to5, *([SPPF(c(1024), c(1024))] if sppf else []), C2PSA(c(1024), n(2))])


def v11_neck(s: Scale, size: str) -> Pyramid:
    c, n = s.c, s.n
    plain = C3k2Deep if size in "mlx" else C3k2
    blocks = [
        plain(c(1024) + c(512), c(512), n(2), add=True),
        plain(c(512) + c(512), c(256), n(2), add=True),
        plain(c(256) + c(512), c(512), n(2), add=True),
        C3k2Deep(c(512) + c(1024), c(1024), n(2), add=True),
    ]
    return Pyramid(blocks, [Conv(c(256), c(256), 3, 2), Conv(c(512), c(512), 3, 2)])


def v10(size: str, form: str = "raw") -> Network:
    s = Scale(*SCALES["v10"][size])
    c, n = s.c, s.n
    last = {"n": C2f, "s": C2fCIBLarge}.get(size, C2fCIB)
    middle = C2fCIB if size == "x" else C2f
    stem = [Conv(3, c(64), 3, 2), Conv(c(64), c(128), 3, 2), C2f(c(128), c(128), n(3), add=True)]
    to3 = [*stem, Conv(c(128), c(256), 3, 2), C2f(c(256), c(256), n(6), add=True)]
    to4 = [SCDown(c(256), c(512)), middle(c(512), c(512), n(6), add=True)]
    to5 = [SCDown(c(512), c(1024)), last(c(1024), c(1024), n(3), add=True), SPPF(c(1024), c(1024)), C2PSA(c(1024), 1)]
    top4 = C2fCIB if size in "blx" else C2f
    out4 = C2fCIB if size in "mblx" else C2f
    out5 = C2fCIBLarge if size in "ns" else C2fCIB
    blocks = [
        top4(c(1024) + c(512), c(512), n(3), add=top4 is not C2f),
        C2f(c(512) + c(256), c(256), n(3), add=False),
        out4(c(256) + c(512), c(512), n(3), add=out4 is not C2f),
        out5(c(512) + c(1024), c(1024), n(3), add=True),
    ]
    neck = Pyramid(blocks, [Conv(c(256), c(256), 3, 2), SCDown(c(512), c(512))])
    return Network(Trunk(to3, to4, to5), neck, Head((c(256), c(512), c(1024)), light=True, form=form))


def v5_trunk(s: Scale) -> Trunk:
    c, n = s.c, s.n
    stem = [Conv(3, c(64), 6, 2), Conv(c(64), c(128), 3, 2), C3(c(128), c(128), n(3), add=True)]
    stem[0][0].padding = (2, 2)
    to3 = [*stem, Conv(c(128), c(256), 3, 2), C3(c(256), c(256), n(6), add=True)]
    to4 = [Conv(c(256), c(512), 3, 2), C3(c(512), c(512), n(9), add=True)]
    to5 = [Conv(c(512), c(1024), 3, 2), C3(c(1024), c(1024), n(3), add=True), SPPF(c(1024), c(1024))]
    return Trunk(to3, to4, to5)


class V5Neck(nn.Module):
    """YOLOv5's neck: 1x1 convolutions before both upsamplings."""

    def __init__(self, s: Scale) -> None:
        super().__init__()
        c, n = s.c, s.n
        self.r5, self.r4 = Conv(c(1024), c(512)), Conv(c(512), c(256))
        self.t4, self.t3 = C3(c(1024), c(512), n(3), add=False), C3(c(512), c(256), n(3), add=False)
        self.d3, self.d4 = Conv(c(256), c(256), 3, 2), Conv(c(512), c(512), 3, 2)
        self.o4, self.o5 = C3(c(512), c(512), n(3), add=False), C3(c(1024), c(1024), n(3), add=False)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, p3: torch.Tensor, p4: torch.Tensor, p5: torch.Tensor) -> list[torch.Tensor]:
        r5 = self.r5(p5)
        r4 = self.r4(self.t4(torch.cat((self.up(r5), p4), 1)))
        o3 = self.t3(torch.cat((self.up(r4), p3), 1))
        o4 = self.o4(torch.cat((self.d3(o3), r4), 1))
        return [o3, o4, self.o5(torch.cat((self.d4(o4), r5), 1))]


def modern(kind: str, size: str, task: str = "", *, form: str = "raw", side: int = 640, nc: int = 80) -> nn.Module:
    """YOLOv8, YOLO11 or YOLOv5u of one size and task."""
    s = Scale(*SCALES[kind][size])
    parts = {
        "v8": lambda: (v8_trunk(s), v8_neck(s)),
        "11": lambda: (v11_trunk(s, size), v11_neck(s, size)),
        "v5": lambda: (v5_trunk(s), V5Neck(s)),
    }
    trunk, neck = parts[kind]()
    ch = (s.c(256), s.c(512), s.c(1024))
    extra = {"seg": 32, "pose": 51, "obb": 1}.get(task, 0)
    head = Head(ch, nc, light=kind == "11", extra=extra, side=side, form=form)
    return Network(trunk, neck, head, Proto(ch[0], s.c(256)) if task == "seg" else None)


def classifier(kind: str, size: str) -> nn.Module:
    depth, width, limit = SCALES[kind][size]
    s = Scale(depth, width, 1024 if kind == "v8" else limit)
    trunk = v8_trunk(s, sppf=False) if kind == "v8" else v11_trunk(s, size, sppf=False)
    return Classifier(nn.Sequential(trunk.to3, trunk.to4, trunk.to5), s.c(1024))


# published GFLOPs (2 x GMACs) and M parameters at 640, from the vendors' tables
_DETECT = {
    "v8": ((8.7, 3.2), (28.6, 11.2), (78.9, 25.9), (165.2, 43.7), (257.8, 68.2)),
    "11": ((6.5, 2.6), (21.5, 9.4), (68.0, 20.1), (86.9, 25.3), (194.9, 56.9)),
    "v5": ((7.7, 2.6), (24.0, 9.1), (64.2, 25.1), (135.0, 53.2), (246.4, 97.2)),
}
_SEGMENT = {
    "v8": ((12.6, 3.4), (42.6, 11.8), (110.2, 27.3), (220.5, 46.0), (344.1, 71.8)),
    "11": ((10.4, 2.9), (35.5, 10.1), (123.3, 22.4), (142.2, 27.6), (319.0, 62.1)),
}
_POSE = {
    "v8": ((9.2, 3.3), (30.2, 11.6), (81.0, 26.4), (168.6, 44.4), (263.2, 69.4)),
    "11": ((7.6, 2.9), (23.2, 9.9), (71.7, 20.9), (90.7, 26.2), (203.3, 58.8)),
}
_CLASSIFY = {  # published GFLOPs are for 640 pixels; the graphs are at 224
    "v8": (2.7, 6.4, 17.0, 37.5, 57.4),
    "11": (2.8, 6.7, 11.6, 14.1, 29.6),
}
_V10 = {"n": (6.7, 2.3), "s": (21.6, 7.2), "m": (59.1, 15.4), "b": (92.0, 19.1), "l": (120.3, 24.4), "x": (160.4, 29.5)}


MASKS = "published figure counts the transposed convolution of the masks four times"


def _spec(name: str, build: partial, side: int, figures: tuple[float | None, float | None]) -> Spec:
    gops, mparams = figures
    note = MASKS if "_seg" in name else ""
    return Spec(name, "yolo_modern", SOURCE, build, image(side), (), gops, mparams, note)


def specs() -> Iterator[Spec]:
    """Every size without decoding; the sizes that vendors publish with decoding also in that form."""
    for kind, letter in (("v8", "yolov8"), ("11", "yolo11"), ("v5", "yolov5")):
        tail = "u" if kind == "v5" else ""
        for size, figures in zip("nsmlx", _DETECT[kind], strict=True):
            yield _spec(f"{letter}{size}{tail}-640-raw", partial(modern, kind, size), 640, figures)
            if size == "s" and kind != "v5":
                yield _spec(f"{letter}{size}-640", partial(modern, kind, size, form="decoded"), 640, figures)
        for task, table in (("seg", _SEGMENT), ("pose", _POSE)):
            for size, figures in zip("nsmlx", table.get(kind, ()), strict=False):
                nc = 1 if task == "pose" else 80
                build = partial(modern, kind, size, task, nc=nc)
                yield _spec(f"{letter}{size}_{task}-640-raw", build, 640, figures)
        for size, mparams in zip("nsmlx", _CLASSIFY.get(kind, ()), strict=False):
            yield _spec(f"{letter}{size}_cls-224", partial(classifier, kind, size), 224, (None, mparams))
    for size, figures in _V10.items():
        yield _spec(f"yolov10{size}-640-raw", partial(v10, size), 640, figures)
    yield _spec("yolov10s-640", partial(v10, "s", "decoded"), 640, _V10["s"])
    yield _spec("yolov8s_pose-640", partial(modern, "v8", "s", "pose", form="decoded", nc=1), 640, _POSE["v8"][1])
    yield _spec("yolov8n_obb-640-raw", partial(modern, "v8", "n", "obb", nc=15), 640, (None, 3.1))
    yield from _hub()
    for side in (192, 256, 320, 416):
        build = partial(modern, "v8", "n", form="decoded", side=side, nc=1)
        yield _spec(f"yolov8n_person-{side}", build, side, (None, None))
    build = partial(modern, "11", "n", form="decoded", side=256, nc=1)
    yield _spec("yolo11n_person-256", build, 256, (None, None))


def _hub() -> Iterator[Spec]:
    """The forms of Qualcomm AI Hub: decoded boxes and the best class of each."""
    yield _spec("yolov10n-640-hub", partial(v10, "n", "hub"), 640, _V10["n"])
    for kind, name, size, at in (("v8", "yolov8n", "n", 0), ("11", "yolo11n", "n", 0), ("v5", "yolov5mu", "m", 2)):
        yield _spec(f"{name}-640-hub", partial(modern, kind, size, form="hub"), 640, _DETECT[kind][at])
    for kind, name in (("v8", "yolov8n_seg"), ("11", "yolo11n_seg")):
        build = partial(modern, kind, "n", "seg", form="hub")
        yield _spec(f"{name}-640-hub", build, 640, _SEGMENT[kind][0])
