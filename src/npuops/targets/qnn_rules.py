"""Which operators the Hexagon Tensor Processor takes through ONNX Runtime's QNN provider, and under which conditions.

Two sources. The provider's own list (onnxruntime-qnn 2.7.0: "Supported ONNX operators" and the release notes since
2.4), and, where it can be tried, the truth: one graph per operator, quantized and in FP16, compiled for sm8650 with
that version. Where the two differ the truth wins: IsInf, NonZero, ReduceProd, ReduceLogSumExp, GroupNormalization,
Asin and Mod are on the list, and the compiler leaves them (or a part of them) to the CPU. An attribute that it takes
in one of the two ways only counts as not taken.

Operands that are commonly constant (the limits of Clip, the axes of a reduction, the starts of Slice) must be so after
constant folding, which the rules do not do: they take them as constant.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from npuops.models.model import Layer, Model, TensorInfo
from npuops.models.placement import Placement, RunsOn
from npuops.targets.report import Advice
from npuops.targets.rules import OpRules, Rule, attribute_is, dtypes_in, place, rank_at_most, static_shapes

EVERYWHERE: Final = (
    static_shapes(),
    rank_at_most(5),
    dtypes_in(
        frozenset(
            {"float32", "float16", "bfloat16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "bool"}
        )
    ),
)

_FREE: Final = (
    *("Abs", "Add", "And", "Atan", "Ceil", "Clip", "Concat", "Cos", "DepthToSpace", "DequantizeLinear", "Div"),
    *("Dropout", "Elu", "Equal", "Exp", "Expand", "Flatten", "Floor", "Gather", "GatherElements", "Gelu"),
    *("GlobalAveragePool", "GlobalMaxPool", "Greater", "GreaterOrEqual", "HardSigmoid", "HardSwish", "Identity"),
    *("IsNaN", "LRN", "LeakyRelu", "Less", "LessOrEqual", "Log", "LogSoftmax", "MatMul", "MaxRoiPool", "Mish", "Mul"),
    *("Neg", "Not", "OneHot", "Or", "PRelu", "QLinearConv", "QLinearMatMul", "QuantizeLinear", "Reciprocal"),
    *("ReduceL2", "ReduceMax", "ReduceMean", "ReduceMin", "ReduceSum", "Relu", "Reshape", "RoiAlign"),
    *("RotaryEmbedding", "Round", "STFT", "Selu", "Shape", "Sigmoid", "Sign", "Sin", "Slice", "Softmax", "Softplus"),
    *("SpaceToDepth", "Split", "Sqrt", "Squeeze", "Sub", "Swish", "Tan", "Tanh", "ThresholdedRelu", "Tile", "TopK"),
    *("Transpose", "Unsqueeze", "Upsample", "Where", "Xor"),
    *("com.microsoft.DequantizeLinear", "com.microsoft.FusedMatMul", "com.microsoft.Gelu"),
    *("com.microsoft.QuantizeLinear", "com.microsoft.QuickGelu", "com.microsoft.RotaryEmbedding"),
    *("com.microsoft.SimplifiedLayerNormalization",),
)


def _words(layer: Layer, name: str, default: str) -> str:
    return str(layer.attributes.get(name, default))


def _resize_found(layer: Layer) -> str:
    mode = _words(layer, "mode", "nearest")
    place_of = _words(layer, "coordinate_transformation_mode", "half_pixel")
    nearest = _words(layer, "nearest_mode", "round_prefer_floor")
    if mode not in {"nearest", "linear", "cubic"}:
        return f"mode {mode}"
    if place_of == "tf_half_pixel_for_nn" and (mode, nearest) != ("nearest", "floor"):
        return f"{place_of} with {mode} {nearest}"
    if place_of not in {"half_pixel", "pytorch_half_pixel", "align_corners", "asymmetric", "tf_half_pixel_for_nn"}:
        return f"coordinate_transformation_mode {place_of}"
    if mode == "nearest" and place_of == "asymmetric" and nearest in {"ceil", "round_prefer_floor"}:
        return f"asymmetric with nearest_mode {nearest}"
    return "antialias" if layer.attributes.get("antialias", 0) else ""


_RESIZE: Final = Rule("Resize needs a mode that the HTP has (nearest + asymmetric only with floor)", _resize_found)


def _spatial_only(layer: Layer) -> str:
    shapes = [tensor.shape for tensor in (*layer.inputs[:1], *layer.outputs[:1])]
    if len(shapes) < 2 or shapes[0] is None or shapes[1] is None or len(shapes[0]) < 3:
        return "" if len(shapes) < 2 or shapes[0] is None else f"rank {len(shapes[0])}"
    return "" if shapes[0][:2] == shapes[1][:2] else f"{list(shapes[0])} to {list(shapes[1])}"


_RESIZE_SPACE: Final = Rule("Resize may change the spatial axes only, from rank 3", _spatial_only)


def _recurrent_found(layer: Layer) -> str:
    odd = [name for name in ("activations", "clip", "input_forget", "layout") if layer.attributes.get(name)]
    return ", ".join(f"{name} {layer.attributes[name]!r}" for name in odd)


_RECURRENT: Final = Rule("activations, clip, input_forget and layout must be left at their defaults", _recurrent_found)


def _single_found(layer: Layer) -> str:
    operands = len(_operands(layer))
    return "" if operands >= 2 else f"{operands} operand"


def _operands(layer: Layer) -> tuple[TensorInfo, ...]:
    return (*layer.inputs, *layer.weights)


_TWO_OPERANDS: Final = Rule("needs at least two operands", _single_found)


def _kernel_rank(limit: int) -> Rule:
    def broken(layer: Layer) -> str:
        kernel = layer.attributes.get("kernel_shape")
        return f"kernel {list(kernel)}" if isinstance(kernel, tuple) and len(kernel) > limit else ""

    return Rule(f"at most {limit} spatial dimensions", broken)


def _many_found(layer: Layer) -> str:
    return f"{len(layer.outputs)} outputs" if len(layer.outputs) > 1 else ""


_ONE_OUTPUT: Final = Rule("one output only", _many_found)


def _axis_found(layer: Layer) -> str:
    axis, shape = layer.attributes.get("axis", -1), layer.inputs[0].shape if layer.inputs else None
    return "" if axis == -1 or (shape is not None and axis == len(shape) - 1) else f"axis {axis}"


_LAST_AXIS: Final = Rule("normalizes the last axis only", _axis_found)


def _whole_number_found(layer: Layer) -> str:
    return ", ".join(
        f"{tensor.dtype} {tensor.name}" for tensor in _operands(layer) if tensor.dtype in {"int32", "int64"}
    )


_REAL: Final = Rule("base and exponent must not be integers", _whole_number_found)


def _cast_found(layer: Layer) -> str:
    source, result = layer.inputs[:1], layer.outputs[:1]
    if not source or not result or result[0].dtype != "int64" or source[0].dtype in {"int32", "int64"}:
        return ""
    return f"{source[0].dtype} to int64"


_CAST: Final = Rule("only int32 can become int64", _cast_found)


def _dilated_found(layer: Layer) -> str:
    dilations = layer.attributes.get("dilations", ())
    odd = isinstance(dilations, tuple) and len(dilations) > 2 and any(step != 1 for step in dilations)
    return f"dilations {list(dilations)}" if odd and isinstance(dilations, tuple) else ""


_DILATED: Final = Rule("dilations in one or two dimensions only", _dilated_found)

_EINSUMS: Final = frozenset(
    {
        *(f"{batch}ij,{batch}jk->{batch}ik" for batch in ("", "a", "ab", "abc")),
        *(f"{batch}ij,{batch}kj->{batch}ik" for batch in ("", "a", "ab", "abc")),
        *("abcd,bed->abce", "abcd,ced->abce", "abcd,aecb->aecd"),
    }
)


def _einsum_found(layer: Layer) -> str:
    equation = _words(layer, "equation", "").replace(" ", "")
    return "" if _plain(equation) in {_plain(known) for known in _EINSUMS} else equation


def _plain(equation: str) -> str:
    """The same equation in letters by order of appearance."""
    letters = {letter: chr(ord("a") + at) for at, letter in enumerate(dict.fromkeys(filter(str.isalpha, equation)))}
    return "".join(letters.get(letter, letter) for letter in equation)


_EINSUM: Final = Rule("Einsum must be a product of matrices that the HTP has", _einsum_found)


def _gamma_found(layer: Layer) -> str:
    gamma = layer.weights[0] if layer.weights else None
    return f"gamma {gamma.name} is int8" if gamma is not None and gamma.dtype == "int8" else ""


_GAMMA: Final = Rule("gamma must be float or per-tensor uint8 (QNN error 3110 otherwise)", _gamma_found)

_UNDILATED: Final = attribute_is("dilations", 1, default=1)
_FIRST_OF_EQUALS: Final = attribute_is("select_last_index", 0, default=0)

_MINDFUL: Final[Mapping[str, tuple[Rule, ...]]] = {
    "ArgMax": (_FIRST_OF_EQUALS,),
    "ArgMin": (_FIRST_OF_EQUALS,),
    "AveragePool": (_UNDILATED,),
    "BatchNormalization": (_ONE_OUTPUT,),
    "Cast": (_CAST,),
    "Conv": (_DILATED,),
    "ConvTranspose": (_UNDILATED,),
    "CumSum": (attribute_is("exclusive", 0, default=0), attribute_is("reverse", 0, default=0)),
    "Einsum": (_EINSUM,),
    "GRU": (_RECURRENT,),
    "GatherND": (attribute_is("batch_dims", 0, default=0),),
    "Gemm": (attribute_is("alpha", 1, default=1), attribute_is("beta", 1, default=1)),
    "GridSample": (attribute_is("mode", "bilinear", "linear", "nearest", default="linear"), rank_at_most(4)),
    "InstanceNormalization": (rank_at_most(4),),
    "LSTM": (_RECURRENT,),
    "LayerNormalization": (_GAMMA, _LAST_AXIS, _ONE_OUTPUT),
    "LpNormalization": (attribute_is("p", 2, default=2),),
    "LpPool": (_kernel_rank(2), _UNDILATED),
    "Max": (_TWO_OPERANDS,),
    "MaxPool": (_kernel_rank(2), _UNDILATED, _ONE_OUTPUT),
    "Mean": (_TWO_OPERANDS,),
    "Min": (_TWO_OPERANDS,),
    "Pad": (attribute_is("mode", "constant", "reflect", "edge", default="constant"),),
    "Pow": (_REAL,),
    "RMSNormalization": (_LAST_AXIS,),
    "Resize": (_RESIZE, _RESIZE_SPACE),
    "ScatterElements": (attribute_is("reduction", "none", default="none"),),
    "ScatterND": (attribute_is("reduction", "none", "add", "mul", default="none"),),
    "Sum": (_TWO_OPERANDS,),
}


def rules_for(model: Model) -> OpRules:
    """The rules, bound to the graph where an operator's fate depends on its neighbours."""
    return {
        **dict.fromkeys(_FREE, ()),
        **_MINDFUL,
        "Erf": (_erf_rule(model),),
    }


