"""What a Hexagon Tensor Processor takes, by generation, number format and route.

The list is `npuops.targets.qnn_rules` (ONNX Runtime's QNN provider 2.7.0: its own list, corrected by compiling one
graph per operator); this file adds what differs between chips and routes:

* QCS6490 (v68) and QCM6690 have no float16: among the rows of qualcomm/ai-hub-models@b61a009, neither has a float one,
  while SA8295P, v68 too, runs float models on the NPU.
* Through TFLite, a converted 8-bit model keeps layers that TFLite has no 8-bit kernel for in float: convolutions in
  three dimensions, and LayerNormalization, which is taken apart. Where there is no float16, they leave the NPU. Read
  off the same rows: ResNet-3D and (2+1)D lose 2 operators for each of their 20 and 37 convolutions, ViT 10 for each of
  its 25 normalisations; Segformer, not used to find this, loses 300 for its 30. Through QNN they stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from npuops.models.model import Layer, Model, ModelFormat
from npuops.models.placement import Placement
from npuops.targets.qnn_rules import EVERYWHERE, rules_for
from npuops.targets.rules import Rule
from npuops.vnpu.layer_view import first_in, in_both_words
from npuops.vnpu.rule_conditions import computes_in, place_by


class Route(StrEnum):
    """How a model reaches the chip."""

    QNN = "qnn"
    TFLITE = "tflite"


@dataclass(frozen=True, slots=True, kw_only=True)
class Processor:
    """What of a chip decides the placement."""

    version: int
    """Of the HTP: 68, 73, 75, 79, 81."""
    has_float16: bool = True


PROCESSORS: Final = {
    "hexagon-v68": Processor(version=68, has_float16=False),
    "hexagon-v73": Processor(version=73),
    "hexagon-v75": Processor(version=75),
    "hexagon-v79": Processor(version=79),
    "x-elite": Processor(version=73),
}
"""Profile → processor; `hexagon-v68` means QCS6490 (RB3 Gen 2)."""

_TFLITE_ONLY: Final = "BROADCAST_TO NOT_EQUAL SQUARED_DIFFERENCE REVERSE_V2 BATCH_TO_SPACE_ND SPACE_TO_BATCH_ND"
"""Made of operators on the list, for which ONNX has another word."""


def place_on(
    model: Model, processor: Processor, number_format: str = "int8", *, route: Route | None = None
) -> tuple[Placement, ...]:
    """Every layer of the model, placed.

    Args:
        model: what to place.
        processor: where.
        number_format: what it will compute in (`npuops.vnpu.perf.FORMATS`).
        route: without one, TFLite models go through TFLite and ONNX models through QNN.
    """
    route = route or (Route.TFLITE if model.format is ModelFormat.TFLITE else Route.QNN)
    formats = ("int8", "w8a16", *(("fp16",) if processor.has_float16 else ()))
    rules = in_both_words(rules_for(model))
    if model.format is ModelFormat.TFLITE:
        rules = {**rules, **dict.fromkeys(_TFLITE_ONLY.split(), ())}
    everywhere = (*computes_in(formats, number_format), *EVERYWHERE)
    if route is Route.TFLITE and not processor.has_float16:
        everywhere = (*everywhere, _left_in_float(model))
    return place_by(model, rules, list_name="the HTP list", everywhere=everywhere)


def _left_in_float(model: Model) -> Rule:
    """On a TFLite model the dtype tells; on an ONNX model, what the converter would leave in float."""

    def broken(layer: Layer) -> str:
        if model.format is ModelFormat.TFLITE:
            return "float32" if any(tensor.dtype == "float32" for tensor in layer.outputs) else ""
        volumetric = layer.op in {"Conv", "ConvTranspose"} and len(first_in(layer)) == 5
        return f"{layer.op} stays in float" if volumetric or layer.op == "LayerNormalization" else ""

    return Rule("through TFLite, a chip without float16 takes 8-bit layers only", broken)
