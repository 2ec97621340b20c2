"""What the kernel says of the network's forecasts, as few numbers, folded into the network's last layer.

A simulator teaches which choice is better, and may be off by a bias all the same. Logits of the miss share and
progress get a scale and a shift each, near the identity unless the data say otherwise; folded into the weights they
cost nothing when a decision is made, and every artifact carries them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Final

import numpy as np
from numpy.typing import NDArray

from npuops.errors import DataError
from npuops.hostsched.policy_card import (
    SCALE_BOUNDS,
    SHIFT_BOUNDS_MISS,
    SHIFT_BOUNDS_PROGRESS,
    Correction,
    Line,
)
from npuops.hostsched.scorer_network import Weights

LEAST_PLAYS: Final = 4
"""With fewer, leaving one out proves nothing, and nothing is corrected."""
_WHOLE: Final = 10.0
"""A play with so many samples counts as one, and with more too: they are much alike. With fewer it counts less."""
_LEAST_GAIN: Final = 1e-5
"""Of the mean loss; less is rounding."""
_STEPS: Final = 60
_NEAR: Final = 1e-8

Floats = NDArray[np.float64]
_Box = tuple[tuple[float, float], tuple[float, float]]


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """Forecasts of one kind beside what came of them; arrays of shape (samples).

    Attributes:
        forecast: float64: logit of a miss share, or progress.
        came: float64: miss share 0 to 1, or progress.
        weight: float64, above 0.
        play: int64: which play.
    """

    forecast: Floats
    came: Floats
    weight: Floats
    play: NDArray[np.int64]

    def __post_init__(self) -> None:
        """Refuse what cannot be fitted.

        Raises:
            DataError: arrays of different lengths, numbers that are not finite, weights that are not above 0.
        """
        columns = (self.forecast, self.came, self.weight, self.play)
        if len({column.shape for column in columns}) > 1 or self.play.ndim != 1:
            raise DataError("residuals: the columns differ in length")
        if not all(np.isfinite(column).all() for column in columns) or (self.weight <= 0).any():
            raise DataError("residuals: a number is not finite, or a weight is not above 0")

    @property
    def plays(self) -> int:
        """From which the samples are."""
        return len(np.unique(self.play))

    def rows(self, chosen: NDArray[np.bool_]) -> Seen:
        """Some of the samples."""
        return Seen(*(getattr(self, field.name)[chosen] for field in fields(self)))


NOTHING: Final = Seen(np.empty(0), np.empty(0), np.empty(0), np.empty(0, np.int64))


@dataclass(frozen=True, slots=True, eq=False)
class Residuals:
    """What was measured.

    Attributes:
        miss: logits beside shares of late answers, by task and window.
        progress: forecasts beside what was reached, by task and phase.
    """

    miss: Seen = NOTHING
    progress: Seen = NOTHING


def joined(parts: Sequence[Residuals]) -> Residuals:
    """All of them; plays keep their numbers."""
    return Residuals(_joined([part.miss for part in parts]), _joined([part.progress for part in parts]))


def _joined(parts: Sequence[Seen]) -> Seen:
    names = [field.name for field in fields(Seen)]
    return Seen(*(np.concatenate([getattr(one, name) for one in (NOTHING, *parts)]) for name in names))


@dataclass(frozen=True, slots=True)
class _Law:
    """How far a corrected forecast is off, and what draws it back to the identity.

    Attributes:
        is_logit: the loss is that of a share by its logit; otherwise half the square.
        box: of scale and shift.
        ridge: for each of them, in plays that would say the opposite.
    """

    is_logit: bool
    box: _Box
    ridge: float

    def loss(self, at: Floats, seen: Seen) -> Floats:
        """Of each sample."""
        moved = at[0] * seen.forecast + at[1]
        if self.is_logit:
            return np.asarray(np.logaddexp(0.0, moved) - seen.came * moved)
        return np.asarray(0.5 * (moved - seen.came) ** 2)

    def slopes(self, at: Floats, seen: Seen) -> tuple[Floats, Floats]:
        """First and second derivative of each sample's loss by the corrected forecast."""
        moved = at[0] * seen.forecast + at[1]
        if self.is_logit:
            share = np.exp(-np.logaddexp(0.0, -moved))
            return share - seen.came, share * (1 - share)
        return moved - seen.came, np.ones_like(moved)


