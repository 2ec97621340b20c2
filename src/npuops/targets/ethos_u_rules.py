"""Which operators run on an Ethos-U, in ONNX words, and under which conditions.

Source: the constraints that `vela --supported-ops-report` of ethos-u-vela 5.2.0 writes for TFLite operators, one
list for Ethos-U55 and U65 and one for U85, met by what our TFLite writer makes of an ONNX node. Operators that the
writer cannot express are not in the table, whatever the chip could do.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Final

from npuops.models.model import Layer, Model, ModelFormat
from npuops.models.placement import Placement
from npuops.targets.ethos_u_configs import Generation
from npuops.targets.ethos_u_windows import (
    average_window,
    conv_stride,
    image,
    kernel_elements,
    made_by,
    pool_kernel,
    pool_stride,
    sizes_of,
    spatial,
    transposed_size,
    transposed_stride,
)
from npuops.targets.qdq_graph import NodeRefusedError
from npuops.targets.report import Advice
from npuops.targets.rules import (
    OpRules,
    Rule,
    attribute_is,
    constant_weights,
    dtypes_in,
    ints,
    place,
    rank_at_most,
    static_shapes,
)
from npuops.targets.tflite_moves import resize_flags

MAX_REDUCED: Final = 16_777_216
MAX_REDUCED_AXIS: Final = 4095

ONNX_DTYPES: Final = frozenset({"float32", "int8", "uint8", "int32"})
"""float32 stands for what the quantizer will make int8; int32 only flows out of biases."""

_UNCONDITIONAL: Final = (
    "Clip Concat Flatten HardSigmoid HardSwish LeakyRelu Relu Reshape Sigmoid Split Squeeze Tanh Unsqueeze"
)


def place_on(model: Model, generation: Generation) -> tuple[Placement, ...]:
    """Every layer of the model, placed."""
    if model.format is ModelFormat.TFLITE:
        return place(model, _tflite_rules(generation), everywhere=_TFLITE_EVERYWHERE)
    return place(model, onnx_rules(generation, model), everywhere=(static_shapes(), dtypes_in(ONNX_DTYPES)))


def onnx_rules(generation: Generation, model: Model) -> OpRules:
    """The table for ONNX. `model` tells what stands before a node, for those that vanish by folding."""
    small = generation in {Generation.U55, Generation.U65}
    binary = (rank_at_most(4),)
    strided = (pool_stride(),) if small else ()
    rules: dict[str, tuple[Rule, ...]] = {
        "AveragePool": (spatial(), attribute_is("dilations", 1, default=1), average_window(), *strided),
        "BatchNormalization": (_folds_behind(model, ("Conv", "ConvTranspose", "Gemm")),),
        "Conv": (spatial(), constant_weights(), kernel_elements(), *((conv_stride(),) if small else ())),
        "ConvTranspose": (
            image(),
            constant_weights(),
            kernel_elements(),
            attribute_is("group", 1, default=1),
            attribute_is("dilations", 1, default=1),
            _word_is("auto_pad", ("NOTSET", "VALID"), "NOTSET"),
            transposed_size(),
            *((transposed_stride(),) if small else ()),
        ),
        "DepthToSpace": (_batch_of_one(),),
        "Gemm": (constant_weights(), attribute_is("transA", 0, default=0), _gemm_factors()),
        "GlobalAveragePool": (*binary, _batch_of_one(), _reduced_size()),
        "MatMul": (_matmul_ranks(),),
        "MaxPool": (spatial(), attribute_is("dilations", 1, default=1), pool_kernel(), *strided),
        "Pad": (_word_is("mode", ("constant", "reflect"), "constant"),),
        "PRelu": (*binary, constant_weights("slopes")),
        "ReduceMean": (*binary, _batch_of_one(), _reduced_size(), _reduced_channels()),
        "Resize": (_resize_pixels(model), _resize_factor(generation)),
        "Slice": (),
        "Softmax": (_softmax_rows(), *_softmax_axis(model)),
        "Upsample": (_resize_pixels(model), _resize_factor(generation)),
    }
    rules |= dict.fromkeys(("Add", "Mul", "Sub"), binary)
    rules |= dict.fromkeys(("Max", "Min", "Sum"), (*binary, _two_operands()))
    rules |= dict.fromkeys(_UNCONDITIONAL.split(), ())
    rules |= dict.fromkeys(("DequantizeLinear", "Dropout", "Identity", "QuantizeLinear"), ())
    rules["Transpose"] = (rank_at_most(6),)
    return rules


_COMMON_TFLITE: Final = (
    "ABS ADD ARG_MAX AVERAGE_POOL_2D BATCH_MATMUL CONCATENATION CONV_2D DEPTHWISE_CONV_2D ELU EXP EXPAND_DIMS "
    "FULLY_CONNECTED GELU HARD_SWISH LEAKY_RELU LOG LOGISTIC MAXIMUM MAX_POOL_2D MEAN MINIMUM MIRROR_PAD MUL NEG PACK "
    "PAD PADV2 PRELU QUANTIZE REDUCE_MAX REDUCE_MIN RELU RELU6 RELU_0_TO_1 RELU_N1_TO_1 RESHAPE RESIZE_BILINEAR "
    "RESIZE_NEAREST_NEIGHBOR REVERSE_V2 RSQRT SLICE SOFTMAX SPLIT SPLIT_V SQUARED_DIFFERENCE SQUEEZE STRIDED_SLICE "
    "SUB SUM TANH TILE TRANSPOSE TRANSPOSE_CONV UNIDIRECTIONAL_SEQUENCE_LSTM UNPACK"
)
_U85_TFLITE: Final = (
    "ASSIGN_VARIABLE CAST DIV EQUAL GATHER GREATER GREATER_EQUAL LESS LESS_EQUAL LOGICAL_AND LOGICAL_NOT LOGICAL_OR "
    "NOT_EQUAL READ_VARIABLE REDUCE_ALL REDUCE_ANY SCATTER_ND SELECT SELECT_V2"
)
_TFLITE_EVERYWHERE: Final = (
    static_shapes(),
    dtypes_in(frozenset({"int8", "uint8", "int16", "int32", "int64", "bool"})),
)


def _tflite_rules(generation: Generation) -> Mapping[str, tuple[Rule, ...]]:
    """TFLite sources go to Vela as they are: its list of operators, and no finer judgement."""
    names = f"{_COMMON_TFLITE} {_U85_TFLITE}" if generation is Generation.U85 else _COMMON_TFLITE
    return dict.fromkeys(names.split(), ())


def advice_for(model: Model) -> tuple[Advice, ...]:
    """What to change before quantizing."""
    dynamic = tuple(tensor.name for tensor in model.inputs if not tensor.is_static)
    if not dynamic:
        return ()
    message = "Vela compiles fixed shapes only: fix them with --shape"
    return (Advice(pattern="dynamic-shape", nodes=dynamic, message=message),)


def _two_operands() -> Rule:
    def broken(layer: Layer) -> str:
        count = len(layer.inputs) + len(layer.weights)
        return "" if count == 2 else f"{count} operands"

    return Rule("there must be two operands", broken)


def _word_is(name: str, allowed: tuple[str, ...], default: str) -> Rule:
    def broken(layer: Layer) -> str:
        word = str(layer.attributes.get(name, default))
        return "" if word in allowed else f"{name} {word}"

    return Rule(f"{name} must be {' or '.join(allowed)}", broken)


def _gemm_factors() -> Rule:
    def broken(layer: Layer) -> str:
        factors = [layer.attributes.get(name, 1.0) for name in ("alpha", "beta")]
        return "" if factors == [1.0, 1.0] else f"alpha, beta {factors}"

    return Rule("alpha and beta must be 1", broken)


def _batch_of_one() -> Rule:
    def broken(layer: Layer) -> str:
        return f"batch {sizes_of(layer)[0]}" if sizes_of(layer) and sizes_of(layer)[0] != 1 else ""

    return Rule("batch must be 1", broken)


def _reduced_size() -> Rule:
    def broken(layer: Layer) -> str:
        sizes = [sizes_of(layer)[axis] for axis in _reduced(layer)] if sizes_of(layer) else []
        count, longest = math.prod(sizes), max(sizes, default=1)
        return f"{count} elements, axis of {longest}" if count > MAX_REDUCED or longest > MAX_REDUCED_AXIS else ""

    return Rule(f"a mean must be over at most {MAX_REDUCED} elements, axes of at most {MAX_REDUCED_AXIS}", broken)


def _reduced(layer: Layer) -> list[int]:
    """The axes of a mean: as named, else (they are a constant input from opset 18) by the sizes that are left."""
    before, left = sizes_of(layer), list(made_by(layer))
    if "axes" in layer.attributes:
        return [axis % max(len(before), 1) for axis in ints(layer, "axes", ())]
    if len(left) == len(before):
        return [axis for axis, size in enumerate(before) if left[axis] != size]
    return [axis for axis, size in enumerate(before) if not (left[:1] == [size] and left.pop(0))]


def _reduced_channels() -> Rule:
    def broken(layer: Layer) -> str:
        sizes = sizes_of(layer)
        deep = len(sizes) == 4 and 1 in _reduced(layer) and 1 not in sizes[1:]
        return f"channels of {sizes}" if deep else ""

    return Rule("a mean over the channels of an image needs a height, width or depth of 1", broken)


def _matmul_ranks() -> Rule:
    def broken(layer: Layer) -> str:
        if layer.weights:
            shape, sizes, made = layer.weights[0].shape or (), sizes_of(layer), made_by(layer)
            behind = not sizes or not made or (*sizes[-1:], *made[-1:]) == shape
            return "" if len(shape) == 2 and behind else f"constant {list(shape)}, data {list(sizes)}"
        ranks = {len(tensor.shape) for tensor in layer.inputs if tensor.shape is not None}
        return "" if len(ranks) == 1 and ranks <= {2, 3, 4} else f"ranks {sorted(ranks)}"

    return Rule("operands must be a tensor and a constant matrix, or two tensors of the same rank up to 4", broken)


def _resize_pixels(model: Model) -> Rule:
    """By the sizes: scales are a constant input, which a layer does not show."""
    opset = model.opset or 1

    def broken(layer: Layer) -> str:
        lines = [
            (size, made, made / size)
            for size, made in zip(sizes_of(layer)[2:], made_by(layer)[2:], strict=False)
            if size
        ]
        words = {name: str(word) for name, word in layer.attributes.items()}
        try:
            resize_flags(lines, words, old=layer.op == "Upsample" or opset < 11)
        except NodeRefusedError as error:
            return error.message
        return ""

    return Rule("TFLite must pick the same pixels, nearest or linear", broken)


def _resize_factor(generation: Generation) -> Rule:
    small = generation is not Generation.U85
    words = (
        "2, 4 or 8 (2 for linear half_pixel)" if small else "a power of two up to 1024, or any up to 1024 for nearest"
    )

    def broken(layer: Layer) -> str:
        before, after = sizes_of(layer), made_by(layer)
        if len(before) != 4 or len(after) != 4 or 0 in before:
            return "not an image"
        if before == after or before[2:] == (1, 1):
            return ""
        factors = {_factor(layer, before[axis], after[axis]) for axis in (2, 3)}
        good = all(_factor_fits(layer, factor, small=small) for factor in factors) and (len(factors) == 1 or not small)
        return "" if good else f"{before} to {after}"

    return Rule(f"height and width must grow by {'the same factor' if small else 'factors'}: {words}", broken)


def _factor(layer: Layer, before: int, after: int) -> float:
    if layer.attributes.get("coordinate_transformation_mode") == "align_corners" and before > 1:
        return (after - 1) / (before - 1)
    return after / before


def _factor_fits(layer: Layer, factor: float, *, small: bool) -> bool:
    linear = layer.attributes.get("mode") == "linear"
    half = "half_pixel" in str(layer.attributes.get("coordinate_transformation_mode", "half_pixel"))
    if small:
        return factor == 2 if linear and half else factor in {2, 4, 8}
    return factor <= 1024 and (not linear or (factor >= 1 and math.log2(factor).is_integer()))


def _softmax_rows() -> Rule:
    def broken(layer: Layer) -> str:
        sizes = sizes_of(layer)
        axis = ints(layer, "axis", (-1,))[0] % max(len(sizes), 1)
        rows = math.prod(size for index, size in enumerate(sizes) if index != axis)
        return f"{rows} rows" if rows >= 65536 else ""

    return Rule("a softmax must have fewer than 65536 rows", broken)


def _softmax_axis(model: Model) -> tuple[Rule, ...]:
    if model.opset is None or model.opset >= 13:
        return ()

    def broken(layer: Layer) -> str:
        sizes = sizes_of(layer)
        axis = ints(layer, "axis", (1,))[0] % max(len(sizes), 1)
        return f"axes {axis} to {len(sizes) - 1}" if any(size != 1 for size in sizes[axis + 1 :]) else ""

    return (Rule("before opset 13, a softmax must be over the last axis", broken),)


def _folds_behind(model: Model, producers: tuple[str, ...]) -> Rule:
    """The quantizer's preparation folds it into the layer before, if that one's output goes nowhere else."""
    makers = {tensor.name: layer.op for layer in model.layers for tensor in layer.outputs}

    def broken(layer: Layer) -> str:
        before = makers.get(layer.inputs[0].name, "an input") if layer.inputs else "nothing"
        return "" if before in producers else f"behind {before}"

    return Rule(f"it must follow {', '.join(producers)}, to be folded into it", broken)
