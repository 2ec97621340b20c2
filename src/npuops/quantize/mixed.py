"""The cheapest mix of 8- and 16-bit activations whose accuracy drop stays within a limit.

Calibration happens once. Units are ranked by noise per byte, and the ranking is searched (`mix_search`) on one half
of the evaluation samples; the other half confirms what was found. Every trial is the QDQ graph that would be shipped:
what is measured is what is written. The drop that is reported is the one on all evaluation samples.

The cost of a mix is the share of activation values that is stored at 16 bits (`share_16bit`): those are the bytes
that a 16-bit activation adds, and the kernels that write them run at 16 bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import onnx

from npuops.errors import DataError, OptionError
from npuops.evaluate.accuracy import find_metric
from npuops.evaluate.calibration import judge_calibration
from npuops.evaluate.samples import Samples
from npuops.events import Observer, Warned, ignore
from npuops.quantize.bit_units import share_at_16
from npuops.quantize.held_back import SMALLEST_PART, answers
from npuops.quantize.mix_search import Search, Trial, cheapest
from npuops.quantize.quantize import Quantized, QuantizeOptions, calibrate, units_of, write_quantized
from npuops.quantize.sensitivity import Sensitivity, rank_units
from npuops.targets.protocol import Precision

WORST_SHOWN = 10
ROUNDING = 1e-9
"""Of a difference of two scores: 0.99 - 0.98 is a little more than 0.01."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The outcome of the search."""

    met: bool
    """False: not even all activations at 16 bits are confirmed to stay within the limit; `quantized` is None."""
    quantized: Quantized | None
    metric: str
    max_drop: float
    fp32: float
    """The metric of the float model."""
    drop: float
    """Of the mix on all evaluation samples, or of A16W8 when nothing was confirmed."""
    units_16bit: tuple[str, ...]
    share_16bit: float
    """Share of activation values at 16 bits, 0 to 1."""
    trials: tuple[Trial, ...]
    worst: tuple[Sensitivity, ...]
    """The layers that suffer most from 8 bits."""


def find_mix(
    model_path: Path,
    calibration: Samples,
    evaluation: Samples,
    *,
    max_drop: float,
    metric: str,
    options: QuantizeOptions,
    out: Path,
    observe: Observer = ignore,
) -> Mix:
    """Search, and write the best mix to `out`.

    Args:
        model_path: float ONNX.
        calibration: for ranges.
        evaluation: for the metric; not the calibration set.
        max_drop: largest accepted loss, fp32 minus quantized, 0 to 1 for the built-in metrics (0.01 is 1 %).
        metric: `top1`, `cosine` or `package.module:function`.
        options: precision A8W8; `tensors_16bit` start at, and keep, 16 bits.
        out: the QDQ file; not written when no mix meets the limit.
        observe: gets `StepProgressed("mix", …)` with every trial's result.

    Raises:
        NpuopsError: as `quantize`; DataError when there is nothing to evaluate on.
    """
    scorer = find_metric(metric)
    _refuse(options, max_drop, evaluation)
    _warn(calibration, evaluation, observe)
    calibrated = calibrate(model_path, calibration, options, observe=observe)
    fp32 = answers(onnx.load(model_path), evaluation)
    kept = units_of(calibrated, options)
    search = Search(calibrated, scorer, evaluation, fp32, max_drop, observe)
    ranking = rank_units(calibrated, calibration, observe=observe)
    spend = sorted(ranking, key=lambda found: -found.noise_per_element)
    best = cheapest(search, [found.unit for found in spend if found.unit not in kept], kept)
    chosen = calibrated.plan.widest if best is None else best
    graph = search.switch.graph(chosen)
    outputs = answers(graph, evaluation)
    fp32_score = scorer.score(fp32, fp32, evaluation.labels)
    drop = fp32_score - scorer.score(outputs, fp32, evaluation.labels)
    # A metric that is no mean over samples (an area under a curve) may be within the limit on both parts, not on all.
    met = best is not None and drop <= max_drop + ROUNDING
    return Mix(
        met=met,
        quantized=write_quantized(calibrated, chosen, graph, out) if met else None,
        metric=metric,
        max_drop=max_drop,
        fp32=fp32_score,
        drop=drop,
        units_16bit=tuple(unit.name for unit in calibrated.plan.units if unit.name in chosen),
        share_16bit=share_at_16(calibrated.plan, chosen),
        trials=tuple(search.trials),
        worst=ranking[:WORST_SHOWN],
    )


def _refuse(options: QuantizeOptions, max_drop: float, evaluation: Samples) -> None:
    if options.precision is not Precision.A8W8:
        raise OptionError("a mix starts from a8w8", advice="leave the precision out")
    if not max_drop >= 0:
        raise OptionError(f"max_drop {max_drop} is negative")
    if not evaluation.inputs:
        raise DataError(f"{evaluation.source}: no evaluation sample to measure the drop on")


def _warn(calibration: Samples, evaluation: Samples, observe: Observer) -> None:
    if len(evaluation) < 2 * SMALLEST_PART:
        few = f"{len(evaluation)} evaluation samples: none is held back, the drop on others may be larger"
        observe(Warned(step="mix", message=few, advice=f"give at least {2 * SMALLEST_PART}, better 64 or more"))
    for warning in judge_calibration(calibration, evaluation)[len(judge_calibration(calibration)) :]:
        observe(Warned(step="mix", message=warning))
