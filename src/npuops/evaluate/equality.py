"""When two sets of outputs are equal: the rule behind every "proved equal" that npuops prints."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, kw_only=True)
class Tolerance:
    """Floats are equal when max|got - wanted| ≤ absolute + relative · max|wanted|, over one output.

    The largest wanted value sets the scale, not each element's own: elements near zero come out of
    cancellation, and their relative error says nothing. Values beyond `SENTINEL` (a mask's -FLT_MAX) are compared
    each on its own scale, and set none for the others. Integers, booleans and strings must be identical.
    """

    absolute: float
    relative: float


SENTINEL = 1e6
"""No activation is that large; what is, marks something, and would hide every real difference."""

IDENTICAL = Tolerance(absolute=0.0, relative=0.0)
"""The same arithmetic in another spelling."""

ROUNDING = Tolerance(absolute=1e-6, relative=1e-4)
"""The same formula in another order of float32 operations, through a whole network."""

REQUANTIZED = Tolerance(absolute=1e-3, relative=2e-2)
"""A constant was rounded to another 8-bit grid."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Difference:
    """One output against its reference. `max_abs` is None where there is no number to give."""

    output: str
    equal: bool
    max_abs: float | None
    limit: float
    why: str = ""
    """What is unequal, in words; empty when equal."""


def compare(
    got: Mapping[str, NDArray[Any]], wanted: Mapping[str, NDArray[Any]], tolerance: Tolerance
) -> tuple[Difference, ...]:
    """Judge every output of `wanted`; an output that only one side has is unequal."""
    extra = [
        Difference(output=name, equal=False, max_abs=None, limit=0.0, why="this output was not there before")
        for name in got
        if name not in wanted
    ]
    return (*(_judge(name, got.get(name), reference, tolerance) for name, reference in wanted.items()), *extra)


def all_equal(differences: tuple[Difference, ...]) -> bool:
    """Something was compared, and nothing differed."""
    return bool(differences) and all(difference.equal for difference in differences)


def _judge(name: str, got: NDArray[Any] | None, wanted: NDArray[Any], tolerance: Tolerance) -> Difference:
    def unequal(why: str, max_abs: float | None = None, limit: float = 0.0) -> Difference:
        return Difference(output=name, equal=False, max_abs=max_abs, limit=limit, why=why)

    if got is None:
        return unequal("the output is missing")
    if got.shape != wanted.shape or got.dtype != wanted.dtype:
        return unequal(f"{got.dtype}{list(got.shape)} instead of {wanted.dtype}{list(wanted.shape)}")
    if wanted.dtype.kind not in "fV":
        count = int(np.count_nonzero(got != wanted))
        return unequal(f"{count} of {wanted.size} values differ") if count else _same(name)
    return _judge_floats(name, got.astype(np.float64), wanted.astype(np.float64), tolerance)


def _judge_floats(name: str, got: NDArray[np.float64], wanted: NDArray[np.float64], tolerance: Tolerance) -> Difference:
    if np.isnan(got).any() or np.isnan(wanted).any():
        why = "NaN, which is never equal"
        return Difference(output=name, equal=False, max_abs=None, limit=0.0, why=why)
    infinite = np.isinf(wanted) | np.isinf(got)
    if (got[infinite] != wanted[infinite]).any():
        return Difference(output=name, equal=False, max_abs=None, limit=0.0, why="infinite on one side only")
    finite, reference = got[~infinite], wanted[~infinite]
    if not reference.size:
        return _same(name)
    size, distance = np.abs(reference), np.abs(finite - reference)
    limits = np.where(size > SENTINEL, size, np.max(size, where=size <= SENTINEL, initial=0.0))
    limits = tolerance.absolute + tolerance.relative * limits
    worst = int(np.argmax(distance - limits))
    max_abs, limit = float(np.max(distance)), float(limits[worst])
    if distance[worst] <= limit:
        return Difference(output=name, equal=True, max_abs=max_abs, limit=limit)
    why = f"differs by {distance[worst]:.3g}, allowed {limit:.3g}"
    return Difference(output=name, equal=False, max_abs=max_abs, limit=limit, why=why)


def _same(name: str) -> Difference:
    return Difference(output=name, equal=True, max_abs=0.0, limit=0.0)
