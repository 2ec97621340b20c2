"""What a Hailo-8 takes, as far as it is public: Hailo's own list of layers is confidential.

Source: the compile tests of a user (repository of SeSac01, `docs/hardware`, Dataflow Compiler 3.32.0, July 2025), one
PyTorch module at a time: names, and two failures (convolutions in one dimension, means over one axis). Operators that
were not tried are assumed as for a chip without a list. No limits are known: an upper bound.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Final

from npuops.models.model import Model
from npuops.models.placement import Placement, RunsOn
from npuops.targets.rules import Rule, static_shapes
from npuops.vnpu import rule_conditions as that
from npuops.vnpu.layer_view import Window

FORMATS: Final = ("int8",)

_COMPILED: Final = (
    "MaxPool AveragePool GlobalAveragePool GlobalMaxPool Relu LeakyRelu Sigmoid Tanh HardSwish HardSigmoid Gelu Elu "
    "PRelu BatchNormalization LayerNormalization InstanceNormalization Gemm Flatten Add Sub Mul Div Concat Squeeze "
    "Transpose Pad Clip Reshape Resize Upsample Dropout Identity QuantizeLinear DequantizeLinear com.microsoft.Gelu"
)
_ASSUMED: Final = "MatMul Max Min Slice Softmax Split Unsqueeze"


def place_on(model: Model, number_format: str = "int8") -> tuple[Placement, ...]:
    """Every layer of the model, placed."""
    plane = (that.window_obeys("windows in two dimensions only", _one_dimension), that.flat_window())
    rules: dict[str, tuple[Rule, ...]] = {
        **dict.fromkeys(f"{_COMPILED} {_ASSUMED}".split(), ()),
        "Conv": (*plane, that.constant_operand("weights")),
        "ConvTranspose": (*plane, that.constant_operand("weights")),
        "ReduceMean": (that.spatial_reduction(),),
    }
    everywhere = (*that.computes_in(FORMATS, number_format), static_shapes())
    placed = that.place_by(model, rules, list_name="the list of what a user compiled", everywhere=everywhere)
    assumed = {layer.name for layer in model.layers if layer.op in _ASSUMED.split()}
    return tuple(
        replace(one, rule=f"{one.op} is assumed (untried, and no list is public)")
        if one.name in assumed and one.runs_on is RunsOn.NPU
        else one
        for one in placed
    )


def _one_dimension(window: Window) -> str:
    return f"kernel {list(window.kernel)}" if len(window.kernel) == 1 else ""
