"""What Rockchip's NPUs take: RKNPU2 (RK3588, RK3576, RK3566) with its limits, RKNPU1 (RV1126) by names only.

Sources: airockchip/rknn-toolkit2@59a913d (2025-07-29), `doc/05_RKNN_Compiler_Support_Operator_List_V2.3.2.pdf`,
chapter 3 (per chip; what stands only in chapter 4 runs on the chip's CPU cores) and the batch remarks of
`doc/RKNNToolKit2_OP_Support-2.3.2.md`; rockchip-linux/rknn-toolkit, `doc/RKNN_OP_Support_V1.6.1.md`@915b77b (ONNX)
and `_V1.7.5.md`@7e767b0 (TFLite), which give no limits.

Readings of our own. Pools are limited to windows of 7 and global pools to planes of 7 x 7; the compiler may cut larger
ones into several, which the list doesn't say, so they are placed on the CPU here. `auto_pad` and, of a maximum,
`ceil_mode` are only other words for explicit padding, so they are not held against a pool. Division, normalisation and
recurrent layers are published for float16 only; in an int8 model they stay on the NPU and compute in float16. Of
element-wise broadcasts the list says both "any axis" and "as Expand": the first is taken. Where the two documents
differ (batch of a GRU), the stricter counts. The RV1126's ONNX list has Upsample and, for PyTorch, both interpolations
and padding by a constant: Resize and Pad are those operators in later opsets.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from npuops.models.model import Layer, Model
from npuops.models.placement import Placement
from npuops.targets.rules import OpRules, Rule, rank_at_most, static_shapes
from npuops.vnpu import rule_conditions as that
from npuops.vnpu.layer_view import Window, axis_letter, first_in, first_out, integers, is_tflite, nchw, sizes, word
from npuops.vnpu.rockchip_transpose import transposes


class Chip(StrEnum):
    """Chips with a list of their own."""

    RK3588 = "rk3588"
    RK3576 = "rk3576"
    RK3566 = "rk3566"
    RV1126 = "rv1126"


FORMATS: Final = {
    Chip.RK3588: ("int8", "fp16"),
    Chip.RK3576: ("int8", "fp16"),
    Chip.RK3566: ("int8", "fp16"),
    Chip.RV1126: ("int8",),
}
"""RKNPU2: the data types of the list. The RV1126 has a 16-bit mode as well, of which its profile has no rate."""

_ELEMENTWISE: Final = "Add Mul Div Max Min"
_LOOKUP: Final = "Relu Clip LeakyRelu Sigmoid Tanh Softplus HardSwish Mish Gelu Swish"
_NORM: Final = "LayerNormalization RMSNormalization MeanVarianceNormalization"
_MOVE: Final = "Reshape Flatten Squeeze Unsqueeze Concat Split"
_VANISH: Final = "Identity Dropout QuantizeLinear DequantizeLinear"
_RKNPU1: Final = (
    "AveragePool GlobalAveragePool Conv ConvTranspose MaxPool GlobalMaxPool Gemm MatMul Slice Split Concat Reshape "
    "Flatten Squeeze Transpose DepthToSpace SpaceToDepth Add Sum Sub Mul Div Relu Clip LeakyRelu Softmax PRelu Floor "
    "BatchNormalization LRN Tanh Elu Sigmoid Unsqueeze LogSoftmax Dropout InstanceNormalization Sqrt Log Cast Exp "
    "Identity Upsample Resize Pad ReduceMean ReduceMax ReduceMin ReduceSum Gather LSTM GRU QuantizeLinear "
    "DequantizeLinear"
)
_RKNPU1_TFLITE: Final = (
    "ADD ARG_MAX ARG_MIN AVERAGE_POOL_2D BATCH_TO_SPACE_ND CONCATENATION CONV_2D DEPTHWISE_CONV_2D DEQUANTIZE DIV "
    "DEPTH_TO_SPACE FLOOR FLOOR_DIV FULLY_CONNECTED GATHER GREATER GREATER_EQUAL L2_NORMALIZATION L2_POOL_2D "
    "LEAKY_RELU LESS LESS_EQUAL LOCAL_RESPONSE_NORMALIZATION LOGISTIC LOG_SOFTMAX LSTM MAX_POOL_2D MIRROR_PAD MUL NEG "
    "NOT_EQUAL PAD POW PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR "
    "RESIZE_NEAREST_NEIGHBOR RSQRT SELECT SOFTMAX SPACE_TO_BATCH_ND SPACE_TO_DEPTH SPLIT SPLIT_V SQRT SQUEEZE "
    "STRIDED_SLICE SUB SUM SVDF TANH TILE TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK"
)


def place_on(model: Model, chip: Chip, number_format: str = "int8") -> tuple[Placement, ...]:
    """Every layer of the model, placed.

    Args:
        model: what to place.
        chip: for which list.
        number_format: what it will compute in (`npuops.vnpu.perf.FORMATS`).
    """
    everywhere = (*that.computes_in(FORMATS[chip], number_format), static_shapes())
    if chip is Chip.RV1126:
        names = {**dict.fromkeys(_RKNPU1.split(), ()), **dict.fromkeys(_RKNPU1_TFLITE.split(), ())}
        rules: OpRules = names
        list_name = "the RKNN Toolkit 1 list"
        return that.place_by(model, rules, list_name=list_name, everywhere=everywhere, both_words=False)
    rules = rules_of_chip(chip, number_format)
    name = f"the NPU list of {chip.upper()}"
    return that.place_by(model, rules, list_name=name, everywhere=(*everywhere, rank_at_most(4)))


def rules_of_chip(chip: Chip, number_format: str = "int8") -> OpRules:
    """The list of an RKNPU2 chip, in ONNX words."""
    plane = that.plane_at_most(7, side=True)
    highest = plane if chip is not Chip.RK3576 else that.plane_at_most(8192, side=True)
    rules: dict[str, tuple[Rule, ...]] = {
        "AveragePool": (*_pool(), that.padding_counted(), that.number_is("ceil_mode", 0, 0)),
        "BatchNormalization": (),
        "Conv": (
            *_convolution(),
            that.kernel_by_kind(31, 8),
            that.strides_within(1, 7),
            that.dilations_by_kind(31, 32),
        ),
        "ConvTranspose": (*_convolution(), *_transposed(chip)),
        "Elu": (that.number_is("alpha", 1, 1),),
        "Expand": (_expand(),),
        "GRU": (_batch_of_sequence(1),),
        "Gather": (that.indices_of_rank(1),),
        "Gemm": (that.constant_operand("weights"),),
        "GlobalAveragePool": (plane, that.sizes_at_most(8192)),
        "GlobalMaxPool": (highest, that.sizes_at_most(8192)),
        "HardSigmoid": (that.number_is("alpha", 1 / 6, 0.2), that.number_is("beta", 0.5, 0.5)),
        "LSTM": (_batch_of_sequence(4),),
        "MatMul": (_depth(),),
        "MaxPool": _pool(),
        "PRelu": (that.constant_operand("slopes"),),
        "Pad": (that.word_among("mode", ("constant", "reflect"), "constant"), _reflection()),
        "Pow": (that.one_constant("exponent"),),
        "ReduceMean": (that.spatial_reduction(plane),),
        "Resize": (_resize(),),
        "Slice": (that.batch_one_of_image(),),
        "Sub": (_per_channel(),),
        "Tile": (that.batch_one_of_image(),),
        "Transpose": (transposes(chip.value, number_format),),
        "Upsample": (_resize(),),
        "Where": (),
    }
    rules |= dict.fromkeys(f"{_ELEMENTWISE} {_LOOKUP} {_NORM} {_MOVE} {_VANISH}".split(), ())
    rules["com.microsoft.Gelu"] = ()
    if chip is not Chip.RK3566:
        rules["Softmax"] = (that.axis_among("CW", others=("last", "middle")), that.batch_one_of_image())
        rules["Hardmax"] = (that.axis_among("CW", others=("last", "middle")), _hardmax_plane())
    if chip is Chip.RK3576:
        rules["Greater"] = ()
    return rules


def _convolution() -> tuple[Rule, ...]:
    return (that.flat_window(), that.constant_operand("weights"), that.pads_within(15))


def _transposed(chip: Chip) -> tuple[Rule, ...]:
    strides = that.strides_within(1, 8) if chip is Chip.RK3576 else that.strides_in((1, 2, 4, 8))

    def holes(window: Window) -> str:
        dilated = max(window.dilations) > 1 and max(window.kernel) > 1
        return f"dilations {list(window.dilations)} of kernel {list(window.kernel)}" if dilated else ""

    return (
        that.kernel_within(1, 31),
        strides,
        that.pads_inside_kernel(),
        that.plain_or_depthwise(),
        that.window_obeys("dilation needs a kernel of 1", holes),
    )


def _pool() -> tuple[Rule, ...]:
    windows = (that.kernel_within(1, 7), that.strides_within(1, 8), that.pads_within(7), that.dilations_within(1))
    return (that.flat_window(), *windows, that.sizes_at_most(8192))


def _batch_of_sequence(multiple: int) -> Rule:
    """Sequences at a time: one, or a multiple of `multiple` (of 1: one only)."""

    def broken(layer: Layer) -> str:
        shape = first_in(layer)
        batch = shape[1] if len(shape) == 3 else 1
        fine = batch == 1 or (multiple > 1 and batch % multiple == 0)
        return "" if fine else f"batch {batch}"

    return Rule("batch must be 1" + (f" or a multiple of {multiple}" if multiple > 1 else ""), broken)


def _reflection() -> Rule:
    def broken(layer: Layer) -> str:
        image = nchw(layer, first_in(layer))
        if image is None or word(layer, "mode", "constant") != "reflect":
            return ""
        return f"size {list(image)}" if max(image[1:3]) > 8192 or image[3] > 8176 else ""

    return Rule("a reflected image has at most 8192 channels and rows, and 8176 columns", broken)


def _hardmax_plane() -> Rule:
    def broken(layer: Layer) -> str:
        image = nchw(layer, first_in(layer))
        if image is None:
            return ""
        letter = axis_letter(layer, integers(layer, "axis", (-1,))[0], 4)
        plane = image[2] * image[3] if letter == "C" else image[1] * image[2]
        return f"{plane} lines" if plane >= 16_384 else ""

    return Rule("fewer than 16,384 lines at a time", broken)


def _depth() -> Rule:
    def broken(layer: Layer) -> str:
        shape = first_in(layer)
        return f"length {shape[-1]}" if shape and shape[-1] > 8192 else ""

    return Rule("a product adds up at most 8192 values", broken)


def _per_channel() -> Rule:
    """A subtraction takes equal shapes, a scalar, or one value per channel."""

    def broken(layer: Layer) -> str:
        shapes = [sizes(tensor) for tensor in (*layer.inputs, *layer.weights)]
        whole = first_out(layer)
        channel = -1 if is_tflite(layer) else -3
        odd = [shape for shape in shapes if shape and not _is_per_channel(shape, whole, channel)]
        return f"{list(odd[0])} against {list(whole)}" if odd else ""

    return Rule("an operand must have the full shape, one value per channel, or one value", broken)


def _is_per_channel(shape: tuple[int, ...], whole: tuple[int, ...], channel: int) -> bool:
    """`shape` broadcasts over height and width at most."""
    if shape == whole or max(shape) == 1:
        return True
    if len(whole) != 4 or len(shape) < -channel:
        return False
    others = [size for axis, size in enumerate(shape, -len(shape)) if axis != channel]
    return max(others, default=1) == 1 and shape[channel] == whole[channel]


def _expand() -> Rule:
    """The published patterns: channels, height and width grow from the right sides only."""

    def broken(layer: Layer) -> str:
        before, after = nchw(layer, first_in(layer)), nchw(layer, first_out(layer))
        if before is None or after is None:
            return ""
        grown = "".join(letter for letter, a, b in zip("NCHW", before, after, strict=True) if a != b)
        fine = grown in {"", "H", "W", "HW", "CH", "CW"} and max(after[2:]) <= 8192
        return "" if fine else f"{list(before)} to {list(after)}"

    return Rule("broadcasts over height and width, or channels with one of them", broken)


def _resize() -> Rule:
    modes = {"half_pixel", "pytorch_half_pixel", "align_corners"}

    def broken(layer: Layer) -> str:
        scales, (mode, where) = that.resize_scales(layer), that.resize_kind(layer)
        if scales is None:
            return f"{list(first_in(layer))} to {list(first_out(layer))}"
        if mode not in {"nearest", "linear"}:
            return f"mode {mode}"
        if where not in modes and not that.repeats_pixels(layer):
            return f"{mode} with {where}"
        image = nchw(layer, first_in(layer))
        point = image is not None and image[2:] == (1, 1)
        whole = all(scale.is_integer() and 2 <= scale <= 8 for scale in scales) or scales == (1, 1)
        return "" if whole or point else f"factors {scales[0]:g} and {scales[1]:g}"

    words = "height and width grow by whole factors of 2 to 8, nearest or linear, half-pixel or aligned corners"
    return Rule(words, broken)
