"""What D-Robotics' Bayes-e BPU takes (RDK X5).

Source: D-Robotics/rdk_doc `docs/07_Advanced_development/04_toolchain_development/intermediate/supported_op_list.md`
@fde2a10, the ONNX table of RDK X5 (opsets 10 and 11). Operators that the table puts on the CPU "by default, unless
asked for" are on the CPU here; D-Robotics' own model zoo asks (`node_info` in its configurations). Not judged: which
broadcasts of two activations the BPU does, and that a stride above 2 keeps an Add from being fused.

Readings of our own. Operators younger than opset 11 are judged as what an export to opset 11 makes of them: Gelu is Erf
between products, a LayerNormalization over the last axis is ReduceMean, Sub, Pow, Sqrt and Div, all on the list. A
constant of lower rank gets leading axes of 1, so that the operands of a MatMul have the same rank, as the list demands.
"""

from __future__ import annotations

import math
from typing import Final

from npuops.models.model import Layer, Model
from npuops.models.placement import Placement
from npuops.targets.rules import OpRules, Rule, static_shapes
from npuops.vnpu import rule_conditions as that
from npuops.vnpu.layer_view import Window, first_in, first_out, integers, is_tflite, nchw, sizes, window_of

FORMATS: Final = ("int8",)
"""The BPU has int16 as well (most of the list; not PRelu), of which the profile has no rate."""
MOST_VALUES: Final = 32_767
"""Of a filter of one output channel."""

_LOOKUP: Final = (
    "Abs Acos Acosh Asin Asinh Atan Atanh Ceil Clip Cos Cosh Elu Erf Exp Floor Gelu HardSigmoid HardSwish LeakyRelu "
    "Log Mish Reciprocal Round Selu Sigmoid Sign Sin Sinh Softplus Softsign Sqrt Swish Tan Tanh com.microsoft.Gelu"
)
_PLAIN: Final = (
    "BatchNormalization Relu Slice Transpose Dropout Identity GlobalAveragePool QuantizeLinear DequantizeLinear"
)
_ON_ASKING: Final = "Softmax Equal Greater Less Min GreaterOrEqual LessOrEqual"


def place_on(model: Model, number_format: str = "int8") -> tuple[Placement, ...]:
    """Every layer of the model, placed."""
    everywhere = (*that.computes_in(FORMATS, number_format), static_shapes())
    return that.place_by(model, _rules(), list_name="the BPU list of RDK X5", everywhere=everywhere)


def _rules() -> OpRules:
    pool = (that.flat_window(), that.kernel_within(1, 256), that.strides_within(1, 256))
    one_axis = (_ranks(2, 5), _one_axis())
    rules: dict[str, tuple[Rule, ...]] = {
        "ArgMax": (_ranks(4, 4), that.axis_among("C", default=0), that.channels_at_most(8191)),
        "AveragePool": (*pool, that.pads_within(255), that.window_obeys("windows of 2 to 8192 values", _averaged)),
        "Concat": (that.same_batch(),),
        "Conv": (that.constant_operand("weights"), *_convolution(), _dilated_plane()),
        "ConvTranspose": (that.constant_operand("weights"), that.flat_window(), *_transposed()),
        "DepthToSpace": (that.number_is("blocksize", 2, 2),),
        "Expand": (_ranks(1, 10), _one_axis()),
        "Gather": (_ranks(1, 4),),
        "GatherElements": (_ranks(1, 10),),
        "Gemm": (that.constant_operand("weights"), that.sizes_at_most(8192)),
        "GlobalMaxPool": (that.plane_at_most(256, side=True),),
        "GridSample": (
            that.word_among("mode", ("bilinear", "nearest", "linear"), "bilinear"),
            that.word_among("padding_mode", ("zeros", "border"), "zeros"),
            _ranks(4, 4),
            _sampled(),
        ),
        "LSTM": (_lstm_batch(),),
        "LayerNormalization": (_ranks(2, 5), that.axis_among("W", others=("last",))),
        "MatMul": (_matmul(),),
        "Max": (_ranks(0, 10),),
        "MaxPool": (*pool, that.pads_within(256), that.dilations_within(1)),
        "PRelu": (_ranks(4, 4),),
        "Pad": (that.word_among("mode", ("constant",), "constant"),),
        "Pow": (_ranks(0, 10), that.one_constant("exponent")),
        "ReduceMax": (*one_axis, that.sizes_at_most(8192)),
        "ReduceMean": (_ranks(2, 5), _one_axis(spatial=True)),
        "ReduceSum": one_axis,
        "Resize": (_resize(),),
        "SpaceToDepth": (that.number_is("blocksize", 2, 2),),
        "Split": (that.same_batch(), _even_parts()),
        "Tile": (_one_axis(),),
        "TopK": (_ranks(1, 10), that.number_is("sorted", 1, 1)),
        "Upsample": (_resize(),),
    }
    rules["ArgMin"] = rules["ArgMax"]
    rules |= dict.fromkeys(("Add", "Div", "Mul", "Sub", "Sum"), (_ranks(0, 10), that.varying_operand()))
    rules |= dict.fromkeys(_LOOKUP.split(), (_ranks(0, 10),))
    rules |= dict.fromkeys(("Reshape", "Flatten", "Squeeze", "Unsqueeze"), (_ranks(0, 10),))
    rules |= dict.fromkeys(_PLAIN.split(), ())
    rules |= dict.fromkeys(_ON_ASKING.split(), (that.never("on the CPU unless asked for by name"),))
    return rules


