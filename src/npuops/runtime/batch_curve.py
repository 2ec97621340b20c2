"""How long a run of so many rows takes on one device, as measured when it was loaded; and how many are worth it."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

WIN: Final = 0.10
"""Batching must save this share of the time for each row; else each request runs alone, and is answered sooner.

And so must splitting what waits into several runs, which costs a round trip for each.
"""

NOISE: Final = 0.02
"""Sizes whose rows cost this much more than the best ones' are as good: the smallest of them is taken."""


def measure_sizes(max_rows: int) -> tuple[int, ...]:
    """Rows to measure: 1, 2, 4, … and the most that one run takes."""
    sizes = []
    rows = 1
    while rows < max_rows:
        sizes.append(rows)
        rows *= 2
    return (*sizes, max_rows)


def stepped(times: Mapping[int, float]) -> BatchCurve:
    """The curve of static artifacts together, where a run goes to the smallest that holds it.

    Args:
        times: rows of each artifact → µs of its run.
    """
    points: list[tuple[int, float]] = []
    before = 0
    for rows in sorted(times):
        points += [(before + 1, times[rows]), (rows, times[rows])]
        before = rows
    return BatchCurve(tuple(points))


@dataclass(frozen=True, slots=True)
class BatchCurve:
    """The time of a run against its rows.

    What disturbs a measurement only makes it longer, and a run of fewer rows takes no longer than one of more. So the
    time of a size is the least measured at that size or a larger one. Between the sizes it is interpolated. Below the
    smallest it is flat, since a static artifact computes all its rows whatever they hold. Above the largest each row
    costs the average of that run, or the last slope where that is steeper: on the safe side.

    Attributes:
        points: (rows, µs) as measured, in any order. Without any, every time is 0 and no batch is worth it.
    """

    points: tuple[tuple[int, float], ...]
    _rows: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _us: tuple[float, ...] = field(init=False, repr=False, compare=False)
    _times: tuple[float, ...] = field(init=False, repr=False, compare=False)
    _best: tuple[int, ...] = field(init=False, repr=False, compare=False)
    _first: tuple[int, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """Work out every size up to the largest once: looking up is what happens for each run."""
        least: dict[int, float] = {}
        smallest = float("inf")
        for rows, us in sorted(self.points, reverse=True):
            smallest = least[rows] = min(smallest, us)
        measured = sorted(least.items())
        object.__setattr__(self, "_rows", tuple(rows for rows, _ in measured))
        object.__setattr__(self, "_us", tuple(us for _, us in measured))
        last = self._rows[-1] if measured else 0
        times = tuple(self._between(rows) for rows in range(1, last + 1))
        object.__setattr__(self, "_times", times)
        object.__setattr__(self, "_best", _best_sizes(self._rows, times))
        object.__setattr__(self, "_first", _first_runs(self._rows, times))

    def us(self, rows: int) -> float:
        """Microseconds of a run of so many rows."""
        times = self._times
        if rows <= len(times):
            return times[rows - 1] if rows > 0 else 0.0
        return self._beyond(rows)

    def best_rows(self, budget_us: float) -> int:
        """Rows that cost least each, among the sizes whose run is within the budget.

        1 where batching saves less than `WIN` of a row's time, and where not even one row is within the budget.
        """
        within = bisect_right(self._times, budget_us)
        return self._best[within - 1] if within else 1

    def first_rows(self, rows: int) -> int:
        """Rows of the next run, where so many are to be worked off: all, unless several runs are faster.

        Filling five rows up to a static eight, or running four and then one: that depends on the device.
        """
        return self._first[rows - 1] if 0 < rows <= len(self._first) else rows

    def backlog_us(self, rows: int, budget_us: float) -> float:
        """Microseconds to work off so many waiting rows, in the batches that pay."""
        useful = self.best_rows(budget_us)
        full, rest = divmod(rows, useful)
        return full * self.us(useful) + (self.us(rest) if rest else 0.0)

    def _between(self, rows: int) -> float:
        index = bisect_right(self._rows, rows)
        if index == 0:
            return self._us[0]
        if index == len(self._rows):
            return self._us[-1]
        left, right = self._rows[index - 1], self._rows[index]
        share = (rows - left) / (right - left)
        return self._us[index - 1] + share * (self._us[index] - self._us[index - 1])

    def _beyond(self, rows: int) -> float:
        if not self._rows:
            return 0.0
        last, us = self._rows[-1], self._us[-1]
        slope = us / last
        if len(self._rows) > 1:
            slope = max(slope, (us - self._us[-2]) / (last - self._rows[-2]))
        return us + (rows - last) * slope


def _best_sizes(measured: tuple[int, ...], times: tuple[float, ...]) -> tuple[int, ...]:
    """For each size, the best one that is not larger: a measured one, or the size itself, where a budget cuts."""
    chosen: list[int] = []
    for largest in range(1, len(times) + 1):
        sizes = [*(rows for rows in measured if rows < largest), largest]
        least = min(times[rows - 1] / rows for rows in sizes)
        best = next(rows for rows in sizes if times[rows - 1] / rows <= least * (1 + NOISE))
        chosen.append(best if times[best - 1] / best <= times[0] * (1 - WIN) else 1)
    return tuple(chosen)


def _first_runs(measured: tuple[int, ...], times: tuple[float, ...]) -> tuple[int, ...]:
    """For each number of waiting rows, those of the first run; of equal ways the one that begins with most."""
    spent, first = [0.0], list[int]()
    for rows, whole_us in enumerate(times, start=1):
        parts = [(times[size - 1] + spent[rows - size], -size) for size in measured if size < rows]
        split_us, chosen = min(parts, default=(whole_us, -rows))
        if split_us > whole_us * (1 - WIN):
            split_us, chosen = whole_us, -rows
        spent.append(split_us)
        first.append(-chosen)
    return tuple(first)
