"""Operator rules of ORT's CPU engine, which takes nearly all of ONNX, and how rules make a placement.

The lists are of onnxruntime 1.31.1: the kernels that it registers for its CPU provider
(`onnxruntime_pybind11_state.get_all_opkernel_def`) beside the operators of onnx 1.21 that are no functions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from npuops.models.model import Layer, Model
from npuops.models.placement import Placement, RunsOn
from npuops.targets.rules import Rule, attribute_is

WITHOUT_KERNEL: Final[Mapping[str, int]] = {
    "ImageDecoder": 20,
    **dict.fromkeys(("Bernoulli", "GlobalLpPool", "MaxRoiPool", "Multinomial", "RandomNormal", "RandomNormalLike"), 22),
    **dict.fromkeys(("RandomUniform", "RandomUniformLike", "RoiAlign"), 22),
}
"""Standard operators → the opset from which there is no kernel for them."""

CONTRIBUTED: Final = frozenset(
    {
        *("Attention", "AttnLSTM", "BeamSearch", "BiasGelu", "BifurcationDetector", "BranchwiseRMSNorm", "CDist"),
        *("CausalConvWithState", "ConvTransposeWithDynamicPads", "CropAndResize", "DecoderMaskedMultiHeadAttention"),
        *("DequantizeLinear", "DynamicQuantizeLSTM", "DynamicQuantizeMatMul", "DynamicTimeWarping"),
        *("EmbedLayerNormalization", "EngramGate", "ExpandDims", "FastGelu", "FusedConv", "FusedGemm", "FusedMatMul"),
        *("GatedAdd", "GatedRMSNorm", "GatherBlockQuantized", "GatherND", "Gelu", "GreedySearch", "GridSample"),
        *("GroupQueryAttention", "HyperConnectionPostMix", "HyperConnectionPreMix", "Inverse", "LinearAttention"),
        *("LinearAttentionGate", "MRotaryEmbedding", "MatMulBnb4", "MatMulFpQ4", "MatMulInteger16"),
        *("MatMulIntegerToFloat", "MatMulNBits", "MaxpoolWithMask", "MoE", "MultiHeadAttention", "MurmurHash3"),
        *("NGramHashMapping", "NGramRepeatBlock", "NhwcMaxPool", "Pad", "QAttention", "QEmbedLayerNormalization"),
        *("QGemm", "QLinearAdd", "QLinearAveragePool", "QLinearConcat", "QLinearConv", "QLinearGlobalAveragePool"),
        *("QLinearLeakyRelu", "QLinearMul", "QLinearSigmoid", "QLinearSoftmax", "QLinearWhere", "QMoE"),
        *("QuantizeLinear", "QuickGelu", "Range", "RotaryEmbedding", "SampleOp", "Sampling", "ScaledSiLU"),
        *("SkipLayerNormalization", "SkipSimplifiedLayerNormalization", "SparseAttention", "SparseToDenseMatMul"),
        *("Tokenizer", "TransposeMatMul", "Trilu", "UnfoldTensor", "Unique", "VarlenNGramHashMapping"),
        *("WhisperBeamSearch", "WordConvEmbedding"),
    }
)
"""Operators of the domain `com.microsoft` that have a kernel."""

_LAYOUT: Final = attribute_is("layout", 0, default=0)
_RECURRENT: Final = frozenset({"GRU", "LSTM", "RNN"})


def place_on_ort(model: Model) -> tuple[Placement, ...]:
    """What has a kernel runs on ORT's CPU engine."""
    known = _known(model.opset or 0)
    return tuple(by_rules(layer, (known, _LAYOUT) if layer.op in _RECURRENT else (known,)) for layer in model.layers)


def _known(opset: int) -> Rule:
    def broken(layer: Layer) -> str:
        if layer.domain in {"", "ai.onnx"}:
            return f"{layer.op} of opset {opset}" if opset >= WITHOUT_KERNEL.get(layer.op, opset + 1) else ""
        if layer.domain == "com.microsoft":
            return "" if layer.op in CONTRIBUTED else f"{layer.domain}.{layer.op}"
        return "" if layer.domain == "ai.onnx.ml" else f"domain {layer.domain}"

    return Rule("ONNX Runtime has a CPU kernel for the operator", broken)


def by_rules(layer: Layer, rules: tuple[Rule, ...]) -> Placement:
    """Where one layer of an engine without a list of operators runs; every broken rule is named."""
    broken = [(rule.words, found) for rule in rules if (found := rule.broken(layer))]
    return Placement(
        name=layer.name,
        op=layer.op,
        runs_on=RunsOn.CPU if broken else RunsOn.NPU,
        rule="; ".join(words for words, _ in broken) or f"{layer.op} is supported",
        found="; ".join(found for _, found in broken),
    )
