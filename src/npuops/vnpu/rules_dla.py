"""What the deep-learning accelerator (DLA) of NVIDIA Orin takes through TensorRT 8.5 and 8.6.

Sources: NVIDIA/Deep-Learning-Accelerator-SW `operators/README.md`@ea61780 (2024-06-10): operators marked "Native",
without those that came with 8.6.12 (DRIVE only); and the general limits and first rows of "DLA Supported Layers and
Restrictions" on docs.nvidia.com; of Resize, an answer of NVIDIA that quotes it (forums.developer.nvidia.com 219158:
whole factors up to 32) and TensorRT's own message there (bilinear only with half pixels). Limits of pooling, slicing
and softmax were not readable. What is not taken runs on the GPU ("CPU" in a placement means: not on the accelerator).
"""

from __future__ import annotations

import math
from typing import Final

from npuops.models.model import Layer, Model
from npuops.models.placement import Placement
from npuops.targets.rules import Rule, static_shapes
from npuops.vnpu import rule_conditions as that
from npuops.vnpu.layer_view import first_in

FORMATS: Final = ("int8", "fp16")

_FREE: Final = (
    "Abs Add AveragePool BatchNormalization Clip Equal LRN LeakyRelu Max MaxPool Mul Relu Reshape Sigmoid Slice "
    "Softmax Split Sub Sum Tanh Transpose QuantizeLinear DequantizeLinear"
)


def place_on(model: Model, number_format: str = "int8") -> tuple[Placement, ...]:
    """Every layer of the model, placed."""
    constant = that.constant_operand("the second operand")
    window = (that.flat_window(), constant, that.kernel_within(1, 32))
    rules: dict[str, tuple[Rule, ...]] = {
        "Concat": (that.axis_among("C", default=1, others=("last", "middle", "first")),),
        "Conv": (*window, that.strides_within(1, 8)),
        "ConvTranspose": (
            *window,
            that.pads_within(0),
            that.dilations_within(1),
            that.window_obeys("groups must be 1", lambda w: f"{w.groups} groups" if w.groups > 1 else ""),
        ),
        "Gemm": (constant,),
        "MatMul": (constant,),
        "PRelu": (that.constant_operand("slopes"),),
        "Resize": (_resize(),),
        "Upsample": (_resize(),),
    }
    rules |= dict.fromkeys(_FREE.split(), ())
    everywhere = (*that.computes_in(FORMATS, number_format), static_shapes(), that.sizes_at_most(8192), _batch())
    return that.place_by(model, rules, list_name="TensorRT's DLA list", everywhere=everywhere)


def _batch() -> Rule:
    """All axes before the last three are the batch."""

    def broken(layer: Layer) -> str:
        batch = math.prod(first_in(layer)[:-3])
        return f"batch {batch}" if batch > 4096 else ""

    return Rule("batch must be at most 4096", broken)


def _resize() -> Rule:
    def broken(layer: Layer) -> str:
        scales, (mode, where) = that.resize_scales(layer), that.resize_kind(layer)
        if scales is None:
            return "other axes change"
        if not all(scale.is_integer() and 1 <= scale <= 32 for scale in scales):
            return f"factors {scales[0]:g} and {scales[1]:g}"
        fine = mode == "nearest" or (mode == "linear" and where == "half_pixel")
        return "" if fine else f"{mode} with {where}"

    return Rule("height and width grow by whole factors up to 32, nearest, or linear with half pixels", broken)
