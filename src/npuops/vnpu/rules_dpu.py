"""What AMD's DPUCZDX8G takes in its B4096 configuration (ZCU102, ZCU104, KV260).

Sources: AMD UG1414 3.5 "Currently Supported Operators", column DPUCZDX8G_ISA1_B4096 (the rows of convolution and
depthwise convolution were readable), and the feature list of PG338. Limits of pooling and element-wise layers were not
readable; the compiler's "network-specific limitations" of Concat can't be known. The DPU computes in 8 bits.
"""

from __future__ import annotations

import math
from typing import Final

from npuops.models.model import Layer, Model
from npuops.models.placement import Placement
from npuops.targets.rules import Rule, static_shapes
from npuops.vnpu import rule_conditions as that
from npuops.vnpu.layer_view import Window

FORMATS: Final = ("int8",)
CHANNEL_PARALLEL: Final = 16
BANK_DEPTH: Final = 2048

_FREE: Final = (
    "MaxPool AveragePool GlobalAveragePool GlobalMaxPool Relu Clip LeakyRelu HardSigmoid HardSwish Add Mul Concat "
    "BatchNormalization SpaceToDepth Softmax Flatten Reshape Squeeze Unsqueeze Pad Identity Dropout QuantizeLinear "
    "DequantizeLinear"
)


def place_on(model: Model, number_format: str = "int8") -> tuple[Placement, ...]:
    """Every layer of the model, placed."""
    rules: dict[str, tuple[Rule, ...]] = {
        "Conv": (*_common(), that.kernel_by_kind(16, 256), that.strides_within(1, 8)),
        "ConvTranspose": (*_common(), that.kernel_by_kind(16, 256)),
        "Gemm": (that.constant_operand("weights"),),
        "MatMul": (that.constant_operand("weights"),),
        "ReduceMean": (that.spatial_reduction(),),
        "Resize": (Rule("repeats pixels", _repeats),),
        "Upsample": (Rule("repeats pixels", _repeats),),
    }
    rules |= dict.fromkeys(_FREE.split(), ())
    everywhere = (*that.computes_in(FORMATS, number_format), static_shapes())
    return that.place_by(model, rules, list_name="the DPU list", everywhere=everywhere)


def _repeats(layer: Layer) -> str:
    return "" if that.repeats_pixels(layer) else " with ".join(that.resize_kind(layer))


def _common() -> tuple[Rule, ...]:
    most = 256 * CHANNEL_PARALLEL

    def bank(window: Window) -> str:
        used = math.prod(window.kernel) * math.ceil(window.channels_in / CHANNEL_PARALLEL)
        return f"{used} entries" if used > BANK_DEPTH else ""

    def wide(window: Window) -> str:
        widest = max(window.channels_out, window.channels_in * max(window.dilations))
        return f"{widest} channels x dilation" if widest > most else ""

    return (
        that.flat_window(),
        that.constant_operand("weights"),
        that.plain_or_depthwise(),
        that.window_obeys(f"a filter must fill at most {BANK_DEPTH} entries of the bank", bank),
        that.window_obeys(f"output channels, and input channels x dilation, must be at most {most}", wide),
    )
