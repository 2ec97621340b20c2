"""TensorFlow and Caffe classics: MobileNet V1 and V2 with width multipliers, YAMNet, ResNet and Inception variants."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torchvision
from inception import InceptionV1, InceptionV2
from resnets import PreActResNet, ResNet, SlimResNetV2
from spec import Spec, image
from torch import nn

SOURCE = "own module, published architecture"
_BLOCKS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def _conv(cin: int, cout: int, k: int, s: int, g: int = 1, act: type[nn.Module] = nn.ReLU6) -> nn.Sequential:
    conv = nn.Conv2d(cin, cout, k, s, k // 2, groups=g, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(cout), act())


class MobileNetV1(nn.Sequential):
    """Depthwise separable network; `blocks` cuts it short, `dense` ends in a linear layer."""

    def __init__(
        self, alpha: float, classes: int = 1000, *, cin: int = 3, blocks: int = 13, act: type[nn.Module] = nn.ReLU6
    ) -> None:
        width = max(8, int(32 * alpha))
        layers: list[nn.Module] = [_conv(cin, width, 3, 2, act=act)]
        for c, stride in _BLOCKS[:blocks]:
            cout = int(c * alpha)
            layers += [_conv(width, width, 3, stride, width, act), _conv(width, cout, 1, 1, act=act)]
            width = cout
        super().__init__(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes), nn.Softmax(1))


def mobilenet_v2(alpha: float, classes: int = 1000) -> nn.Module:
    """torchvision's MobileNetV2; as in Keras the last layer keeps 1280 channels below alpha 1."""
    return torchvision.models.mobilenet_v2(weights=None, width_mult=alpha, num_classes=classes)


class Sigmoid(nn.Sequential):
    """A network with a sigmoid in place of its softmax."""

    def __init__(self, network: nn.Sequential) -> None:
        super().__init__(*list(network.children())[:-1], nn.Sigmoid())


def _mobilenets() -> Iterator[Spec]:
    one = "mobilenet_v1"
    for alpha, side, gops, mparams in (
        (0.25, 128, 0.02715, 0.470),
        (0.25, 224, 0.082, 0.470),
        (0.5, 160, 0.15007, 1.34),
        (0.5, 224, 0.298, 1.34),
        (1.0, 224, 1.14, 4.25),
    ):
        tag = "" if alpha == 1 else f"_{alpha:g}"
        yield Spec(f"{one}{tag}-{side}", one, SOURCE, partial(MobileNetV1, alpha), image(side), (), gops, mparams)
    for alpha in (0.25, 0.5, 1.0):
        build = partial(MobileNetV1, alpha, 101)
        yield Spec(f"{one}_{alpha:g}_food101-224", one, SOURCE, build, image(224))
    two, source = "mobilenet_v2", f"torchvision {torchvision.__version__.split('+')[0]}"
    for alpha, side, gops, mparams in ((0.35, 128, 0.04, 1.68), (0.35, 224, 0.118, 1.68), (1.4, 224, 1.16, 6.06)):
        yield Spec(f"{two}_{alpha:g}-{side}", two, source, partial(mobilenet_v2, alpha), image(side), (), gops, mparams)
    for alpha, side, classes, tag in (
        (0.35, 128, 101, "food101"),
        (0.35, 224, 101, "food101"),
        (1.0, 224, 101, "food101"),
    ):
        build = partial(mobilenet_v2, alpha, classes)
        yield Spec(f"{two}_{alpha:g}_{tag}-{side}", two, source, build, image(side))
    yield Spec(f"{two}_0.35_person-128", two, source, partial(mobilenet_v2, 0.35, 2), image(128))


def _yamnets() -> Iterator[Spec]:
    full = partial(MobileNetV1, 1.0, 521, cin=1, act=nn.ReLU)
    yield Spec("yamnet-96x64", "mobilenet_v1", SOURCE, lambda: Sigmoid(full()), image(96, 64, 1), (), None, 3.73)
    for name, blocks in (("yamnet_256_esc10-64x96", 5), ("yamnet_1024_esc10-64x96", 13)):
        build = partial(MobileNetV1, 1.0, 10, cin=1, blocks=blocks, act=nn.ReLU)
        yield Spec(name, "mobilenet_v1", SOURCE, build, image(64, 96, 1))


def _resnets() -> Iterator[Spec]:
    kin = "resnet"
    caffe = partial(ResNet, (3, 4, 6, 3), stride_at="first")
    yield Spec("resnet50_v1-224", kin, SOURCE, caffe, image(224), (), 7.7, 25.56, "stride in the first 1x1 convolution")
    for depth, units, gops, mparams in (
        (50, (3, 4, 6, 3), 6.97, 25.56),
        (101, (3, 4, 23, 3), 14.4, 44.55),
        (152, (3, 8, 36, 3), 21.83, 60.19),
    ):
        build = partial(ResNet, units, stride_at="last_unit")
        yield Spec(f"resnet{depth}_slim-224", kin, SOURCE, build, image(224), (), gops, mparams, "TF-slim v1")
    slim50 = partial(ResNet, (3, 4, 6, 3), stride_at="last_unit")
    yield Spec("resnet50_slim-299", kin, SOURCE, slim50, image(299), (), None, 25.56, "TF-slim v1")
    for depth, units, gops, mparams in (
        (50, (3, 4, 6, 3), 13.1, 25.55),
        (101, (3, 4, 23, 3), 26.78, 44.54),
        (152, (3, 8, 36, 3), 40.47, 60.19),
    ):
        build = partial(SlimResNetV2, units)
        yield Spec(f"resnet{depth}_v2_slim-299", kin, SOURCE, build, image(299), (), gops, mparams, "TF-slim v2")
    gluon = partial(PreActResNet, (3, 4, 6, 3))
    yield Spec("resnet50_v2-224", kin, SOURCE, gluon, image(224), (), 8.2, 25.53, "ONNX zoo resnet50-v2-7 (Gluon)")


def _inceptions() -> Iterator[Spec]:
    kin = "inception"
    caffe = "Caffe GoogLeNet with batch norm for the response normalisation"
    yield Spec("inception_v1_caffe-224", kin, SOURCE, InceptionV1, image(224), (), 3.16, 6.99, caffe)
    slim, dense = partial(InceptionV2, separable=True), partial(InceptionV2, separable=False)
    yield Spec("inception_v2_slim-224", kin, SOURCE, slim, image(224), (), 3.88, 11.2, "TF-slim")
    yield Spec("inception_v2_caffe-224", kin, SOURCE, dense, image(224), (), 4.0, 11.3, "Caffe BN-Inception")


def specs() -> Iterator[Spec]:
    """The classics."""
    for group in (_mobilenets, _yamnets, _resnets, _inceptions):
        yield from group()
