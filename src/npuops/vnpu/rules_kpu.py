"""What nncase compiles for the KPU of Canaan's K230, by names.

Source: kendryte/nncase `docs/onnx_ops.md`@00e08b8 and `docs/tflite_ops.md`@0a26302: lists without limits, and without
word on which operators the KPU does itself and which the compiler leaves to the RISC-V cores. So "NPU" here means "the
compiler takes it": an upper bound.
"""

from __future__ import annotations

from typing import Final

from npuops.models.model import Model
from npuops.models.placement import Placement
from npuops.targets.rules import static_shapes
from npuops.vnpu.rule_conditions import computes_in, place_by

FORMATS: Final = ("int8", "w8a16")

_ONNX: Final = (
    "Abs Add AveragePool BatchNormalization Cast Ceil Clip Concat Conv ConvTranspose Cos Div Dropout Exp Expand "
    "Flatten Floor Gather GatherND Gemm GlobalAveragePool GlobalMaxPool HardSigmoid Identity InstanceNormalization "
    "LpNormalization LeakyRelu Log LRN MatMul MaxPool Max Min Mul Neg OneHot Pad Pow PRelu ReduceL2 ReduceMax "
    "ReduceMean ReduceMin ReduceSum Relu Reshape Resize Round Shape Sin Sigmoid Slice Softmax SpaceToDepth Split Sqrt "
    "Squeeze Sub Sum Transpose Upsample Unsqueeze QuantizeLinear DequantizeLinear"
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
