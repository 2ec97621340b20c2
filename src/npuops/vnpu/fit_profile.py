"""A profile calibrated on measured rows, with the error that it will have. Pure, but for scipy's optimizer.

The error is found by leaving groups of rows out: architecture families where they are known, single models otherwise.
The interval holds the left-out rows' errors by their median-unbiased quantiles (Hyndman and Fan 1996, definition 8):
numpy's own interpolation promises too much where rows are few.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from npuops.errors import DataError
from npuops.events import Observer, StepProgressed, Warned, ignore
from npuops.vnpu.fit import Fitted, fit_chip
from npuops.vnpu.perf import FORMAT_FACTORS, MAC_RATES, RATES, Floats, Table
from npuops.vnpu.predict import UNFITTED, nominal_of
from npuops.vnpu.prior import COMMON_RATIOS, Prior, prior_from, ratios_of
from npuops.vnpu.profile import Profile, geometry_of
from npuops.vnpu.profile_sections import Effective, FitError, Interval
from npuops.vnpu.work import Workload

LEAST_GROUPS: Final = 3
"""With fewer nothing is left to judge the fit by."""
COVERS: Final = 0.8
INTERVAL_ROWS: Final = 8
"""With fewer rows the interval is that of chips which nobody measured."""
ODD_FACTOR: Final = 3.0
"""A row this far from what the others say is named: a wrong unit, a wrong file, or a model that fell back."""
FAR_FACTOR: Final = 10.0
"""Rows this far from the data sheet, on the whole, are in another unit, or of another chip."""
STEP: Final = "fit"
ROUNDING: Final = 1e-3
"""Written with four digits, a rate at its bound must not fall below it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """One latency on the user's board.

    Attributes:
        workload: what the NPU did of it.
        us: the whole, above `host_us`.
        group: rows that are left out together when the error is judged.
        where: for messages; the model's name where it is not given.
        host_us: the host's part, by the model.
    """

    workload: Workload
    format: str
    us: float
    group: str
    where: str = ""
    host_us: float = 0.0

    @property
    def npu_us(self) -> float:
        """What is left for the NPU."""
        return self.us - self.host_us


