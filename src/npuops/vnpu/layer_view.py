"""One view of a layer for ONNX and TFLite: its name in ONNX words, axes as N, C, H and W, and its window. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from npuops.models.model import Layer, TensorInfo
from npuops.targets.rules import OpRules
from npuops.vnpu.work_kinds import CONVOLUTIONS

_PAIRS: Final = (
    "ABS:Abs ADD:Add ARG_MAX:ArgMax ARG_MIN:ArgMin AVERAGE_POOL_2D:AveragePool BATCH_MATMUL:MatMul CAST:Cast "
    "CEIL:Ceil CONCATENATION:Concat CONV_2D:Conv CONV_3D:Conv COS:Cos CUMSUM:CumSum DEPTHWISE_CONV_2D:Conv "
    "DEPTH_TO_SPACE:DepthToSpace DEQUANTIZE:DequantizeLinear DIV:Div ELU:Elu EQUAL:Equal EXP:Exp "
    "EXPAND_DIMS:Unsqueeze FLOOR:Floor FULLY_CONNECTED:Gemm GATHER:Gather GATHER_ND:GatherND GELU:Gelu "
    "GREATER:Greater GREATER_EQUAL:GreaterOrEqual HARD_SWISH:HardSwish L2_NORMALIZATION:LpNormalization "
    "L2_POOL_2D:LpPool LEAKY_RELU:LeakyRelu LESS:Less LESS_EQUAL:LessOrEqual LOCAL_RESPONSE_NORMALIZATION:LRN LOG:Log "
    "LOGICAL_AND:And LOGICAL_NOT:Not LOGICAL_OR:Or LOGISTIC:Sigmoid LOG_SOFTMAX:LogSoftmax MAXIMUM:Max "
    "MAX_POOL_2D:MaxPool MEAN:ReduceMean MINIMUM:Min MIRROR_PAD:Pad MUL:Mul NEG:Neg ONE_HOT:OneHot PACK:Concat "
    "PAD:Pad PADV2:Pad POW:Pow PRELU:PRelu QUANTIZE:QuantizeLinear REDUCE_MAX:ReduceMax REDUCE_MIN:ReduceMin "
    "RELU6:Clip RELU:Relu RELU_0_TO_1:Clip RELU_N1_TO_1:Clip RESHAPE:Reshape RESIZE_BILINEAR:Resize "
    "RESIZE_NEAREST_NEIGHBOR:Resize ROUND:Round SCATTER_ND:ScatterND SELECT:Where SELECT_V2:Where SHAPE:Shape "
    "SIGN:Sign SIN:Sin SLICE:Slice SOFTMAX:Softmax SPACE_TO_DEPTH:SpaceToDepth SPLIT:Split SPLIT_V:Split SQRT:Sqrt "
    "SQUARE:Pow SQUEEZE:Squeeze STRIDED_SLICE:Slice SUB:Sub SUM:ReduceSum TANH:Tanh TILE:Tile TOPK_V2:TopK "
    "TRANSPOSE:Transpose TRANSPOSE_CONV:ConvTranspose UNIDIRECTIONAL_SEQUENCE_LSTM:LSTM UNPACK:Split"
)
ONNX_NAMES: Final[Mapping[str, str]] = dict(pair.split(":") for pair in _PAIRS.split())
"""TFLite operator → the ONNX operator that does the same work."""

_ONNX_CAPITALS: Final = frozenset({"GRU", "LRN", "LSTM", "RNN"})


def in_both_words(rules: OpRules) -> OpRules:
    """A table in ONNX words, with the same rules under the TFLite names; an entry that is there already stays."""
    twins = {name: rules[onnx] for name, onnx in ONNX_NAMES.items() if onnx in rules}
    return {**twins, **rules}


def is_tflite(layer: Layer) -> bool:
    """TFLite puts channels last and names operators in capitals (`CUSTOM:…` too)."""
    return layer.op.partition(":")[0].isupper() and layer.op not in _ONNX_CAPITALS


def sizes(tensor: TensorInfo) -> tuple[int, ...]:
    """Known sizes of a tensor; empty where one is unknown (the rule about static shapes says so)."""
    if tensor.shape is None or not tensor.is_static:
        return ()
    return tuple(dim for dim in tensor.shape if isinstance(dim, int))


def first_in(layer: Layer) -> tuple[int, ...]:
    """Shape of the first activation that flows in."""
    return sizes(layer.inputs[0]) if layer.inputs else ()


def first_out(layer: Layer) -> tuple[int, ...]:
    """Shape of the first result."""
    return sizes(layer.outputs[0]) if layer.outputs else ()


def nchw(layer: Layer, shape: tuple[int, ...]) -> tuple[int, int, int, int] | None:
    """An image's batch, channels, height and width; None where it is not one."""
    if len(shape) != 4:
        return None
    n, second, third, fourth = shape
    return (n, fourth, second, third) if is_tflite(layer) else (n, second, third, fourth)


