"""Float ONNX → QDQ ONNX: calibrate once, then write any mix of 8- and 16-bit activations with 8-bit weights.

onnxruntime.quantization places and writes the Q/DQ nodes; this module decides ranges, widths and the exceptions
that NPU kernels ask for (LayerNormalization gamma, fixed output scales).
"""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Set
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from onnxruntime.quantization import CalibrationMethod, QDQQuantizer, QuantType, TensorsData

from npuops.artifacts.manifest import Quantization
from npuops.errors import DataError, OptionError, StorageError, UnsupportedModelError, nearest
from npuops.evaluate.calibration import judge_calibration
from npuops.evaluate.samples import Samples
from npuops.events import Observer, Warned, ignore
from npuops.models.onnx_order import sort_graph
from npuops.quantize.bit_units import BitPlan, WidthRanges, bit_plan, tensors_at_16, width_overrides
from npuops.quantize.prepare import prepare
from npuops.quantize.ranges import ActivationTap, Method, choose_range, float_activations, observe_activations
from npuops.quantize.softmax_ranges import choose_softmax_ranges, softmax_inputs
from npuops.targets.protocol import Precision

MIN_REAL_RANGE = 1e-4
"""QNN divides by the range: a constant tensor must not have an empty one."""

WIDE_OPSET = 21
"""The first opset whose QuantizeLinear knows 16 bits."""

LEVELS = {8: 256, 16: 65536}

FIXED_16 = {"Sigmoid": (1 / 65536, 0), "Tanh": (1 / 32768, 32768)}
"""HTP kernels demand these at 16 bits: the functions' own ranges. The absolute error stays below 1/65536, but an output
that never leaves zero keeps no relative precision (YuNet's objectness without a face: at most 2e-5, cosine 0.63)."""


@dataclass(frozen=True, slots=True, kw_only=True)
class QuantizeOptions:
    """How a float model becomes integers."""

    method: Method = Method.MINMAX
    """Applies to 8-bit activations; 16 bits have room for the whole range."""
    percentile: float = 99.99
    """For `percentile`: the share of values that stays unclipped."""
    per_channel: bool = True
    """One weight scale per output channel; per tensor, depthwise networks fall to chance."""
    precision: Precision = Precision.A8W8
    """A8W8 or A16W8."""
    tensors_16bit: tuple[str, ...] = ()
    """Activations kept at 16 bits in an A8W8 graph."""
    layernorm_gamma_uint8: bool = False
    """LayerNormalization gamma per tensor in uint8, as HTP wants it."""
    softmax_output_fixed: bool = False
    """Softmax outputs at scale 1/256, as TFLite's kernels want it."""

    def __post_init__(self) -> None:
        """Refuse what cannot be meant.

        Raises:
            OptionError: a precision that is not a plain one, or a percentile outside 50..100.
        """
        if self.precision not in {Precision.A8W8, Precision.A16W8}:
            raise OptionError(
                f"quantize writes a8w8 or a16w8, not {self.precision.value}", advice="a mix is found by --max-drop"
            )
        if not 50 < self.percentile <= 100:
            raise OptionError(f"percentile {self.percentile:g} is not above 50 and at most 100")


