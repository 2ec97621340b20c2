"""Segmentation, pose and super-resolution networks from their published descriptions."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torch
import torchvision
from hrnet import HRNetPose
from spec import Spec, image
from torch import nn
from zoo_classic import _BLOCKS, _conv

SOURCE = "own module, published architecture"


def _double(cin: int, cout: int) -> nn.Sequential:
    def one(c: int) -> tuple[nn.Module, ...]:
        return nn.Conv2d(c, cout, 3, 1, 1, bias=False), nn.BatchNorm2d(cout), nn.ReLU()

    return nn.Sequential(*one(cin), *one(cout))


class UNet(nn.Module):
    """U-Net with 64 to 1024 channels and transposed convolutions."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        widths = (64, 128, 256, 512, 1024)
        self.down = nn.ModuleList(_double(cin, c) for cin, c in zip((3, *widths), widths, strict=False))
        self.up = nn.ModuleList(nn.ConvTranspose2d(c, c // 2, 2, 2) for c in widths[:0:-1])
        self.merge = nn.ModuleList(_double(c, c // 2) for c in widths[:0:-1])
        self.pool, self.out = nn.MaxPool2d(2), nn.Conv2d(64, classes, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        skips = []
        for index, block in enumerate(self.down):
            x = block(x if index == 0 else self.pool(x))
            skips.append(x)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            x = merge(torch.cat((skip, up(x)), 1))
        return self.out(x)


def _pad_in_front(block: nn.Module, rate: int = 1) -> nn.Module:
    """Pad at the head of a MobileNetV2 block, so also the expansion, instead of in its depthwise convolution."""
    convs = [module for module in block.conv.modules() if isinstance(module, nn.Conv2d)]
    for conv in convs:
        if conv.kernel_size == (3, 3):
            conv.padding, conv.dilation = (0, 0), (rate, rate)
    convs[0].padding = (rate, rate)
    return block


class DeepLabV3Plus(nn.Module):
    """DeepLabV3+ on MobileNetV2 at output stride 16, as in pytorch-deeplab-xception."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        layers = list(torchvision.models.mobilenet_v2(weights=None).features.children())[:-1]
        layers = [layers[0], *(_pad_in_front(layer) for layer in layers[1:-1]), _pad_in_front(layers[-1], 2)]
        layers[14].conv[1][0].stride = (1, 1)
        self.low, self.high = nn.Sequential(*layers[:4]), nn.Sequential(*layers[4:])
        rates = ((1, 0, 1), (3, 6, 6), (3, 12, 12), (3, 18, 18))
        self.aspp = nn.ModuleList(_dilated(320, 256, k, pad, rate) for k, pad, rate in rates)
        self.pooled = nn.Sequential(nn.AdaptiveAvgPool2d(1), _dilated(320, 256, 1, 0, 1))
        self.merge, self.reduce = _dilated(1280, 256, 1, 0, 1), _dilated(24, 48, 1, 0, 1)
        self.last = nn.Sequential(_dilated(304, 256, 3, 1, 1), _dilated(256, 256, 3, 1, 1), nn.Conv2d(256, classes, 1))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        low = self.low(x)
        high = self.high(low)
        parts = [branch(high) for branch in self.aspp]
        parts.append(_resize(self.pooled(high), high))
        merged = _resize(self.merge(torch.cat(parts, 1)), low)
        return _resize(self.last(torch.cat((merged, self.reduce(low)), 1)), x)


def _dilated(cin: int, cout: int, k: int, pad: int, rate: int) -> nn.Sequential:
    conv = nn.Conv2d(cin, cout, k, 1, pad, dilation=rate, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), nn.ReLU())


def _resize(x: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return nn.functional.interpolate(x, size=like.shape[2:], mode="bilinear", align_corners=True)


class PoseNet(nn.Module):
    """MobileNetV1 at output stride 16 with four 1x1 heads."""

    def __init__(self) -> None:
        super().__init__()
        layers, width = [_conv(3, 32, 3, 2)], 32
        for index, (cout, stride) in enumerate(_BLOCKS):
            deep = index >= 11  # the last stage keeps its resolution and dilates
            depthwise = nn.Conv2d(width, width, 3, 1 if deep else stride, 2 if index == 12 else 1, groups=width)
            if index == 12:
                depthwise.dilation = (2, 2)
            layers.append(nn.Sequential(depthwise, nn.ReLU6(), nn.Conv2d(width, cout, 1), nn.ReLU6()))
            width = cout
        self.trunk = nn.Sequential(*layers)
        self.heads = nn.ModuleList(nn.Conv2d(1024, c, 1) for c in (17, 34, 32, 32))

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, ...]:
        x = self.trunk(x)
        first, *others = (head(x) for head in self.heads)
        return (first.sigmoid(), *others)


class DenseBlock(nn.Module):
    """Five densely connected convolutions with a scaled shortcut."""

    def __init__(self, c: int = 64, grow: int = 32) -> None:
        super().__init__()
        self.convs = nn.ModuleList(nn.Conv2d(c + i * grow, c if i == 4 else grow, 3, 1, 1) for i in range(5))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        parts = [x]
        for conv in self.convs[:-1]:
            parts.append(nn.functional.leaky_relu(conv(torch.cat(parts, 1)), 0.2))
        return self.convs[-1](torch.cat(parts, 1)) * 0.2 + x


class ResidualDense(nn.Sequential):
    """Three dense blocks with a scaled shortcut."""

    def __init__(self) -> None:
        super().__init__(*(DenseBlock() for _ in range(3)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return super().forward(x) * 0.2 + x


class RealEsrgan(nn.Module):
    """RRDBNet: 23 blocks, then two nearest-neighbour doublings; clamped as on Qualcomm AI Hub."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.body = nn.Conv2d(3, 64, 3, 1, 1), nn.Sequential(*(ResidualDense() for _ in range(23)))
        self.after, self.up1, self.up2, self.high = (nn.Conv2d(64, 64, 3, 1, 1) for _ in range(4))
        self.last = nn.Conv2d(64, 3, 3, 1, 1)
        self.up = nn.Upsample(scale_factor=2, mode="nearest")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        act = partial(nn.functional.leaky_relu, negative_slope=0.2)
        x = self.first(x)
        x = x + self.after(self.body(x))
        x = act(self.up2(self.up(act(self.up1(self.up(x))))))
        return self.last(act(self.high(x))).clamp(0, 1)


class CompactEsrgan(nn.Module):
    """SRVGGNetCompact (realesr-general-x4v3): 34 convolutions, PReLU, pixel shuffle and a resized shortcut."""

    def __init__(self, convs: int = 32) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, 64, 3, 1, 1), nn.PReLU(64)]
        for _ in range(convs):
            layers += [nn.Conv2d(64, 64, 3, 1, 1), nn.PReLU(64)]
        self.body = nn.Sequential(*layers, nn.Conv2d(64, 48, 3, 1, 1), nn.PixelShuffle(4))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + nn.functional.interpolate(x, scale_factor=4.0, mode="nearest")


def specs() -> Iterator[Spec]:
    """Dense predictors."""
    pose = image(256, 192)
    yield Spec("hrnet_w32_pose-256x192", "hrnet", SOURCE, HRNetPose, pose, (), 15.4, 28.5, "published 7.7 GMACs")
    small = image(64)
    esrgan = partial(Spec, family="superres", source=SOURCE, export_shapes=small)
    yield esrgan("real_esrgan_x4plus-128", build=RealEsrgan, shapes=image(128), published_mparams=16.7)
    yield esrgan("realesr_general_x4v3-480x640", build=CompactEsrgan, shapes=image(480, 640), published_mparams=1.21)
