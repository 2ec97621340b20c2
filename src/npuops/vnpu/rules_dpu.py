"""What AMD's DPUCZDX8G takes in its B4096 configuration (ZCU102, ZCU104, KV260).

Sources: AMD UG1414 3.5, chapter 4 "Supported Operators and DPU Limitations", column DPUCZDX8G_ISA1_B4096 and the tables
by framework (of other rows than the convolutions a public digest was read, not the page); Xilinx/Vitis-AI,
`nndct_shared/inspector` (AMD's own check before compiling: its `filter_…` functions). The "network-specific
limitations" of Concat can't be known. A transpose is "fused into load and save, or CPU": it is on the CPU here. A
LeakyRelu's slope is rounded to 26/256, the only one that the DPU has; 0.1 is that one. The DPU computes in 8 bits.
"""

from __future__ import annotations

import math
from typing import Final

from npuops.models.model import Layer, Model
from npuops.models.placement import Placement
from npuops.targets.rules import Rule, static_shapes
from npuops.vnpu import rule_conditions as that
from npuops.vnpu.layer_view import Window, first_out, integers, nchw, sizes

FORMATS: Final = ("int8",)
CHANNEL_PARALLEL: Final = 16
BANK_DEPTH: Final = 2048
MOST_CHANNELS: Final = 256 * CHANNEL_PARALLEL
LEAKY_STEPS: Final = 26
"""Slope of a LeakyRelu, in 256ths."""

_FREE: Final = (
    "Relu Clip HardSigmoid HardSwish Concat BatchNormalization Flatten Reshape Squeeze Unsqueeze Identity Dropout "
    "QuantizeLinear DequantizeLinear"
)


def place_on(model: Model, number_format: str = "int8") -> tuple[Placement, ...]:
    """Every layer of the model, placed."""
    pool = (that.flat_window(), that.kernel_within(1, 256), that.pads_inside_kernel(), that.dilations_within(1))
    whole_plane = (that.plane_at_most(256, side=True),)
    rules: dict[str, tuple[Rule, ...]] = {
        "Add": (that.channels_at_most(MOST_CHANNELS),),
        "ArgMax": (that.axis_among("C", default=0), that.channels_at_most(128)),
        "AveragePool": pool,
        "Conv": (*_common(), that.kernel_by_kind(16, 256), _strides(), that.pads_inside_kernel()),
        "ConvTranspose": (*_common(), _phases(), Rule("no output padding", _output_padding)),
        "Gemm": (that.constant_operand("weights"),),
        "GlobalAveragePool": whole_plane,
        "GlobalMaxPool": whole_plane,
        "LeakyRelu": (Rule(f"the slope must be {LEAKY_STEPS}/256", _other_slope),),
        "MatMul": (that.constant_operand("weights"),),
        "MaxPool": pool,
        "Mul": (that.channels_at_most(MOST_CHANNELS), Rule("operands of equal shape, or a constant", _spread)),
        "Pad": (that.word_among("mode", ("constant",), "constant"), that.channels_at_most(MOST_CHANNELS)),
        "ReduceMean": (that.spatial_reduction(),),
        "Resize": (_resize(),),
        "SpaceToDepth": (Rule(f"at most {MOST_CHANNELS} channels after it", _deep),),
        "Upsample": (_resize(),),
    }
    rules |= dict.fromkeys(_FREE.split(), ())
    everywhere = (*that.computes_in(FORMATS, number_format), static_shapes())
    return that.place_by(model, rules, list_name="the DPU list", everywhere=everywhere)


def _deep(layer: Layer) -> str:
    image = nchw(layer, first_out(layer))
    return f"{image[1]} channels" if image is not None and image[1] > MOST_CHANNELS else ""


def _other_slope(layer: Layer) -> str:
    slope = layer.attributes.get("alpha", 0.01)
    right = isinstance(slope, int | float) and abs(slope * 256 - LEAKY_STEPS) < 0.5
    return "" if right else f"alpha {slope}"


def _spread(layer: Layer) -> str:
    """A product of two activations, one of which is broadcast."""
    shapes = {sizes(tensor) for tensor in layer.inputs}
    return f"shapes {sorted(map(list, shapes))}" if len(shapes) > 1 else ""


def _output_padding(layer: Layer) -> str:
    extra = integers(layer, "output_padding", (0,))
    return f"output_padding {list(extra)}" if any(extra) else ""


def _strides() -> Rule:
    def found(window: Window) -> str:
        limit = 256 if window.depthwise else 8
        return f"strides {list(window.strides)}" if max(window.strides) > limit else ""

    return that.window_obeys("strides must be at most 8, depthwise 256", found)


def _phases() -> Rule:
    """A transposed convolution runs as one convolution for each phase of its stride."""

    def found(window: Window) -> str:
        limit = 256 if window.depthwise else 16
        phases = [math.ceil(k / max(s, 1)) for k, s in zip(window.kernel, window.strides, strict=False)]
        return f"kernel {list(window.kernel)} over {list(window.strides)}" if max(phases) > limit else ""

    return that.window_obeys("kernel over stride must be at most 16, depthwise 256", found)


def _resize() -> Rule:
    """Nearest by whole factors; linear as a transposed depthwise convolution."""
    linear = {"asymmetric": (1, 2, 4, 8), "half_pixel": (1, 2, 4), "pytorch_half_pixel": (1, 2, 4)}

    def broken(layer: Layer) -> str:
        scales, (mode, where) = that.resize_scales(layer), that.resize_kind(layer)
        if scales is None:
            return "other axes change"
        if mode == "nearest" and that.repeats_pixels(layer):
            return ""
        fine = mode == "linear" and set(scales) <= set(linear.get(where, ()))
        return "" if fine else f"{mode} with {where} by {scales[0]:g} and {scales[1]:g}"

    return Rule("nearest by whole factors, or linear by 2, 4 (without half pixels 8), corners not aligned", broken)


def _common() -> tuple[Rule, ...]:
    def bank(window: Window) -> str:
        used = math.prod(window.kernel) * math.ceil(window.channels_in / CHANNEL_PARALLEL)
        return f"{used} entries" if used > BANK_DEPTH else ""

    def wide(window: Window) -> str:
        widest = max(window.channels_out, window.channels_in * window.groups * max(window.dilations))
        return f"{widest} channels x dilation" if widest > MOST_CHANNELS else ""

    return (
        that.flat_window(),
        that.constant_operand("weights"),
        that.plain_or_depthwise(),
        that.window_obeys(f"a filter must fill at most {BANK_DEPTH} entries of the bank", bank),
        that.window_obeys(f"output channels, and input channels x dilation, must be at most {MOST_CHANNELS}", wide),
    )
