"""Networks taken from torchvision (BSD-3-Clause), random weights."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

import torchvision
from spec import Shape, Spec, image
from torchvision import models

SOURCE = f"torchvision {torchvision.__version__.split('+')[0]}"

# our name, torchvision name, family, input shapes, published GOPs (2 x GMACs of the torchvision page), M parameters
_TABLE: tuple[tuple[str, str, str, tuple[Shape, ...], float | None, float | None], ...] = (
    ("resnet18-224", "resnet18", "resnet", image(224), 3.63, 11.69),
    ("resnet50-224", "resnet50", "resnet", image(224), 8.18, 25.56),
    ("resnext50_32x4d-224", "resnext50_32x4d", "resnet", image(224), 8.46, 25.03),
    ("mobilenet_v2-224", "mobilenet_v2", "mobilenet_v2", image(224), 0.60, 3.50),
    ("mobilenet_v2-320", "mobilenet_v2", "mobilenet_v2", image(320), None, 3.50),
    ("mobilenet_v3_large-224", "mobilenet_v3_large", "mobilenet_v3", image(224), 0.43, 5.48),
    ("vgg16-224", "vgg16", "vgg", image(224), 30.94, 138.36),
    ("vgg19-224", "vgg19", "vgg", image(224), 39.26, 143.67),
    ("squeezenet1_1-227", "squeezenet1_1", "squeezenet", image(227), 0.76, 1.24),
    ("vit_b_16-224", "vit_b_16", "vit", image(224), 35.13, 86.57),
    ("swin_t-224", "swin_t", "swin", image(224), 8.98, 28.29),
)


def specs() -> Iterator[Spec]:
    """The torchvision skeletons."""
    for name, builder, family, shapes, gops, mparams in _TABLE:
        build = partial(models.get_model, builder, weights=None)
        yield Spec(name, family, SOURCE, build, shapes, published_gops=gops, published_mparams=mparams)
    google = partial(models.googlenet, weights=None, aux_logits=False, transform_input=True, init_weights=False)
    yield Spec("googlenet-224", "inception", SOURCE, google, image(224), published_gops=3.0, published_mparams=6.62)
    plain = partial(models.inception_v3, weights=None, aux_logits=False, transform_input=False, init_weights=False)
    yield Spec(
        "inception_v3-299", "inception", SOURCE, plain, image(299), published_gops=11.45, published_mparams=23.83
    )
