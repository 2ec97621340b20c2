"""Networks taken from timm (Apache-2.0), random weights; re-parameterised ones in their deploy form."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import timm
from spec import Shape, Spec, image
from timm.models import byobnet, efficientnet
from timm.models._efficientnet_blocks import EdgeResidual
from timm.utils.model import reparameterize_model
from torch import nn

SOURCE = f"timm {timm.__version__}"

# our name, timm name, family, input shapes, published GOPs, published M parameters (RDK = the D-Robotics model zoo)
_TABLE: tuple[tuple[str, str, str, tuple[Shape, ...], float | None, float | None], ...] = (
    ("edgenext_base-224", "edgenext_base", "edgenext", image(224), None, 18.51),
    ("edgenext_small-224", "edgenext_small", "edgenext", image(224), None, 5.59),
    ("edgenext_x_small-224", "edgenext_x_small", "edgenext", image(224), None, 2.34),
    ("edgenext_xx_small-224", "edgenext_xx_small", "edgenext", image(224), None, 1.33),
    ("efficientformer_l1-224", "efficientformer_l1", "efficientformer", image(224), 2.60, 12.3),
    ("efficientformer_l3-224", "efficientformer_l3", "efficientformer", image(224), 7.80, 31.3),
    ("efficientformerv2_s0-224", "efficientformerv2_s0", "efficientformer", image(224), 0.80, 3.57),
    ("efficientformerv2_s1-224", "efficientformerv2_s1", "efficientformer", image(224), 1.30, 6.12),
    ("efficientformerv2_s2-224", "efficientformerv2_s2", "efficientformer", image(224), 2.50, 12.6),
    ("efficientvit_m5-224", "efficientvit_m5", "efficientvit_msra", image(224), 1.044, 12.41),
    ("convnext_nano-224", "convnext_nano", "convnext", image(224), 4.92, 15.59),
    ("convnext_pico-224", "convnext_pico", "convnext", image(224), 2.74, 9.04),
    ("convnext_femto-224", "convnext_femto", "convnext", image(224), 1.56, 5.22),
    ("convnext_atto-224", "convnext_atto", "convnext", image(224), 1.10, 3.69),
    ("fasternet_s-224", "fasternet_s", "fasternet", image(224), 9.12, 31.18),
    ("fasternet_t2-224", "fasternet_t2", "fasternet", image(224), 3.82, 15.04),
    ("fasternet_t1-224", "fasternet_t1", "fasternet", image(224), 1.70, 7.65),
    ("fasternet_t0-224", "fasternet_t0", "fasternet", image(224), 0.68, 3.96),
    ("mobilenetv4_conv_small-224", "mobilenetv4_conv_small", "mobilenet_v4", image(224), 0.38, 3.76),
    ("mobilenetv4_conv_medium-224", "mobilenetv4_conv_medium", "mobilenet_v4", image(224), 1.66, 9.68),
    ("mobilenetv4_conv_large-384", "mobilenetv4_conv_large", "mobilenet_v4", image(384), 12.86, 32.59),
    ("mobilenet_edgetpu_100-224", "mobilenet_edgetpu_100", "mobilenet_edgetpu", image(224), 1.98, 4.09),
    ("efficientnet_edgetpu_s-224", "efficientnet_es", "efficientnet_edgetpu", image(224), 4.72, 5.44),
    ("efficientnet_edgetpu_m-240", "efficientnet_em", "efficientnet_edgetpu", image(240), 7.34, 6.90),
    ("efficientnet_edgetpu_l-300", "efficientnet_el", "efficientnet_edgetpu", image(300), 19.36, 10.59),
    ("efficientnet_v2_b0-224", "tf_efficientnetv2_b0", "efficientnet", image(224), 1.44, 7.14),
    ("efficientnet_v2_b1-240", "tf_efficientnetv2_b1", "efficientnet", image(240), 2.4, 8.14),
    ("efficientnet_v2_b2-260", "tf_efficientnetv2_b2", "efficientnet", image(260), 3.4, 10.10),
    ("efficientnet_v2_s_tf-384", "tf_efficientnetv2_s", "efficientnet", image(384), None, 21.46),
    ("efficientnet_lite0-224", "tf_efficientnet_lite0", "efficientnet_lite", image(224), 0.814, 4.7),
    ("efficientnet_lite1-240", "tf_efficientnet_lite1", "efficientnet_lite", image(240), 1.262, 5.4),
    ("efficientnet_lite2-260", "tf_efficientnet_lite2", "efficientnet_lite", image(260), 1.776, 6.1),
    ("efficientnet_lite3-280", "tf_efficientnet_lite3", "efficientnet_lite", image(280), 2.922, 8.2),
    ("inception_v4-299", "inception_v4", "inception", image(299), 24.55, 42.68),
    ("inception_resnet_v2-299", "inception_resnet_v2", "inception", image(299), 26.35, 55.84),
    ("beit_base-224", "beit_base_patch16_224", "vit", image(224), 35.2, 86.53),
    ("deit_tiny-224", "deit_tiny_patch16_224", "vit", image(224), 2.5, 5.72),
)
_REPARAMETERISED: tuple[tuple[str, str, str, float | None, float | None], ...] = (
    ("fastvit_t8-224", "fastvit_t8", "fastvit", None, 3.67),
    ("fastvit_t12-224", "fastvit_t12", "fastvit", None, 6.82),
    ("fastvit_s12-224", "fastvit_s12", "fastvit", None, 8.86),
    ("fastvit_sa12-224", "fastvit_sa12", "fastvit", None, 10.93),
    ("mobileone_s0-224", "mobileone_s0", "mobileone", 0.55, 2.15),
    ("mobileone_s1-224", "mobileone_s1", "mobileone", 1.65, 4.83),
    ("mobileone_s2-224", "mobileone_s2", "mobileone", 2.598, 7.87),
    ("mobileone_s3-224", "mobileone_s3", "mobileone", 3.792, 10.19),
    ("mobileone_s4-224", "mobileone_s4", "mobileone", 5.956, 14.82),
    ("repghostnet_100-224", "repghostnet_100", "repghostnet", None, 4.07),
    ("repghostnet_111-224", "repghostnet_111", "repghostnet", None, 4.54),
    ("repghostnet_130-224", "repghostnet_130", "repghostnet", None, 5.48),
    ("repghostnet_150-224", "repghostnet_150", "repghostnet", None, 6.57),
    ("repghostnet_200-224", "repghostnet_200", "repghostnet", None, 9.79),
    ("repvgg_a0-224", "repvgg_a0", "repvgg", 2.8, 8.30),
    ("repvgg_a1-224", "repvgg_a1", "repvgg", 4.8, 12.78),
    ("repvgg_a2-224", "repvgg_a2", "repvgg", 10.2, 25.49),
    ("repvgg_b0-224", "repvgg_b0", "repvgg", 6.2, 14.33),
    ("repvgg_b1g4-224", "repvgg_b1g4", "repvgg", 14.6, 36.12),
    ("repvit_m0_9-224", "repvit_m0_9", "repvit", None, 5.14),
    ("repvit_m1_0-224", "repvit_m1_0", "repvit", None, 6.83),
    ("repvit_m1_1-224", "repvit_m1_1", "repvit", None, 8.27),
)
_TRAIN = "branches not fused, as the D-Robotics export notes show; their parameter counts follow the papers"
_LITE = "published figure counts more than multiply-accumulates"


def specs() -> Iterator[Spec]:
    """The timm skeletons."""
    for name, builder, family, shapes, gops, mparams in _TABLE:
        build = partial(_edge, builder) if family == "efficientnet_edgetpu" else partial(_plain, builder, shapes)
        note = _LITE if family == "efficientnet_lite" else ""
        yield Spec(name, family, SOURCE, build, shapes, (), gops, mparams, note)
    for builder_name, builder, family, gops, mparams in _REPARAMETERISED:
        train = family in {"fastvit", "repghostnet", "repvit"}
        build = partial(_plain, builder, image(224)) if train else partial(_deployed, builder)
        name = builder_name.replace("-224", "_train-224") if train else builder_name
        yield Spec(name, family, SOURCE, build, image(224), (), gops, mparams, _TRAIN if train else "")
    for name, build, family, gops, mparams in (
        ("repvgg_b1g2-224", _repvgg_b1g2, "repvgg", 17.6, 41.36),
        ("mobilenet_edgetpu_075-224", _mobilenet_edge_075, "mobilenet_edgetpu", 1.248, None),
    ):
        yield Spec(name, family, SOURCE, build, image(224), published_gops=gops, published_mparams=mparams)


def _edge_stride(network: nn.Module) -> nn.Module:
    """As in TensorFlow, a strided block strides in its 1x1 projection; timm has it in the 3x3 expansion."""
    for block in network.modules():
        if isinstance(block, EdgeResidual):
            block.conv_pwl.stride, block.conv_exp.stride = block.conv_exp.stride, (1, 1)
            block.conv_exp.padding = (1, 1)
    return network


def _edge(builder: str) -> nn.Module:
    return _edge_stride(timm.create_model(builder, pretrained=False, exportable=True))


def _mobilenet_edge_075() -> nn.Module:
    return efficientnet._gen_mobilenet_edgetpu("mobilenet_edgetpu_100", 0.75)  # noqa: SLF001 - no public name for 0.75


def _repvgg_b1g2() -> nn.Module:
    blocks = byobnet._rep_vgg_bcfg(wf=(2, 2, 2, 4), groups=2)  # noqa: SLF001 - timm dropped the public name
    config = byobnet.ByoModelCfg(blocks=blocks, stem_type="rep", stem_chs=64)
    return reparameterize_model(byobnet.ByobNet(config).eval())


def _plain(builder: str, shapes: tuple[Shape, ...]) -> nn.Module:
    sized = {"img_size": shapes[0][2:]} if builder.startswith(("beit", "deit")) else {}
    return timm.create_model(builder, pretrained=False, exportable=True, **sized)


def _deployed(builder: str) -> nn.Module:
    return reparameterize_model(timm.create_model(builder, pretrained=False).eval())