def _averaged(window: Window) -> str:
    count = math.prod(window.kernel)
    return "" if 1 < count <= 8192 else f"{count} values"


def _ranks(low: int, high: int) -> Rule:
    def broken(layer: Layer) -> str:
        ranks = [len(t.shape) for t in (*layer.inputs, *layer.outputs) if t.shape is not None and len(t.shape) > 0]
        odd = [rank for rank in ranks if not low <= rank <= high]
        return f"rank {odd[0]}" if odd else ""

    return Rule(f"rank must be {low}" if low == high else f"rank must be {low} to {high}", broken)


def _convolution() -> tuple[Rule, ...]:
    def volume(window: Window) -> str:
        if len(window.kernel) < 3:
            return ""
        strides = {window.strides[-2:]} <= {(1, 1), (2, 2)}
        plain = window.groups == 1 and max(window.dilations) == 1
        deep = window.kernel[0] * window.channels_in <= 8192 and window.pads[:1] <= (window.kernel[0] // 2,)
        fine = strides and plain and deep
        return "" if fine else f"kernel {list(window.kernel)}, strides {list(window.strides)}, {window.groups} groups"

    def tall(window: Window) -> str:
        return f"kernel {list(window.kernel)}" if max(window.kernel[-2:]) > 31 else ""

    def heavy(window: Window) -> str:
        count = window.channels_in * math.prod(window.kernel)
        return f"{count} values" if len(window.kernel) < 3 and count > MOST_VALUES else ""

    def holes(window: Window) -> str:
        wrong = max(window.dilations) > 1 and max(window.strides) > 1
        return f"dilation {max(window.dilations)} with stride {max(window.strides)}" if wrong else ""

    def wide(window: Window) -> str:
        most = max(window.channels_in, window.channels_out // max(window.groups, 1))
        return f"{most} channels" if most > 8192 else ""

    return (
        that.window_obeys(
            "in three dimensions: ungrouped, undilated, strides 1 or 2, depth x channels at most 8192", volume
        ),
        that.window_obeys("kernel height and width must be at most 31", tall),
        that.strides_within(1, 256),
        that.pads_within(256),
        that.dilations_within(16),
        that.window_obeys("dilation needs a stride of 1", holes),
        that.window_obeys(f"a filter must have at most {MOST_VALUES} values", heavy),
        that.window_obeys("a group must have at most 8192 channels", wide),
    )


def _transposed() -> tuple[Rule, ...]:
    def strides(window: Window) -> str:
        fine = all(1 <= stride <= 14 for stride in window.strides) and max(window.strides) > 1
        return "" if fine else f"strides {list(window.strides)}"

    def wide(window: Window) -> str:
        most = max(window.channels_in, window.channels_out)
        return f"{most} channels" if most > 2048 else ""

    def point(window: Window) -> str:
        return f"kernel {list(window.kernel)}" if max(window.kernel) == 1 else ""

    def heavy(window: Window) -> str:
        sides = zip(window.kernel, window.strides, window.pads or (0,) * 2, strict=False)
        count = window.channels_in * math.prod((k - 1 + pad % max(s, 1)) // max(s, 1) + 1 for k, s, pad in sides)
        return f"{count} values" if count > MOST_VALUES else ""

    def padding(window: Window) -> str:
        limits = [k / max(s, 1) for k, s in zip(window.kernel, window.strides, strict=False)] * 2
        pairs = list(zip(window.pads, limits, window.strides * 2, strict=False))
        wide = any(pad > limit or (pad == limit and stride % 2) for pad, limit, stride in pairs)
        return f"pads {list(window.pads)} of kernel {list(window.kernel)}" if wide else ""

    return (
        that.kernel_within(1, 14),
        that.window_obeys("kernel must not be 1x1", point),
        that.window_obeys("padding must be at most kernel / stride (below it, for odd strides)", padding),
        _one_more_at_most(),
        that.window_obeys("strides must be 1 to 14, and not both 1", strides),
        that.dilations_within(1),
        that.window_obeys(f"each phase of a filter must have at most {MOST_VALUES} values", heavy),
        that.window_obeys("at most 2048 channels", wide),
    )


def _one_more_at_most() -> Rule:
    def broken(layer: Layer) -> str:
        extra = integers(layer, "output_padding", (0,))
        return f"output_padding {list(extra)}" if max(extra) > 1 else ""

    return Rule("output padding must be 0 or 1", broken)


def _dilated_plane() -> Rule:
    """Height and width of the input are multiples of the dilation."""

    def broken(layer: Layer) -> str:
        window, image = window_of(layer), nchw(layer, first_in(layer))
        if window is None or image is None:
            return ""
        rest = [size % max(step, 1) for size, step in zip(image[2:], window.dilations, strict=False)]
        return f"{image[2]}x{image[3]} by {list(window.dilations)}" if any(rest) else ""

    return Rule("height and width must be multiples of the dilation", broken)


def _sampled() -> Rule:
    def broken(layer: Layer) -> str:
        image = nchw(layer, first_in(layer))
        if image is None:
            return ""
        large = max(image[2:]) > 1024 or image[2] * image[3] > 512 * 512
        return f"{image[2]}x{image[3]}" if large else ""

    return Rule("height and width must be at most 1024, and 512 x 512 together", broken)


def _lstm_batch() -> Rule:
    def broken(layer: Layer) -> str:
        shape = first_in(layer)
        return f"batch {shape[1]}" if len(shape) == 3 and shape[1] != 1 else ""

    return Rule("batch must be 1", broken)


def _matmul() -> Rule:
    def broken(layer: Layer) -> str:
        shapes = [sizes(tensor) for tensor in (*layer.inputs, *layer.weights)]
        ranks = {len(sizes(tensor)) for tensor in layer.inputs}
        most = max(ranks, default=0)
        ranks |= {rank for rank in (len(sizes(tensor)) for tensor in layer.weights) if rank > most}
        longest = max((dim for shape in shapes for dim in shape[-2:]), default=0)
        if len(ranks) > 1:
            return f"ranks {', '.join(map(str, sorted(ranks)))}"
        return f"size {longest}" if longest > 8192 else ""

    return Rule("activations must have the same rank, constants no higher one, rows and columns at most 8192", broken)


def _one_axis(*, spatial: bool = False) -> Rule:
    """The axes that change, read off the shapes; a reduction that drops its axes can't be told and is refused."""

    def broken(layer: Layer) -> str:
        before, after = first_in(layer), first_out(layer)
        if not before or not after:
            return ""
        if len(before) != len(after):
            return f"{list(before)} to {list(after)}"
        changed = [axis for axis, (a, b) in enumerate(zip(before, after, strict=True)) if a != b]
        plane = [1, 2] if is_tflite(layer) else [2, 3]
        whole_plane = spatial and changed == plane and len(before) == 4
        return "" if len(changed) <= 1 or whole_plane else f"{len(changed)} axes"

    more = " (or height and width together)" if spatial else ""
    return Rule(f"one axis only{more}, and it stays", broken)


def _even_parts() -> Rule:
    def broken(layer: Layer) -> str:
        whole, parts = first_in(layer), [sizes(tensor) for tensor in layer.outputs]
        odd = [part for part in parts if len(part) == len(whole) and any(map(_rest, whole, part))]
        return f"part {list(odd[0])} of {list(whole)}" if odd else ""

    return Rule("the length must be a multiple of every part's", broken)


def _rest(whole: int, part: int) -> int:
    return whole % max(part, 1)


def _resize() -> Rule:
    modes = {"half_pixel", "pytorch_half_pixel", "asymmetric", "align_corners", "tf_crop_and_resize"}

    def broken(layer: Layer) -> str:
        scales, (mode, where) = that.resize_scales(layer), that.resize_kind(layer)
        if scales is None:
            return f"{list(first_in(layer))} to {list(first_out(layer))}"
        if mode not in {"nearest", "linear"} or where not in modes:
            return f"{mode} with {where}"
        powers = all(scale >= 1 and math.log2(scale).is_integer() for scale in scales) and scales[0] <= scales[1]
        return "" if mode == "linear" or powers else f"nearest by {scales[0]:g} and {scales[1]:g}"

    return Rule("height and width of an image, linear, or nearest by powers of two", broken)
