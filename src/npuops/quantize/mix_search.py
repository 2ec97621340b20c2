"""The search for the smallest set of units at 16 bits whose drop stays within a limit.

A bisection finds how many units of the ranking are needed; from a little more than that, units are left out in
blocks that get smaller, the most costly first. The search aims at a part of the limit (`AIM`). Then the sets that it
accepted are judged again, the smallest first, on samples that were held back, and with one standard error to spare:
between the first that passes and the last that failed, one more bisection.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from npuops.evaluate.accuracy import BUILT_IN, Metric, Outputs
from npuops.evaluate.samples import Samples
from npuops.events import Observer, StepProgressed
from npuops.quantize.bit_units import share_at_16
from npuops.quantize.held_back import answers, split, standard_error
from npuops.quantize.quantize import Calibrated
from npuops.quantize.width_switch import WidthSwitch

MAX_TRIALS = 96
"""Mixes to measure at most; then the best one so far is taken."""

AIM = 0.85
"""Of the limit, for the search. MiniLM's drop moved by 10 % between two sets of sentences and by 3 % between the
reference and the NPU's rounding: a mix that spends the whole limit on its own samples exceeds it on others."""

GLANCE = 8
"""Samples that a mix is measured on first; one that is `HOPELESS` standard errors beyond the limit stops there."""
HOPELESS = 2.0

Units = frozenset[str]


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """One mix that was measured."""

    units_16bit: int
    share_16bit: float
    drop: float
    """Without margin; of a hopeless mix, on the first few samples."""
    met: bool
    held_back: bool
    """Judged on the samples that were held back, with one standard error to spare."""


class Search:
    """Measures mixes, each once a part, and keeps the trace."""

    def __init__(
        self,
        calibrated: Calibrated,
        metric: Metric,
        samples: Samples,
        fp32: Outputs,
        max_drop: float,
        observe: Observer,
    ) -> None:
        self.plan = calibrated.plan
        self.trials: list[Trial] = []
        self.found: dict[Units, float] = {}
        """Drop on the searched part, of every mix tried."""
        self.switch = WidthSwitch(calibrated)
        self._metric = metric
        self._parts = split(samples)
        half = len(self._parts[0]) < len(samples)
        self._fp32 = tuple(
            {name: array[part::2] if half else array for name, array in fp32.items()} for part in range(2)
        )
        self._max_drop = max_drop
        self._observe = observe

    @property
    def exhausted(self) -> bool:
        """Whether the time for trials is spent."""
        return len(self.trials) >= MAX_TRIALS

    def meets(self, wide: Units) -> bool:
        """Whether the drop on the searched part is within what the search aims at."""
        aim = AIM * self._max_drop
        if wide not in self.found:
            drop = self._glance(wide)
            if drop is None:
                drop, _ = self._measure(wide, self._parts[0], 0)
            self.found[wide] = drop
            self._tell(wide, drop, drop <= aim, held_back=False)
        return self.found[wide] <= aim

    def loses_too_much(self, wide: Units) -> bool:
        """Whether the drop on the searched part is beyond the limit itself."""
        return not self.meets(wide) and self.found[wide] > self._max_drop

    def holds(self, wide: Units) -> bool:
        """Whether the drop on the part held back is within the limit, with one standard error to spare."""
        drop, error = self._measure(wide, self._parts[1], 1)
        met = drop + error <= self._max_drop
        self._tell(wide, drop, met, held_back=True)
        return met

    def _glance(self, wide: Units) -> float | None:
        """The drop on a few samples if it is hopeless, else None."""
        # A metric of the user's may make no sense on so few (an area under a curve needs both classes).
        if self._metric.name not in BUILT_IN or len(self._parts[0]) <= GLANCE:
            return None
        drop, error = self._measure(wide, self._parts[0].first(GLANCE), 0)
        return drop if drop - HOPELESS * error > self._max_drop else None

    def _measure(self, wide: Units, samples: Samples, part: int) -> tuple[float, float]:
        """Drop and its standard error on the first samples of a part."""
        fp32 = {name: array[: len(samples)] for name, array in self._fp32[part].items()}
        outputs = answers(self.switch.graph(wide), samples)
        drop = self._metric.score(fp32, fp32, samples.labels) - self._metric.score(outputs, fp32, samples.labels)
        return drop, standard_error(self._metric, outputs, fp32, samples)

    def _tell(self, wide: Units, drop: float, met: bool, *, held_back: bool) -> None:
        share = share_at_16(self.plan, wide)
        self.trials.append(
            Trial(units_16bit=len(wide), share_16bit=share, drop=drop, met=met, held_back=held_back),
        )
        where = ", on held-back samples" if held_back else ""
        words = f"{len(wide)} units at 16 bits ({share:.1%}): drop {drop:.4f}{where}{'' if met else ' (too much)'}"
        self._observe(StepProgressed(step="mix", done=len(self.trials), total=None, detail=words))


def cheapest(search: Search, ranked: Sequence[str], kept: Units) -> Units | None:
    """The smallest set found whose drop is confirmed; None when not even everything at 16 bits holds.

    Args:
        search: measures.
        ranked: units in the order in which 16 bits are spent on them.
        kept: units that have 16 bits in any case.
    """
    if not search.meets(kept) and search.meets(search.plan.widest):
        _shrink(search, ranked, kept)
    failed: Units | None = None
    for wide in _candidates(search):
        if search.holds(wide):
            return wide if failed is None else between(search, failed, wide, ranked)
        failed = wide
    return None


def _candidates(search: Search) -> Iterator[Units]:
    """What the search accepted, the smallest first."""
    within = {wide for wide in search.found if search.meets(wide)}
    yield from sorted(within, key=lambda wide: (share_at_16(search.plan, wide), len(wide), sorted(wide)))
    # The widest may fail what the search aims at and still be within the limit: it is the last resort.
    if search.plan.widest not in within and not search.loses_too_much(search.plan.widest):
        yield search.plan.widest


def between(search: Search, failed: Units, passed: Units, ranked: Sequence[str]) -> Units:
    """Bisect, on held-back samples, over the units by which a confirmed set exceeds one that was not."""
    extra = [unit for unit in ranked if unit in passed - failed]
    best, low, high = passed, 0, len(extra)
    while high - low > 1:
        middle = (low + high) // 2
        wide = failed | frozenset(extra[:middle])
        if share_at_16(search.plan, wide) >= share_at_16(search.plan, best):
            high = middle  # what failed holds units that the best one has not: together they cost more
        elif search.holds(wide):
            best, high = wide, middle
        else:
            low = middle
    return best


def _shrink(search: Search, ranked: Sequence[str], kept: Units) -> None:
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
    _prune(search, kept | frozenset(start), start)


def _prune(search: Search, best: Units, ranked: list[str]) -> None:
    """Drop blocks of units while the limit holds: costly ones first, the less sensitive first among equals."""
    cost = {unit.name: unit.elements for unit in search.plan.units}
    place = {unit: index for index, unit in enumerate(ranked)}
    size = max(1, len(ranked) // 4)
    while True:
        queue = sorted((unit for unit in ranked if unit in best), key=lambda unit: (-cost[unit], -place[unit]))
        for start in range(0, len(queue), size):
            if search.exhausted:
                return
            less = best - frozenset(queue[start : start + size])
            if search.meets(less):
                best = less
        if size == 1:
            return
        size = max(1, size // 2)
