"""Classes of work, and the class of each ONNX and TFLite operator. Pure.

The classes are those whose cost differs by more than a constant on every published NPU (facts: dense convolution
reaches 10-54 % of a chip's peak, depthwise 1-14 %).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from enum import StrEnum
from typing import Final

from npuops.models.model import AttributeValue, Layer, TensorInfo


class Kind(StrEnum):
    """Classes of work with one cost law each."""

    DENSE = "dense"
    """Convolution with a window, all channels with all."""
    POINTWISE = "pointwise"
    """1x1 convolution, and a matrix of weights applied to many rows."""
    DEPTHWISE = "depthwise"
    """One filter per channel."""
    GROUPED = "grouped"
    VOLUMETRIC = "volumetric"
    """Convolution in three dimensions."""
    FULLY_CONNECTED = "fully-connected"
    """A matrix of weights applied to one row: each weight is used once."""
    ATTENTION = "attention"
    """A product of two activations."""
    ELEMENTWISE = "elementwise"
    """Arithmetic of two tensors, or of one and a constant."""
    LOOKUP = "lookup"
    """A function of one value: Sigmoid, Gelu, …"""
    POOL = "pool"
    RESIZE = "resize"
    NORM = "norm"
    """Needs a whole row before its first result: Softmax, LayerNormalization, Reduce…"""
    MOVE = "move"
    """Same values at other places: Transpose, Concat, Slice, …"""
    FREE = "free"
    """Nothing happens: Reshape, Q/DQ pairs, Dropout."""
    OTHER = "other"


MAC_KINDS: Final = frozenset(
    {Kind.DENSE, Kind.POINTWISE, Kind.DEPTHWISE, Kind.GROUPED, Kind.VOLUMETRIC, Kind.FULLY_CONNECTED, Kind.ATTENTION}
)
"""Work of the MAC array; the other kinds are work of the vector unit."""


def kind_of(layer: Layer) -> Kind:
    """The class of a layer's work."""
    if layer.op in CONVOLUTIONS | {"CONV_2D", "CONV_3D", "ConvTranspose", "TRANSPOSE_CONV"}:
        return _convolution(layer)
    if layer.op == "DEPTHWISE_CONV_2D":
        return Kind.DEPTHWISE
    if layer.op in _MATRIX:
        return _matrix(layer)
    if layer.op in RECURRENT:
        return Kind.FULLY_CONNECTED
    if layer.op in _UNARY_TOO and len(layer.inputs) <= 1 and not layer.weights:
        return Kind.LOOKUP
    return _KINDS.get(layer.op, Kind.OTHER)


def _convolution(layer: Layer) -> Kind:
    weight = sizes_of(layer.weights[0]) if layer.weights else ()
    if not weight:
        return Kind.DENSE
    nchw = layer.op in CONVOLUTIONS | {"ConvTranspose"}
    window = math.prod(weight[2:] if nchw else weight[1:-1])
    groups = number(layer.attributes, "group", 1) if nchw else 1
    if groups > 1:
        return Kind.DEPTHWISE if weight[1] == 1 else Kind.GROUPED
    if len(weight) > 4 and window > 1:
        return Kind.VOLUMETRIC
    result = sizes_of(layer.outputs[0])
    pixels = math.prod(result[2:] if nchw else result[1:-1])
    if window == 1 and pixels == 1:
        return Kind.FULLY_CONNECTED
    return Kind.POINTWISE if window == 1 else Kind.DENSE


def _matrix(layer: Layer) -> Kind:
    if len(layer.inputs) > 1:
        return Kind.ATTENTION
    result = sizes_of(layer.outputs[0])
    return Kind.FULLY_CONNECTED if math.prod(result[:-1]) <= 1 else Kind.POINTWISE


def sizes_of(tensor: TensorInfo) -> tuple[int, ...]:
    """The known sizes of a tensor."""
    return tuple(dim for dim in tensor.shape or () if isinstance(dim, int))


def number(attributes: Mapping[str, AttributeValue], name: str, default: int) -> int:
    """An integer attribute."""
    value = attributes.get(name, default)
    return value if isinstance(value, int) else default


