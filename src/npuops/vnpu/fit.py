"""Rates of a chip from measured latencies: a maximum a posteriori fit that a handful of rows cannot lead astray.

Rates are fitted as logarithms. The error of a row is relative (log of predicted by measured) and Huber-like, because
published tables hold rows that no law explains. The prior (`npuops.vnpu.prior`) carries what is known without them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import numpy as np

from npuops.errors import DataError, MissingToolchainError
from npuops.vnpu.perf import RATES, Floats, Geometry, Table
from npuops.vnpu.prior import Prior
from npuops.vnpu.work import Fold, Workload

ERROR_SCALE: Final = 0.15
"""A row that is off by more than about this counts linearly, not squared."""
STEPS: Final = 60
LIFTS: Final = (0.0, 3.0)
"""A rate that is far too small changes nothing, and so is not found by its slope: the search begins high, too."""
SMALL: Final = np.array([float(name.startswith("vector.") or name == "memory.local") for name in RATES])
FOLDINGS: Final = ((), (Fold.GATE,), (Fold.JOIN,), (Fold.GATE, Fold.JOIN))
"""What a compiler may fold besides what all do."""
INSIDE: Final = 1e-3
"""The search begins this far inside of its bounds."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Fitted:
    """What rows say of a chip."""

    log_rates: Floats
    """float64[RATES]"""
    folds: frozenset[Fold]
    """What its compiler seems to fold away."""
    loss: float
    """Of the rows and the prior together; only good for comparing fits of the same rows."""


def fit_chip(
    cases: Sequence[tuple[Workload, str]], measured_us: Floats, geometry: Geometry, prior: Prior, floor: Floats
) -> Fitted:
    """The most probable log rates, and the folding that explains the rows best.

    Args:
        cases: workloads and their number formats.
        measured_us: one latency for each case, above 0.
        geometry: of the chip; its `folds` are chosen anew.
        prior: what is believed beforehand.
        floor: lowest log rates: no array is faster than its nominal peak; -inf where nothing forbids.

    Raises:
        DataError: a latency that is not above 0.
        MissingToolchainError: scipy is not installed.
    """
    if not (np.isfinite(measured_us) & (measured_us > 0)).all():
        raise DataError("a measured latency is not above 0")
    fits = []
    for more in FOLDINGS:
        folds = frozenset({Fold.ALL, *more})
        table = Table(cases, geometry.folding(folds))
        log_rates, loss = _fit(table, np.log(measured_us), prior, floor)
        fits.append(Fitted(log_rates=log_rates, folds=folds, loss=loss))
    return min(fits, key=lambda fit: fit.loss)


def _fit(table: Table, logs: Floats, prior: Prior, floor: Floats) -> tuple[Floats, float]:
    optimize = _optimizer()
    whiten = np.linalg.inv(np.linalg.cholesky(prior.covariance))

    def residuals(log_rates: Floats) -> Floats:
        errors = (np.log(table.case_us(log_rates)) - logs) / ERROR_SCALE
        return np.concatenate([_bent(errors), whiten @ (log_rates - prior.mean)])

    def slopes(log_rates: Floats) -> Floats:
        predicted, gradient = table.gradient(log_rates)
        errors = (np.log(predicted) - logs) / ERROR_SCALE
        bend = _bend_slope(errors) / (predicted * ERROR_SCALE)
        return np.concatenate([gradient * bend[:, None], whiten])

    found = []
    for lift in LIFTS:
        start = np.maximum(prior.mean + lift * SMALL, floor + INSIDE)
        found.append(optimize.least_squares(residuals, start, jac=slopes, bounds=(floor, np.inf), max_nfev=STEPS))
    best = min(found, key=lambda one: float(one.cost))
    return np.asarray(best.x), float(best.cost)


def _bent(errors: Floats) -> Floats:
    """Residuals whose squares are a pseudo-Huber loss of the errors."""
    return np.asarray(np.sign(errors) * np.sqrt(2 * (np.sqrt(1 + errors**2) - 1)))


def _bend_slope(errors: Floats) -> Floats:
    root = np.sqrt(1 + errors**2)
    bent = np.abs(_bent(errors))
    small = np.abs(errors) < 1e-6
    return np.asarray(np.where(small, 1.0, np.abs(errors) / (root * np.where(small, 1.0, bent))))


def _optimizer() -> Any:
    try:
        from scipy import optimize  # noqa: PLC0415 - only a fit needs it
    except ImportError as error:
        raise MissingToolchainError(
            "fitting needs scipy, which is not installed", advice="pip install 'npuops[fit]'"
        ) from error
    return optimize
