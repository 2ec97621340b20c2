"""A profile calibrated on measured rows, with the error that it will have. Pure, but for scipy's optimizer.

The error is found by leaving groups of rows out: architecture families where they are known, single models otherwise.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from npuops.errors import DataError
from npuops.vnpu.fit import Fitted, fit_chip
from npuops.vnpu.perf import FORMAT_FACTORS, MAC_RATES, RATES, Floats, Table
from npuops.vnpu.predict import UNFITTED, nominal_of
from npuops.vnpu.prior import COMMON_RATIOS, Prior, prior_from, ratios_of
from npuops.vnpu.profile import Profile, geometry_of
from npuops.vnpu.profile_sections import Effective, FitError, Interval
from npuops.vnpu.work import Workload

LEAST_ROWS: Final = 3
INTERVAL_ROWS: Final = 8
"""With fewer rows the interval is that of chips which nobody measured."""
COVERS: Final = 0.8
ROUNDING: Final = 1e-3
"""Written with four digits, a rate at its bound must not fall below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One latency on the user's board."""

    workload: Workload
    format: str
    us: float
    group: str
    """Rows that are left out together when the error is judged."""


def fit_profile(profile: Profile, rows: Sequence[Measured], *, source: str) -> Effective:
    """Fit a chip's rates.

    Args:
        profile: with its nominal figures; what was fitted before does not count.
        rows: at least three.
        source: which rows, by which command, when; it becomes the rates' provenance.

    Raises:
        DataError: too few rows, a latency that is not above 0, or a format that the chip does not run.
        MissingToolchainError: scipy is not installed.
    """
    if len(rows) < LEAST_ROWS:
        raise DataError(f"{len(rows)} rows cannot calibrate a chip", advice=f"measure at least {LEAST_ROWS} models")
    for row in rows:
        if row.format not in profile.formats:
            raise DataError(f"{row.workload.name}: {profile.name} does not run {row.format}")
    prior = profile_prior(profile)
    logs = _left_out(profile, rows, prior)
    whole = _fit(profile, rows, prior)
    return Effective(
        rates={name: float(f"{np.exp(value):.4g}") for name, value in zip(RATES, whole.log_rates, strict=True)},
        source=source,
        interval=_interval(logs),
        error=_error(logs),
        folds=whole.folds,
    )


def profile_prior(profile: Profile) -> Prior:
    """By the data sheet and what published chips have in common."""
    return prior_from(nominal_of(profile), ratios_of(COMMON_RATIOS), siblings=False)


def floor_of(profile: Profile) -> Floats:
    """Lowest log rates: no array beats its nominal peak, no other format beats int8."""
    lowest = {name: np.log(profile.nominal_us_per_mmac) for name in MAC_RATES}
    lowest |= {name: 0.0 for name in FORMAT_FACTORS if name.startswith("mac.")}
    return np.array([lowest.get(name, -np.inf) + ROUNDING for name in RATES])


def with_effective(text: str, effective: Effective) -> str:
    """A profile's TOML with the section `[effective]` replaced or added; it is the last one."""
    body = re.split(r"(?m)^\[effective[\].]", text)[0].rstrip()
    return f"{body}\n\n{effective_toml(effective)}"


def effective_toml(effective: Effective) -> str:
    """The section `[effective]`."""
    folds = ", ".join(f'"{fold}"' for fold in sorted(effective.folds))
    lines = ["[effective]", f'from = "{effective.source}"', f"folds = [{folds}]"]
    lines.append(f"interval = {{ low = {effective.interval.low:.3g}, high = {effective.interval.high:.3g} }}")
    if effective.error is not None:
        error = effective.error
        figures = f"mape = {error.mape:.3f}, median = {error.median:.3f}, within_10 = {error.within_10:.2f}"
        lines.append(f'error = {{ {figures}, rows = {error.rows}, how = "{error.how}" }}')
    lines += ["", "[effective.rates]", *(f'"{name}" = {rate:.4g}' for name, rate in effective.rates.items())]
    return "\n".join(lines) + "\n"


def _fit(profile: Profile, rows: Sequence[Measured], prior: Prior) -> Fitted:
    cases = [(row.workload, row.format) for row in rows]
    us = np.array([row.us for row in rows])
    return fit_chip(cases, us, geometry_of(profile), prior, floor_of(profile))


def _left_out(profile: Profile, rows: Sequence[Measured], prior: Prior) -> Floats:
    """Logarithms of measured by predicted of each row, by a fit without its group."""
    logs = np.zeros(len(rows))
    groups = np.array([row.group for row in rows])
    for group in sorted(set(groups)):
        known = [row for row in rows if row.group != group]
        fitted = _fit(profile, known, prior) if known else None
        where = np.flatnonzero(groups == group)
        for index in where:
            logs[index] = np.log(rows[index].us / _predict(profile, rows[index], fitted, prior))
    return logs


def _predict(profile: Profile, row: Measured, fitted: Fitted | None, prior: Prior) -> float:
    geometry = geometry_of(profile)
    if fitted is not None:
        geometry = geometry.folding(fitted.folds)
    table = Table([(row.workload, row.format)], geometry)
    return float(table.case_us(prior.mean if fitted is None else fitted.log_rates)[0])


def _interval(logs: Floats) -> Interval:
    if len(logs) < INTERVAL_ROWS:
        return Interval(low=UNFITTED[0], high=UNFITTED[1])
    tail = (1 - COVERS) / 2
    low, high = np.quantile(logs, [tail, 1 - tail])
    return Interval(low=min(1.0, float(np.exp(low))), high=max(1.0, float(np.exp(high))))


def _error(logs: Floats) -> FitError:
    share = np.abs(np.exp(-logs) - 1)
    return FitError(
        mape=float(share.mean()),
        median=float(np.median(share)),
        within_10=float((share <= 0.1).mean()),
        rows=len(logs),
        how="each group of rows left out once",
    )