CONVOLUTIONS: Final = frozenset({"Conv", "FusedConv", "QLinearConv", "ConvInteger", "DeformConv"})
"""ONNX's, with weights [output channels, input channels of a group, *window]."""
RECURRENT: Final = frozenset({"LSTM", "GRU", "RNN", "UNIDIRECTIONAL_SEQUENCE_LSTM"})
_MATRIX: Final = frozenset(
    {"Gemm", "MatMul", "FusedGemm", "FusedMatMul", "QLinearMatMul", "QGemm", "MatMulInteger", "Einsum"}
    | {"FULLY_CONNECTED", "BATCH_MATMUL", "Attention"}
)
_UNARY_TOO: Final = frozenset({"Add", "Sub", "Mul", "Div", "Pow", "Min", "Max", "Sum"})
_KINDS: Final[Mapping[str, Kind]] = {
    op: kind
    for kind, ops in {
        Kind.ELEMENTWISE: (
            "Add Sub Mul Div Pow Min Max Sum Mean Mod And Or Xor Not Equal Greater Less GreaterOrEqual "
            "LessOrEqual Where ADD SUB MUL DIV POW MINIMUM MAXIMUM SQUARED_DIFFERENCE ADD_N SELECT SELECT_V2 "
            "EQUAL GREATER LESS LOGICAL_AND LOGICAL_OR LOGICAL_NOT NOT_EQUAL GREATER_EQUAL LESS_EQUAL FLOOR_DIV "
            "FLOOR_MOD BatchNormalization "
        ),
        Kind.LOOKUP: (
            "Relu Clip LeakyRelu PRelu Elu Selu Celu Sigmoid HardSigmoid HardSwish Tanh Gelu Softplus Softsign "
            "Mish Erf Exp Log Sqrt Reciprocal Abs Neg Sign Floor Ceil Round Sin Cos Cast ThresholdedRelu RELU "
            "RELU6 RELU_N1_TO_1 LEAKY_RELU PRELU ELU LOGISTIC HARD_SWISH TANH GELU EXP LOG SQRT RSQRT ABS NEG "
            "SIGN FLOOR CEIL ROUND SIN COS CAST SQUARE "
        ),
        Kind.POOL: (
            "MaxPool AveragePool GlobalAveragePool GlobalMaxPool LpPool MAX_POOL_2D AVERAGE_POOL_2D L2_POOL_2D "
        ),
        Kind.RESIZE: ("Resize Upsample GridSample RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR AffineGrid RoiAlign "),
        Kind.NORM: (
            "Softmax LogSoftmax LayerNormalization InstanceNormalization GroupNormalization RMSNormalization LRN "
            "LpNormalization MeanVarianceNormalization ReduceMean ReduceSum ReduceMax ReduceMin ReduceProd "
            "ReduceL1 ReduceL2 ReduceSumSquare ReduceLogSumExp ArgMax ArgMin TopK CumSum Hardmax SOFTMAX "
            "LOG_SOFTMAX L2_NORMALIZATION LOCAL_RESPONSE_NORMALIZATION MEAN SUM REDUCE_MAX REDUCE_MIN REDUCE_PROD "
            "ARG_MAX ARG_MIN TOPK_V2 CUMSUM "
        ),
        Kind.MOVE: (
            "Transpose Concat Slice Split Pad Gather GatherElements GatherND ScatterND ScatterElements "
            "DepthToSpace SpaceToDepth Expand Tile TRANSPOSE CONCATENATION SLICE STRIDED_SLICE SPLIT SPLIT_V PAD "
            "PADV2 MIRROR_PAD GATHER GATHER_ND DEPTH_TO_SPACE SPACE_TO_DEPTH BROADCAST_TO TILE PACK UNPACK "
            "REVERSE_V2 ReverseSequence OneHot EmbeddingBag Trilu "
        ),
        Kind.FREE: (
            "Reshape Flatten Squeeze Unsqueeze Identity Dropout QuantizeLinear DequantizeLinear Shape Size "
            "Constant ConstantOfShape RESHAPE SQUEEZE EXPAND_DIMS QUANTIZE DEQUANTIZE SHAPE Range "
        ),
    }.items()
    for op in ops.split()
}
