"""What the deep-learning accelerator (DLA) of NVIDIA Orin takes through TensorRT 8.5 and 8.6.

Sources: NVIDIA/Deep-Learning-Accelerator-SW `operators/README.md`@ea61780 (2024-06-10): operators marked "Native",
without those that came with 8.6.12 (DRIVE only); and the general limits and first rows of "DLA Supported Layers and
Restrictions" on docs.nvidia.com. Limits of pooling, resizing, slicing and softmax were not readable. What is not taken
runs on the GPU ("CPU" in a placement means: not on the accelerator).
"""

from __future__ import annotations

from typing import Final

from npuops.models.model import Model
from npuops.models.placement import Placement
from npuops.targets.rules import Rule, static_shapes
from npuops.vnpu import rule_conditions as that

FORMATS: Final = ("int8", "fp16")

_FREE: Final = (
    "Abs Add AveragePool BatchNormalization Clip Equal LRN LeakyRelu Max MaxPool Mul Relu Reshape Sigmoid Slice "
    "Softmax Split Sub Sum Tanh QuantizeLinear DequantizeLinear"
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
        "Resize": (Rule("an image", lambda layer: "" if that.resize_scales(layer) else "other axes change"),),
    }
    rules |= dict.fromkeys(_FREE.split(), ())
    everywhere = (*that.computes_in(FORMATS, number_format), static_shapes(), that.sizes_at_most(8192))
    return that.place_by(model, rules, list_name="TensorRT's DLA list", everywhere=everywhere)
