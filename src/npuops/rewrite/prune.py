"""Pruning: fewer weights before quantization, with the accuracy that it costs.

`channels` removes whole output channels with the smallest L1 norm (Li et al., "Pruning Filters for Efficient
ConvNets", 2017): the graph shrinks, and every NPU gains. `magnitude` zeroes single weights (Han et al., 2015): MACs
and shapes stay, and only a compiler that compresses weights or skips zeros gains. Nothing is trained again here.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import numpy as np
import onnx

from npuops.artifacts.evidence import Accuracy
from npuops.clock import Clock, SystemClock
from npuops.errors import DataError, OptionError, UnsupportedModelError
from npuops.evaluate.accuracy import find_metric, measure_accuracy
from npuops.evaluate.metrics import Array, top1_agreement
from npuops.evaluate.reference import run_reference
from npuops.evaluate.samples import Samples
from npuops.events import Observer, StepFinished, StepProgressed, StepStarted, ignore
from npuops.models.model import QDQ_OPS
from npuops.models.onnx_layers import onnx_layers
from npuops.models.shapes import infer_shapes
from npuops.rewrite.channels import Channels
from npuops.rewrite.magnitude import Magnitudes, find_weights

SCHEMA: Final = "npuops.prune/1"
STEP: Final = "prune"


class PruneMethod(StrEnum):
    """What is removed."""

    MAGNITUDE = "magnitude"
    CHANNELS = "channels"


class PruneScope(StrEnum):
    """What a sparsity is counted over."""

    LAYER = "layer"
    GLOBAL = "global"


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneOptions:
    """What a user can decide about pruning."""

    sparsity: float
    """Share to remove, above 0 and below 1; with `max_drop` the highest share that the search may take."""
    method: PruneMethod = PruneMethod.MAGNITUDE
    scope: PruneScope = PruneScope.LAYER
    max_drop: float | None = None
    """Find the largest share that loses at most this much of the metric, 0.01 for one point of a hundred."""
    metric: str | None = None
    """As in `find_metric`; when None, `top1` for a model whose first output is one vector of classes, else `cosine`."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LayerPruning:
    """What became of one layer: weights that are not zero, or output channels."""

    node: str
    op: str
    before: int
    after: int
    left: str | None = None
    """Why nothing of it could be removed safely."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Size:
    """How large a model is."""

    macs: int | None
    """A zero counts as much as any weight: dense hardware multiplies it."""
    weights: int
    """Weights of convolutions and matrix products that are not zero."""
    weight_bytes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One step of the search."""

    sparsity: float
    accuracy: Accuracy | None
    """None where the pruned model answered with NaN or infinity."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PruneReport:
    """The result in figures. When `met` is false there is no pruned model, and `after` equals `before`."""

    schema: str = SCHEMA
    model: str
    method: PruneMethod
    scope: PruneScope
    max_drop: float | None
    met: bool
    sparsity: float | None
    """Asked for, or found by the search."""
    before: Size
    after: Size
    accuracy: Accuracy | None
    """Of the model before (`fp32`) and after (`artifact`), on the evaluation samples."""
    layers: tuple[LayerPruning, ...]
    tried: tuple[Trial, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pruned:
    """A report, and the model unless the search found none."""

    report: PruneReport
    model: onnx.ModelProto | None


@dataclass(frozen=True, slots=True, kw_only=True)
class _Cut:
    model: onnx.ModelProto
    layers: tuple[LayerPruning, ...]

    @property
    def changed(self) -> bool:
        return any(layer.after < layer.before for layer in self.layers)


_Pruner = Callable[[float], _Cut]
_Measure = Callable[[onnx.ModelProto], Accuracy | None]


def prune(
    model: onnx.ModelProto,
    options: PruneOptions,
    *,
    name: str,
    samples: Samples | None = None,
    observe: Observer = ignore,
    clock: Clock | None = None,
) -> Pruned:
    """Prune a float model.

    Args:
        model: from `npuops.models.onnx_file.read_onnx`; it is not changed.
        options: how much of what.
        name: of the model, for the report and for messages.
        samples: evaluation inputs; needed for `max_drop`, otherwise they only add the accuracy to the report.
        observe: gets the progress.
        clock: for the time of the step.

    Raises:
        OptionError: a share out of range, too small to remove anything, or `max_drop` without samples.
        UnsupportedModelError: quantized already, or nothing can be pruned safely.
        DataError: labels that do not fit the outputs, or no finite output to compare.
        RunError: the reference cannot run the model.
    """
    clock = clock or SystemClock()
    started_us = clock.now_us()
    _check(model, options, name, samples)
    observe(StepStarted(step=STEP, detail=options.method))
    # A copy with known shapes: the counts and both methods read them.
    source = onnx.ModelProto()
    source.CopyFrom(model)
    source = infer_shapes(source)
    pruner = _pruner(source, options, name)
    measure = _measure(source, samples, options.metric) if samples is not None else None
    if options.max_drop is not None and measure is not None:
        result, sparsity, trials = _search(pruner, measure, options, observe)
        if not trials:
            raise OptionError(f"{name}: not even a share of {options.sparsity:g} removes anything")
        accuracy = next((trial.accuracy for trial in trials if trial.sparsity == sparsity), None)
    else:
        result, sparsity, trials = pruner(options.sparsity), options.sparsity, ()
        if not result.changed:
            raise OptionError(f"{name}: a share of {options.sparsity:g} removes nothing", advice="ask for a larger one")
        accuracy = _finite_accuracy(result.model, measure, name) if measure is not None else None
    report = PruneReport(
        model=name,
        method=options.method,
        scope=options.scope,
        max_drop=options.max_drop,
        met=result is not None,
        sparsity=sparsity,
        before=_size(source),
        after=_size(result.model if result else source),
        accuracy=accuracy,
        layers=result.layers if result else (),
        tried=trials,
    )
    observe(StepFinished(step=STEP, seconds=(clock.now_us() - started_us) / 1e6, detail=_words(report)))
    return Pruned(report=report, model=result.model if result else None)


def _check(model: onnx.ModelProto, options: PruneOptions, name: str, samples: Samples | None) -> None:
    if not 0 < options.sparsity < 1:
        raise OptionError(f"a share of {options.sparsity:g} to remove", advice="give one above 0 and below 1, as 0.3")
    if options.max_drop is not None and options.sparsity < 0.01:
        raise OptionError("the search goes in whole percents", advice="let it go up to 0.01 at least")
    if options.max_drop is not None and not 0 <= options.max_drop < 1:
        raise OptionError(f"a largest drop of {options.max_drop:g}", advice="give 1% or 0.01")
    if samples is None and (options.max_drop is not None or options.metric is not None):
        raise OptionError("a largest drop and a metric need evaluation data", advice="give it with --eval")
    quantized = next((node for node in model.graph.node if node.op_type in QDQ_OPS or "Integer" in node.op_type), None)
    if quantized is not None or any(node.op_type.startswith("QLinear") for node in model.graph.node):
        raise UnsupportedModelError(f"{name} is quantized already", advice="prune the float model, then quantize it")


def _pruner(model: onnx.ModelProto, options: PruneOptions, name: str) -> _Pruner:
    together = options.scope is PruneScope.GLOBAL
    if options.method is PruneMethod.MAGNITUDE:
        return _magnitude_pruner(model, name, together=together)
    return _channel_pruner(model, name, together=together)


def _magnitude_pruner(model: onnx.ModelProto, name: str, *, together: bool) -> _Pruner:
    magnitudes = Magnitudes(model)
    if not magnitudes.weights:
        raise UnsupportedModelError(f"{name} has no float weights that could be pruned")

    def cut(sparsity: float) -> _Cut:
        chosen = magnitudes.smallest(sparsity, together=together)
        layers = tuple(
            LayerPruning(
                node=weights.node.name,
                op=weights.node.op_type,
                before=int(np.count_nonzero(weights.values)),
                after=int(np.count_nonzero(weights.values[~zeros])),
            )
            for weights, zeros in zip(magnitudes.weights, chosen, strict=True)
        )
        return _Cut(model=magnitudes.without(chosen), layers=layers)

    return cut


def _channel_pruner(model: onnx.ModelProto, name: str, *, together: bool) -> _Pruner:
    channels = Channels(model)
    reasons = [channels.why_left(layer) for layer in channels.layers]
    if all(reasons):
        first = next(iter(reasons), None) or "it has no convolution or matrix product with stored weights"
        raise UnsupportedModelError(
            f"{name}: no channel can be removed safely ({first})", advice="prune single weights instead"
        )

    def cut(sparsity: float) -> _Cut:
        removed = channels.lowest(sparsity, together=together)
        layers = tuple(
            LayerPruning(
                node=layer.node.name,
                op=layer.node.op_type,
                before=len(layer.ids),
                after=channels.kept(layer, removed),
                left=reason,
            )
            for layer, reason in zip(channels.layers, reasons, strict=True)
        )
        return _Cut(model=channels.without(removed), layers=layers)

    return cut


def _finite_accuracy(model: onnx.ModelProto, measure: _Measure, name: str) -> Accuracy:
    accuracy = measure(model)
    if accuracy is None:
        raise UnsupportedModelError(
            f"{name}: pruned this much, the model answers with NaN or infinity", advice="ask for a smaller share"
        )
    return accuracy


def _search(
    pruner: _Pruner, measure: _Measure, options: PruneOptions, observe: Observer
) -> tuple[_Cut | None, float | None, tuple[Trial, ...]]:
    """Bisection over whole percents: exact where accuracy falls with sparsity, else one that meets the limit.

    The highest share is tried first, for the model that can lose that much.
    """
    limit = options.max_drop or 0.0
    good, bad = 0, math.floor(options.sparsity * 100 + 1e-9) + 1
    total = math.ceil(math.log2(bad)) + 1
    best: _Cut | None = None
    trials: list[Trial] = []
    percent = bad - 1
    while bad - good > 1:
        candidate = pruner(percent / 100)
        if not candidate.changed:
            # Too small a share for any layer: nothing to measure, and no result either.
            good, percent = percent, (percent + bad) // 2
            continue
        accuracy = measure(candidate.model)
        trials.append(Trial(sparsity=percent / 100, accuracy=accuracy))
        fine = accuracy is not None and accuracy.drop <= limit + 1e-12
        found = "NaN or infinity" if accuracy is None else f"{accuracy.metric} {accuracy.artifact:.4f}"
        words = f"{percent} % removed, {found}: {'fits' if fine else 'too much'}"
        observe(StepProgressed(step=STEP, done=len(trials), total=max(total, len(trials)), detail=words))
        good, bad = (percent, bad) if fine else (good, percent)
        best = candidate if fine else best
        percent = (good + bad) // 2
    return best, good / 100 if best else None, tuple(trials)


def _measure(model: onnx.ModelProto, samples: Samples, metric_name: str | None) -> _Measure:
    """How well a pruned model does on the samples; None where it answers with NaN or infinity."""
    fp32 = run_reference(model, samples)
    first = next(iter(fp32.values()))
    classes = first.shape[-1] if top1_agreement(first, first) is not None else None
    metric = find_metric(metric_name or ("cosine" if classes is None else "top1"))
    labels = samples.labels
    if labels is not None and metric.name == "top1" and classes is not None and not _are_classes(labels, classes):
        raise DataError(
            f"{samples.source}: labels from {labels.min()} to {labels.max()} for a model of {classes} classes",
            advice="give data whose labels match the model, or leave the labels out",
        )
    # What is wrong with the data or the metric shows now, not in the middle of a search.
    measure_accuracy(metric, artifact=fp32, fp32=fp32, labels=labels)

    def measure(pruned: onnx.ModelProto) -> Accuracy | None:
        got = run_reference(pruned, samples)
        if not all(np.isfinite(values).all() for values in got.values()):
            return None
        return measure_accuracy(metric, artifact=got, fp32=fp32, labels=labels)

    return measure


def _are_classes(labels: Array, classes: int) -> bool:
    return bool(labels.min() >= 0 and labels.max() < classes)


def _size(model: onnx.ModelProto) -> Size:
    layers = onnx_layers(model)
    macs = [layer.macs for layer in layers]
    return Size(
        macs=None if None in macs else sum(count or 0 for count in macs),
        weights=sum(int(np.count_nonzero(weights.values)) for weights in find_weights(model)),
        weight_bytes=sum(layer.weight_bytes for layer in layers),
    )


def _words(report: PruneReport) -> str:
    if report.sparsity is None:
        return f"no share loses at most {report.max_drop:g}"
    words = f"{report.sparsity:.0%} of the {'channels' if report.method is PruneMethod.CHANNELS else 'weights'} removed"
    return words if report.accuracy is None else f"{words}, {report.accuracy.metric} {report.accuracy.artifact:.4f}"
