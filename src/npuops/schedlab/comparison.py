"""A rival's plays beside those under the default setting: medians with bootstrap intervals."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from typing import Final

import msgspec
import numpy as np

from npuops.errors import DataError
from npuops.schedlab.outcome import BATCH, Outcome

_DRAWS: Final = 2000
_LOW, _HIGH = 0.025, 0.975


class Estimate(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A figure of repeated plays.

    Attributes:
        median: of the plays.
        low: of the bootstrap interval of the median, 95 %.
        high: likewise.
        plays: so many had the figure.
    """

    median: float
    low: float
    high: float
    plays: int

    def __str__(self) -> str:
        """`98.5 (97.9 to 98.8)`."""
        return f"{self.median:.4g} ({self.low:.4g} to {self.high:.4g})"


class Comparison(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a rival reached on one mix; each figure is None where no play has it.

    Attributes:
        mix: its name.
        setting: the rival's.
        slo_share: mean over the serving phases, 0 to 1.
        p99_us: of all response times.
        worst_progress: of the slowest batch task in its worst phase, relative to the default.
        worst_task_progress: of the slowest batch task over all phases, likewise.
        fairness: Jain's index over the batch tasks' relative progress, 1 when all lost or won alike.
        switches_per_s: of all tasks.
        unclean: plays that others disturbed; they are counted in all the same.
    """

    mix: str
    setting: str
    slo_share: Estimate | None
    p99_us: Estimate | None
    worst_progress: Estimate | None
    worst_task_progress: Estimate | None
    fairness: Estimate | None
    switches_per_s: Estimate | None
    unclean: int


def progress_by_part(outcome: Outcome, default: Outcome) -> dict[tuple[str, int], float]:
    """Progress of each batch task in each phase, relative to the default; not where that made none.

    Raises:
        DataError: the two are of different mixes.
    """
    _same_mix(outcome, default)
    ours, theirs = _by_part(outcome), _by_part(default)
    if ours.keys() != theirs.keys():
        raise DataError(f"two outcomes of mix {outcome.mix} have different tasks or phases")
    return {part: ours[part] / theirs[part] for part in ours if theirs[part] > 0}


def progress_by_task(outcome: Outcome, default: Outcome) -> dict[str, float]:
    """Progress of each batch task over all phases, relative to the default: the mean over its phases.

    A task that computes in one phase and chats in another counts each by its own measure, so phases are put together
    only after each was divided by the default's.
    """
    found: defaultdict[str, list[float]] = defaultdict(list)
    for (player, _), share in progress_by_part(outcome, default).items():
        found[player].append(share)
    return {player: sum(shares) / len(shares) for player, shares in found.items()}


def worst_progress(outcome: Outcome, default: Outcome) -> float | None:
    """Of the slowest batch task in its worst phase; None without batch tasks."""
    return min(progress_by_part(outcome, default).values(), default=None)


def fairness(outcome: Outcome, default: Outcome) -> float | None:
    """Jain's index over the batch tasks' relative progress: (sum x)^2 / (n sum x^2); None without batch tasks."""
    shares = np.array(list(progress_by_task(outcome, default).values()))
    return float(shares.sum() ** 2 / (len(shares) * (shares**2).sum())) if shares.any() else None


def estimate(figures: Sequence[float | None], seed: int = 0) -> Estimate | None:
    """Median of those that are there, with the interval in which 95 % of resampled medians lie; None without any."""
    present = np.array([figure for figure in figures if figure is not None])
    if not len(present):
        return None
    random = np.random.default_rng(seed)
    drawn = np.median(present[random.integers(0, len(present), (_DRAWS, len(present)))], axis=1)
    low, high = np.quantile(drawn, (_LOW, _HIGH)).tolist()
    return Estimate(median=float(np.median(present)), low=low, high=high, plays=len(present))


def compare(outcomes: Sequence[Outcome], defaults: Sequence[Outcome], seed: int = 0) -> Comparison:
    """Put a rival's repeats beside the default's: each beside the one with the same arrivals, in this order.

    Args:
        outcomes: of one rival on one mix.
        defaults: as many, of the same mix and, one by one, of the same seed.
        seed: of the bootstrap.

    Raises:
        DataError: none, not as many, or not alike.
    """
    if not outcomes or len(outcomes) != len(defaults):
        raise DataError(f"{len(outcomes)} plays cannot be put beside {len(defaults)} of the default")
    if len({one.setting for one in outcomes}) > 1:
        raise DataError("plays of different rivals cannot be one rival's repeats")
    for one, default in zip(outcomes, defaults, strict=True):
        _same_mix(one, default)
        if one.seed != default.seed:
            raise DataError(f"a play of seed {one.seed} is put beside one of seed {default.seed}")
    pairs = list(zip(outcomes, defaults, strict=True))
    by_task = [progress_by_task(one, default) for one, default in pairs]
    return Comparison(
        mix=outcomes[0].mix,
        setting=outcomes[0].setting,
        slo_share=estimate([one.slo_share for one in outcomes], seed),
        p99_us=estimate([one.p99_us for one in outcomes], seed),
        worst_progress=estimate([worst_progress(*pair) for pair in pairs], seed),
        worst_task_progress=estimate([min(shares.values(), default=None) for shares in by_task], seed),
        fairness=estimate([fairness(*pair) for pair in pairs], seed),
        switches_per_s=estimate([one.switches * 1e6 / one.duration_us for one in outcomes], seed),
        unclean=sum(not one.is_clean for one in outcomes),
    )


def _same_mix(one: Outcome, other: Outcome) -> None:
    if (one.mix, one.duration_us, one.origin) != (other.mix, other.duration_us, other.origin):
        raise DataError(
            f"an outcome of mix {one.mix} ({one.origin}) cannot be put beside one of mix {other.mix} ({other.origin})",
            advice="compare plays of the same mix, of the kernel or of the simulator",
        )


def _by_part(outcome: Outcome) -> dict[tuple[str, int], float]:
    return {(part.player, part.phase): part.progress for part in outcome.parts if part.doing in BATCH}
