"""What TI's C7x with its matrix unit takes through TIDL (AM62A, AM67A, AM68A, TDA4VM, …).

Source: TexasInstruments/edgeai-tidl-tools `docs/operators.md`@238cb8b (ONNX and TFLite tables). What the list says of
values (steps of slices, padding by zero, limits of a Clip) can't be seen here and is taken to be fine. Of a scatter
only its kind and rank are judged, of signed and unsigned operands nothing. Of a TFLite softmax the list names no axis.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Final

from npuops.models.model import Layer, Model, ModelFormat
from npuops.models.placement import Placement
from npuops.targets.qnn_rules import rules_for as htp_rules_for
from npuops.targets.rules import OpRules, Rule, rank_at_most, static_shapes
from npuops.vnpu import rule_conditions as that
from npuops.vnpu.layer_view import Window, first_in, first_out, in_both_words, integers, is_tflite, nchw


class Chip(StrEnum):
    """AM62A and AM67A have a smaller unit with two more limits."""

    AM62A = "am62a"
    AM68A = "am68a"
    TDA4VM = "tda4vm"


FORMATS: Final = ("int8", "w8a16")

_SIX: Final = (
    "Relu Flatten Sigmoid Squeeze Tanh HardSigmoid Elu Reshape Sqrt Asin Asinh HardSwish Mish Log Abs Floor Exp "
    "Sin Acos Atan Sinh Neg Cos Cosh Tan Expand LeakyRelu Unsqueeze"
)
_TFLITE: Final = (
    "CONV_2D DEPTHWISE_CONV_2D AVERAGE_POOL_2D MEAN MAX_POOL_2D PRELU RELU RELU6 MUL ADD SUB DIV FULLY_CONNECTED "
    "SOFTMAX TRANSPOSE_CONV CONCATENATION STRIDED_SLICE ARG_MAX RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR DEPTH_TO_SPACE "
    "LOGISTIC PAD QUANTIZE DEQUANTIZE SQUEEZE TANH ELU RESHAPE TRANSPOSE LEAKY_RELU PACK CAST SPACE_TO_DEPTH"
)
_TFLITE_ALONE: Final = "BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND PACK CAST"
_ONNX_ROUNDING: Final = "round_prefer_floor"
"""What an ONNX Resize that says nothing does."""


def place_on(model: Model, chip: Chip, number_format: str = "int8") -> tuple[Placement, ...]:
    """Every layer of the model, placed."""
    rules = dict(_rules(chip, model, number_format))
    if model.format is ModelFormat.TFLITE:
        both = in_both_words(rules)
        rules = {name: both[name] for name in _TFLITE.split() if name in both}
        rules |= dict.fromkeys(_TFLITE_ALONE.split(), ())
        rules["MEAN"] = (that.spatial_reduction(that.plane_at_most(1024)),)
        rules["SOFTMAX"] = (that.busy_rank_at_most(6),)
        rules["PRELU"] = (that.busy_rank_at_most(6),)
    everywhere = (*that.computes_in(FORMATS, number_format), static_shapes())
    return that.place_by(model, rules, list_name="the TIDL list", everywhere=everywhere, both_words=False)


def _rules(chip: Chip, model: Model, number_format: str) -> OpRules:
    four, six = that.busy_rank_at_most(4), that.busy_rank_at_most(6)
    pool = (four, that.flat_window(), that.dilations_within(1), _pool_window())
    plane = that.plane_at_most(1024)
    resize_plain = (that.number_is("antialias", 0, 0), that.number_is("exclude_outside", 0, 0))
    rules: dict[str, tuple[Rule, ...]] = {
        "ArgMax": (
            four,
            that.axis_among("C", default=0, others=()),
            that.number_is("keepdims", 1, 1),
            that.number_is("select_last_index", 0, 0),
        ),
        "AveragePool": pool,
        "BatchNormalization": (that.busy_rank_at_most(5), that.constant_operand("statistics")),
        "Cast": (_at_the_end(model),),
        "Clip": (six,),
        "Conv": (four, that.flat_window(), that.constant_operand("weights"), *_convolution(chip)),
        "ConvTranspose": (
            four,
            that.constant_operand("weights"),
            that.dilations_within(1),
            _transposed(),
            *_deconvolution_bits(chip, number_format),
        ),
        "DeformConv": (that.window_obeys("kernel must be 3x3 with stride 1", _not_three_by_three),),
        "Erf": htp_rules_for(model)["Erf"],
        "Gather": _gather(),
        "Gemm": (four, that.constant_operand("weights"), *_gemm()),
        "GlobalAveragePool": (four, plane),
        "GridSample": (
            that.word_among("mode", ("nearest", "bilinear", "linear"), "linear"),
            that.word_among("padding_mode", ("zeros",), "zeros"),
            rank_at_most(4),
        ),
        "InstanceNormalization": (six, _rank_at_least(3)),
        "LayerNormalization": (six, that.axis_among("W", others=("last",))),
        "MatMul": (four,),
        "MaxPool": pool,
        "PRelu": (six, that.constant_operand("slopes")),
        "Pow": (six, that.one_constant("exponent")),
        "ReduceMax": (four, _reduces_height()),
        "ReduceMin": (four, _reduces_height()),
        "Resize": (four, _resize(), *resize_plain),
        "Softmax": (six, that.axis_among("HW", others=("last", "middle"))),
        "TopK": (that.axis_among("HW", others=("last", "middle")), that.number_is("sorted", 1, 1)),
        "Sum": (six,),
        "Upsample": (four, _resize()),
        **_moves(),
    }
    rules["ArgMin"] = rules["ArgMax"]
    rules |= dict.fromkeys(("Max", "Add", "Mul", "Div", "Sub", "Min"), (six, that.operands_at_most(2)))
    rules |= dict.fromkeys(_SIX.split(), (six,))
    rules |= dict.fromkeys(["ReduceMean", "ReduceSum", "DequantizeLinear", "QuantizeLinear"], ())
    rules |= dict.fromkeys(("Identity", "Dropout"), ())
    return rules


def _moves() -> dict[str, tuple[Rule, ...]]:
    """Operators that move values and compute nothing."""
    four, six = that.busy_rank_at_most(4), that.busy_rank_at_most(6)
    return {
        "Concat": (six, that.same_batch(), that.axis_among("CHW", default=1, others=("last", "middle"))),
        "DepthToSpace": (_image(),),
        "Pad": (
            rank_at_most(6),
            that.word_among("mode", ("constant",), "constant"),
            that.only_height_and_width_change(),
        ),
        "ScatterElements": (four, that.word_among("reduction", ("none",), "none")),
        "ScatterND": (four, that.word_among("reduction", ("none", "add", "max", "min"), "none")),
        "Slice": (_image(), that.batch_one_of_image(), that.same_batch()),
        "SpaceToDepth": (_image(),),
        "Split": (_image(), that.batch_one_of_image(), that.same_batch()),
        "Transpose": (six, _transposes()),
    }


def _convolution(chip: Chip) -> tuple[Rule, ...]:
    depthwise = {((1, 3), 1), ((3, 3), 1), ((3, 3), 2), ((5, 5), 1), ((5, 5), 2), ((7, 7), 1), ((7, 7), 2)}

    def skewed(window: Window) -> str:
        return f"strides {list(window.strides)}" if len(set(window.strides)) > 1 else ""

    def long_steps(window: Window) -> str:
        stride = max(window.strides)
        small = chip is Chip.AM62A and window.kernel == (3, 3) and stride == 3
        wrong = (max(window.kernel) > 7 and stride == 2) or (stride == 4 and window.kernel != (11, 11)) or small
        return f"kernel {list(window.kernel)} with stride {stride}" if wrong else ""

    def other_depthwise(window: Window) -> str:
        known = (window.kernel, max(window.strides)) in depthwise
        return (
            f"kernel {list(window.kernel)} with stride {max(window.strides)}" if window.depthwise and not known else ""
        )

    return (
        that.window_obeys("strides must be equal along height and width", skewed),
        that.window_obeys("no kernel above 7 with stride 2, and stride 4 with a kernel of 11 only", long_steps),
        that.window_obeys(
            "depthwise filters must be 1x3, 3x3, 5x5 or 7x7 with stride 1 (2 for squares)", other_depthwise
        ),
    )


def _deconvolution_bits(chip: Chip, number_format: str) -> tuple[Rule, ...]:
    if chip is not Chip.AM62A or number_format != "w8a16":
        return ()
    return (that.never("no 16-bit transposed convolution on this chip"),)


def _not_three_by_three(window: Window) -> str:
    fine = window.kernel == (3, 3) and set(window.strides) == {1}
    return "" if fine else f"kernel {list(window.kernel)}, strides {list(window.strides)}"


def _rank_at_least(low: int) -> Rule:
    def broken(layer: Layer) -> str:
        rank = len(first_in(layer))
        return f"rank {rank}" if 0 < rank < low else ""

    return Rule(f"rank must be at least {low}", broken)


def _transposed() -> Rule:
    def found(window: Window) -> str:
        kernels = {(4, 4), (3, 3), (2, 2)}
        fine = window.kernel in kernels and window.strides == (2, 2)
        return "" if fine else f"kernel {list(window.kernel)}, strides {list(window.strides)}"

    return that.window_obeys("kernel must be 4x4, 3x3 or 2x2 with strides 2x2", found)


def _pool_window() -> Rule:
    """What TI has validated; other windows are not refused by name, and not promised."""

    def found(window: Window) -> str:
        pair = (window.kernel, window.strides)
        known = {((k, k), (s, s)) for k in (1, 2, 3) for s in (1, 2)} - {((2, 2), (1, 1))}
        return "" if pair in known else f"kernel {list(window.kernel)} with strides {list(window.strides)}"

    return that.window_obeys("pools are validated for 1x1, 2x2 and 3x3 with strides 1 and 2 (not 2x2 with 1)", found)


def _image() -> Rule:
    def broken(layer: Layer) -> str:
        rank = len(first_in(layer))
        return f"rank {rank}" if rank not in {0, 4} else ""

    return Rule("data must be an image (rank 4)", broken)


def _gemm() -> tuple[Rule, ...]:
    def factors(layer: Layer) -> str:
        found = [layer.attributes.get(name, 1.0) for name in ("alpha", "beta")]
        return "" if found == [1.0, 1.0] else f"alpha, beta {found}"

    def turned(layer: Layer) -> str:
        return "transA 1" if integers(layer, "transA", (0,))[0] else ""

    return Rule("alpha and beta must be 1", factors), Rule("transA must be 0", turned)


def _gather() -> tuple[Rule, ...]:
    def constant(layer: Layer) -> str:
        indices_alone = len(layer.inputs) == 1 and that.gather_indices(layer) is layer.inputs[0]
        return "constant data" if indices_alone or not layer.inputs else ""

    def outer(layer: Layer) -> str:
        shape, axis = first_in(layer), integers(layer, "axis", (0,))[0]
        before = shape[: axis % len(shape)] if shape else ()
        return f"sizes {list(before)} before axis {axis}" if any(dim > 1 for dim in before) else ""

    return (
        Rule("data must be an activation", constant),
        _rank_at_least(2),
        that.indices_of_rank(1, 0),
        Rule("sizes before the axis must be 1", outer),
    )


def _reduces_height() -> Rule:
    def broken(layer: Layer) -> str:
        before, after = nchw(layer, first_in(layer)), nchw(layer, first_out(layer))
        fine = before is None or (after is not None and after[2] == 1 and before[3] == after[3])
        return "" if fine else f"{list(first_in(layer))} to {list(first_out(layer))}"

    return Rule("reduces the height only, and keeps the axis", broken)


def _transposes() -> Rule:
    def broken(layer: Layer) -> str:
        rank, perm = len(first_in(layer)), integers(layer, "perm", ())
        early = rank > 4 and len(perm) == rank and rank - 1 in perm[:2]
        return f"perm {list(perm)}" if early else ""

    return Rule("beyond rank 4, the width must not become the first or second axis", broken)


def _at_the_end(model: Model) -> Rule:
    ends = {tensor.name for tensor in (*model.inputs, *model.outputs)}

    def broken(layer: Layer) -> str:
        touched = {tensor.name for tensor in (*layer.inputs, *layer.outputs)}
        return "" if touched & ends else "inside the network"

    return Rule("casts only at an input or output of the network", broken)


def _resize() -> Rule:
    rounding = {"half_pixel": "round_prefer_ceil", "pytorch_half_pixel": "round_prefer_ceil", "asymmetric": "floor"}

    def broken(layer: Layer) -> str:
        scales, (mode, where) = that.resize_scales(layer), that.resize_kind(layer)
        if scales is None:
            return f"{list(first_in(layer))} to {list(first_out(layer))}"
        if scales[0] != scales[1] or scales[0] < 1 or int(scales[0]) & (int(scales[0]) - 1) or scales[0] % 1:
            return f"factors {scales[0]:g} and {scales[1]:g}"
        if mode not in {"nearest", "linear"} or where not in rounding or (mode, where) == ("linear", "asymmetric"):
            return f"{mode} with {where}"
        nearest = str(layer.attributes.get("nearest_mode", rounding[where] if is_tflite(layer) else _ONNX_ROUNDING))
        odd = mode == "nearest" and nearest != rounding[where]
        return f"{where} with nearest_mode {nearest}" if odd else ""

    return Rule("height and width grow by the same power of two, nearest or linear, in TIDL's coordinate modes", broken)
