"""Where the policy's network should run: the place that takes the least CPU time and answers soon enough. Pure.

Two lines per place, measured on this machine: latency and CPU time, each a fixed part and one for each candidate.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError
from npuops.units import Basis


@dataclass(frozen=True, slots=True, kw_only=True)
class Cost:
    """One decision with so many candidates, in one place.

    Attributes:
        candidates: how many.
        latency_us: until the answer.
        cpu_us: CPU time that this host's workload does not get meanwhile; 0 is for what no CPU does.
    """

    candidates: int
    latency_us: float
    cpu_us: float


@dataclass(frozen=True, slots=True, kw_only=True)
class PlaceCosts:
    """What one place costs.

    Attributes:
        place: as on the command line.
        basis: where the figures come from. An emulator's say nothing, so it is never chosen.
        costs: by number of candidates, rising; at least one.
    """

    place: str
    basis: Basis
    costs: tuple[Cost, ...]

    def __post_init__(self) -> None:
        """Refuse figures in which nothing can be read.

        Raises:
            DataError: none, out of order, or negative.
        """
        counts = [cost.candidates for cost in self.costs]
        if not counts or counts != sorted(set(counts)) or counts[0] < 1:
            raise DataError(f"costs of {self.place} should be of rising numbers of candidates, they are of {counts}")
        if not all(0 <= figure < float("inf") for cost in self.costs for figure in (cost.latency_us, cost.cpu_us)):
            raise DataError(f"a cost of {self.place} is negative or no number")

    def at(self, candidates: int) -> Cost:
        """Between what was measured, in a straight line; beyond, the last slope goes on."""
        counts = np.array([cost.candidates for cost in self.costs], float)
        latency, cpu = (np.array([getattr(cost, name) for cost in self.costs]) for name in ("latency_us", "cpu_us"))
        return Cost(
            candidates=candidates,
            latency_us=_along(candidates, counts, latency),
            cpu_us=_along(candidates, counts, cpu),
        )


@dataclass(frozen=True, slots=True)
class Choice:
    """A place, and why.

    Attributes:
        place: as on the command line.
        why: for people.
    """

    place: str
    why: str


def choose(candidates: int, places: Sequence[PlaceCosts], limit_us: float) -> Choice:
    """The place for decisions of that many candidates.

    Of the places that answer within the limit, the one that takes the least CPU time; if none does, the fastest one.

    Args:
        candidates: in each decision.
        places: measured; those on an emulator are passed over.
        limit_us: within which an answer is of use, such as a quarter of the agent's period.

    Raises:
        DataError: no place that can be chosen.
    """
    costs = {each.place: each.at(candidates) for each in places if each.basis is not Basis.EMULATED}
    if not costs:
        raise DataError("no place to run the policy was measured", advice="--placement numpy needs none")
    in_time = {place: cost for place, cost in costs.items() if cost.latency_us <= limit_us}
    if not in_time:
        place = min(costs, key=lambda name: costs[name].latency_us)
        late = f"none answers within {limit_us:.0f} us; the fastest takes {costs[place].latency_us:.0f} us"
        return Choice(place, late)
    place = min(in_time, key=lambda name: (in_time[name].cpu_us, in_time[name].latency_us))
    others = ", ".join(f"{name} {cost.cpu_us:.0f} us" for name, cost in in_time.items() if name != place)
    words = f"{in_time[place].cpu_us:.0f} us of CPU for {candidates} candidates"
    return Choice(place, f"{words}; {others}" if others else words)


def crossover(one: PlaceCosts, other: PlaceCosts, most: int) -> int | None:
    """The smallest number of candidates from which on the other place takes less CPU time; None if it never does.

    "From which on" up to `most`.
    """
    found = None
    for count in sorted({*range(1, min(most, 64) + 1), *np.geomspace(1, most, 200).astype(int).tolist()}):
        cheaper = other.at(count).cpu_us < one.at(count).cpu_us
        found = (count if found is None else found) if cheaper else None
    return found


def _along(wanted: int, counts: NDArray[np.float64], figures: NDArray[np.float64]) -> float:
    if wanted > counts[-1] and len(counts) > 1:
        slope = (figures[-1] - figures[-2]) / (counts[-1] - counts[-2])
        return float(max(figures[-1] + slope * (wanted - counts[-1]), 0.0))
    return float(np.interp(wanted, counts, figures))
