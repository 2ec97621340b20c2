"""The cheapest mix of 8- and 16-bit activations whose accuracy drop stays within a limit.

Calibration happens once. Units are ranked by noise per byte; a bisection finds how many of the ranking are needed
at 16 bits; from a little more than that, units are left out in blocks that get smaller, the most costly first.
Every trial is the real QDQ graph on the evaluation samples: what is measured is what is shipped.

The cost of a mix is the share of activation values that is stored at 16 bits (`share_16bit`): those are the bytes
that a 16-bit activation adds, and the kernels that write them run at 16 bits.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from npuops.build.accuracy import Metric, Outputs, find_metric
from npuops.build.bit_units import share_at_16
from npuops.build.calibration import judge_calibration
from npuops.build.quantize import (
    Calibrated,
    Quantized,
    QuantizeOptions,
    build_qdq,
    calibrate,
    units_of,
    write_quantized,
)
from npuops.build.reference import run_reference
from npuops.build.samples import Samples
from npuops.build.sensitivity import Sensitivity, rank_units
from npuops.errors import DataError, OptionError
from npuops.events import Observer, StepProgressed, Warned, ignore
from npuops.targets.protocol import Precision

MAX_TRIALS = 96
"""Mixes to measure at most; then the best one so far is taken."""
WORST_SHOWN = 10


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One mix that was measured."""

    units_16bit: int
    share_16bit: float
    drop: float
    met: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Mix:
    """The outcome of the search."""

    met: bool
    """False: not even all activations at 16 bits stay within the limit; `quantized` is None."""
    quantized: Quantized | None
    metric: str
    max_drop: float
    fp32: float
    """The metric of the float model."""
    drop: float
    """Of the mix, or of A16W8 when nothing met the limit."""
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
    if options.precision is not Precision.A8W8:
        raise OptionError("a mix starts from a8w8", advice="leave the precision out")
    if not max_drop >= 0:
        raise OptionError(f"max_drop {max_drop} is negative")
    if not evaluation.inputs:
        raise DataError(f"{evaluation.source}: no evaluation sample to measure the drop on")
    scorer = find_metric(metric)
    for warning in judge_calibration(calibration, evaluation)[len(judge_calibration(calibration)) :]:
        observe(Warned(step="mix", message=warning))
    fp32 = run_reference(model_path, evaluation)
    calibrated = calibrate(model_path, calibration, options, observe=observe)
    kept = units_of(calibrated, options)
    search = _Search(calibrated, evaluation, scorer, fp32, max_drop, observe)
    ranking = rank_units(calibrated, calibration, observe=observe)
    spend = sorted(ranking, key=lambda found: -found.noise_per_element)
    best = _cheapest(search, [found.unit for found in spend if found.unit not in kept], kept)
    chosen = calibrated.plan.widest if best is None else best
    return Mix(
        met=best is not None,
        quantized=None if best is None else write_quantized(calibrated, best, out),
        metric=metric,
        max_drop=max_drop,
        fp32=search.fp32_score,
        drop=search.drops[chosen],
        units_16bit=tuple(unit.name for unit in calibrated.plan.units if unit.name in chosen),
        share_16bit=share_at_16(calibrated.plan, chosen),
        trials=tuple(search.trials),
        worst=ranking[:WORST_SHOWN],
    )


class _Search:
    """Measures mixes, each once, and keeps the trace."""

    def __init__(
        self,
        calibrated: Calibrated,
        evaluation: Samples,
        scorer: Metric,
        fp32: Outputs,
        max_drop: float,
        observe: Observer,
    ) -> None:
        self.plan = calibrated.plan
        self.fp32_score = scorer.score(fp32, fp32, evaluation.labels)
        self.trials: list[Trial] = []
        self.drops: dict[frozenset[str], float] = {}
        self._measure: Callable[[frozenset[str]], float] = lambda wide: (
            self.fp32_score
            - scorer.score(run_reference(build_qdq(calibrated, wide), evaluation), fp32, evaluation.labels)
        )
        self._max_drop = max_drop
        self._observe = observe

    @property
    def exhausted(self) -> bool:
        return len(self.trials) >= MAX_TRIALS

    def meets(self, wide: frozenset[str]) -> bool:
        if wide not in self.drops:
            self.drops[wide] = self._measure(wide)
            share = share_at_16(self.plan, wide)
            met = self.drops[wide] <= self._max_drop
            trial = Trial(units_16bit=len(wide), share_16bit=share, drop=self.drops[wide], met=met)
            self.trials.append(trial)
            words = f"{len(wide)} units at 16 bits ({share:.1%}): drop {trial.drop:.4f}{'' if met else ' (too much)'}"
            self._observe(StepProgressed(step="mix", done=len(self.trials), total=None, detail=words))
        return self.drops[wide] <= self._max_drop


def _cheapest(search: _Search, ranked: Sequence[str], kept: frozenset[str]) -> frozenset[str] | None:
    """The smallest set found that meets the limit; None when not even everything at 16 bits does."""
    if search.meets(kept):
        return kept
    if not search.meets(search.plan.widest):
        return None
    low, high = 0, len(ranked)
    while high - low > 1 and not search.exhausted:
        middle = (low + high) // 2
        if search.meets(kept | frozenset(ranked[:middle])):
            high = middle
        else:
            low = middle
    # The shortest prefix has no slack left: a quarter more of cheap units pays for leaving out costly ones.
    start = list(ranked[: high + high // 4 + 2])
    if not search.meets(kept | frozenset(start)):
        start = list(ranked[:high])
    return _prune(search, kept | frozenset(start), start)


def _prune(search: _Search, best: frozenset[str], ranked: list[str]) -> frozenset[str]:
    """Drop blocks of units while the limit holds: costly ones first, the less sensitive first among equals."""
    cost = {unit.name: unit.elements for unit in search.plan.units}
    place = {unit: index for index, unit in enumerate(ranked)}
    size = max(1, len(ranked) // 4)
    while True:
        queue = sorted((unit for unit in ranked if unit in best), key=lambda unit: (-cost[unit], -place[unit]))
        for start in range(0, len(queue), size):
            if search.exhausted:
                return best
            less = best - frozenset(queue[start : start + size])
            if search.meets(less):
                best = less
        if size == 1:
            return best
        size = max(1, size // 2)
