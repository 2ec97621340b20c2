"""How much each part of a graph suffers from 8-bit activations: one pass over a few samples ranks them all.

The score of a tensor is its quantization noise over its variance, *averaged over channels*. Plain SQNR divides by
the power of the whole tensor, where a few outlier channels (the residual stream of a transformer) hide that all
other channels drown in the step that those channels force. A Softmax input counts by the noise behind the Softmax.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError
from npuops.evaluate.samples import Samples
from npuops.events import Observer, StepProgressed, ignore
from npuops.quantize.quantize import LEVELS, Calibrated
from npuops.quantize.ranges import ActivationTap, Range
from npuops.quantize.softmax_ranges import fake_quantize, softmax, softmax_inputs

SAMPLES_USED = 16
"""Scores settle long before: the noise is summed over every value of a tensor."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Sensitivity:
    """One unit, and what 8 bits do to what it writes."""

    unit: str
    op: str
    sqnr_db: float
    """Signal to noise per channel at 8 bits, of its worst tensor; lower is more sensitive."""
    elements: int

    @property
    def noise_per_element(self) -> float:
        """What 16 bits would remove, for what they cost: the order in which a search spends bytes."""
        return float(10 ** (-self.sqnr_db / 10)) / max(1, self.elements)


class _Sums:
    """Noise, power and sum of a tensor per channel, over all samples."""

    def __init__(self) -> None:
        self.noise: NDArray[np.float64] | float = 0.0
        self.power: NDArray[np.float64] | float = 0.0
        self.sum: NDArray[np.float64] | float = 0.0
        self.count = 0

    def add(self, clean: NDArray[np.float32], rough: NDArray[np.float32]) -> None:
        # Convolutions have channels at axis 1 of 4 (or 5), everything else at the end.
        channel = 1 if clean.ndim >= 4 else clean.ndim - 1
        axes = tuple(axis for axis in range(clean.ndim) if axis != channel)
        wide = clean.astype(np.float64)
        self.noise = self.noise + ((rough - wide) ** 2).sum(axes)
        self.power = self.power + (wide**2).sum(axes)
        self.sum = self.sum + wide.sum(axes)
        self.count += wide.size // max(1, np.size(self.sum))

    def noise_ratio(self) -> float:
        power = np.asarray(self.power)
        variance = power - np.asarray(self.sum) ** 2 / max(1, self.count)
        # A channel that never moves carries nothing to lose; the floor keeps it from dividing by zero.
        floor = 1e-6 * float(power.mean()) + 1e-20
        return float(np.mean(np.asarray(self.noise) / np.maximum(variance, floor)))


def rank_units(calibrated: Calibrated, samples: Samples, *, observe: Observer = ignore) -> tuple[Sensitivity, ...]:
    """All units that could compute at 16 bits, the most sensitive first.

    Args:
        calibrated: graph and 8-bit ranges.
        samples: the first few are used.
        observe: gets `StepProgressed("rank", …)`.

    Raises:
        DataError: no sample.
    """
    if not samples.inputs:
        raise DataError(f"{samples.source}: no sample to rank with")
    few = samples.inputs[:SAMPLES_USED]
    sums: dict[str, _Sums] = {}
    tap = ActivationTap(calibrated.model, tuple(calibrated.ranges.narrow))
    axes = softmax_inputs(calibrated.model)
    for index, sample in enumerate(few):
        for name, array in tap.run(sample):
            if array.ndim:
                clean, rough = _both(name, array, calibrated.ranges.narrow, axes)
                sums.setdefault(name, _Sums()).add(clean, rough)
        observe(StepProgressed(step="rank", done=index + 1, total=len(few)))
    ratios = {name: found.noise_ratio() for name, found in sums.items()}
    ranked = [
        Sensitivity(
            unit=unit.name,
            op=unit.op,
            sqnr_db=round(-10 * float(np.log10(max(1e-20, *(ratios.get(name, 0.0) for name in unit.tensors)))), 2),
            elements=unit.elements,
        )
        for unit in calibrated.plan.units
        if unit.can_widen
    ]
    return tuple(sorted(ranked, key=lambda found: (found.sqnr_db, found.unit)))


def _both(
    name: str, array: NDArray[np.float32], ranges: Mapping[str, Range], axes: Mapping[str, int]
) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    rough = fake_quantize(array, ranges[name], LEVELS[8])
    if name in axes:
        return softmax(array, axes[name]), softmax(rough, axes[name])
    return array, rough
