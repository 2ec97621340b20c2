"""Networks as Qualcomm AI Hub exports them: input shape of the code's get_input_spec, input scaling inside."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial

import timm
import torch
import transformers
import zoo_dense
import zoo_transformers
from hrnet import HRNetPose
from hub import Hub, Post, best_pixel_class, set_boxes
from spec import Flat, Shape, Spec, image
from torch import nn
from torchvision import models
from zoo_timm import SOURCE as TIMM
from zoo_torchvision import SOURCE as TORCHVISION

HUGGING = zoo_transformers.SOURCE
OWN = zoo_dense.SOURCE

# name of the library, our name, family, published GOPs at 224, M parameters
_TORCHVISION: tuple[tuple[str, str, str, float | None, float], ...] = (
    ("resnet18", "resnet18", "resnet", 3.63, 11.69),
    ("resnet50", "resnet50", "resnet", 8.18, 25.56),
    ("resnet101", "resnet101", "resnet", 15.60, 44.55),
    ("resnext50_32x4d", "resnext50_32x4d", "resnet", 8.46, 25.03),
    ("resnext101_32x8d", "resnext101_32x8d", "resnet", 32.83, 88.79),
    ("mobilenet_v2", "mobilenet_v2", "mobilenet_v2", 0.60, 3.50),
    ("mobilenet_v3_large", "mobilenet_v3_large", "mobilenet_v3", 0.43, 5.48),
    ("convnext_tiny", "convnext_tiny", "convnext", 8.91, 28.59),
    ("convnext_base", "convnext_base", "convnext", 30.71, 88.59),
    ("efficientnet_v2_s", "efficientnet_v2_s", "efficientnet", None, 21.46),
    ("vit_b_16", "vit_b_16", "vit", 35.13, 86.57),
)
_TIMM: tuple[tuple[str, str, str, float | None, float], ...] = (
    ("dla102x", "dla102x", "dla", 11.8, 26.31),
    ("efficientformer_l1", "efficientformer_l1", "efficientformer", 2.60, 12.3),
    ("efficientvit_b2", "efficientvit_b2", "efficientvit_mit", 3.2, 24.3),
    ("efficientvit_l2", "efficientvit_l2", "efficientvit_mit", 13.8, 63.7),
    ("sequencer2d_s", "sequencer2d_s", "sequencer", 16.8, 27.65),
)
_VIDEO = (("r2plus1d_18", 31.51), ("r3d_18", 33.37), ("mc3_18", 11.70))
_STATED = {
    "efficientnet_v2_s": "stated 384",
    "vit_b_16": "profiled with 900 layers, more than twice as many (the compiler may split the heads); "
    "w8a8_mixed_int16 takes 8 to 17 times as long as the other ONNX forms (23 of 1301 layers outside the NPU)",
    "sequencer2d_s": "profiled with 5223 layers: each LSTM is unrolled into its steps",
    "efficientvit_b2": "weights for 288, profiled at 224",
    "efficientvit_l2": "weights for 384, profiled at 224",
}
_SLOW = "TFLite takes 6 to 320 times as long as QNN on the same device: its path for 3-D convolutions, not the shape"
_UNET = "stated 224; int8 on Snapdragon 8 Gen 3 implies 23 TMAC/s, the most of all graphs here"


def specs() -> Iterator[Spec]:
    """The AI Hub skeletons whose graph differs from the plain network (YOLO, Whisper and Opus-MT are elsewhere)."""
    for group in (_classifiers, _others, _videos, _dense, _detectors):
        yield from group()


def _classifiers() -> Iterator[Spec]:
    for library, name, family, gops, mparams in _TORCHVISION:
        build = partial(_wrap, partial(models.get_model, library, weights=None))
        note = _STATED.get(name, "")
        yield Spec(f"{name}-224-hub", family, TORCHVISION, build, image(224), (), gops, mparams, note)
    for library, name, family, gops, mparams in _TIMM:
        build = partial(_wrap, partial(timm.create_model, library, pretrained=False, exportable=True))
        note = _STATED.get(name, "")
        yield Spec(f"{name}-224-hub", family, TIMM, build, image(224), (), gops, mparams, note)


def _others() -> Iterator[Spec]:
    plain = {"weights": None, "aux_logits": False, "transform_input": False, "init_weights": False}
    for name, mparams in (("googlenet", 6.62), ("inception_v3", 23.83)):
        build = partial(_wrap, partial(models.get_model, name, **plain), "unit")
        yield Spec(f"{name}-224-hub", "inception", TORCHVISION, build, image(224), (), None, mparams)
    build = partial(_wrap, _levit, "imagenet", _logits)
    yield Spec("levit_128s-224-hub", "levit", HUGGING, build, image(224), (), 0.61, 7.4)
    build = partial(_wrap, _mobilevit, "raw", _logits)
    yield Spec("mobilevit_s-256-hub", "mobilevit", HUGGING, build, image(256), (), None, 5.58, "stated 224")


def _videos() -> Iterator[Spec]:
    clip: tuple[Shape, ...] = ((1, 3, 16, 112, 112),)
    for name, mparams in _VIDEO:
        build = partial(_video, name)
        yield Spec(f"{name}-112-hub", "resnet3d", TORCHVISION, build, clip, (), None, mparams, _SLOW)
    clip = ((1, 3, 16, 224, 224),)
    note = "QNN takes 2.6 to 5.4 times as long as TFLite on the same device: the compiler, not the shape"
    yield Spec("videomae_base-224-hub", "vit", HUGGING, VideoMae, clip, (), 360.0, 87.0, note)


def _dense() -> Iterator[Spec]:
    build = partial(_wrap, _fcn, "imagenet", _out_class)
    yield Spec("fcn_resnet50-520-hub", "fcn", TORCHVISION, build, image(520), (), None, 32.96, "stated 224")
    build = partial(_wrap, partial(zoo_dense.DeepLabV3Plus, 21), "imagenet", best_pixel_class)
    name = "deeplabv3_plus_mobilenet_v2-520-hub"
    yield Spec(name, "deeplab", OWN, build, image(520), (), None, 5.80, "stated 513")
    build = partial(zoo_dense.UNet, 2)
    yield Spec("unet-640x1280-hub", "unet", OWN, build, image(640, 1280), (), None, 31.0, _UNET)
    pose = image(256, 192)
    build = partial(_wrap, HRNetPose)
    yield Spec("hrnet_w32_pose-256x192-hub", "hrnet", OWN, build, pose, (), 15.4, 28.5, "published 7.7 GMACs")
    build = partial(_wrap, zoo_dense.PoseNet, "unit", _peaks)
    yield Spec("posenet_mobilenet_v1-513x257-hub", "mobilenet_v1", OWN, build, image(513, 257), (), None, 3.31)
    build = partial(_wrap, zoo_transformers.segformer, "imagenet", _logits)
    note = "float16 takes 7 to 16 times as long as int8 on the same device and runtime: not explained"
    yield Spec("segformer_b0-512-hub", "segformer", HUGGING, build, image(512), (), 16.8, 3.75, note)
    build = partial(_wrap, zoo_transformers.depth_anything, "imagenet", _depth)
    yield Spec("depth_anything_small-518-hub", "depth_anything", HUGGING, build, image(518), (), None, 24.8)


def _detectors() -> Iterator[Spec]:
    rows: tuple[tuple[str, Callable[[], nn.Module], float], ...] = (
        ("detr_resnet50", partial(zoo_transformers.detr, 50), 41.5),
        ("detr_resnet101", partial(zoo_transformers.detr, 101), 60.5),
        ("detr_resnet50_dc5", partial(zoo_transformers.detr, 50, dilated=True), 41.5),
        ("detr_resnet101_dc5", partial(zoo_transformers.detr, 101, dilated=True), 60.5),
        ("conditional_detr_resnet50", partial(zoo_transformers.conditional_detr, 50), 43.6),
    )
    for name, network, mparams in rows:
        build = partial(_wrap, network, "imagenet", set_boxes(640))
        yield Spec(f"{name}-640-hub", "detr", HUGGING, build, image(640), (), None, mparams, "stated 480")


def _wrap(build: Callable[[], nn.Module], kind: str = "imagenet", post: Post | None = None) -> nn.Module:
    return Flat(Hub(build(), kind, post))


def _logits(result: object) -> object:
    return result[0]


def _out_class(result: object) -> object:
    return best_pixel_class(result["out"])


def _depth(result: object) -> object:
    return result[0].unsqueeze(1)


def _peaks(result: object) -> object:
    return (*result, nn.functional.max_pool2d(result[0], 3, 1, 1))


def _levit() -> nn.Module:
    config = transformers.LevitConfig(num_attention_heads=[4, 6, 8], depths=[2, 3, 4], num_labels=1000)
    network = transformers.LevitForImageClassification(config)
    network.classifier.batch_norm = nn.Identity()  # folds into the linear layer behind it
    for module in list(network.modules()):
        for name, part in list(module.named_children()):
            if type(part).__name__ == "MLPLayerWithBN":  # folds too
                setattr(module, name, nn.Linear(part.linear.in_features, part.linear.out_features))
    return network


def _mobilevit() -> nn.Module:
    return transformers.MobileViTForImageClassification(transformers.MobileViTConfig(num_labels=1000))


def _fcn() -> nn.Module:
    return models.segmentation.fcn_resnet50(weights=None, weights_backbone=None, num_classes=21, aux_loss=False)


class RankThreePool(nn.Module):
    """Mean over all positions, in three dimensions."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x.reshape(x.shape[0], x.shape[1], -1).mean(2)


def _video(name: str) -> nn.Module:
    network = models.get_model(name, weights=None)
    network.avgpool = RankThreePool()
    return Flat(Hub(network, "kinetics"))


class VideoMae(Hub):
    """VideoMAE behind the input scaling and the swap of channels and frames."""

    def __init__(self) -> None:
        super().__init__(zoo_transformers.videomae())

    def forward(self, x: torch.Tensor) -> object:
        return self.network(self.scale(x).transpose(1, 2))
