"""Histograms of many series at once: one row of counts for each, filled by numpy."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]


class FoldedHistogram:
    """Counts by series and bucket.

    Attributes:
        bounds: upper ends of the buckets, ascending, each inside its bucket; what is above the last is counted too.
        counts: [series, buckets + 1], not cumulative.
        sums: [series] of the values.
    """

    def __init__(self, bounds: Sequence[int]) -> None:
        self.bounds: Ints = np.asarray(bounds, np.int64)
        self.counts: Ints = np.zeros((0, len(bounds) + 1), np.int64)
        self.sums: NDArray[np.float64] = np.zeros(0)

    def add(self, series: Ints, values: Ints, weights: Ints | None = None) -> None:
        """Count values.

        Args:
            series: number of the series of each value.
            values: in the unit of the bounds.
            weights: how often each value counts; once by default.
        """
        if not len(values):
            return
        self._grow(int(series.max()) + 1)
        width = self.counts.shape[1]
        cell = series * width + np.searchsorted(self.bounds, values, side="left")
        found = np.bincount(cell, weights=weights, minlength=self.counts.size)
        self.counts += found.reshape(self.counts.shape).astype(np.int64, copy=False)
        weighed = values if weights is None else values * weights
        self.sums += np.bincount(series, weights=weighed, minlength=len(self.sums))

    def clear(self, series: Sequence[int]) -> None:
        """Forget what was counted of some series."""
        known = [number for number in series if number < len(self.sums)]
        self.counts[known] = 0
        self.sums[known] = 0

    def copy(self) -> FoldedHistogram:
        """Of its own, whatever happens to this one later."""
        copied = FoldedHistogram(())
        copied.bounds, copied.counts, copied.sums = self.bounds, self.counts.copy(), self.sums.copy()
        return copied

    def _grow(self, series: int) -> None:
        missing = series - len(self.sums)
        if missing > 0:
            self.counts = np.vstack([self.counts, np.zeros((missing, self.counts.shape[1]), np.int64)])
            self.sums = np.concatenate([self.sums, np.zeros(missing)])


def log_bounds(low: int, high: int, per_octave: int) -> tuple[int, ...]:
    """Whole numbers from `low` to at least `high`, `per_octave` for each doubling."""
    steps = int(np.ceil(np.log2(high / low) * per_octave)) + 1
    return tuple(
        int(bound) for bound in np.unique(np.ceil(low * 2 ** (np.arange(steps) / per_octave)).astype(np.int64))
    )


def quantile(bounds: Ints, counts: NDArray[Any], share: float) -> float | None:
    """The value that `share` of the counted do not exceed, between the ends of its bucket by proportion.

    Args:
        bounds: upper ends of the buckets.
        counts: [buckets + 1], not cumulative.
        share: 0 to 1.

    Returns:
        None where nothing was counted; the last bound where the value lies above it.
    """
    total = int(counts.sum())
    if not total:
        return None
    up_to = np.cumsum(counts)
    wanted = share * total
    bucket = int(np.searchsorted(up_to, wanted, side="left"))
    if bucket >= len(bounds):
        return float(bounds[-1])
    low = float(bounds[bucket - 1]) if bucket else 0.0
    before = float(up_to[bucket - 1]) if bucket else 0.0
    inside = float(counts[bucket])
    return low + (float(bounds[bucket]) - low) * (max(wanted - before, 0.0) / inside if inside else 1.0)
