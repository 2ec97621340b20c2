"""Which options each TFLite operator has, as data: operator → table class and its fields."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, Final

import tflite

from npuops.models.model import AttributeValue

_WINDOW = ("Padding", "StrideW", "StrideH")
_ACTIVATION = ("FusedActivationFunction",)
_DILATION = ("DilationWFactor", "DilationHFactor")

OPTIONS: Final[Mapping[str, tuple[str, tuple[str, ...]]]] = {
    "CONV_2D": ("Conv2DOptions", (*_WINDOW, *_ACTIVATION, *_DILATION)),
    "DEPTHWISE_CONV_2D": ("DepthwiseConv2DOptions", (*_WINDOW, "DepthMultiplier", *_ACTIVATION, *_DILATION)),
    "TRANSPOSE_CONV": ("TransposeConvOptions", (*_WINDOW, *_ACTIVATION)),
    "CONV_3D": ("Conv3DOptions", (*_WINDOW, "StrideD", *_ACTIVATION)),
    "AVERAGE_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterWidth", "FilterHeight", *_ACTIVATION)),
    "MAX_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterWidth", "FilterHeight", *_ACTIVATION)),
    "L2_POOL_2D": ("Pool2DOptions", (*_WINDOW, "FilterWidth", "FilterHeight", *_ACTIVATION)),
    "FULLY_CONNECTED": (
        "FullyConnectedOptions",
        (*_ACTIVATION, "WeightsFormat", "KeepNumDims", "AsymmetricQuantizeInputs"),
    ),
    "BATCH_MATMUL": ("BatchMatMulOptions", ("AdjX", "AdjY", "AsymmetricQuantizeInputs")),
    "ADD": ("AddOptions", _ACTIVATION),
    "SUB": ("SubOptions", _ACTIVATION),
    "MUL": ("MulOptions", _ACTIVATION),
    "DIV": ("DivOptions", _ACTIVATION),
    "CONCATENATION": ("ConcatenationOptions", ("Axis", *_ACTIVATION)),
    "LEAKY_RELU": ("LeakyReluOptions", ("Alpha",)),
    "GELU": ("GeluOptions", ("Approximate",)),
    "SOFTMAX": ("SoftmaxOptions", ("Beta",)),
    "MEAN": ("ReducerOptions", ("KeepDims",)),
    "SUM": ("ReducerOptions", ("KeepDims",)),
    "REDUCE_MAX": ("ReducerOptions", ("KeepDims",)),
    "REDUCE_MIN": ("ReducerOptions", ("KeepDims",)),
    "REDUCE_PROD": ("ReducerOptions", ("KeepDims",)),
    "RESHAPE": ("ReshapeOptions", ("NewShape[]",)),
    "SQUEEZE": ("SqueezeOptions", ("SqueezeDims[]",)),
    "SPLIT": ("SplitOptions", ("NumSplits",)),
    "SPLIT_V": ("SplitVOptions", ("NumSplits",)),
    "STRIDED_SLICE": (
        "StridedSliceOptions",
        ("BeginMask", "EndMask", "EllipsisMask", "NewAxisMask", "ShrinkAxisMask", "Offset"),
    ),
    "GATHER": ("GatherOptions", ("Axis", "BatchDims")),
    "PACK": ("PackOptions", ("ValuesCount", "Axis")),
    "UNPACK": ("UnpackOptions", ("Num", "Axis")),
    "RESIZE_BILINEAR": ("ResizeBilinearOptions", ("AlignCorners", "HalfPixelCenters")),
    "RESIZE_NEAREST_NEIGHBOR": ("ResizeNearestNeighborOptions", ("AlignCorners", "HalfPixelCenters")),
    "DEPTH_TO_SPACE": ("DepthToSpaceOptions", ("BlockSize",)),
    "SPACE_TO_DEPTH": ("SpaceToDepthOptions", ("BlockSize",)),
    "MIRROR_PAD": ("MirrorPadOptions", ("Mode",)),
    "ARG_MAX": ("ArgMaxOptions", ("OutputType",)),
    "ARG_MIN": ("ArgMinOptions", ("OutputType",)),
    "CAST": ("CastOptions", ("InDataType", "OutDataType")),
    "UNIDIRECTIONAL_SEQUENCE_LSTM": ("UnidirectionalSequenceLSTMOptions", (*_ACTIVATION, "TimeMajor")),
}
"""`Name[]` marks a vector of numbers. Operators that are absent have no options that npuops reads."""


def _names_of(enumeration: Any) -> dict[int, str]:
    return {value: name for name, value in vars(enumeration).items() if not name.startswith("_")}


_WORDS: Final[Mapping[str, Mapping[int, str]]] = {
    "Padding": _names_of(tflite.Padding),
    "FusedActivationFunction": _names_of(tflite.ActivationFunctionType),
    "WeightsFormat": _names_of(tflite.FullyConnectedOptionsWeightsFormat),
}


def read_options(name: str, operator: Any, numbers: Callable[[Any, str], tuple[Any, ...]]) -> dict[str, AttributeValue]:
    """Options of one operator, names in `snake_case`, enumerations as their words.

    Args:
        name: the operator.
        operator: its FlatBuffer table.
        numbers: reads a vector within the file's budget.
    """
    table = operator.BuiltinOptions()
    if name not in OPTIONS or table is None:
        return {}
    kind, fields = OPTIONS[name]
    if operator.BuiltinOptionsType() != getattr(tflite.BuiltinOptions, kind):
        raise ValueError(f"{name} carries the options of another operator")
    options = getattr(tflite, kind)()
    options.Init(table.Bytes, table.Pos)
    read: dict[str, AttributeValue] = {}
    for field in fields:
        key = re.sub(r"(?<!^)(?=[A-Z])", "_", field.removesuffix("[]")).lower()
        if field.endswith("[]"):
            read[key] = numbers(options, field.removesuffix("[]"))
            continue
        value = getattr(options, field)()
        read[key] = _WORDS[field][value] if field in _WORDS else value
    return read
