"""The fourth protocol: the model itself was measured, but on a sibling chip of the vendor."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from protocols import Answer
from published import profile

from npuops.vnpu.perf import Floats
from npuops.vnpu.transfer import share_of

LEAST_ROWS = 20
"""Fewer common rows say little of a pair."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """Rows that two chips of a vendor have in common, each predicted by a fit that saw no row of its family."""

    chip: str
    measured_on: str
    here: tuple[Answer, ...]
    there: tuple[Answer, ...]

    @property
    def surprise(self) -> Floats:
        """Logarithms of measured by predicted, on the chip."""
        return np.array([np.log(answer.row.us / answer.us) for answer in self.here])

    @property
    def sibling_surprise(self) -> Floats:
        """The same on its sibling."""
        return np.array([np.log(answer.row.us / answer.us) for answer in self.there])

    def answers(self) -> list[Answer]:
        """Each row by what the sibling's measurement says, and by the sibling's latency times one scale.

        The share that carries over, and the scale, are learnt from the other families.
        """
        families = np.array([answer.row.family for answer in self.here])
        ratios = np.array([np.log(a.row.us / b.row.us) for a, b in zip(self.here, self.there, strict=True)])
        found = []
        for index, (here, there) in enumerate(zip(self.here, self.there, strict=True)):
            others = families != families[index]
            share = share_of(self.surprise[others], self.sibling_surprise[others])
            us = here.us * float(np.exp(share * self.sibling_surprise[index]))
            found.append(replace(here, us=us, plain_us=there.row.us * float(np.exp(np.median(ratios[others])))))
        return found


def pairs_of(seen: Mapping[str, Sequence[Answer]]) -> Iterator[Pair]:
    """Every ordered pair of chips of one vendor with enough common rows.

    Args:
        seen: chip → its answers of protocol (a).
    """
    for chip, answers in seen.items():
        for other, theirs in seen.items():
            if other == chip or profile(other).vendor != profile(chip).vendor:
                continue
            there = {(answer.row.graph, answer.row.format): answer for answer in theirs}
            both = [answer for answer in answers if (answer.row.graph, answer.row.format) in there]
            if len(both) >= LEAST_ROWS:
                same = tuple(there[answer.row.graph, answer.row.format] for answer in both)
                yield Pair(chip=chip, measured_on=other, here=tuple(both), there=same)