def axis_letter(layer: Layer, axis: int, rank: int) -> str:
    """The axis of an image as N, C, H or W; of another rank `first`, `last` or `middle`."""
    place = axis % rank if rank else 0
    if rank == 4:
        return ("NHWC" if is_tflite(layer) else "NCHW")[place]
    return "last" if place == rank - 1 else "first" if place == 0 else "middle"


def integers(layer: Layer, name: str, default: tuple[int, ...]) -> tuple[int, ...]:
    """An integer attribute as a tuple."""
    value = layer.attributes.get(name, default)
    return tuple(int(part) for part in value) if isinstance(value, tuple) else (int(value),)


def word(layer: Layer, name: str, default: str) -> str:
    """An attribute as a word."""
    return str(layer.attributes.get(name, default))


@dataclass(frozen=True, slots=True, kw_only=True)
class Window:
    """What slides over the input of a convolution or a pooling layer; every tuple is height, width."""

    kernel: tuple[int, ...]
    strides: tuple[int, ...]
    dilations: tuple[int, ...]
    pads: tuple[int, ...]
    """All sides; empty where the file says SAME instead of numbers."""
    groups: int
    channels_in: int
    """Of one group."""
    channels_out: int
    """Of all groups."""
    depthwise: bool


def window_of(layer: Layer) -> Window | None:
    """The window of a convolution or pooling layer; None where a layer has none, or its shapes are unknown."""
    if layer.op not in _CONVOLUTIONS | _POOLINGS:
        return None
    shape = sizes(layer.weights[0]) if layer.weights else ()
    read = _tflite_window if is_tflite(layer) else _onnx_window
    return read(layer, shape, first_in(layer))


def _onnx_window(layer: Layer, weight: tuple[int, ...], data: tuple[int, ...]) -> Window | None:
    kernel = integers(layer, "kernel_shape", weight[2:])
    if not kernel or len(data) < 3:
        return None
    ones = (1,) * len(kernel)
    groups = integers(layer, "group", (1,))[0]
    return Window(
        kernel=kernel,
        strides=integers(layer, "strides", ones),
        dilations=integers(layer, "dilations", ones),
        pads=() if "SAME" in word(layer, "auto_pad", "") else integers(layer, "pads", (0,) * 2 * len(kernel)),
        groups=groups,
        channels_in=data[1] // max(groups, 1),
        channels_out=(first_out(layer) or data)[1],
        depthwise=groups > 1 and groups == data[1],
    )


_CONVOLUTIONS: Final = CONVOLUTIONS | {"ConvTranspose", "CONV_2D", "DEPTHWISE_CONV_2D", "TRANSPOSE_CONV"}
_POOLINGS: Final = frozenset({"MaxPool", "AveragePool", "LpPool", "MAX_POOL_2D", "AVERAGE_POOL_2D", "L2_POOL_2D"})
_PER_CHANNEL: Final = _POOLINGS | {"DEPTHWISE_CONV_2D"}


def _tflite_window(layer: Layer, weight: tuple[int, ...], data: tuple[int, ...]) -> Window | None:
    if len(data) != 4:
        return None
    kernel = tuple(integers(layer, name, (0,))[0] for name in ("filter_height", "filter_width"))
    kernel = kernel if all(kernel) else weight[1:3]
    strides = tuple(integers(layer, name, (1,))[0] for name in ("stride_h", "stride_w"))
    dilations = tuple(integers(layer, name, (1,))[0] for name in ("dilation_h_factor", "dilation_w_factor"))
    grouped = layer.op in _PER_CHANNEL
    return Window(
        kernel=kernel or (1, 1),
        strides=strides,
        dilations=dilations,
        pads=() if word(layer, "padding", "VALID") == "SAME" else (0, 0, 0, 0),
        groups=data[3] if grouped else 1,
        channels_in=1 if grouped else data[3],
        channels_out=(first_out(layer) or data)[-1],
        depthwise=layer.op == "DEPTHWISE_CONV_2D",
    )
