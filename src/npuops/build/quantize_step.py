"""The quantize step of a build: from the source graph and the wanted precision to the graph that is compiled."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from npuops.artifacts.manifest import Quantization
from npuops.build.options import BuildOptions
from npuops.clock import Clock
from npuops.errors import AccuracyError, DataError, OptionError, nearest
from npuops.evaluate.samples import Samples
from npuops.events import Observer, StepFinished, StepStarted
from npuops.models.model import Model
from npuops.quantize.mixed import Mix, find_mix
from npuops.quantize.quantize import QuantizeOptions, quantize
from npuops.quantize.ranges import Method
from npuops.targets.protocol import Precision, Traits

STEP = "quantize"
DEFAULT_MAX_DROP = 0.01
"""Of a mixed precision that was asked for without `--max-drop`."""
WORST_SHOWN = 5


@dataclass(frozen=True, slots=True, kw_only=True)
class Prepared:
    """What the compiler gets, and what it is compared with."""

    compiled: Path
    float_model: Path | None
    """None when the model came quantized."""
    quantization: Quantization | None

    @property
    def is_quantized(self) -> bool:
        """What is compiled computes in integers, whether we quantized it or it came so."""
        return self.quantization is not None or self.float_model is None


def prepare_graphs(  # noqa: PLR0913 - each is a different thing that the step needs
    source: Model,
    *,
    traits: Traits,
    precision: Precision,
    options: BuildOptions,
    calibration: Samples | None,
    evaluation: Samples,
    folder: Path,
    clock: Clock,
    observe: Observer,
) -> Prepared:
    """Quantize `source` if the precision says so; a float precision and a quantized model pass as they are.

    Args:
        source: float or QDQ, static shapes, an ONNX file.
        traits: of the target: what its compiler wants of the graph.
        precision: one that the target has.
        options: method, and the accepted drop for a mix.
        calibration: needed to quantize.
        evaluation: what a mix is judged on.
        folder: where `quantized.onnx` is written.
        clock: measures the step.
        observe: gets the step.

    Raises:
        DataError: no calibration data.
        AccuracyError: no mix of 8 and 16 bits meets the accepted drop; the worst layers are named.
        OptionError: an unknown method.
    """
    ready = _as_it_is(source, precision)
    if ready is not None:
        return ready
    if calibration is None:
        raise DataError(
            f"precision {precision} needs calibration data",
            advice="give inputs like those of real use with --calibration (.npz, a folder, or module:function)",
        )
    started = clock.now_us()
    observe(StepStarted(step=STEP, detail=f"{precision}, {len(calibration)} samples"))
    wanted = _options(options, traits, precision)
    out = folder / "quantized.onnx"
    if precision is Precision.MIXED:
        mix = find_mix(
            source.path,
            calibration,
            evaluation,
            max_drop=DEFAULT_MAX_DROP if options.max_drop is None else options.max_drop,
            metric=options.metric,
            options=wanted,
            out=out,
            observe=observe,
        )
        record, words = _found(mix)
    else:
        record = quantize(source.path, calibration, wanted, out, observe=observe).record
        words = f"{precision}, {record.method}, {record.calibration_samples} samples"
    observe(StepFinished(step=STEP, seconds=(clock.now_us() - started) / 1e6, detail=words))
    return Prepared(compiled=out, float_model=source.path, quantization=record)


def _as_it_is(source: Model, precision: Precision) -> Prepared | None:
    """What needs no quantization: a graph that came quantized, or a float precision."""
    if not source.is_quantized:
        whole = Prepared(compiled=source.path, float_model=source.path, quantization=None)
        return None if precision.is_quantized else whole
    if not precision.is_quantized:
        raise OptionError(
            f"{source.path.name} is quantized already, precision {precision} needs the float model",
            advice="leave --precision away, or give the float model",
        )
    return Prepared(compiled=source.path, float_model=None, quantization=None)


def _options(options: BuildOptions, traits: Traits, precision: Precision) -> QuantizeOptions:
    methods = {method.value: method for method in Method}
    if options.method not in methods:
        raise OptionError(f"no calibration method {options.method!r}", advice=nearest(options.method, methods))
    return QuantizeOptions(
        method=methods[options.method],
        per_channel=options.per_channel,
        precision=Precision.A8W8 if precision is Precision.MIXED else precision,
        layernorm_gamma_uint8=traits.layernorm_gamma_uint8,
        softmax_output_fixed=traits.softmax_output_fixed,
    )


def _found(mix: Mix) -> tuple[Quantization, str]:
    if mix.quantized is None:
        worst = ", ".join(f"{layer.unit} ({layer.sqnr_db:.0f} dB)" for layer in mix.worst[:WORST_SHOWN])
        raise AccuracyError(
            f"no mix of 8 and 16 bits keeps {mix.metric} within {mix.max_drop:.2g}, confirmed on held-back samples: all"
            f" at 16 bits lose {mix.drop:.2g} of {mix.fp32:.4g}; the layers that suffer most at 8 bits: {worst}",
            advice="raise --max-drop, calibrate on more and better data, use a float precision, or train with QAT",
        )
    return (
        mix.quantized.record,
        f"{len(mix.trials)} trials, {mix.share_16bit:.1%} of activations at 16 bits, {mix.metric} drop {mix.drop:.4f}",
    )