def fit_profile(profile: Profile, rows: Sequence[Measured], *, source: str, observe: Observer = ignore) -> Effective:
    """Fit a chip's rates.

    Args:
        profile: with its nominal figures; what was fitted before does not count.
        rows: of at least three groups.
        source: which rows, by which command, when; it becomes the rates' provenance.
        observe: gets `StepProgressed` for each group, and `Warned` of a row that the others contradict.

    Raises:
        DataError: too few groups, a latency that is not above the host's part, or a format that the chip does not run.
        MissingToolchainError: scipy is not installed.
    """
    groups = len({row.group for row in rows})
    if groups < LEAST_GROUPS:
        raise DataError(
            f"{len(rows)} rows cannot calibrate a chip: they are of {groups} models or groups",
            advice=f"measure at least {LEAST_GROUPS} different models, ten for an interval",
        )
    for row in rows:
        if row.format not in profile.formats:
            raise DataError(f"{_name(row)}: {profile.name} does not run {row.format}")
    prior = profile_prior(profile)
    _warn_far(profile, rows, prior, observe)
    predicted_us = _left_out(profile, rows, prior, observe)
    logs = np.log([row.npu_us for row in rows]) - np.log(predicted_us)
    _warn_odd(rows, logs, observe)
    whole = _fit(profile, rows, prior)
    return Effective(
        rates={name: float(f"{np.exp(value):.4g}") for name, value in zip(RATES, whole.log_rates, strict=True)},
        source=source,
        interval=interval_of(logs),
        error=fit_error(np.log([row.us for row in rows]) - np.log(predicted_us + [row.host_us for row in rows])),
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
    """A profile's TOML with the section `[effective]` replaced or added, at the end."""
    sections = re.split(r"(?m)^(?=[ \t]*\[)", text)
    kept = [section for section in sections if not re.match(r"[ \t]*\[[ \t]*effective[ \t]*[\].]", section)]
    return f"{''.join(kept).rstrip()}\n\n{effective_toml(effective)}"


def effective_toml(effective: Effective) -> str:
    """The section `[effective]`."""
    folds = ", ".join(f'"{fold}"' for fold in sorted(effective.folds))
    lines = ["[effective]", f"from = {_quoted(effective.source)}", f"folds = [{folds}]"]
    lines.append(f"interval = {{ low = {effective.interval.low:.3g}, high = {effective.interval.high:.3g} }}")
    if effective.error is not None:
        error = effective.error
        figures = f"mape = {error.mape:.3f}, median = {error.median:.3f}, within_10 = {error.within_10:.2f}"
        lines.append(f'error = {{ {figures}, rows = {error.rows}, how = "{error.how}" }}')
    lines += ["", "[effective.rates]", *(f'"{name}" = {rate:.4g}' for name, rate in effective.rates.items())]
    return "\n".join(lines) + "\n"


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's escapes are good there, but DEL needs one too, and half a character has none."""
    return json.dumps(text.encode("utf-8", "replace").decode(), ensure_ascii=False).replace("\x7f", "\\u007f")


def _fit(profile: Profile, rows: Sequence[Measured], prior: Prior) -> Fitted:
    cases = [(row.workload, row.format) for row in rows]
    us = np.array([row.npu_us for row in rows])
    return fit_chip(cases, us, geometry_of(profile), prior, floor_of(profile))


def _left_out(profile: Profile, rows: Sequence[Measured], prior: Prior, observe: Observer) -> Floats:
    """Microseconds of the NPU's part of each row, by a fit without its group."""
    predicted_us = np.zeros(len(rows))
    groups = np.array([row.group for row in rows])
    names = sorted(set(groups))
    for done, group in enumerate(names):
        fitted = _fit(profile, [row for row in rows if row.group != group], prior)
        geometry = geometry_of(profile).folding(fitted.folds)
        for index in np.flatnonzero(groups == group):
            table = Table([(rows[index].workload, rows[index].format)], geometry)
            predicted_us[index] = table.case_us(fitted.log_rates)[0]
        observe(StepProgressed(step=STEP, done=done + 1, total=len(names)))
    return predicted_us


def _warn_far(profile: Profile, rows: Sequence[Measured], prior: Prior, observe: Observer) -> None:
    expected_us = Table([(row.workload, row.format) for row in rows], geometry_of(profile)).case_us(prior.mean)
    times = float(np.median(np.array([row.npu_us for row in rows]) / expected_us))
    if not 1 / FAR_FACTOR < times < FAR_FACTOR:
        observe(
            Warned(
                step=STEP,
                message=f"the rows take {times:.3g} times as long as the data sheet of {profile.name} lets expect",
                advice="check that latency_ms holds milliseconds of one inference, and that this is the chip",
            )
        )


def _warn_odd(rows: Sequence[Measured], logs: Floats, observe: Observer) -> None:
    for row, log in zip(rows, logs, strict=True):
        if abs(log) > np.log(ODD_FACTOR):
            observe(
                Warned(
                    step=STEP,
                    message=f"{_name(row)}: {row.us / 1e3:.4g} ms is {np.exp(log):.3g} times what the other rows say",
                    advice="check the unit, the file, and whether the whole model ran on the NPU",
                )
            )


def _name(row: Measured) -> str:
    return row.where or row.workload.name


def interval_of(logs: Floats) -> Interval:
    """Factors that hold four of five truths, from the logarithms of measured by predicted of left-out rows."""
    if len(logs) < INTERVAL_ROWS:
        return Interval(low=UNFITTED[0], high=UNFITTED[1])
    tail = (1 - COVERS) / 2
    low, high = np.quantile(logs, [tail, 1 - tail], method="median_unbiased")
    return Interval(low=min(1.0, float(np.exp(low))), high=max(1.0, float(np.exp(high))))


def fit_error(logs: Floats) -> FitError:
    """What such rows say of the next one."""
    share = np.abs(np.exp(-logs) - 1)
    return FitError(
        mape=float(share.mean()),
        median=float(np.median(share)),
        within_10=float((share <= 0.1).mean()),
        rows=len(logs),
        how="each group of rows left out once",
    )
