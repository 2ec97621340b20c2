"""What Axera's AX650N takes.

Source: AXERA-TECH/pulsar2-docs-en@83fa86a (2026-07-30) `source/appendix/op_support_list_ax650.md`. Most operators are
"unlimited" there; what depends on a constant's value (scales of a Resize, K of a TopK) can't be seen here.
"""

from __future__ import annotations

from typing import Final

from npuops.models.model import Layer, Model
from npuops.models.placement import Placement
from npuops.targets.rules import OpRules, Rule, static_shapes
from npuops.vnpu import rule_conditions as that
from npuops.vnpu.layer_view import first_in, first_out, sizes, window_of

FORMATS: Final = ("int8", "w8a16", "fp16")
"""The benchmark rows are mixed int8 and int16; float16 is of the compiler's options (from memory)."""

_UNLIMITED: Final = (
    "Abs Add And ArgMax ArgMin BatchNormalization Cast Ceil Clip Concat Cos Div Elu Equal Erf Exp Expand Flatten "
    "Floor GatherElements GatherND Gelu GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample "
    "GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LSTM LeakyRelu Less LessOrEqual "
    "LogSoftmax MatMul Max Min Mish Mul Not ReduceL2 ReduceMax ReduceMean ReduceMin ReduceSum Relu Reshape "
    "RMSNormalization RotaryEmbedding Round ScatterElements ScatterND Sigmoid Sin Slice Softmax Softplus "
    "SpaceToDepth Split Sqrt Squeeze Sub Swish Tanh Tile TopK Transpose Unsqueeze Where Xor QuantizeLinear "
    "DequantizeLinear Dropout com.microsoft.Gelu"
)


def place_on(model: Model, number_format: str = "int8") -> tuple[Placement, ...]:
    """Every layer of the model, placed."""
    everywhere = (*that.computes_in(FORMATS, number_format), static_shapes())
    return that.place_by(model, _rules(), list_name="the AX650 list", everywhere=everywhere)


def _rules() -> OpRules:
    explicit = that.word_among("auto_pad", ("NOTSET",), "NOTSET")
    rules: dict[str, tuple[Rule, ...]] = {
        "AveragePool": (explicit, Rule("padding must be counted", _uncounted_padding)),
        "Conv": (explicit,),
        "ConvTranspose": (explicit, that.dilations_within(1)),
        "DepthToSpace": (that.word_among("mode", ("DCR",), "DCR"),),
        "Gather": (_one_list(),),
        "Gemm": (that.number_is("alpha", 1, 1), that.number_is("beta", 1, 1)),
        "LayerNormalization": (that.axis_among("W", others=("last",)),),
        "LpNormalization": (that.axis_among("W", others=("last",)),),
        "MaxPool": (explicit, that.dilations_within(1)),
        "PRelu": (that.constant_operand("slopes"),),
        "Pad": (that.word_among("mode", ("constant",), "constant"),),
        "Pow": (_one_exponent(),),
        "Resize": (_resize(),),
        "Upsample": (_resize(),),
    }
    rules |= dict.fromkeys(_UNLIMITED.split(), ())
    return rules


def _uncounted_padding(layer: Layer) -> str:
    window = window_of(layer)
    padded = window is not None and any(window.pads)
    return "count_include_pad 0" if padded and not layer.attributes.get("count_include_pad", 0) else ""


def _one_list() -> Rule:
    def broken(layer: Layer) -> str:
        indices = layer.weights[-1:] or layer.inputs[1:2]
        rank = len(indices[0].shape or ()) if indices else 1
        return f"indices of rank {rank}" if rank > 1 else ""

    return Rule("indices must have one dimension", broken)


def _one_exponent() -> Rule:
    def broken(layer: Layer) -> str:
        count = max((len(sizes(tensor)) and max(sizes(tensor)) for tensor in layer.weights), default=0)
        return "" if layer.weights and count <= 1 else "exponents that vary"

    return Rule("the exponent must be one constant", broken)


def _resize() -> Rule:
    def broken(layer: Layer) -> str:
        if that.resize_scales(layer) is None:
            return f"{list(first_in(layer))} to {list(first_out(layer))}"
        mode, where = that.resize_kind(layer)
        rounding = str(layer.attributes.get("nearest_mode", "round_prefer_floor"))
        if mode == "linear" or (mode == "nearest" and (rounding == "round_prefer_ceil" or that.repeats_pixels(layer))):
            return ""
        return f"{mode} with {where}, {rounding}"

    return Rule("linear, or nearest that prefers to round up (or repeats pixels)", broken)