_IDENTITY: Final = np.array([1.0, 0.0])
_MISS: Final = _Law(True, (SCALE_BOUNDS, SHIFT_BOUNDS_MISS), 0.2)
_PROGRESS: Final = _Law(False, (SCALE_BOUNDS, SHIFT_BOUNDS_PROGRESS), 0.5)


def correction(residuals: Residuals, kernel: str, unclean: int = 0) -> Correction:
    """What to correct; the identity where leaving one play out after another does not say that it helps.

    Args:
        residuals: of all plays.
        kernel: release that they were measured on.
        unclean: plays among them that others disturbed.
    """
    plays = len(np.union1d(residuals.miss.play, residuals.progress.play))
    return Correction(
        miss=_line(_MISS, residuals.miss),
        progress=_line(_PROGRESS, residuals.progress),
        plays=plays,
        unclean=unclean,
        kernel=kernel,
    )


def corrected(weights: Weights, found: Correction) -> dict[str, NDArray[np.float32]]:
    """The same network with the correction in its last layer."""
    scale = np.array([found.miss.scale, found.progress.scale])
    shift = np.array([found.miss.shift, found.progress.shift])
    moved = {name: np.array(array, np.float32) for name, array in weights.items()}
    moved["faces"] = (moved["faces"] * scale).astype(np.float32)
    moved["faces.b"] = (moved["faces.b"] * scale + shift).astype(np.float32)
    return moved


def _line(law: _Law, seen: Seen) -> Line:
    plays = np.unique(seen.play)
    if len(plays) < LEAST_PLAYS:
        return Line(samples=len(seen.play))
    weight = _by_play(seen)
    before, after = np.empty(len(plays)), np.empty(len(plays))
    for number, play in enumerate(plays):
        out = seen.play == play
        found = _fitted(law, seen.rows(~out), weight[~out])
        left = seen.rows(out)
        before[number], after[number] = (
            np.average(law.loss(at, left), weights=left.weight) for at in (_IDENTITY, found)
        )
    gain = before - after
    helps = gain.mean() > max(gain.std(ddof=1) / np.sqrt(len(plays)), _LEAST_GAIN)
    scale, shift = _fitted(law, seen, weight).tolist() if helps else (1.0, 0.0)
    return Line(
        scale=scale, shift=shift, samples=len(seen.play), before=float(before.mean()), after=float(after.mean())
    )


def _by_play(seen: Seen) -> Floats:
    """Weights that sum to 1 over a play of `_WHOLE` samples or more."""
    found = np.empty(len(seen.play))
    for play in np.unique(seen.play):
        here = seen.play == play
        found[here] = seen.weight[here] / seen.weight[here].sum() * min(here.sum() / _WHOLE, 1.0)
    return found


def _fitted(law: _Law, seen: Seen, weight: Floats) -> Floats:
    """Scale and shift of the least loss within the box: Newton's method, each step the best of the box."""

    def total(at: Floats) -> float:
        return float(weight @ law.loss(at, seen) + law.ridge * ((at - _IDENTITY) ** 2).sum())

    at, columns = _IDENTITY.copy(), np.stack([seen.forecast, np.ones_like(seen.forecast)])
    for _ in range(_STEPS):
        first, second = law.slopes(at, seen)
        slope = columns @ (weight * first) + 2 * law.ridge * (at - _IDENTITY)
        bend = (columns * (weight * second)) @ columns.T + 2 * law.ridge * np.eye(2)
        step = _best_step(slope, bend, at, law.box)
        while total(at + step) > total(at) and np.abs(step).max() > _NEAR:
            step /= 2
        at = at + step
        if np.abs(step).max() <= _NEAR:
            break
    low, high = np.array(law.box).T
    return np.clip(at, low, high)


def _best_step(slope: Floats, bend: Floats, at: Floats, box: _Box) -> Floats:
    """Where the parabola is the lowest: inside the box, or on one of its edges."""
    low, high = np.array(box).T - at[:, None].T
    free = -np.linalg.solve(bend, slope)
    if ((low <= free) & (free <= high)).all():
        return np.asarray(free)
    found = []
    for axis, end in ((0, low[0]), (0, high[0]), (1, low[1]), (1, high[1])):
        other = 1 - axis
        along = -(slope[other] + bend[0, 1] * end) / bend[other, other]
        step = np.empty(2)
        step[axis], step[other] = end, np.clip(along, low[other], high[other])
        found.append(step)
    return min(found, key=lambda step: float(slope @ step + 0.5 * step @ bend @ step))