def place_on_htp(model: Model) -> tuple[Placement, ...]:
    """Judge every layer of `model`."""
    return place(model, rules_for(model), everywhere=EVERYWHERE)


def advice_for(model: Model, placement: Iterable[Placement]) -> tuple[Advice, ...]:
    """Known-bad patterns of this chip in the model, and what cures each."""
    placed = tuple(placement)
    patterns = (
        Advice(
            pattern="dynamic-shape",
            nodes=tuple(tensor.name for tensor in model.inputs if not tensor.is_static),
            message="the HTP compiles fixed shapes only: give them with --shape NAME=1x3x224x224",
        ),
        Advice(
            pattern="float-where-mask",
            nodes=tuple(layer.name for layer in model.layers if _is_float_where(layer)),
            message="a Where that hides positions with -FLT_MAX can fail when the HTP finalizes the graph "
            "(QNN error 1002, met on MiniLM), and it ruins an 8-bit range: use an additive mask of -100",
            fix="additive-mask",
        ),
        Advice(
            pattern="layernorm-gamma",
            nodes=tuple(
                layer.name for layer in model.layers if layer.op == "LayerNormalization" and _gamma_found(layer)
            ),
            message="quantize gamma per tensor to uint8: with int8 each LayerNormalization falls to the CPU",
            fix="layernorm-gamma-uint8",
        ),
        Advice(
            pattern="nearest-resize-mode",
            nodes=tuple(
                layer.name for layer in model.layers if layer.op == "Resize" and "asymmetric" in _resize_found(layer)
            ),
            message="nearest Resize with asymmetric coordinates works on the HTP with nearest_mode=floor only",
            fix="nearest-resize",
        ),
        Advice(
            pattern="unsupported-operator",
            nodes=tuple(node.name for node in placed if node.runs_on is RunsOn.CPU),
            message="these run on the CPU, and every island costs two copies between NPU and CPU",
        ),
    )
    return tuple(advice for advice in patterns if advice.nodes)


def _is_float_where(layer: Layer) -> bool:
    return layer.op == "Where" and any(tensor.dtype == "float32" for tensor in layer.outputs)


def _erf_rule(model: Model) -> Rule:
    """Erf exists only inside Gelu: x · (1 + erf(x / sqrt 2)), whatever Q/DQ pairs lie between."""
    consumers: dict[str, list[Layer]] = {}
    for layer in model.layers:
        for tensor in layer.inputs:
            consumers.setdefault(tensor.name, []).append(layer)

    def after(layer: Layer) -> list[Layer]:
        waiting, seen, found = [layer], {layer.name}, []
        while waiting:
            for user in (user for tensor in waiting.pop().outputs for user in consumers.get(tensor.name, [])):
                if user.op not in {"QuantizeLinear", "DequantizeLinear"}:
                    found.append(user)
                elif user.name not in seen:
                    seen.add(user.name)
                    waiting.append(user)
        return found

    def broken(layer: Layer) -> str:
        sums = [user for user in after(layer) if user.op == "Add"]
        return "" if any(user.op == "Mul" for one in sums for user in after(one)) else "Erf on its own"

    return Rule("Erf must be part of a Gelu", broken)
