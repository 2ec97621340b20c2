"""Which operators a chip takes: profile name → a function that places a model, with the source of its rules. Pure.

A profile with no published list gets the generic rules, which say so in every placement.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Final

from npuops.errors import OptionError
from npuops.models.model import Model
from npuops.models.placement import Placement, RunsOn
from npuops.targets.ethos_u_configs import Generation
from npuops.targets.openvino_rules import place_on_openvino
from npuops.targets.rules import static_shapes
from npuops.vnpu import (
    rules_axera,
    rules_bpu,
    rules_dla,
    rules_dpu,
    rules_edgetpu,
    rules_ethos,
    rules_hailo,
    rules_hexagon,
    rules_kpu,
    rules_neural_art,
    rules_rockchip,
    rules_tidl,
    rules_tpu,
)
from npuops.vnpu.perf import FORMATS
from npuops.vnpu.rule_conditions import place_by, refused

Placing = Callable[[Model], tuple[Placement, ...]]
"""Places every layer of a model, in the order of its layers."""
PlacingIn = Callable[[Model, str], tuple[Placement, ...]]
"""The same for a number format."""

GENERIC_SOURCE: Final = "no published list; what every published int8 NPU takes"

LISTED: Final = ("ax650n", "bm1684x", "coral-edgetpu", "ethos-u85-512", "hexagon-v73", "rdk-x5", "rk3588", "tda4vm")
"""Profiles whose list was read whole: what is on every one of them is what the generic rules take."""

_COMMON: Final = (
    "Add AveragePool Clip Concat Conv ConvTranspose Flatten Gemm GlobalAveragePool MatMul Max MaxPool Min Mul Pad "
    "ReduceMean Relu Reshape Resize Sigmoid Slice Softmax Split Squeeze Sub Tanh Transpose Unsqueeze Upsample"
)
_VANISH: Final = "BatchNormalization DequantizeLinear Dropout Identity QuantizeLinear"
"""Folded into a neighbour by every compiler, whether its list has them or not."""


@dataclass(frozen=True, slots=True)
class RuleSet:
    """How a chip's layers are placed, and where that stands."""

    source: str
    place: PlacingIn


def _generic(model: Model, _number_format: str) -> tuple[Placement, ...]:
    rules = dict.fromkeys(f"{_COMMON} {_VANISH}".split(), ())
    placed = place_by(model, rules, list_name="every published list", everywhere=(static_shapes(),))
    return tuple(
        replace(one, rule=f"{one.rule} ({GENERIC_SOURCE})") if one.runs_on is RunsOn.CPU else _assumed(one)
        for one in placed
    )


def _assumed(place: Placement) -> Placement:
    return replace(place, rule=f"{place.op} is assumed ({GENERIC_SOURCE})")


def _openvino(model: Model, number_format: str) -> tuple[Placement, ...]:
    return tuple(refused(one, _INTEL_FORMATS, number_format) for one in place_on_openvino(model))


def _rockchip(chip: rules_rockchip.Chip) -> PlacingIn:
    return lambda model, number_format: rules_rockchip.place_on(model, chip, number_format)


def _hexagon(processor: rules_hexagon.Processor) -> PlacingIn:
    return lambda model, number_format: rules_hexagon.place_on(model, processor, number_format)


def _ethos(generation: Generation) -> PlacingIn:
    return lambda model, number_format: rules_ethos.place_on(model, generation, number_format)


def _tidl(chip: rules_tidl.Chip) -> PlacingIn:
    return lambda model, number_format: rules_tidl.place_on(model, chip, number_format)


_RKNPU2: Final = "RKNN Compiler Support Operator List V2.3.2 (2025-03-28)"
_RKNPU1: Final = "RKNN Toolkit 1 operator lists V1.6.1 and V1.7.5: names, no limits"
_INTEL_FORMATS: Final = ("int8", "fp16")
_READER: Final = RuleSet("OpenVINO 2026.4.1: what its reader translates (an upper bound for the NPU)", _openvino)

RULE_SETS: Final[Mapping[str, RuleSet]] = {
    **{
        chip.value: RuleSet(_RKNPU1 if chip is rules_rockchip.Chip.RV1126 else _RKNPU2, _rockchip(chip))
        for chip in rules_rockchip.Chip
    },
    **{
        name: RuleSet("onnxruntime-qnn 2.7.0, its list and its compiler", _hexagon(processor))
        for name, processor in rules_hexagon.PROCESSORS.items()
    },
    **{
        name: RuleSet("ethos-u-vela 5.2.0, supported operators report", _ethos(generation))
        for name, generation in rules_ethos.GENERATIONS.items()
    },
    **{chip.value: RuleSet("edgeai-tidl-tools docs/operators.md@238cb8b", _tidl(chip)) for chip in rules_tidl.Chip},
    "bm1684x": RuleSet("TPU-MLIR: names that it lowers to the TPU, an upper bound", rules_tpu.place_on),
    "hailo-8": RuleSet(
        "a user's compile tests (Dataflow Compiler 3.32.0): names, an upper bound", rules_hailo.place_on
    ),
    "ax650n": RuleSet("pulsar2-docs-en op_support_list_ax650.md@83fa86a", rules_axera.place_on),
    "coral-edgetpu": RuleSet("Edge TPU tables of Axis and Coral", rules_edgetpu.place_on),
    "dpu-b4096": RuleSet("AMD UG1414 3.5, chapter 4, and AMD's inspector", rules_dpu.place_on),
    "intel-npu-3720": _READER,
    "intel-npu-4": _READER,
    "k230": RuleSet("nncase@99431d9 operator lists: names, an upper bound", rules_kpu.place_on),
    "orin-dla": RuleSet("Deep-Learning-Accelerator-SW operators/README.md@ea61780", rules_dla.place_on),
    "rdk-x5": RuleSet("rdk_doc supported_op_list.md@fde2a10, table of RDK X5", rules_bpu.place_on),
    "stm32n6": RuleSet("ST Neural-ART operator table, second-hand: names, an upper bound", rules_neural_art.place_on),
}
"""Profiles whose maker publishes what their NPU takes."""


def source_of(profile_name: str) -> str:
    """Where the rules of a profile stand; GENERIC_SOURCE where nothing is published."""
    return RULE_SETS[profile_name].source if profile_name in RULE_SETS else GENERIC_SOURCE


def rules_of(profile_name: str, number_format: str = "int8") -> Placing:
    """The function that places a model on the chip of a profile.

    Args:
        profile_name: a name of RULE_SETS; any other gets the generic rules (a profile of one's own has no list).
        number_format: what the model will compute in; a chip without it takes no layer.

    Raises:
        OptionError: no such number format.
    """
    if number_format not in FORMATS:
        raise OptionError(f"no number format {number_format!r}", advice=f"one of {', '.join(FORMATS)}")
    place = RULE_SETS[profile_name].place if profile_name in RULE_SETS else _generic
    return lambda model: place(model, number_format)
