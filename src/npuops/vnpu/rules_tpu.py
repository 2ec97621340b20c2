"""What the TPU of Sophgo's BM1684X takes through TPU-MLIR.

Source: sophgo/tpu-mlir, the code that its manual's operator list is generated from: the operators of
`python/transform/OnnxConverter.py`@0033e68 that `lib/Conversion/TopToTpu/BM1684X/` lowers to the TPU (GatherND@092066f
and GridSample@2212ff6 are lowered to the CPU, the second for bilinear interpolation). Names, next to no limits: an
upper bound. Gelu is what the converter makes of an Erf between its products.
"""

from __future__ import annotations

from typing import Final

from npuops.models.model import Model
from npuops.models.placement import Placement
from npuops.targets.rules import Rule, rank_at_most, static_shapes
from npuops.vnpu.rule_conditions import computes_in, never, place_by, word_among

FORMATS: Final = ("int8", "fp16", "fp32")

_NAMES: Final = (
    "Abs Acos Add And ArgMax ArgMin Atan Atanh AveragePool BatchNormalization Cast Ceil Clip Concat ConstantOfShape "
    "Conv ConvTranspose Cos CumSum DepthToSpace DequantizeLinear Div Dropout Einsum Elu Equal Erf Exp Expand Flatten "
    "Floor GRU Gather GatherElements Gelu Gemm GlobalAveragePool GlobalMaxPool Greater GreaterOrEqual "
    "GroupNormalization HardSigmoid HardSwish Identity InstanceNormalization LRN LSTM LayerNormalization LeakyRelu "
    "Less LessOrEqual Log LogSoftmax MatMul Max MaxPool Min Mod Mul Neg NonMaxSuppression NonZero Not OneHot PRelu Pad "
    "Pow QuantizeLinear Range Reciprocal ReduceL1 ReduceL2 ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum Relu "
    "Reshape Resize ReverseSequence RoiAlign Round ScatterElements ScatterND Shape Sigmoid Sign Sin Slice Softmax "
    "Softplus SpaceToDepth Split Sqrt Squeeze Sub Sum Tanh Tile TopK Transpose Trilu Unsqueeze Upsample Where Xor "
    "com.microsoft.Gelu"
)


def place_on(model: Model, number_format: str = "int8") -> tuple[Placement, ...]:
    """Every layer of the model, placed."""
    rules: dict[str, tuple[Rule, ...]] = {
        **dict.fromkeys(_NAMES.split(), ()),
        "GatherND": (never("lowered to the CPU"),),
        "GridSample": (word_among("mode", ("nearest",), "bilinear"), rank_at_most(4)),
    }
    everywhere = (*computes_in(FORMATS, number_format), static_shapes())
    return place_by(model, rules, list_name="TPU-MLIR's list", everywhere=everywhere)
