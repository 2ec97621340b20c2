"""Sums over the last minute forget what is older."""

from __future__ import annotations

import numpy as np

from npuops.telemetry.recent_sums import SLICES, RecentSums

SECOND_US = 1_000_000


def add(sums: RecentSums, second: float, series: int, value: int) -> None:
    sums.add(np.array([int(second * SECOND_US)]), np.array([series]), np.array([[value, 1]]))


def test_what_is_older_than_the_window_is_forgotten() -> None:
    sums = RecentSums(columns=2, seconds=60)
    add(sums, 1, 0, 10)
    add(sums, 30, 0, 5)
    assert sums.sums(30 * SECOND_US).tolist() == [[15, 2]]
    assert sums.sums(64 * SECOND_US).tolist() == [[5, 1]]
    assert sums.sums(200 * SECOND_US).tolist() == [[0, 0]]


def test_a_slice_is_used_again_and_a_moment_from_before_it_is_dropped() -> None:
    sums = RecentSums(columns=2, seconds=60)
    add(sums, 2, 0, 10)
    add(sums, 62, 0, 7)
    add(sums, 2, 0, 10)
    assert sums.sums(62 * SECOND_US).tolist() == [[7, 1]]


def test_series_may_come_later() -> None:
    sums = RecentSums(columns=2, seconds=SLICES)
    add(sums, 1, 0, 1)
    add(sums, 1, 4, 2)
    assert sums.sums(SECOND_US).tolist() == [[1, 1], [0, 0], [0, 0], [0, 0], [2, 1]]
