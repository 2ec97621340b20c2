"""Detectors, faces, body pose, video and re-identification from their published descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torchvision
from spec import Shape, Spec, image
from torch import nn
from zoo_classic import _BLOCKS, SOURCE, _conv


class SSD(nn.Module):
    """Single-shot detector over two backbone maps and four extra ones, box and class convolution per map."""

    def __init__(
        self, parts: tuple[nn.Module, nn.Module], widths: tuple[int, int], k: int, classes: int, lite: bool
    ) -> None:
        super().__init__()
        self.trunk = nn.ModuleList(parts)
        cins = (widths[1], 512, 256, 256)
        self.extras = nn.ModuleList(_extra(cin, c, lite) for cin, c in zip(cins, (512, 256, 256, 128), strict=True))
        maps = (*widths, 512, 256, 256, 128)
        anchors = (3, 6, 6, 6, 6, 6)
        self.boxes = nn.ModuleList(_predict(c, 4 * n, k, lite) for c, n in zip(maps, anchors, strict=True))
        self.scores = nn.ModuleList(_predict(c, classes * n, k, lite) for c, n in zip(maps, anchors, strict=True))
        self.classes = classes

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        features: list[torch.Tensor] = []
        for part in (*self.trunk, *self.extras):
            x = part(x)
            if isinstance(x, tuple):
                x, tap = x
                features.append(tap)
            else:
                features.append(x)
        boxes = [_rows(conv(f), 4) for conv, f in zip(self.boxes, features, strict=True)]
        scores = [_rows(conv(f), self.classes) for conv, f in zip(self.scores, features, strict=True)]
        return torch.cat(boxes, 1), torch.cat(scores, 1).sigmoid()


def _rows(x: torch.Tensor, width: int) -> torch.Tensor:
    return x.permute(0, 2, 3, 1).reshape(1, -1, width)


def _extra(cin: int, c: int, lite: bool) -> nn.Sequential:
    if lite:
        return nn.Sequential(_conv(cin, c // 2, 1, 1), _conv(c // 2, c // 2, 3, 2, c // 2), _conv(c // 2, c, 1, 1))
    return nn.Sequential(_conv(cin, c // 2, 1, 1), _conv(c // 2, c, 3, 2))


def _predict(cin: int, cout: int, k: int, lite: bool) -> nn.Module:
    if lite:
        return nn.Sequential(_conv(cin, cin, 3, 1, cin), nn.Conv2d(cin, cout, 1))
    return nn.Conv2d(cin, cout, k, 1, k // 2)


def ssd_v1(classes: int) -> nn.Module:
    """SSD MobileNetV1 of the TensorFlow object detection API (1x1 predictors)."""
    layers, width = [_conv(3, 32, 3, 2)], 32
    for cout, stride in _BLOCKS:
        layers.append(nn.Sequential(_conv(width, width, 3, stride, width), _conv(width, cout, 1, 1)))
        width = cout
    return SSD((nn.Sequential(*layers[:12]), nn.Sequential(*layers[12:])), (512, 1024), 1, classes, lite=False)


class Tapped(nn.Module):
    """MobileNetV2 up to the expansion of its 14th block, which is the first detection map."""

    def __init__(self, layers: list[nn.Module]) -> None:
        super().__init__()
        self.before, self.expand = nn.Sequential(*layers[:14]), layers[14].conv[0]
        self.rest = nn.Sequential(*list(layers[14].conv.children())[1:])

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        tap = self.expand(self.before(x))
        return self.rest(tap), tap


def ssd_v2(classes: int, *, lite: bool) -> nn.Module:
    """SSD and SSDLite MobileNetV2 (3x3 or separable predictors)."""
    layers = list(torchvision.models.mobilenet_v2(weights=None).features.children())
    return SSD((Tapped(layers), nn.Sequential(*layers[15:])), (576, 1280), 3, classes, lite)


def effdet(name: str) -> nn.Module:
    """EfficientDet-Lite from the effdet package (Apache-2.0)."""
    from effdet import create_model  # noqa: PLC0415 - needed for three graphs only

    network = create_model(name, bench_task="", pretrained=False, pretrained_backbone=False)
    return Levels(network)


class Levels(nn.Module):
    """The class and box maps of every level."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        scores, boxes = self.network(x)
        return (*scores, *boxes)


