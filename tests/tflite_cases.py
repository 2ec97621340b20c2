"""One TFLite operator each: operator, inputs, outputs, options and their table."""

from __future__ import annotations

from typing import Any

import numpy as np

from tflite_maker import T, constant

RNG = np.random.default_rng(7)
X = T((1, 6, 5, 4))
QX = T((1, 6, 5, 4), "int8", scale=0.05, zero=3)
W = RNG.normal(size=(8, 3, 3, 4)).astype(np.float32)
QW = constant(RNG.integers(-127, 128, (8, 3, 3, 4)), "int8", scale=np.linspace(0.001, 0.01, 8), axis=0)
QB = constant(RNG.integers(-900, 900, 8), "int32", scale=np.linspace(0.001, 0.01, 8) * 0.05, axis=0)
WINDOW = {"padding": 0, "strideH": 2, "strideW": 2}
BROADCAST = constant(RNG.normal(size=(4,)), "float32")
_UNARY = "RELU RELU6 RELU_N1_TO_1 LOGISTIC TANH HARD_SWISH SQUARE SQRT RSQRT EXP LOG ABS NEG FLOOR SIN COS".split()  # noqa: SIM905 - a list would take 15 lines

FLOAT_CASES: dict[str, tuple[Any, ...]] = {
    "conv same, odd padding": (
        "CONV_2D",
        [X, constant(W, "float32"), constant(RNG.normal(size=8), "float32")],
        [T((1, 3, 3, 8))],
        {**WINDOW, "fusedActivationFunction": 3},
        "Conv2DOptions",
    ),
    "conv dilated": (
        "CONV_2D",
        [T((1, 9, 9, 4)), constant(W, "float32"), constant(np.zeros(8), "float32")],
        [T((1, 5, 5, 8))],
        {"padding": 1, "strideH": 1, "strideW": 1, "dilationHFactor": 2, "dilationWFactor": 2},
        "Conv2DOptions",
    ),
    "depthwise with multiplier 2": (
        "DEPTHWISE_CONV_2D",
        [X, constant(RNG.normal(size=(1, 3, 3, 8)), "float32"), constant(RNG.normal(size=8), "float32")],
        [T((1, 3, 3, 8))],
        {**WINDOW, "depthMultiplier": 2, "fusedActivationFunction": 1},
        "DepthwiseConv2DOptions",
    ),
    "transpose conv same": (
        "TRANSPOSE_CONV",
        [constant([1, 12, 10, 8]), constant(W, "float32"), X],
        [T((1, 12, 10, 8))],
        WINDOW,
        "TransposeConvOptions",
    ),
    "transpose conv valid": (
        "TRANSPOSE_CONV",
        [constant([1, 13, 11, 8]), constant(W, "float32"), X],
        [T((1, 13, 11, 8))],
        {**WINDOW, "padding": 1},
        "TransposeConvOptions",
    ),
    "fully connected keeps dimensions": (
        "FULLY_CONNECTED",
        [T((2, 3, 4)), constant(RNG.normal(size=(5, 4)), "float32"), constant(RNG.normal(size=5), "float32")],
        [T((2, 3, 5))],
        {"keepNumDims": True},
        "FullyConnectedOptions",
    ),
    "batch matmul, second turned": (
        "BATCH_MATMUL",
        [T((2, 3, 4)), T((2, 5, 4))],
        [T((2, 3, 5))],
        {"adjY": True},
        "BatchMatMulOptions",
    ),
    "average pool same": (
        "AVERAGE_POOL_2D",
        [X],
        [T((1, 3, 3, 4))],
        {**WINDOW, "filterHeight": 3, "filterWidth": 3},
        "Pool2DOptions",
    ),
    "max pool same": (
        "MAX_POOL_2D",
        [X],
        [T((1, 3, 3, 4))],
        {**WINDOW, "filterHeight": 3, "filterWidth": 2},
        "Pool2DOptions",
    ),
    "softmax beta": ("SOFTMAX", [T((2, 7))], [T((2, 7))], {"beta": 0.5}, "SoftmaxOptions"),
    "add broadcast": ("ADD", [X, BROADCAST], [X], {"fusedActivationFunction": 1}, "AddOptions"),
    "sub": ("SUB", [X, X], [X], {}, "SubOptions"),
    "mul clipped": ("MUL", [X, X], [X], {"fusedActivationFunction": 2}, "MulOptions"),
    "div": ("DIV", [X, X], [X], {}, "DivOptions"),
    "minimum": ("MINIMUM", [X, BROADCAST], [X]),
    "maximum": ("MAXIMUM", [X, BROADCAST], [X]),
    "pow": ("POW", [X, X], [X]),
    "squared difference": ("SQUARED_DIFFERENCE", [X, BROADCAST], [X]),
    "leaky relu": ("LEAKY_RELU", [X], [X], {"alpha": 0.2}, "LeakyReluOptions"),
    "prelu": ("PRELU", [X, constant(RNG.normal(size=(1, 1, 4)), "float32")], [X]),
    **{name.lower(): (name, [X], [X]) for name in _UNARY},
    "mean over the image": ("MEAN", [X, constant([1, 2])], [T((1, 4))], {"keepDims": False}, "ReducerOptions"),
    "mean over channels": ("MEAN", [X, constant([3])], [T((1, 6, 5, 1))], {"keepDims": True}, "ReducerOptions"),
    "sum": ("SUM", [X, constant([1, -1])], [T((1, 5))], {"keepDims": False}, "ReducerOptions"),
    "reduce max": ("REDUCE_MAX", [X, constant([2])], [T((1, 6, 1, 4))], {"keepDims": True}, "ReducerOptions"),
    "pad": ("PAD", [X, constant([[0, 0], [1, 2], [0, 3], [0, 0]])], [T((1, 9, 8, 4))]),
    "mirror pad": (
        "MIRROR_PAD",
        [X, constant([[0, 0], [1, 2], [2, 1], [0, 0]])],
        [T((1, 9, 8, 4))],
        {},
        "MirrorPadOptions",
    ),
    "reshape": ("RESHAPE", [X, constant([1, 120])], [T((1, 120))]),
    "squeeze": ("SQUEEZE", [T((1, 3, 1, 4))], [T((3, 4))], {"squeezeDims": [0, 2]}, "SqueezeOptions"),
    "expand dims": ("EXPAND_DIMS", [T((3, 4)), constant(1)], [T((3, 1, 4))]),
    "transpose": ("TRANSPOSE", [X, constant([0, 3, 1, 2])], [T((1, 4, 6, 5))]),
    "concatenation": ("CONCATENATION", [X, X], [T((1, 6, 5, 8))], {"axis": 3}, "ConcatenationOptions"),
    "split": ("SPLIT", [constant(3), X], [T((1, 6, 5, 2))] * 2, {"numSplits": 2}, "SplitOptions"),
    "split v": (
        "SPLIT_V",
        [X, constant([1, 3]), constant(3)],
        [T((1, 6, 5, 1)), T((1, 6, 5, 3))],
        {"numSplits": 2},
        "SplitVOptions",
    ),
    "strided slice, masks and shrink": (
        "STRIDED_SLICE",
        [X, constant([0, 4, 1, -1]), constant([1, 0, 9, 0]), constant([1, -2, 1, 1])],
        [T((1, 2, 4))],
        {"beginMask": 1, "shrinkAxisMask": 8},
        "StridedSliceOptions",
    ),
    "slice": ("SLICE", [X, constant([0, 1, 2, 0]), constant([1, 3, -1, 2])], [T((1, 3, 3, 2))]),
    "gather": ("GATHER", [X, constant([3, 0, 0])], [T((1, 6, 5, 3))], {"axis": 3}, "GatherOptions"),
    "pack": ("PACK", [T((3, 4)), T((3, 4))], [T((3, 2, 4))], {"valuesCount": 2, "axis": 1}, "PackOptions"),
    "unpack": ("UNPACK", [T((3, 2, 4))], [T((3, 4))] * 2, {"num": 2, "axis": 1}, "UnpackOptions"),
    "tile": ("TILE", [T((2, 3)), constant([2, 1])], [T((4, 3))]),
    **{
        f"resize {kind.lower()} {name}": (
            f"RESIZE_{kind}",
            [X, constant([11, 13])],
            [T((1, 11, 13, 4))],
            flags,
            f"Resize{'Bilinear' if kind == 'BILINEAR' else 'NearestNeighbor'}Options",
        )
        for kind in ("BILINEAR", "NEAREST_NEIGHBOR")
        for name, flags in (("plain", {}), ("corners", {"alignCorners": True}), ("centers", {"halfPixelCenters": True}))
    },
    "depth to space": ("DEPTH_TO_SPACE", [X], [T((1, 12, 10, 1))], {"blockSize": 2}, "DepthToSpaceOptions"),
    "space to depth": (
        "SPACE_TO_DEPTH",
        [T((1, 6, 4, 3))],
        [T((1, 3, 2, 12))],
        {"blockSize": 2},
        "SpaceToDepthOptions",
    ),
    "arg max": ("ARG_MAX", [X, constant(3)], [T((1, 6, 5), "int32")], {"outputType": 2}, "ArgMaxOptions"),
    "arg min over rows": ("ARG_MIN", [X, constant(1)], [T((1, 5, 4), "int32")], {"outputType": 2}, "ArgMinOptions"),
    "reduce min": ("REDUCE_MIN", [X, constant([3])], [T((1, 6, 5))], {"keepDims": False}, "ReducerOptions"),
    "log softmax": ("LOG_SOFTMAX", [T((2, 7))], [T((2, 7))]),
    "pad with a value": (
        "PADV2",
        [X, constant([[0, 0], [1, 2], [0, 3], [0, 0]]), constant(1.5, "float32")],
        [T((1, 9, 8, 4))],
    ),
    "shape": ("SHAPE", [X], [T((4,), "int32")], {"outType": 2}, "ShapeOptions"),
    "fully connected, both operands flow": (
        "FULLY_CONNECTED",
        [T((3, 4)), T((5, 4)), None],
        [T((3, 5))],
        {},
        "FullyConnectedOptions",
    ),
    "fully connected, the bias flows": (
        "FULLY_CONNECTED",
        [T((3, 4)), constant(RNG.normal(size=(5, 4)), "float32"), T((5,))],
        [T((3, 5))],
        {},
        "FullyConnectedOptions",
    ),
    "conv in two groups": (
        "CONV_2D",
        [T((1, 6, 5, 8)), constant(W, "float32"), constant(np.zeros(8), "float32")],
        [T((1, 3, 3, 8))],
        WINDOW,
        "Conv2DOptions",
    ),
    "cast": ("CAST", [X], [T((1, 6, 5, 4), "int32")], {"inDataType": 0, "outDataType": 2}, "CastOptions"),
}

