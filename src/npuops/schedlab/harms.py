"""Do no harm: where a rival is worse than the default, beyond the noise of a second default.

Requests in time and p99 must not get worse at all. The batch side pays for both, by the goals' leave down to `FLOOR`
of its progress; where nobody serves it has nothing to pay for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final, Generic, TypeVar

import msgspec
import numpy as np

from npuops.schedlab.comparison import Estimate, estimate, progress_by_task
from npuops.schedlab.outcome import Outcome
from npuops.schedlab.program_outcome import ProgramOutcome
from npuops.schedlab.rival_names import AGAIN, DEFAULT

FLOOR: Final = 0.85
"""Of the default's progress of every batch job, a goal of the experiment."""
LEAST_HARM: Final = 0.01
"""A difference to the default that counts, where the noise is even less: a point of requests, or of progress."""
_LEAST_P99: Final = 0.05
"""Likewise, of the default's p99."""

Kind = TypeVar("Kind", Outcome, ProgramOutcome)
Pairs = Mapping[tuple[str, str], Sequence[tuple[Kind, Kind]]]
"""By load and label: outcomes of a rival, each with the default's of the same repeat."""


class Harm(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One rival beside the default on one load, by one measure.

    Attributes:
        mix: name of the mix, or of a load of real programs.
        label: of the rival.
        measure: the share of requests in time, p99 relative to the default's, or batch progress likewise.
        difference: to the default, play by play with the same arrivals; below 0 is worse.
        noise: the same of the default's second play; None in the simulator, where there is none.
        allowed: this much worse is no harm.
        harmed: the difference's median is below the noise and below what is allowed, and its interval below 0.
    """

    mix: str
    label: str
    measure: str
    difference: Estimate
    noise: Estimate | None
    allowed: float
    harmed: bool


@dataclass(frozen=True, slots=True)
class Measure(Generic[Kind]):
    """Something in which a rival may be worse.

    Attributes:
        name: in tables.
        allowed: this much worse is no harm.
        difference: of a rival's play to the default's; below 0 is worse, None where there is nothing to compare.
    """

    name: str
    allowed: float
    difference: Callable[[Kind, Kind], float | None]


def harms(pairs: Pairs[Kind], measures: Callable[[Kind], Sequence[Measure[Kind]]]) -> list[Harm]:
    """Of every rival but the default.

    Args:
        pairs: what was played.
        measures: that a load has, by a play of the default.
    """
    return [
        harm
        for (load, label), these in pairs.items()
        if label not in (DEFAULT, AGAIN)
        for measure in measures(these[0][1])
        if (harm := _harm(load, label, measure, these, pairs.get((load, AGAIN), ()))) is not None
    ]


def mix_measures(default: Outcome) -> Sequence[Measure[Outcome]]:
    """Of a mix."""
    if default.slo_share is None:
        return (Measure("batch progress", LEAST_HARM, _progress),)
    return (
        Measure("requests in time", LEAST_HARM, _in_time),
        Measure("p99", _LEAST_P99, _p99),
        Measure("batch progress", 1 - FLOOR, _progress),
    )


def program_measures(default: ProgramOutcome) -> Sequence[Measure[ProgramOutcome]]:  # noqa: ARG001 - all have them
    """Of a load of real programs."""
    return (
        Measure("requests in time", LEAST_HARM, _in_time),
        Measure("p99", _LEAST_P99, _p99),
        Measure("batch progress", 1 - FLOOR, _batch),
    )


def _harm(
    load: str,
    label: str,
    measure: Measure[Kind],
    these: Sequence[tuple[Kind, Kind]],
    again: Sequence[tuple[Kind, Kind]],
) -> Harm | None:
    difference, noise = (estimate([measure.difference(*pair) for pair in pairs]) for pairs in (these, again))
    if difference is None:
        return None
    worst = min(-measure.allowed, noise.low if noise is not None else 0.0)
    return Harm(
        mix=load,
        label=label,
        measure=measure.name,
        difference=difference,
        noise=noise,
        allowed=measure.allowed,
        harmed=difference.median < worst and difference.high < 0,
    )


def _in_time(ours: Outcome | ProgramOutcome, default: Outcome | ProgramOutcome) -> float | None:
    mine, theirs = ours.slo_share, default.slo_share
    return None if mine is None or theirs is None else mine - theirs


def _p99(ours: Outcome | ProgramOutcome, default: Outcome | ProgramOutcome) -> float | None:
    return None if ours.p99_us is None or not default.p99_us else 1 - ours.p99_us / default.p99_us


def _progress(ours: Outcome, default: Outcome) -> float | None:
    shares = list(progress_by_task(ours, default).values())
    return float(np.mean(shares)) - 1 if shares else None


def _batch(ours: ProgramOutcome, default: ProgramOutcome) -> float | None:
    return ours.batch_per_s / default.batch_per_s - 1 if default.batch_per_s > 0 else None