def leaky(cin: int, cout: int, k: int = 3, s: int = 1, g: int = 1, *, act: bool = True) -> nn.Sequential:
    conv = nn.Conv2d(cin, cout, k, s, k // 2, groups=g, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.LeakyReLU(0.1) if act else nn.Identity())


class SSH(nn.Module):
    """RetinaFace's context module."""

    def __init__(self, c: int) -> None:
        super().__init__()
        q = c // 4
        self.three, self.five1, self.five2 = leaky(c, c // 2, act=False), leaky(c, q), leaky(q, q, act=False)
        self.seven2, self.seven3 = leaky(q, q), leaky(q, q, act=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        y = self.five1(x)
        return torch.relu(torch.cat((self.three(x), self.five2(y), self.seven3(self.seven2(y))), 1))


class RetinaFace(nn.Module):
    """Backbone stages, feature pyramid, context modules and three heads."""

    def __init__(self, stages: list[nn.Module], widths: tuple[int, int, int], c: int) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)
        self.lateral = nn.ModuleList(leaky(width, c, 1) for width in widths)
        self.merge = nn.ModuleList((leaky(c, c), leaky(c, c)))
        self.ssh = nn.ModuleList(SSH(c) for _ in widths)
        self.heads = nn.ModuleList(nn.ModuleList(nn.Conv2d(c, 2 * n, 1) for _ in widths) for n in (4, 2, 10))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        features = []
        for stage, lateral in zip(self.stages, self.lateral, strict=True):
            x = stage(x)
            features.append(lateral(x))
        low, mid, high = features
        mid = self.merge[1](mid + nn.functional.interpolate(high, size=mid.shape[2:], mode="nearest"))
        low = self.merge[0](low + nn.functional.interpolate(mid, size=low.shape[2:], mode="nearest"))
        maps = [ssh(f) for ssh, f in zip(self.ssh, (low, mid, high), strict=True)]
        box, score, points = (
            torch.cat([_rows(conv(f), n) for conv, f in zip(convs, maps, strict=True)], 1)
            for convs, n in zip(self.heads, (4, 2, 10), strict=True)
        )
        return box, score.softmax(-1), points


def retinaface_mobile() -> nn.Module:
    def block(cin: int, cout: int, s: int) -> nn.Sequential:
        return nn.Sequential(leaky(cin, cin, 3, s, cin), leaky(cin, cout, 1))

    first = nn.Sequential(
        leaky(3, 8, 3, 2), block(8, 16, 1), block(16, 32, 2), block(32, 32, 1), block(32, 64, 2), block(64, 64, 1)
    )
    second = nn.Sequential(block(64, 128, 2), *(block(128, 128, 1) for _ in range(5)))
    third = nn.Sequential(block(128, 256, 2), block(256, 256, 1))
    return RetinaFace([first, second, third], (64, 128, 256), 64)


def retinaface_resnet() -> nn.Module:
    net = torchvision.models.resnet50(weights=None)
    first = nn.Sequential(net.conv1, net.bn1, net.relu, net.maxpool, net.layer1, net.layer2)
    return RetinaFace([first, net.layer3, net.layer4], (512, 1024, 2048), 256)


class OpenPose(nn.Module):
    """VGG-19 front and six two-branch stages (COCO, 18 joints)."""

    def __init__(self) -> None:
        super().__init__()
        features = torchvision.models.vgg19(weights=None).features[:23]
        self.front = nn.Sequential(*features, *self.relu(512, 256, 3), *self.relu(256, 128, 3))
        self.first = nn.ModuleList(self.stage(128, 3, 3, 512, out) for out in (38, 19))
        self.later = nn.ModuleList(nn.ModuleList(self.stage(185, 7, 5, 128, out) for out in (38, 19)) for _ in range(5))

    @staticmethod
    def relu(cin: int, cout: int, k: int) -> tuple[nn.Module, nn.Module]:
        return nn.Conv2d(cin, cout, k, 1, k // 2), nn.ReLU()

    def stage(self, cin: int, k: int, n: int, wide: int, out: int) -> nn.Sequential:
        layers = [layer for i in range(n) for layer in self.relu(cin if i == 0 else 128, 128, k)]
        return nn.Sequential(*layers, *self.relu(128, wide, 1), nn.Conv2d(wide, out, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        front = self.front(x)
        maps = [branch(front) for branch in self.first]
        for stage in self.later:
            both = torch.cat((*maps, front), 1)
            maps = [branch(both) for branch in stage]
        return torch.cat(maps, 1)


def c3d() -> nn.Module:
    """C3D on 16 frames, 101 classes."""
    layers: list[nn.Module] = []
    cin = 3
    for index, (c, n) in enumerate(((64, 1), (128, 1), (256, 2), (512, 2), (512, 2))):
        for _ in range(n):
            layers += [nn.Conv3d(cin, c, 3, 1, 1), nn.ReLU()]
            cin = c
        k = (1, 2, 2) if index == 0 else (2, 2, 2)
        layers.append(nn.MaxPool3d(k, k, (0, 1, 1) if index == 4 else 0))
    dense = (nn.Linear(8192, 4096), nn.ReLU(), nn.Linear(4096, 4096), nn.ReLU(), nn.Linear(4096, 101))
    return nn.Sequential(*layers, nn.Flatten(), *dense)


class FaceUnit(nn.Module):
    """Two PReLU convolutions with a shortcut."""

    def __init__(self, c: int) -> None:
        super().__init__()
        self.m = nn.Sequential(nn.Conv2d(c, c, 3, 1, 1), nn.PReLU(c), nn.Conv2d(c, c, 3, 1, 1), nn.PReLU(c))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x + self.m(x)


def sphereface(units: tuple[int, int, int, int]) -> nn.Module:
    """SphereFace: a strided convolution and `units` residual units per stage."""
    layers: list[nn.Module] = []
    cin = 3
    for c, n in zip((64, 128, 256, 512), units, strict=True):
        layers += [nn.Conv2d(cin, c, 3, 2, 1), nn.PReLU(c), *(FaceUnit(c) for _ in range(n))]
        cin = c
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(512 * 7 * 6, 512))


def specs() -> Iterator[Spec]:
    """Detectors and the rest."""
    clip: tuple[Shape, ...] = ((1, 3, 16, 112, 112),)
    small = image(300)
    tail = "without the non-maximum suppression"
    rows = (
        ("ssd_mobilenet_v1-300", "ssd", partial(ssd_v1, 91), small, 2.47, 6.8, tail),
        (
            "ssd_mobilenet_v2-300",
            "ssd",
            partial(ssd_v2, 91, lite=False),
            small,
            3.75,
            16.9,
            tail + "; the parameter gap is in the last maps' layers",
        ),
        ("ssdlite_mobilenet_v2-300", "ssd", partial(ssd_v2, 91, lite=True), small, 1.5, 4.5, tail),
        ("ssd_mobilenet_v2_face-320", "ssd", partial(ssd_v2, 2, lite=False), image(320), None, None, tail),
        ("retinaface_mobile025-320", "retinaface", retinaface_mobile, image(320), None, 0.43, ""),
        ("retinaface_mobile025-640", "retinaface", retinaface_mobile, image(640), None, 0.43, ""),
        ("retinaface_resnet50-320", "retinaface", retinaface_resnet, image(320), None, 27.3, ""),
        ("openpose_coco-368", "openpose", OpenPose, image(368), None, 52.3, ""),
        ("c3d-112", "c3d", c3d, clip, 77.0, 78.4, ""),
        ("sphereface20-112x96", "sphereface", partial(sphereface, (1, 2, 4, 1)), image(112, 96), 3.5, None, ""),
    )
    for name, family, build, shapes, gops, mparams, note in rows:
        yield Spec(name, family, SOURCE, build, shapes, (), gops, mparams, note)
    lite = (("lite0", 320, 3.2), ("lite1", 384, 4.2), ("lite2", 448, 5.3))
    for size, side, mparams in lite:
        build = partial(effdet, f"tf_efficientdet_{size}")
        yield Spec(
            f"efficientdet_{size}-{side}", "efficientdet", "effdet 0.4.1", build, image(side), (), None, mparams, tail
        )
