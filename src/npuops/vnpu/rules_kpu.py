"""What nncase compiles for the KPU of Canaan's K230, by names.

Source: kendryte/nncase@99431d9 (2026-03-02) `docs/onnx_ops.md` and `docs/tflite_ops.md`: lists of what is "supported",
without limits, and without word on which operators the KPU does itself and which the compiler leaves to the RISC-V
cores. So "NPU" here means "the compiler takes it": an upper bound. Six ONNX operators that are supported but "not
imported" (LayerNormalization and Gelu among them) are not taken.
"""

from __future__ import annotations

from typing import Final

from npuops.models.model import Model
from npuops.models.placement import Placement
from npuops.targets.rules import static_shapes
from npuops.vnpu.rule_conditions import computes_in, place_by

FORMATS: Final = ("int8", "w8a16")

_ONNX: Final = (
    "Abs Acos Acosh Add ArgMax ArgMin Asin Asinh AveragePool BatchNormalization Cast Ceil Celu Clip Concat "
    "ConstantOfShape Conv ConvTranspose Cos Cosh CumSum DepthToSpace DequantizeLinear Div Dropout Elu Equal Erf Exp "
    "Expand Flatten Floor Gather GatherElements GatherND Gemm GlobalAveragePool GlobalMaxPool HardSigmoid HardSwish "
    "Hardmax Identity InstanceNormalization LRN LSTM LeakyRelu Log LogSoftmax MatMul Max MaxPool Min Mod Mul Neg Not "
    "OneHot Or PRelu Pad Pow QLinearConv QLinearMatMul QuantizeLinear Range ReduceL1 ReduceL2 ReduceLogSum "
    "ReduceLogSumExp ReduceMax ReduceMean ReduceMin ReduceProd ReduceSum ReduceSumSquare Relu Reshape Resize "
    "ReverseSequence Round ScatterND Shape Sigmoid Sign Sin Sinh Size Slice Softmax Softplus Softsign SpaceToDepth "
    "Split Sqrt Squeeze Sub Sum Tan Tanh Tile TopK Transpose Trilu Unsqueeze Upsample Where"
)
_TFLITE: Final = (
    "ABS ADD AVERAGE_POOL_2D CAST CEIL CONCATENATION CONV_2D COS DEPTHWISE_CONV_2D DIV EXP FLOOR FLOOR_DIV FLOOR_MOD "
    "FULLY_CONNECTED L2_NORMALIZATION LEAKY_RELU LOG LOGISTIC MAX_POOL_2D MAXIMUM MEAN MINIMUM MUL NEG PAD PADV2 "
    "MIRROR_PAD PACK POW REDUCE_MAX REDUCE_MIN RELU RELU6 RESHAPE RESIZE_BILINEAR RESIZE_NEAREST_NEIGHBOR ROUND RSQRT "
    "SHAPE SIN SLICE SOFTMAX SPACE_TO_BATCH_ND SQUEEZE BATCH_TO_SPACE_ND STRIDED_SLICE SQRT SQUARE SUB SUM TANH "
    "TRANSPOSE TRANSPOSE_CONV QUANTIZE FAKE_QUANT DEQUANTIZE GATHER GATHER_ND ONE_HOT SQUARED_DIFFERENCE LOG_SOFTMAX"
)


def place_on(model: Model, number_format: str = "int8") -> tuple[Placement, ...]:
    """Every layer of the model, placed."""
    rules = dict.fromkeys(f"{_ONNX} {_TFLITE}".split(), ())
    everywhere = (*computes_in(FORMATS, number_format), static_shapes())
    return place_by(model, rules, list_name="nncase's list", everywhere=everywhere, both_words=False)
