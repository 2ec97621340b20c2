"""Exact percentiles of what was measured: no buckets, no interpolation, and none where there are too few values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import NDArray

TICKS_PER_HALF: Final = 5
"""Rows of the table for each halving of the distance to 100 %, as HdrHistogram's own output has."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LatencySummary:
    """Latencies in milliseconds. A percentile is None where fewer than 1 / (1 - q) values stand behind it."""

    count: int
    mean_ms: float
    min_ms: float
    p50_ms: float | None
    p90_ms: float | None
    p95_ms: float | None
    p99_ms: float | None
    p999_ms: float | None
    max_ms: float

    @property
    def tail_ms(self) -> float:
        """p99; of fewer than 100 values the largest."""
        return self.max_ms if self.p99_ms is None else self.p99_ms


@dataclass(frozen=True, slots=True, kw_only=True)
class PercentileRow:
    """One row of the table: `count` values are at most `ms`, which is the share `percentile` of all."""

    ms: float
    percentile: float
    count: int


def summary(latency_s: NDArray[np.float64]) -> LatencySummary | None:
    """The figures of latencies in seconds, or None where there are none."""
    if latency_s.size == 0:
        return None
    ordered = np.sort(latency_s) * 1e3
    return LatencySummary(
        count=int(ordered.size),
        mean_ms=float(ordered.mean()),
        min_ms=float(ordered[0]),
        p50_ms=quantile(ordered, 0.5),
        p90_ms=quantile(ordered, 0.9),
        p95_ms=quantile(ordered, 0.95),
        p99_ms=quantile(ordered, 0.99),
        p999_ms=quantile(ordered, 0.999),
        max_ms=float(ordered[-1]),
    )


def quantile(ordered: NDArray[np.float64], share: float) -> float | None:
    """The smallest value that at least `share` of all do not exceed (nearest rank); None where they are too few.

    Args:
        ordered: ascending.
        share: 0 to below 1.
    """
    # 1e-9: 0.99 · 100 must be rank 99, whatever the last bit of the product says.
    if ordered.size * (1 - share) < 1 - 1e-9:
        return None
    rank = max(int(np.ceil(share * ordered.size - 1e-9)), 1)
    return float(ordered[rank - 1])


def percentile_table(latency_s: NDArray[np.float64]) -> tuple[PercentileRow, ...]:
    """Rows ever closer to 100 %, `TICKS_PER_HALF` for each halving of the distance, down to the largest value."""
    if latency_s.size == 0:
        return ()
    ordered = np.sort(latency_s) * 1e3
    rows: list[PercentileRow] = []
    reached = 0
    for share in _shares(ordered.size):
        rank = max(int(np.ceil(share * ordered.size - 1e-9)), 1)
        if rank > reached:
            value = ordered[rank - 1]
            reached = int(np.searchsorted(ordered, value, side="right"))
            rows.append(PercentileRow(ms=float(value), percentile=100 * reached / ordered.size, count=reached))
    return tuple(rows)


def _shares(count: int) -> list[float]:
    shares = []
    distance = 1.0
    while distance * count >= 1:
        shares += [1 - distance + tick * distance / (2 * TICKS_PER_HALF) for tick in range(TICKS_PER_HALF)]
        distance /= 2
    return [*shares, 1.0]