@dataclass(frozen=True, slots=True, kw_only=True)
class Calibrated:
    """A prepared float graph, its units, and what calibration chose: any mix can be written from it."""

    model: onnx.ModelProto
    plan: BitPlan
    ranges: WidthRanges
    options: QuantizeOptions
    samples: int
    digest: str
    """Of the calibration samples."""
    notes: tuple[str, ...]
    """What preparation rewrote."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Quantized:
    """A QDQ file and how it came about."""

    path: Path
    record: Quantization
    notes: tuple[str, ...]


def quantize(
    model_path: Path, calibration: Samples, options: QuantizeOptions, out: Path, *, observe: Observer = ignore
) -> Quantized:
    """Quantize a float ONNX file into `out`; the same inputs give the same bytes.

    Raises:
        UnsupportedModelError: already quantized, dynamic, not float32, or larger than 2 GiB.
        MalformedModelError: not a model.
        DataError: a sample that does not fit or is not finite.
        OptionError: an unknown tensor in `tensors_16bit`.
        StorageError: `out` cannot be written.
    """
    calibrated = calibrate(model_path, calibration, options, observe=observe)
    wide = calibrated.plan.widest if options.precision is Precision.A16W8 else units_of(calibrated, options)
    return write_quantized(calibrated, wide, build_qdq(calibrated, wide), out)


def calibrate(
    model_path: Path, calibration: Samples, options: QuantizeOptions, *, observe: Observer = ignore
) -> Calibrated:
    """Prepare the graph and choose a range for every activation, at 8 and at 16 bits.

    Raises:
        NpuopsError: as `quantize`.
    """
    for warning in judge_calibration(calibration):
        observe(Warned(step="calibrate", message=warning))
    if not calibration.inputs:
        raise DataError(f"{calibration.source}: no calibration sample")
    prepared = prepare(model_path, calibration, observe=observe)
    model = prepared.model
    narrow_needed = options.precision is Precision.A8W8
    tap = ActivationTap(model, float_activations(model))
    seen = observe_activations(
        tap, calibration, histograms=narrow_needed and options.method is not Method.MINMAX, observe=observe
    )
    narrow = {
        name: choose_range(tensor, options.method, levels=LEVELS[8], percentile=options.percentile)
        for name, tensor in seen.items()
    }
    if narrow_needed:
        narrow.update(choose_softmax_ranges(tap, softmax_inputs(model), calibration, seen, levels=LEVELS[8]))
    return Calibrated(
        model=model,
        plan=bit_plan(model),
        ranges=WidthRanges(
            narrow=narrow,
            wide={name: (tensor.low, tensor.high) for name, tensor in seen.items()},
            fixed=_fixed(model, options),
        ),
        options=options,
        samples=len(calibration),
        digest=calibration.digest,
        notes=prepared.notes,
    )


def _fixed(model: onnx.ModelProto, options: QuantizeOptions) -> dict[tuple[str, int], tuple[float, int]]:
    fixed = {(node.output[0], 16): FIXED_16[node.op_type] for node in model.graph.node if node.op_type in FIXED_16}
    if options.softmax_output_fixed:
        fixed |= {(node.output[0], 8): (1 / 256, 0) for node in model.graph.node if node.op_type == "Softmax"}
    return fixed


def units_of(calibrated: Calibrated, options: QuantizeOptions) -> frozenset[str]:
    """The units that write the tensors of `options.tensors_16bit`.

    Raises:
        OptionError: no such activation, or one that stays at 8 bits.
    """
    makers = calibrated.plan.makers
    for name in options.tensors_16bit:
        if name not in makers:
            raise OptionError(f"no activation {name!r} in the prepared graph", advice=nearest(name, makers))
        if makers[name] not in calibrated.plan.widest:
            raise OptionError(f"{name!r} comes from an embedding table, which is a weight and stays at 8 bits")
    return frozenset(makers[name] for name in options.tensors_16bit)


def write_quantized(calibrated: Calibrated, wide: Set[str], graph: onnx.ModelProto, out: Path) -> Quantized:
    """Write `graph`, in which the units `wide` compute at 16 bits, and record how it came about.

    Raises:
        StorageError: `out` cannot be written; nothing is left half-written.
    """
    _save(graph, out)
    widest = calibrated.plan.widest
    kind = "uint8" if not wide else "uint16" if wide == widest else "mixed"
    at_16 = tensors_at_16(calibrated.plan, wide)
    record = Quantization(
        method=calibrated.options.method.value,
        per_channel=calibrated.options.per_channel,
        activations=kind,
        weights="int8",
        calibration_samples=calibrated.samples,
        calibration_digest=calibrated.digest,
        tensors_16bit=at_16 if kind == "mixed" else (),
    )
    return Quantized(path=out, record=record, notes=calibrated.notes)


def build_qdq(calibrated: Calibrated, wide: Set[str]) -> onnx.ModelProto:
    """The QDQ graph in memory: units in `wide` at 16 bits, the others at 8, weights int8, biases int32.

    Raises:
        UnsupportedModelError: the quantizer refuses the graph; its words are in the message.
    """
    graph = onnx.ModelProto()
    graph.CopyFrom(calibrated.model)
    ranges = {name: (np.float32(low), np.float32(high)) for name, (low, high) in calibrated.ranges.wide.items()}
    overrides = width_overrides(calibrated.plan, wide, calibrated.ranges)
    overrides |= _gammas(graph, unsigned=calibrated.options.layernorm_gamma_uint8)
    try:
        model = _place(graph, ranges, overrides, per_channel=calibrated.options.per_channel, any_wide=bool(wide))
    except Exception as error:
        raise UnsupportedModelError(
            f"onnxruntime.quantization cannot quantize this graph: {type(error).__name__}: {error}",
            advice="use a float precision; npuops inspect lists unusual operators",
        ) from error
    model.producer_name = "npuops"
    return model


def _place(
    graph: onnx.ModelProto, ranges: dict[str, Any], overrides: dict[str, Any], *, per_channel: bool, any_wide: bool
) -> onnx.ModelProto:
    opset = max(entry.version for entry in graph.opset_import if entry.domain in {"", "ai.onnx"})
    branches = any(attribute.type == attribute.GRAPH for node in graph.graph.node for attribute in node.attribute)
    with _quiet():
        quantizer = QDQQuantizer(
            graph,
            per_channel,
            False,
            QuantType.QInt8,
            QuantType.QUInt8,
            TensorsData(CalibrationMethod.MinMax, ranges),
            [],
            [],
            sorted({node.op_type for node in graph.graph.node} - {"Cast"}),
            {
                "MinimumRealRange": MIN_REAL_RANGE,
                "TensorQuantOverrides": overrides,
                "WeightSymmetric": True,
                "ForceQuantizeNoInputCheck": True,
                # The standard's operators learned 16 bits in opset 21; a conversion does not switch by itself.
                "UseQDQContribOps": any_wide and opset < WIDE_OPSET,
                # The body of an If or Loop would read what was in front of a Relu that is folded away.
                "QDQKeepRemovableActivations": branches,
            },
        )
        quantizer.quantize_model()
    model: onnx.ModelProto = quantizer.model.model
    sort_graph(model.graph)  # ONNX Runtime reads any order, the standard's checker does not
    return model


def _gammas(model: onnx.ModelProto, *, unsigned: bool) -> dict[str, list[dict[str, Any]]]:
    """One scale for each gamma: per channel, ONNX Runtime stumbles over one of several axes."""
    kind = {"quant_type": QuantType.QUInt8 if unsigned else QuantType.QInt8, "symmetric": not unsigned}
    weights = {tensor.name for tensor in model.graph.initializer}
    gammas = [node.input[1] for node in model.graph.node if node.op_type == "LayerNormalization"]
    return {name: [kind] for name in gammas if name in weights}


def _save(model: onnx.ModelProto, out: Path) -> None:
    part = out.with_name(f"{out.name}.part")
    try:
        data = model.SerializeToString(deterministic=True)
        part.write_bytes(data)
        part.replace(out)
    except OSError as error:
        with contextlib.suppress(OSError):
            part.unlink()
        raise StorageError(f"cannot write {out}: {error.strerror}", advice="check the folder and the space") from error
    except ValueError as error:
        raise UnsupportedModelError(f"the quantized model exceeds 2 GiB: {error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Drop what onnxruntime.quantization says to the root logger: choices that we made on purpose."""

    def keep(record: logging.LogRecord) -> bool:
        return "onnxruntime" not in record.pathname

    root = logging.getLogger()
    root.addFilter(keep)
    try:
        yield
    finally:
        root.removeFilter(keep)
