"""Sums of the last seconds, by series: the ground of ratios that follow what happens now."""

from __future__ import annotations

from typing import Final

import numpy as np
from numpy.typing import NDArray

Ints = NDArray[np.int64]

SLICES: Final = 12
"""A window moves in steps of this part of it."""


class RecentSums:
    """A ring of slices of time.

    Args:
        columns: numbers that are summed for each series.
        seconds: length of the window.
    """

    def __init__(self, *, columns: int, seconds: int) -> None:
        self._slice_us = seconds * 1_000_000 // SLICES
        self._slice_of = np.full(SLICES, -1, np.int64)
        self._sums: Ints = np.zeros((SLICES, 0, columns), np.int64)

    def add(self, moments_us: Ints, series: Ints, values: Ints) -> None:
        """Add values to the slices of their moments; a moment older than its slice's newest is dropped.

        Args:
            moments_us: [n].
            series: [n].
            values: [n, columns].
        """
        self._grow(int(series.max()) + 1)
        slices = moments_us // self._slice_us
        for moment in np.unique(slices).tolist():
            place = moment % SLICES
            if self._slice_of[place] > moment:
                continue
            if self._slice_of[place] < moment:
                self._slice_of[place] = moment
                self._sums[place] = 0
            chosen = slices == moment
            np.add.at(self._sums[place], series[chosen], values[chosen])

    def sums(self, now_us: int) -> Ints:
        """Over the window that ends now: [series, columns]."""
        age = now_us // self._slice_us - self._slice_of
        inside = (self._slice_of >= 0) & (age < SLICES)
        found: Ints = self._sums[inside].sum(axis=0)
        return found

    def _grow(self, series: int) -> None:
        slices, known, columns = self._sums.shape
        if series > known:
            self._sums = np.concatenate([self._sums, np.zeros((slices, series - known, columns), np.int64)], axis=1)
