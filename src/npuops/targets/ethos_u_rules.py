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
from npuops.targets.report import Advice
from npuops.targets.rules import (
    OpRules,
    Rule,
    attribute_between,
    constant_weights,
    dtypes_in,
    place,
    rank_at_most,
    static_shapes,
)

MAX_KERNEL_ELEMENTS: Final = 65536
"""Vela limits the sum of |weights| of one output channel to 8323072 = 127 * 65536: so many int8 always obey."""
MAX_KERNEL_HEIGHT: Final = 256
MAX_REDUCED: Final = 16_777_216
MAX_REDUCED_AXIS: Final = 4095

ONNX_DTYPES: Final = frozenset({"float32", "int8", "uint8", "int32"})
"""float32 stands for what the quantizer will make int8; int32 only flows out of biases."""

_UNCONDITIONAL: Final = (
    "Clip Concat DepthToSpace Flatten HardSigmoid HardSwish LeakyRelu Relu Reshape Sigmoid Split Squeeze Tanh Unsqueeze"
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
    pool_stride = (_stride_without_padding(),) if small else ()
    rules: dict[str, tuple[Rule, ...]] = {
        "AveragePool": (_spatial(), _attribute_is("dilations", 1), _average_window(), *pool_stride),
        "BatchNormalization": (_folds_behind(model, ("Conv", "ConvTranspose", "Gemm")),),
        "Conv": (_spatial(), constant_weights(), _kernel_elements(), *((_conv_stride(),) if small else ())),
        "ConvTranspose": (
            _spatial(),
            constant_weights(),
            _kernel_elements(),
            _attribute_is("group", 1),
            _attribute_is("dilations", 1),
            _word_is("auto_pad", ("NOTSET", "VALID"), "NOTSET"),
            *((_transposed_stride(),) if small else ()),
        ),
        "Gemm": (constant_weights(), _attribute_is("transA", 0), _gemm_factors()),
        "GlobalAveragePool": (_batch_of_one(), _reduced_size()),
        "MatMul": (_matmul_ranks(),),
        "MaxPool": (_spatial(), _attribute_is("dilations", 1), _pool_kernel(), *pool_stride),
        "Pad": (_word_is("mode", ("constant", "reflect"), "constant"),),
        "PRelu": (*binary, constant_weights("slopes")),
        "ReduceMean": (_batch_of_one(), _reduced_size()),
        "Resize": (_resize_grid(), _resize_factor(generation)),
        "Slice": (),
        "Softmax": (_softmax_rows(), *_softmax_axis(model)),
        "Upsample": (_resize_factor(generation),),
    }
    rules |= dict.fromkeys(("Add", "Max", "Min", "Mul", "Sub", "Sum"), binary)
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


def _sizes(layer: Layer) -> tuple[int, ...]:
    """The first input's shape; empty where it is unknown (the rule about static shapes says so already)."""
    shape = layer.inputs[0].shape if layer.inputs else None
    return tuple(dim for dim in shape if isinstance(dim, int)) if shape is not None else ()


def _made(layer: Layer) -> tuple[int, ...]:
    shape = layer.outputs[0].shape if layer.outputs else None
    return tuple(dim for dim in shape if isinstance(dim, int)) if shape is not None else ()


def _ints(layer: Layer, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    value = layer.attributes.get(name, default)
    return tuple(int(part) for part in value) if isinstance(value, tuple) else (int(value),)


def _kernel(layer: Layer) -> tuple[int, ...]:
    shape = layer.weights[0].shape if layer.weights else None
    given = tuple(dim for dim in shape[2:] if isinstance(dim, int)) if shape is not None else ()
    return _ints(layer, "kernel_shape", given or (1,))


def _padded(layer: Layer) -> bool:
    return any(_ints(layer, "pads", (0,))) or layer.attributes.get("auto_pad", "NOTSET") in {"SAME_UPPER", "SAME_LOWER"}


def _spatial() -> Rule:
    def broken(layer: Layer) -> str:
        rank = len(_sizes(layer))
        return "" if rank in {0, 3, 4} else f"rank {rank}"

    return Rule("data must be a sequence or an image (rank 3 or 4)", broken)


def _attribute_is(name: str, value: int) -> Rule:
    return Rule(f"{name} must be {value}", attribute_between(name, value, value, default=value).broken)


def _word_is(name: str, allowed: tuple[str, ...], default: str) -> Rule:
    def broken(layer: Layer) -> str:
        word = str(layer.attributes.get(name, default))
        return "" if word in allowed else f"{name} {word}"

    return Rule(f"{name} must be {' or '.join(allowed)}", broken)


def _kernel_elements() -> Rule:
    def broken(layer: Layer) -> str:
        shape = layer.weights[0].shape if layer.weights else None
        count = math.prod(dim for dim in (shape or ())[1:] if isinstance(dim, int))
        return f"{count} elements" if count > MAX_KERNEL_ELEMENTS else ""

    return Rule(f"a kernel must have at most {MAX_KERNEL_ELEMENTS} elements (limit of the sum of |weights|)", broken)


def _conv_stride() -> Rule:
    """U55 and U65. Vela 5.2 melts a PAD before the convolution into it, so explicit padding counts too (and fails)."""

    def broken(layer: Layer) -> str:
        stride, group = max(_ints(layer, "strides", (1,))), _ints(layer, "group", (1,))[0]
        depthwise = group > 1 and len(_sizes(layer)) > 1 and _sizes(layer)[1] == group
        if depthwise and stride > 3:
            return f"depthwise stride {stride}"
        dilated = max(_ints(layer, "dilations", (1,))) > 1
        return f"stride {stride} with dilation or padding" if stride > 3 and (dilated or _padded(layer)) else ""

    return Rule("strides must be 1 to 3, or longer without dilation and padding and not depthwise", broken)


def _transposed_stride() -> Rule:
    def broken(layer: Layer) -> str:
        strides = _ints(layer, "strides", (1, 1))
        flat = len(_sizes(layer)) == 4 and _sizes(layer)[2] == 1 and _kernel(layer)[0] == 1
        thin = len(_sizes(layer)) == 4 and _sizes(layer)[3] == 1 and _kernel(layer)[-1] == 1
        good = strides in {(1, 1), (2, 2)} or (strides == (1, 2) and flat) or (strides == (2, 1) and thin)
        return "" if good else f"strides {list(strides)}"

    return Rule("strides must be 1x1 or 2x2 (1x2 along a line of height or width 1)", broken)


def _stride_without_padding() -> Rule:
    def broken(layer: Layer) -> str:
        stride = max(_ints(layer, "strides", (1,)))
        average = layer.op == "AveragePool" and not _ints(layer, "count_include_pad", (0,))[0]
        return f"stride {stride} with padding" if stride > 3 and _padded(layer) and average else ""

    return Rule("a stride above 3 needs a window without padding", broken)


def _pool_kernel() -> Rule:
    def broken(layer: Layer) -> str:
        kernel = _kernel(layer)
        height = kernel[0] if len(kernel) > 1 else 1
        fits = math.prod(kernel) <= MAX_KERNEL_ELEMENTS and height <= MAX_KERNEL_HEIGHT
        return "" if fits else f"kernel {list(kernel)}"

    return Rule(f"the window must have at most {MAX_KERNEL_ELEMENTS} elements and height {MAX_KERNEL_HEIGHT}", broken)


def _average_window() -> Rule:
    limit = _pool_kernel().broken

    def broken(layer: Layer) -> str:
        if _padded(layer) and not _ints(layer, "count_include_pad", (0,))[0]:
            kernel, pads = _kernel(layer), _ints(layer, "pads", (0,) * 2 * len(_kernel(layer)))
            half = len(pads) // 2
            lopsided = any(not 0 <= b - a <= 1 for a, b in zip(pads[:half], pads[half:], strict=True))
            return f"padded kernel {list(kernel)}, pads {list(pads)}" if max(kernel) > 8 or lopsided else ""
        return limit(layer)

    return Rule("an average must be unpadded (kernel at most 65536), or padded SAME with kernel at most 8", broken)


def _gemm_factors() -> Rule:
    def broken(layer: Layer) -> str:
        factors = [layer.attributes.get(name, 1.0) for name in ("alpha", "beta")]
        return "" if factors == [1.0, 1.0] else f"alpha, beta {factors}"

    return Rule("alpha and beta must be 1", broken)


def _batch_of_one() -> Rule:
    def broken(layer: Layer) -> str:
        return f"batch {_sizes(layer)[0]}" if _sizes(layer) and _sizes(layer)[0] != 1 else ""

    return Rule("batch must be 1", broken)


def _reduced_size() -> Rule:
    def broken(layer: Layer) -> str:
        before, after = _sizes(layer), _made(layer)
        count = math.prod(before) // max(math.prod(after), 1)
        longest = max(before[1:], default=1) if count > 1 else 1
        return f"{count} elements, axis of {longest}" if count > MAX_REDUCED or longest > MAX_REDUCED_AXIS else ""

    return Rule(f"a mean must be over at most {MAX_REDUCED} elements, axes of at most {MAX_REDUCED_AXIS}", broken)


def _matmul_ranks() -> Rule:
    def broken(layer: Layer) -> str:
        if layer.weights:
            shape = layer.weights[0].shape or ()
            return "" if len(shape) == 2 else f"constant of rank {len(shape)}"
        ranks = {len(tensor.shape) for tensor in layer.inputs if tensor.shape is not None}
        return "" if len(ranks) == 1 and ranks <= {2, 3, 4} else f"ranks {sorted(ranks)}"

    return Rule("operands must be a tensor and a constant matrix, or two tensors of the same rank up to 4", broken)


def _resize_grid() -> Rule:
    allowed = {"nearest", "linear"}, {"asymmetric", "half_pixel", "pytorch_half_pixel", "align_corners"}

    def broken(layer: Layer) -> str:
        mode = str(layer.attributes.get("mode", "nearest"))
        grid = str(layer.attributes.get("coordinate_transformation_mode", "half_pixel"))
        return "" if mode in allowed[0] and grid in allowed[1] else f"{mode}, {grid}"

    return Rule("mode must be nearest or linear, on a grid that TFLite has", broken)


def _resize_factor(generation: Generation) -> Rule:
    small = generation is not Generation.U85
    words = (
        "2, 4 or 8 (2 for linear half_pixel)" if small else "a power of two up to 1024, or any up to 1024 for nearest"
    )

    def broken(layer: Layer) -> str:
        before, after = _sizes(layer), _made(layer)
        if len(before) != 4 or len(after) != 4:
            return "not an image"
        if before == after or before[2:] == (1, 1):
            return ""
        factors = {_factor(layer, before[axis], after[axis]) for axis in (2, 3)}
        return "" if len(factors) == 1 and _factor_fits(layer, factors.pop(), small=small) else f"{before} to {after}"

    return Rule(f"height and width must grow by the same factor: {words}", broken)


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
        sizes = _sizes(layer)
        axis = _ints(layer, "axis", (-1,))[0] % max(len(sizes), 1)
        rows = math.prod(size for index, size in enumerate(sizes) if index != axis)
        return f"{rows} rows" if rows >= 65536 else ""

    return Rule("a softmax must have fewer than 65536 rows", broken)


def _softmax_axis(model: Model) -> tuple[Rule, ...]:
    if model.opset is None or model.opset >= 13:
        return ()

    def broken(layer: Layer) -> str:
        sizes = _sizes(layer)
        axis = _ints(layer, "axis", (1,))[0] % max(len(sizes), 1)
        return f"axes {axis} to {len(sizes) - 1}" if any(size != 1 for size in sizes[axis + 1 :]) else ""

    return (Rule("before opset 13, a softmax must be over the last axis", broken),)


def _folds_behind(model: Model, producers: tuple[str, ...]) -> Rule:
    """The quantizer's preparation folds it into the layer before, if that one's output goes nowhere else."""
    makers = {tensor.name: layer.op for layer in model.layers for tensor in layer.outputs}

    def broken(layer: Layer) -> str:
        before = makers.get(layer.inputs[0].name, "an input") if layer.inputs else "nothing"
        return "" if before in producers else f"behind {before}"

    return Rule(f"it must follow {', '.join(producers)}, to be folded into it", broken)
