"""What the Neural-ART accelerator of the STM32N6 takes.

Sources: ST, "ST Neural-ART NPU - Supported operators and limitations" (ST Edge AI Core 3.0.0, r1.2): its introduction
was read (8-bit weights and activations, fixed shapes, float layers run on the Cortex-M55); its table was readable only
second-hand, as names without limits, in a public note of 2026-05-14. So the names are right as far as that note is, and
the limits are missing: an upper bound.
"""

from __future__ import annotations

from typing import Final

from npuops.models.model import Layer, Model
from npuops.models.placement import Placement
from npuops.targets.rules import Rule, static_shapes
from npuops.vnpu import rule_conditions as that

FORMATS: Final = ("int8",)

_FREE: Final = (
    "AveragePool MaxPool GlobalAveragePool GlobalMaxPool Relu Clip LeakyRelu PRelu HardSwish Sigmoid Tanh Add Mul Sub "
    "Abs Ceil Reshape Flatten Squeeze Unsqueeze Slice Split MatMul Transpose Concat Pad SpaceToDepth Cast Equal And "
    "Not Or Identity Dropout QuantizeLinear DequantizeLinear BatchNormalization"
)


def place_on(model: Model, number_format: str = "int8") -> tuple[Placement, ...]:
    """Every layer of the model, placed."""
    nearest = Rule("nearest only", _other_interpolation)
    weights = (that.flat_window(), that.constant_operand("weights"))
    rules: dict[str, tuple[Rule, ...]] = {
        "Conv": weights,
        "ConvTranspose": weights,
        "Gemm": (that.constant_operand("weights"),),
        "ReduceMean": (that.spatial_reduction(),),
        "Resize": (nearest,),
        "Upsample": (nearest,),
    }
    rules |= dict.fromkeys(_FREE.split(), ())
    everywhere = (*that.computes_in(FORMATS, number_format), static_shapes())
    return that.place_by(model, rules, list_name="the Neural-ART list", everywhere=everywhere)


def _other_interpolation(layer: Layer) -> str:
    mode, _ = that.resize_kind(layer)
    return "" if mode == "nearest" else mode
