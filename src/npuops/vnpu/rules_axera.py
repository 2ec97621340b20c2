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
from npuops.vnpu.layer_view import first_in, first_out

FORMATS: Final = ("int8",)
"""The chip has 16-bit modes as well, of which the profile has no rate."""

_UNLIMITED: Final = (
    "Abs Add And BatchNormalization Ceil Clip Concat Cos Div Elu Equal Erf Exp Expand Flatten "
    "Floor GatherElements GatherND Gelu GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual GridSample "
    "GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LeakyRelu Less LessOrEqual "
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
    first_of_equals = (that.number_is("select_last_index", 0, 0),)
    rules: dict[str, tuple[Rule, ...]] = {
        "ArgMax": first_of_equals,
        "ArgMin": first_of_equals,
        "AveragePool": (explicit, that.padding_counted()),
        "Cast": (Rule("to 8, 16 or 32 bits", _wide),),
        "Conv": (explicit,),
        "ConvTranspose": (explicit, that.dilations_within(1), _left_out("output_shape")),
        "DepthToSpace": (that.word_among("mode", ("DCR",), "DCR"),),
        "Gather": (that.indices_of_rank(1, 0),),
        "Gemm": (that.number_is("alpha", 1, 1), that.number_is("beta", 1, 1)),
        "LayerNormalization": (that.axis_among("W", others=("last",)),),
        "LSTM": (_left_out("activations", "activation_alpha", "activation_beta", "clip", "input_forget", "layout"),),
        "LpNormalization": (that.axis_among("W", others=("last",)),),
        "MaxPool": (explicit, that.dilations_within(1), that.number_is("storage_order", 0, 0)),
        "PRelu": (that.constant_operand("slopes"),),
        "Pad": (that.word_among("mode", ("constant",), "constant"),),
        "Pow": (that.one_constant("exponent"),),
        "Resize": (_resize(),),
        "RoiAlign": (Rule("sampling_ratio must not be 0", _adaptive),),
        "Upsample": (_resize(),),
    }
    rules |= dict.fromkeys(_UNLIMITED.split(), ())
    return rules


def _wide(layer: Layer) -> str:
    kinds = {"uint8", "int8", "uint16", "int16", "uint32", "int32", "float32"}
    odd = [tensor.dtype for tensor in layer.outputs if tensor.dtype not in kinds]
    return f"to {odd[0]}" if odd else ""


def _left_out(*names: str) -> Rule:
    def broken(layer: Layer) -> str:
        return ", ".join(f"{name} {layer.attributes[name]}" for name in names if layer.attributes.get(name))

    return Rule(f"{', '.join(names)} must be left out", broken)


def _adaptive(layer: Layer) -> str:
    return "" if layer.attributes.get("sampling_ratio", 0) else "sampling_ratio 0"


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