QUANTIZED_CASES: dict[str, tuple[Any, ...]] = {
    "conv per channel": (
        "CONV_2D",
        [QX, QW, QB],
        [T((1, 3, 3, 8), "int8", scale=0.08, zero=-128)],
        {**WINDOW, "fusedActivationFunction": 1},
        "Conv2DOptions",
    ),
    "conv with an activation that the range does not imply": (
        "CONV_2D",
        [QX, QW, QB],
        [T((1, 3, 3, 8), "int8", scale=0.1, zero=0)],
        {**WINDOW, "fusedActivationFunction": 3},
        "Conv2DOptions",
    ),
    "add": (
        "ADD",
        [QX, T((1, 6, 5, 4), "int8", scale=0.02, zero=-9)],
        [T((1, 6, 5, 4), "int8", scale=0.06, zero=1)],
        {},
        "AddOptions",
    ),
    "mul": ("MUL", [QX, QX], [T((1, 6, 5, 4), "int8", scale=0.3, zero=-4)], {}, "MulOptions"),
    "logistic": ("LOGISTIC", [QX], [T((1, 6, 5, 4), "int8", scale=1 / 256, zero=-128)]),
    "quantize to another scale": ("QUANTIZE", [QX], [T((1, 6, 5, 4), "uint8", scale=0.06, zero=120)]),
    "mean": (
        "MEAN",
        [QX, constant([1, 2])],
        [T((1, 1, 1, 4), "int8", scale=0.03, zero=5)],
        {"keepDims": True},
        "ReducerOptions",
    ),
    "pad with the zero point": (
        "PAD",
        [QX, constant([[0, 0], [1, 1], [1, 1], [0, 0]])],
        [T((1, 8, 7, 4), "int8", scale=0.05, zero=3)],
    ),
    "depthwise": (
        "DEPTHWISE_CONV_2D",
        [
            QX,
            constant(RNG.integers(-127, 128, (1, 3, 3, 4)), "int8", scale=[0.01, 0.02, 0.005, 0.03], axis=3),
            constant([5, -900, 100, 0], scale=np.array([0.01, 0.02, 0.005, 0.03]) * 0.05),
        ],
        [T((1, 3, 3, 4), "int8", scale=0.08, zero=-10)],
        {**WINDOW, "depthMultiplier": 1},
        "DepthwiseConv2DOptions",
    ),
    "transpose conv per channel": (
        "TRANSPOSE_CONV",
        [constant([1, 12, 10, 8]), QW, QX],
        [T((1, 12, 10, 8), "int8", scale=0.06, zero=4)],
        WINDOW,
        "TransposeConvOptions",
    ),
    "fully connected": (
        "FULLY_CONNECTED",
        [
            T((3, 6), "int8", scale=0.05, zero=3),
            constant(RNG.integers(-127, 128, (9, 6)), "int8", scale=0.01),
            constant(RNG.integers(-900, 900, 9), scale=0.0005),
        ],
        [T((3, 9), "int8", scale=0.09, zero=-3)],
        {},
        "FullyConnectedOptions",
    ),
    "sub": ("SUB", [QX, QX], [T((1, 6, 5, 4), "int8", scale=0.11, zero=2)], {}, "SubOptions"),
    "softmax": (
        "SOFTMAX",
        [T((2, 9), "int8", scale=0.1)],
        [T((2, 9), "int8", scale=1 / 256, zero=-128)],
        {"beta": 1.0},
        "SoftmaxOptions",
    ),
    "hard swish": ("HARD_SWISH", [QX], [T((1, 6, 5, 4), "int8", scale=0.04, zero=-100)]),
    "leaky relu": (
        "LEAKY_RELU",
        [QX],
        [T((1, 6, 5, 4), "int8", scale=0.05, zero=-3)],
        {"alpha": 0.1},
        "LeakyReluOptions",
    ),
    "tanh": ("TANH", [QX], [T((1, 6, 5, 4), "int8", scale=1 / 128, zero=0)]),
    "average pool": (
        "AVERAGE_POOL_2D",
        [QX],
        [T((1, 3, 3, 4), "int8", scale=0.05, zero=3)],
        {**WINDOW, "filterHeight": 3, "filterWidth": 3},
        "Pool2DOptions",
    ),
    "max pool": (
        "MAX_POOL_2D",
        [QX],
        [T((1, 3, 3, 4), "int8", scale=0.05, zero=3)],
        {**WINDOW, "filterHeight": 3, "filterWidth": 3},
        "Pool2DOptions",
    ),
    "concatenation": (
        "CONCATENATION",
        [QX, QX],
        [T((1, 6, 5, 8), "int8", scale=0.05, zero=3)],
        {"axis": -1},
        "ConcatenationOptions",
    ),
    "resize bilinear": (
        "RESIZE_BILINEAR",
        [QX, constant([12, 11])],
        [T((1, 12, 11, 4), "int8", scale=0.05, zero=3)],
        {"halfPixelCenters": True},
        "ResizeBilinearOptions",
    ),
    "add of a constant": (
        "ADD",
        [QX, constant([10, -20, 30, 99], "int8", scale=0.02, zero=4)],
        [T((1, 6, 5, 4), "int8", scale=0.06, zero=1)],
        {},
        "AddOptions",
    ),
    "dequantize": ("DEQUANTIZE", [QX], [X]),
    "quantize": ("QUANTIZE", [X], [QX]),
}
